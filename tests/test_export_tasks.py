"""Exports of small tasks: one that would say something else leaves nothing."""

import json
import re

import h5py
import numpy as np
import processes
import pytest
import tasks

# Keras reads arrays for HDF5 in a way that NumPy wants to be done with.
ARRAYS = "ignore:__array__ implementation:DeprecationWarning"
pytestmark = [
    pytest.mark.filterwarnings(ARRAYS),
    pytest.mark.usefixtures("forked_reloads"),
]

TASKS = '''
import dataclasses

import keras
import numpy as np
import tensorflow as tf

from trainer import task

layers = keras.layers


class Mute(layers.Layer):
    """Made of something that no file holds."""

    def __init__(self, thing):
        super().__init__()
        self.thing = thing

    def call(self, x):
        return 2.0 * x


@keras.saving.register_keras_serializable(package="mine")
class Forgetful(layers.Layer):
    """What it multiplies with is changed after it was made."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.factor = np.float32([1.0])

    def call(self, x):
        return x * self.factor


@dataclasses.dataclass(frozen=True)
class Silent(task.Task):
    """Says nothing of what it predicts."""

    best = ("loss:min",)

    def sources(self):
        x = np.linspace(-1, 1, 48, dtype="float32").reshape([24, 2])
        return {"train": {"x": x[:16]}, "valid": {"x": x[16:]}}

    def middle(self):
        return layers.ReLU()

    def networks(self):
        return keras.Sequential([layers.Input([2]), self.middle(), layers.Dense(1)])

    def optimizers(self):
        return keras.optimizers.SGD(0.1)

    def values(self, networks, batch, training):
        said = networks(batch["x"], training=training)[:, 0]
        return {"loss": (said - batch["x"][:, 0]) ** 2}


class Plain(Silent):
    def predictions(self, networks, batch):
        return {"y": networks(batch["x"], training=False)}


class Naming(Plain):
    def predictions(self, networks, batch):
        positive = super().predictions(networks, batch)["y"] > 0
        return {"way": tf.where(positive, "up", "down")}


class Unconfigured(Plain):
    def middle(self):
        return Mute(object())


class Unregistered(Plain):
    def middle(self):
        class Hidden(layers.Layer):
            def call(self, x):
                return 2.0 * x

        return Hidden()


class Changed(Plain):
    def middle(self):
        layer = Forgetful()
        layer.factor = np.float32([3.0])
        return layer


class Pair(Plain):
    def networks(self):
        return {"one": super().networks(), "two": super().networks()}

    def values(self, networks, batch, training):
        one, two = (
            super(Pair, self).values(network, batch, training)["loss"]
            for network in networks.values()
        )
        return {"loss": one + two}

    def predictions(self, networks, batch):
        return {
            name: network(batch["x"], training=False)
            for name, network in networks.items()
        }
'''


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """Trains a task of the module above in the current directory, as `run`."""
    (tmp_path / "strange_layers.py").write_text(TASKS)
    monkeypatch.chdir(tmp_path)

    def train(name, *arguments):
        where = [f"--task=strange_layers:{name}", "--run_dir=run", "--steps=2"]
        done = processes.call(
            *where, "--batch_size=8", "--evaluate_every_steps=1", *arguments
        )
        assert done.code == 0, done.stderr
        return tmp_path / "run"

    return train


def assert_refused(result, run_dir, *texts):
    assert (result.code, result.stdout) == (1, ""), result
    for text in texts:
        assert text in result.stderr
    assert "Traceback" not in result.stderr
    left = [path for path in (run_dir / "exports").rglob("*") if path.is_file()]
    assert left == []
    assert list(run_dir.rglob(".*")) == []


@pytest.mark.parametrize("kind", ["saved_model", "keras"])
def test_a_task_that_says_nothing_of_predictions(trained, kind):
    run_dir = trained("Silent")
    refused = processes.call("export", "--run_dir=run", "--trust", f"--format={kind}")
    assert_refused(refused, run_dir)
    assert refused.stderr == (
        "TaskError: Silent does not say what it predicts. Add to it: def predictions("
        'self, networks, batch): return {"score": networks(batch["x"], '
        "training=False)}\n"
    )


