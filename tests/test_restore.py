"""The best weights of a run in a script that has no flags and no task."""

import re
import shutil

import keras
import numpy as np
import processes
import pytest
import tasks

from models import digits
from trainer.checkpoint import compatibility, selection
from trainer.inference import restore

layers = keras.layers

SCRIPT = """
import sys

import keras
import numpy as np
import tensorflow as tf

from trainer import restore

layers = keras.layers


def build():
    return keras.Sequential(
        [
            layers.Input([8, 8], name="picture"),
            layers.Rescaling(1 / 16, name="to_one"),
            layers.Reshape([8, 8, 1], name="one_channel"),
            layers.Conv2D(32, 3, padding="same", use_bias=False, name="edges"),
            layers.BatchNormalization(name="normal_edges"),
            layers.ReLU(),
            layers.Conv2D(64, 3, padding="same", use_bias=False, name="shapes"),
            layers.BatchNormalization(name="normal_shapes"),
            layers.ReLU(),
            layers.MaxPooling2D(),
            layers.Dropout(0.2, name="forget"),
            layers.Flatten(),
            layers.Dense(128, activation="relu", name="mixed"),
            layers.Dropout(0.2, name="forget_more"),
            layers.Dense(10, name="which"),
        ],
        name="mine",
    )


run_dir, images, said = sys.argv[1:]
images = np.load(images)
one, other = build(), build()
mark = restore.weights(one, run_dir)
assert mark.metrics["accuracy"] > 0.5, mark.metrics

path = tf.train.latest_checkpoint(run_dir + "/best/accuracy")
variables = [variable.value for variable in other.variables]
tf.train.Checkpoint(variables=variables).read(path).expect_partial()

np.savez(
    said,
    step=mark.step,
    ours=one(images, training=False),
    theirs=other(images, training=False),
    same=[np.array_equal(a, b) for a, b in zip(one.variables, other.variables)],
)
"""


def test_a_script_restores_a_model_whose_layers_have_other_names(reference, tmp_path):
    """By the two ways that the module's own description shows."""
    for line in SCRIPT.split("\nrun_dir")[1].splitlines():
        if line.startswith(("variables =", "tf.train.Checkpoint")):
            assert line.replace("other", "model") in restore.__doc__
    (tmp_path / "mine.py").write_text(SCRIPT)
    valid = digits.Digits().sources()["valid"]
    np.save(tmp_path / "images.npy", valid["image"])
    files = [tmp_path / "images.npy", tmp_path / "said.npz"]
    line = ["mine.py", reference.directory, *files]
    done = processes.script(*line, cwd=tmp_path, PYTHONPATH=str(processes.PROJECT))
    assert done.code == 0, done.stderr
    (step,) = tasks.steps(reference.directory / "best/accuracy")
    prefix = reference.directory / f"best/accuracy/ckpt-{step}"
    accuracy = tasks.manifest(prefix)["metrics"]["accuracy"]
    with np.load(tmp_path / "said.npz") as said:
        assert said["step"] == step
        assert len(said["same"]) > 10
        assert said["same"].all()
        np.testing.assert_array_equal(said["ours"], said["theirs"])
        assert np.mean(said["ours"].argmax(1) == valid["label"]) == accuracy


# In one process, with small networks.


