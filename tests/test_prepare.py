"""What a task learns from its data before training: once, kept, and given back."""

import dataclasses
import json
import pathlib
import shutil
import sys
import zipfile

import keras
import kinds
import numpy as np
import processes
import pytest
import tasks
import tensorflow as tf

from trainer import task
from trainer.checkpoint import prepared_file
from trainer.checkpoint.layout import RunDirectory
from trainer.checkpoint.prepared_file import Prepared, PreparedError
from trainer.commands import functions
from trainer.config import run_record
from trainer.model import learned_layers, learned_values, preparation
from trainer.storage import array_archive

SEEN: list = []


@dataclasses.dataclass(frozen=True)
class Centred(tasks.Plain):
    """Takes the mean of its data away; notes each preparation and what it is given."""

    shift: float = 0.0

    def prepare(self, sources):
        SEEN.append("prepared")
        mean = sources["train"]["x"].mean(0) + np.float32(self.shift)
        return {"mean": tf.constant(mean), "classes": ["low", "high"], "noise": noise()}

    def networks(self):
        SEEN.append(self.prepared)
        return super().networks()

    def values(self, networks, batch, training):
        x = batch["x"] - self.prepared["mean"]
        return super().values(networks, {**batch, "x": x}, training)

    def predictions(self, networks, batch):
        place = tf.cast(networks(batch["x"] - self.prepared["mean"])[:, 0] > 0, "int32")
        return {"class": tf.gather(self.prepared["classes"], place)}


def noise():
    return np.random.normal(size=3)


def digest(run):
    return run_record.read(run / "config.json").choices["facts"]["prepared"]


def train(run, **choices):
    tasks.train(run, Centred(), task="test_prepare:Centred", **choices)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    run = tmp_path_factory.mktemp("prepare") / "run"
    SEEN.clear()
    train(run, steps=6)
    return run, list(SEEN)


def test_it_is_prepared_once_and_the_same_afterwards(trained, tmp_path):
    run, seen = trained
    assert seen[0] == "prepared"
    assert seen.count("prepared") == 1
    SEEN.clear()
    tasks.cut_back(run, tmp_path / "resumed", 3)
    given = Centred()
    tasks.train(tmp_path / "resumed", given, task="test_prepare:Centred", steps=6)
    assert "prepared" not in SEEN
    for name, value in seen[1].items():
        other = SEEN[0][name]
        assert type(value) is type(other)
        assert np.asarray(value).tobytes() == np.asarray(other).tobytes()
    assert isinstance(seen[1]["mean"], np.ndarray)
    tasks.assert_same_run(run, tmp_path / "resumed")
    assert given.prepared == {}


def test_what_it_draws_depends_on_the_seed_alone(trained, tmp_path):
    np.random.normal(size=5)
    train(tmp_path / "run", steps=1)
    assert digest(tmp_path / "run") == digest(trained[0])
    train(tmp_path / "other", steps=1, seed=1)
    assert digest(tmp_path / "other") != digest(trained[0])


def copied(trained, tmp_path):
    shutil.copytree(trained[0], tmp_path / "run")
    return tmp_path / "run"


def damage(path):
    content = bytearray(path.read_bytes())
    content[content.index(b"NUMPY") + 130] ^= 1
    path.write_bytes(content)


def exchange(path):
    outline, arrays = array_archive.read(path)
    array_archive.write(path, outline, {**arrays, "mean": arrays["mean"] + 1})


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (pathlib.Path.unlink, "there is no"),
        (damage, "can't be read: BadZipFile"),
        (exchange, "is another one than the run was begun with"),
    ],
)
def test_a_file_that_is_not_what_it_was_is_refused_and_made_anew(
    trained, tmp_path, spoil, told
):
    run = copied(trained, tmp_path)
    spoil(run / "prepared.npz")
    with pytest.raises(PreparedError, match=told) as error:
        functions.evaluate(run, "latest", task=Centred())
    assert "give the command `train` once more where the data are" in str(error.value)
    with tasks.logged() as lines:
        train(run, steps=7)
    assert any("was made anew, and is what it was" in line for line in lines)
    assert functions.evaluate(run, "latest", task=Centred())