@pytest.mark.parametrize("kind", ["keras", "h5"])
def test_a_layer_that_no_file_can_hold(trained, kind):
    run_dir = trained("Unconfigured")
    refused = processes.call("export", "--run_dir=run", "--trust", f"--format={kind}")
    text = (
        "(Mute) does not say how it was made, so no file can hold it. Add to the class "
        "Mute: def get_config(self): return {**super().get_config(), ...every argument "
        "of __init__...}, and above it @keras.saving.register_keras_serializable(). Or "
        "export as saved_model or weights."
    )
    assert_refused(refused, run_dir, "ExportError: the layer 'mute", text)


def test_a_layer_that_is_not_found_again(trained):
    run_dir = trained("Unregistered")
    refused = processes.call("export", "--run_dir=run", "--trust", "--format=keras")
    text = (
        "\nNothing was left behind. A layer of your own needs above its class "
        "@keras.saving.register_keras_serializable(), and a get_config with every "
        "argument of __init__.\n"
    )
    began = "ReloadError: a fresh process could not load the export: "
    assert_refused(refused, run_dir, began, "Hidden", text)


def test_a_layer_that_computes_with_what_it_does_not_save(trained):
    run_dir = trained("Changed")
    refused = processes.call("export", "--run_dir=run", "--trust", "--format=keras")
    assert_refused(refused, run_dir)
    assert re.fullmatch(
        r"ReloadError: loaded back, the export differs by \d\S* from what the "
        r"checkpoint predicts as 'y'; expected 1e-05 at most\. Nothing was left "
        r"behind\. Look for a layer that does not save all that it computes with\. "
        r"What predictions\(\) takes from elsewhere, such as a variable of the task's "
        r"own, is in no network: export as saved_model, which holds that, too\.\n",
        refused.stderr,
    )


def test_two_networks_are_not_one_file(trained, tmp_path):
    run_dir = trained("Pair")
    refused = processes.call(
        "export", "--run_dir=run", "--trust", "--format=keras", "--output=a.keras"
    )
    text = (
        "ExportError: --output=a.keras is one file, and the task has the networks one, "
        "two. Give a directory."
    )
    assert_refused(refused, run_dir, text)
    assert not list(tmp_path.glob("*a.keras*"))


def test_two_networks_are_two_files_and_a_saved_model_holds_layers_of_any_kind(
    trained,
):
    run_dir = trained("Pair")
    done = processes.call(
        "export", "--run_dir=run", "--trust", "--format=weights", "--output=out"
    )
    assert done.code == 0, done.stderr
    found = sorted(path.name for path in (run_dir.parent / "out").iterdir())
    assert found == ["model_card.json", "one.weights.h5", "two.weights.h5"]


@pytest.mark.parametrize("kind", ["saved_model", "keras"])
def test_texts_are_compared_as_well(trained, kind):
    trained("Naming")
    done = processes.call("export", "--run_dir=run", "--trust", f"--format={kind}")
    assert done.code == 0, done.stderr
    assert "8 predictions differ by 0 at most." in done.stdout


def test_averages_are_what_is_exported(trained):
    run_dir = trained("Plain", "--ema=0.5")
    done = processes.call(
        *("export", "--run_dir=run", "--trust", "--checkpoint=latest"),
        *("--format=weights", "--output=a.weights.h5"),
    )
    assert done.code == 0, done.stderr
    card = json.loads((run_dir.parent / "a.weights.h5.json").read_text())
    assert card["averaged_weights"] is True
    exported = {}

    def note(name, entry):
        if isinstance(entry, h5py.Dataset):
            exported[entry.shape] = entry[()]

    with h5py.File(run_dir.parent / "a.weights.h5") as file:
        file.visititems(note)
    tensors = tasks.tensors(run_dir / "recent/ckpt-2")
    for number, shape in enumerate([(2, 1), (1,)]):
        key = f"{number}/.ATTRIBUTES/VARIABLE_VALUE"
        average, raw = tensors[f"averages/{key}"], tensors[f"variables/{key}"]
        np.testing.assert_array_equal(exported[shape], average)
        assert (average != raw).any()