def dense(units=1, *, inputs=tasks.FEATURES):
    return keras.Sequential([layers.Input([inputs]), layers.Dense(units, name="mine")])


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The best one is the first."""
    run_dir = tmp_path_factory.mktemp("plain") / "run"
    tasks.train(run_dir, tasks.Plain(), steps=6, best=("loss:max",))
    return run_dir


@pytest.fixture(scope="module")
def averaged(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("averaged") / "run"
    tasks.train(run_dir, tasks.Plain(), steps=6, ema=0.9)
    return run_dir


def saved(prefix, part="variables"):
    values = tasks.tensors(prefix)
    return [values[f"{part}/{n}/.ATTRIBUTES/VARIABLE_VALUE"] for n in range(2)]


def assert_has(model, values):
    for variable, value in zip(model.variables, values, strict=True):
        np.testing.assert_array_equal(variable, value)


@pytest.mark.parametrize(
    ("checkpoint", "prefix"),
    [
        ("best", "best/loss/ckpt-3"),
        ("best:loss", "best/loss/ckpt-3"),
        ("latest", "recent/ckpt-6"),
        ("step:5", "recent/ckpt-5"),
        ("{}/recent/ckpt-4", "recent/ckpt-4"),
    ],
)
def test_a_checkpoint_is_chosen_as_elsewhere(plain, checkpoint, prefix):
    model = dense()
    mark = restore.weights(model, plain, checkpoint.format(plain))
    assert_has(model, saved(plain / prefix))
    assert mark.step == int(prefix.rpartition("-")[2])
    assert mark.metrics == tasks.manifest(plain / prefix)["metrics"]


def test_of_a_run_with_averages_these_are_the_weights(averaged):
    model = dense()
    restore.weights(model, str(averaged), "latest")
    assert_has(model, saved(averaged / "recent/ckpt-6", "averages"))
    raw = saved(averaged / "recent/ckpt-6")
    assert (raw[0] != model.variables[0].numpy()).all()


class Two(tasks.Plain):
    """Two networks, added up."""

    def networks(self):
        return {"first": dense(), "second": dense()}

    def values(self, networks, batch, training):
        said = sum(one(batch["x"], training=training) for one in networks.values())
        return {"loss": (said[:, 0] - batch["y"]) ** 2}


def test_of_several_networks_one_is_named(tmp_path):
    run_dir = tmp_path / "run"
    tasks.train(run_dir, Two(), steps=3, best=("loss:min",), ema=0.5)
    values = {}
    for name in ("first", "second"):
        model = dense()
        restore.weights(model, run_dir, network=name)
        values[name] = [variable.numpy() for variable in model.variables]
    tensors = tasks.tensors(run_dir / "best/loss/ckpt-3")
    both = [*values["first"], *values["second"]]
    for number, value in enumerate(both):
        key = f"averages/{number}/.ATTRIBUTES/VARIABLE_VALUE"
        np.testing.assert_array_equal(tensors[key], value)
    assert (values["first"][0] != values["second"][0]).any()


# Refused, and the model is as it was.


ADVICE = (
    "\nThe model is not the network 'model' that was trained, or it is not built yet: "
    "call it on a batch first."
)
KERNEL, BIAS = "model/sequential/dense/kernel", "model/sequential/dense/bias"
UNFIT = {
    "another shape": (
        lambda: dense(3),
        f"  {KERNEL}: the checkpoint has shape (4, 1), the model (4, 3)\n"
        f"  {BIAS}: the checkpoint has shape (1,), the model (3,)",
    ),
    "not built": (
        lambda: keras.Sequential([layers.Dense(1)]),
        f"  {KERNEL}: the checkpoint has it, the model does not\n"
        f"  {BIAS}: the checkpoint has it, the model does not",
    ),
    "a variable less": (
        lambda: keras.Sequential(
            [layers.Input([tasks.FEATURES]), layers.Dense(1, use_bias=False)]
        ),
        f"  {BIAS}: the checkpoint has it, the model does not",
    ),
    "a layer more": (
        lambda: keras.Sequential(
            [
                layers.Input([tasks.FEATURES]),
                layers.Dense(1),
                layers.Dense(1, name="more"),
            ]
        ),
        "  sequential/more/kernel: the model has it, the checkpoint does not\n"
        "  sequential/more/bias: the model has it, the checkpoint does not",
    ),
    "another type": (
        lambda: keras.Sequential(
            [layers.Input([tasks.FEATURES]), layers.Dense(1, dtype="float16")]
        ),
        f"  {KERNEL}: the checkpoint has dtype float32, the model float16\n"
        f"  {BIAS}: the checkpoint has dtype float32, the model float16",
    ),
}


@pytest.mark.parametrize(("build", "lines"), UNFIT.values(), ids=UNFIT)
def test_another_model_is_refused(plain, build, lines):
    keras.utils.clear_session()
    model = build()
    before = [variable.numpy() for variable in model.variables]
    text = f"cannot restore {plain}/recent/ckpt-6.\n{lines}{ADVICE}"
    with pytest.raises(compatibility.IncompatibleCheckpointError) as error:
        restore.weights(model, plain, "latest")
    assert str(error.value) == text
    assert_has(model, before)


def test_a_network_that_the_task_does_not_have_is_refused(plain):
    text = "The model is not the network 'generator' that was trained"
    with pytest.raises(compatibility.IncompatibleCheckpointError, match=text):
        restore.weights(dense(), plain, network="generator")


def test_a_damaged_checkpoint_is_refused(plain, tmp_path):
    run_dir = shutil.copytree(plain, tmp_path / "run")
    (path,) = (run_dir / "best/loss").glob("ckpt-3.data-*")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()  # the recent one has the same bytes
    path.write_bytes(content)
    model = dense()
    before = [variable.numpy() for variable in model.variables]
    text = re.escape(f"{run_dir}/best/loss/ckpt-3 is damaged: {path.name} does not")
    with pytest.raises(selection.DamagedCheckpointError, match=text):
        restore.weights(model, run_dir)
    assert_has(model, before)
    restore.weights(model, run_dir, "step:3")


def test_a_checkpoint_that_is_not_there_is_refused(plain):
    with pytest.raises(selection.NoCheckpointError, match=r"no checkpoint of step 7\."):
        restore.weights(dense(), plain, "step:7")


def test_a_directory_without_a_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match=re.escape(str(tmp_path / "config.json"))):
        restore.weights(dense(), tmp_path)