def test_one_that_can_not_be_made_again_is_refused(trained, tmp_path, monkeypatch):
    run = copied(trained, tmp_path)
    (run / "prepared.npz").unlink()
    monkeypatch.setattr(sys.modules[__name__], "noise", lambda: np.zeros(3))
    with pytest.raises(PreparedError, match="gives something else"):
        train(run, steps=7)
    assert not (run / "prepared.npz").exists()


# What it may give.

VALUES = {
    "array": np.arange(6.0).reshape(2, 3),
    "empty": np.zeros([0, 2], np.int8),
    "number": 3,
    "fraction": 0.1,
    "nothing": None,
    "yes": True,
    "scalar": np.float32(0.1),
    "half": np.float16(0.1),
    "text": "Zürich\n",
    "raw": b"\x00\xff",
    "texts": np.array(["a", "ä"], object),
    "list": ["a", ["b", 2]],
    "pair": (1, "x"),
    "names": {3: "three", "inner": {"x": np.ones(2)}},
    "counts": {"of": {f"word {n}": np.int64(n) for n in range(1000)}},
}


@pytest.mark.parametrize("name", VALUES)
def test_a_value_comes_back_as_it_was(name, tmp_path):
    packed = learned_values.packed({name: VALUES[name]}, "Mine")
    prepared_file.write(tmp_path / "a.npz", packed)
    found = prepared_file.read(tmp_path / "a.npz", packed.digest)
    back = learned_values.unpacked(found)[name]
    if name == "texts":
        assert back.tolist() == [b"a", "ä".encode()]
    else:
        assert type(back) is type(VALUES[name])
        np.testing.assert_equal(back, VALUES[name])


def test_a_name_of_numpy_is_a_name():
    names = {np.str_("cat"): 1, np.int64(3): 2}
    back = learned_values.unpacked(learned_values.packed({"names": names}, "Mine"))
    assert [*back["names"].items()] == [("cat", 1), (3, 2)]
    assert {type(one) for one in back["names"]} == {str, int}


def test_numpy_alone_reads_it(trained):
    with np.load(trained[0] / "prepared.npz") as file:
        assert file["mean"].shape == (4,)


def adapted():
    rng = np.random.default_rng(0)
    scaled = keras.layers.Normalization()
    scaled.adapt(rng.normal(3, 2, [20, 4]).astype("float32"))
    whole = keras.layers.Normalization(axis=None)
    whole.adapt(rng.normal(3, 2, [20, 4]).astype("float32"))
    words = keras.layers.TextVectorization(output_sequence_length=4, ngrams=2)
    words.adapt(["a b c", "b c"])
    texts = keras.layers.StringLookup(num_oov_indices=2, mask_token="")
    texts.adapt(["x", "y", "x"])
    numbers = keras.layers.IntegerLookup(output_mode="one_hot")
    numbers.adapt(np.array([7, 3, 7]))
    bins = keras.layers.Discretization(num_bins=3)
    bins.adapt(rng.normal(size=50).astype("float32"))
    rows = rng.normal(size=[5, 4]).astype("float32")
    return {
        "scaled": (scaled, rows),
        "whole": (whole, rows),
        "words": (words, np.array(["c b a", "q b"])),
        "texts": (texts, np.array(["y", "", "q"])),
        "numbers": (numbers, np.array([3, 7, 4])),
        "bins": (bins, rows),
    }


def test_adapted_layers_say_the_same_in_any_graph():
    every = adapted()
    packed = learned_values.packed({k: one for k, (one, _) in every.items()}, "Mine")
    back = learned_values.unpacked(packed)
    assert learned_values.packed(back, "Mine").digest == packed.digest
    assert [one.name for one in learned_values.layers(back)] == list(every)
    for name, (layer, given) in every.items():
        assert back[name].variables == []
        expected = np.asarray(layer(given))
        for call in (back[name], tf.function(back[name]), tf.function(back[name])):
            assert np.asarray(call(tf.constant(given))).tobytes() == expected.tobytes()


class Own(keras.layers.Layer):
    pass


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ([1], r"prepare\(\) returns list; expected a mapping"),
        ({"a": {1, 2}}, r"returns 'a' as set, which no file can hold"),
        ({"a": {"b": object()}}, r"returns 'a/b' as object"),
        ({"a": np.array([{}], object)}, r"'a' as an array of dict"),
        ({"a": np.array(["x\0"], object)}, r"ends with a zero byte"),
        ({"a": {2.5: 1}}, r"the name 2.5, which is neither"),
        ({"a": tf.constant([1], tf.bfloat16)}, r"the dtype bfloat16"),
        ({"a": Own()}, r"as the layer Own, which can't be made again"),
        ({"a": keras.layers.Normalization()}, r"Normalization that is not adapted"),
        ({"a": keras.layers.StringLookup()}, r"StringLookup that is not adapted"),
        (
            {"a": keras.layers.TextVectorization(standardize=lambda x: x, split=None)},
            r"not adapted",
        ),
        (
            {
                "a": keras.layers.TextVectorization(
                    standardize=tf.strings.lower, vocabulary=["x"]
                )
            },
            r"whose standardize is a function, and no code is recorded",
        ),
    ],
)
def test_what_can_not_be_kept_is_refused(given, told):
    with pytest.raises(task.TaskError, match=told):
        learned_values.packed(given, "Mine")


def test_what_is_not_there_says_what_is(trained):
    with pytest.raises(task.TaskError, match=r"there is 'mean', 'classes', 'noise'"):
        trained[1][1]["means"]
    with pytest.raises(task.TaskError, match=r"in every other method but sources"):
        Centred().prepared["mean"]


# A run directory from a stranger.


def test_nothing_but_plain_values_is_read(tmp_path):
    path = tmp_path / "a.npz"
    with path.open("wb") as file:
        np.savez(file, a=np.array([print], object))
    with pytest.raises(PreparedError, match="can't be read"):
        prepared_file.read(path, "")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("outline.json", "{}" * 100)
    with pytest.raises(PreparedError, match="it is compressed"):
        prepared_file.read(path, "")
    for kind, config in [
        ("Lambda", {"mapping": []}),
        ("StringLookup", {"mapping": [["vocabulary", "/etc/passwd"]]}),
        ("TextVectorization", {"mapping": [["split", {"mapping": []}]]}),
    ]:
        node = {"mapping": [["a", {"layer": kind, "config": config}]]}
        stranger = Prepared(node, {})
        prepared_file.write(path, stranger)
        with pytest.raises(PreparedError, match="can't make again: ValueError"):
            preparation.given(Centred(), path, stranger.digest)
    with pytest.raises(ValueError, match="no preprocessing layer"):
        learned_layers.layer("Dense", {})


# Commands.


def test_the_commands_need_no_data_where_none_are_asked_for(tmp_path):
    kinds.make(tmp_path / "files")
    shutil.copy(kinds.__file__, tmp_path / "kinds.py")
    named = ["--task=kinds:Learning", "--run_dir=run"]
    chosen = [f"--set=root={tmp_path / 'files'}", "--batch_size=8", "--steps=6"]
    assert killed(tmp_path, "preparation@1", *named, *chosen) == (-9, [])
    assert killed(tmp_path, "preparation@2", *named, *chosen) == (-9, ["prepared.npz"])
    assert processes.run(*named, *chosen, cwd=tmp_path).code == 0
    straight = [*named[:1], "--run_dir=straight", *chosen]
    assert processes.run(*straight, cwd=tmp_path).code == 0
    tasks.assert_same_run(tmp_path / "straight", tmp_path / "run")
    np.savez(tmp_path / "mine.npz", x=np.load(tmp_path / "files/valid/x.npy"))
    shutil.rmtree(tmp_path / "files")

    refused = processes.run("evaluate", *named, cwd=tmp_path)
    assert (refused.code, "No such file" in refused.stderr) == (1, True)
    done = processes.run("predict", *named, "--data=mine.npz", cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert len(done.stdout.splitlines()) == 11
    done = processes.run("export", *named, "--format=keras", cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert "the task's data can't be read (FileNotFoundError" in done.stderr
    (export,) = (tmp_path / "run/exports/keras").iterdir()
    kept = (tmp_path / "run/prepared.npz").read_bytes()
    assert (export / "prepared.npz").read_bytes() == kept
    card = json.loads((export / "model_card.json").read_text())
    assert card["prepared"]["names"] == ["a", "b"]
    assert card["prepared"]["words"] == {"StringLookup": {"vocabulary": ["down", "up"]}}
    assert card["compared_on"] == "made-up examples"
    assert card["data"] == {"train": "37 examples", "valid": "11 examples"}


def killed(cwd, point, *arguments):
    """How a command ended, and what is in the run directory besides the lock."""
    done = processes.run(*arguments, cwd=cwd, KEEPSTEP_KILL_AT=point)
    names = {one.name for one in (cwd / "run").iterdir()}
    return done.code, sorted(names - {RunDirectory(cwd).lock.name})


def test_show_says_what_is_prepared(trained):
    done = processes.call("show", f"--run_dir={trained[0]}")
    assert done.code == 0, done.stderr
    assert "list of 2: low, high" in done.stdout
    assert digest(trained[0]) in done.stdout
    done = processes.call("show", f"--run_dir={trained[0]}", "--format=json")
    held = json.loads(done.stdout)["prepared"]["holds"]
    assert {"prepared": "mean", "is": "float32 (4,)"} in held


def test_a_lost_file_is_told_by_what_inspects(trained, tmp_path):
    run = copied(trained, tmp_path)
    done = processes.call("verify", f"--run_dir={run}", "--format=json")
    rows = json.loads(done.stdout)
    (row,) = [one for one in rows if one["path"] == str(run / "prepared.npz")]
    assert (done.code, row["problem"]) == (0, None)
    assert row["bytes"] == (run / "prepared.npz").stat().st_size
    damage(run / "prepared.npz")
    done = processes.call("verify", f"--run_dir={run}")
    assert (done.code, "can't be read: BadZipFile" in done.stdout) == (1, True)
    (run / "prepared.npz").unlink()
    done = processes.call("verify", f"--run_dir={run}", "--format=json")
    (bad,) = [one for one in json.loads(done.stdout) if one["problem"]]
    assert (done.code, bad["bytes"]) == (1, 0)
    assert "there is no" in bad["problem"]
    done = processes.call("show", f"--run_dir={run}")
    assert (done.code, "kernel" in done.stdout) == (0, True)
    assert "there is no" in done.stdout
    done = processes.call("show", f"--run_dir={run}", "--format=json")
    assert "there is no" in json.loads(done.stdout)["prepared"]["problem"]


def test_reading_a_dataset_to_prepare_moves_no_shuffle_of_training(tmp_path):
    kinds.make(tmp_path / "files")
    shutil.copy(kinds.__file__, tmp_path / "kinds.py")
    line = ["--task=kinds:Moving", f"--set=root={tmp_path / 'files'}", "--steps=6"]
    line += ["--batch_size=8", "--save_every_steps=2"]
    assert killed(tmp_path, "save@1", "--run_dir=run", *line)[0] == -9
    for run in ("run", "straight"):
        done = processes.run(f"--run_dir={run}", *line, cwd=tmp_path)
        assert done.code == 0, done.stderr
    assert tasks.scalars(tmp_path / "straight") == tasks.scalars(tmp_path / "run")


@pytest.mark.filterwarnings("ignore:__array__ implementation")
def test_a_file_of_an_export_has_it_beside(trained, tmp_path):
    output = tmp_path / "a.keras"
    functions.export(trained[0], "keras", "latest", task=Centred(), output=output)
    assert (tmp_path / "a.keras.prepared.npz").exists()
    said = functions.predict(trained[0], "latest", task=Centred())
    assert set(said["class"]) <= {b"low", b"high"}
