"""The keeper in loops that are not ours: `fit`, and a bare `tf.GradientTape`."""

import json
import os
import pathlib
import re
import signal

import keras
import numpy as np
import processes
import pytest
import tensorflow as tf

from trainer.checkpoint import compatibility, locks, selection
from trainer.checkpoint.fit_callback import KeeperCallback, NotBuiltError
from trainer.checkpoint.keeper import Keeper

README = (processes.PROJECT / "README.md").read_text(encoding="utf-8")


def example(name):
    pattern = rf"<!-- test: {re.escape(name)} -->\n```python\n(.*?)```"
    return re.search(pattern, README, re.DOTALL)[1]


# Scripts of the README, killed and run again.

# Appended to a script: it tells what it has, bit for bit.
TELL = """
import json
bits = [np.asarray(one).tobytes().hex() for one in model.get_weights()]
bits += [np.asarray(one.value).tobytes().hex() for one in optimizer_of(model)]
print("BITS " + json.dumps(bits))
"""
# Prepended: the process kills itself when a file of that number is being committed.
SCRIPTS = {
    "fit": "def optimizer_of(model): return model.optimizer.variables\n",
    "loop": "def optimizer_of(model): return optimizer.variables\n",
}


def start(path, cwd, kill_at=""):
    environment = {"KEEPSTEP_KILL_AT": kill_at, "PYTHONPATH": str(processes.PROJECT)}
    return processes.script(path, cwd=cwd, **environment)


def bits(done):
    assert done.code == 0, done.stderr
    return json.loads(re.search(r"BITS (.*)", done.stdout)[1])


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_that_is_killed_ends_as_if_it_had_not_been(tmp_path, name):
    script = tmp_path / "script.py"
    script.write_text(SCRIPTS[name] + example(name) + TELL)
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    straight.mkdir()
    killed.mkdir()
    expected = bits(start(script, straight))
    for kill_at in ("save@3", "storage@40", "promotion@2"):
        done = start(script, killed, kill_at)
        assert done.code == -signal.SIGKILL, done.stdout + done.stderr
    assert bits(start(script, killed)) == expected
    run_dir = next(killed.glob("runs/*"))
    for command in ("list", "verify", "show"):
        told = processes.call(command, f"--run_dir={run_dir}")
        assert told.code == 0, told.stderr
    assert "latest" in processes.call("list", f"--run_dir={run_dir}").stdout


# The keeper.


class Model(keras.Model):
    """Keeps its layers where TensorFlow does not look."""

    def __init__(self):
        super().__init__()
        self.blocks = [keras.layers.Dense(3), keras.layers.Dropout(0.5)]

    def call(self, x, training=False):
        for block in self.blocks:
            x = block(x, training=training)
        return x


def built():
    model, optimizer = Model(), keras.optimizers.Adam(0.1)
    model(np.ones([1, 2], np.float32))
    optimizer.build(model.trainable_variables)
    return model, optimizer


def train(model, optimizer):
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(model(np.ones([4, 2], np.float32), training=True) ** 2)
    optimizer.apply(
        tape.gradient(loss, model.trainable_variables), model.trainable_variables
    )
    return float(loss)


def opened(directory, **options):
    model, optimizer = built()
    checkpoint = tf.train.Checkpoint(model=model, optimizer=optimizer)
    return Keeper(directory, checkpoint, **options), model, optimizer


def values(model, optimizer):
    return [np.asarray(v.value) for v in (*model.variables, *optimizer.variables)]


def test_what_tensorflow_does_not_reach_is_restored_too(tmp_path):
    keeper, model, optimizer = opened(tmp_path)
    with keeper:
        assert keeper.restore() is None
        train(model, optimizer)
        keeper.save(1)
    losses = [train(model, optimizer) for _ in range(3)]
    again, model, optimizer = opened(tmp_path)
    with again:
        assert again.restore().step == 1
    assert [train(model, optimizer) for _ in range(3)] == losses


def test_the_best_is_remembered_across_restarts(tmp_path):
    for step, loss in ((1, 0.5), (2, 0.1), (3, float("nan")), (4, 99.0)):
        keeper, model, _ = opened(tmp_path, best="val_loss:min", keep_recent=1)
        with keeper:
            keeper.restore()
            model.variables[0].assign(tf.fill([2, 3], float(step)))
            keeper.save(step, {"val_loss": loss})
    keeper, model, _ = opened(tmp_path, best="val_loss:min")
    with keeper:
        found = keeper.restore("best")
        assert (found.step, found.metrics) == (2, {"val_loss": 0.1})
        assert (model.variables[0].numpy() == 2).all()
        assert keeper.restore().step == 4
        assert keeper.restore("step:2").step == 2
        with pytest.raises(
            selection.NoCheckpointError, match="no checkpoint of step 3"
        ):
            keeper.restore("step:3")


def test_going_on_from_the_best_moves_later_ones_aside(tmp_path):
    keeper, _, _ = opened(tmp_path, best="val_loss:min")
    with keeper:
        for step, loss in ((1, 0.5), (2, 0.9), (3, 0.8)):
            keeper.save(step, {"val_loss": loss})
        keeper.restore("best")
        keeper.save(2, {"val_loss": 0.4})
    again, _, _ = opened(tmp_path, best="val_loss:min")
    with again:
        assert again.restore().metrics == {"val_loss": 0.4}
    assert (tmp_path / "abandoned/1/recent/ckpt-3.json").exists()


def test_a_damaged_checkpoint_is_passed_over(tmp_path):
    keeper, _, _ = opened(tmp_path)
    with keeper:
        keeper.save(1)
        keeper.save(2)
    path = next((tmp_path / "recent").glob("ckpt-2.data*"))
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    keeper, _, _ = opened(tmp_path)
    with keeper:
        assert keeper.restore().step == 1


def test_one_directory_has_one_keeper(tmp_path):
    one, _, _ = opened(tmp_path)
    other, _, _ = opened(tmp_path)
    with one:
        one.save(1)
        with pytest.raises(locks.LockedError, match=f"by process {os.getpid()} on"):
            other.restore()
    with other:
        assert other.restore().step == 1


def test_a_commit_is_told_when_it_is_durable(tmp_path):
    told = []

    def commit(path):
        told.append((path.name, path.with_name(f"{path.name}.json").exists()))

    keeper, _, _ = opened(tmp_path, on_commit=commit)
    with keeper:
        keeper.save(1)
        keeper.wait()
        assert told == [("ckpt-1", True)]


def test_objects_that_are_not_built_are_refused(tmp_path):
    keeper, _, _ = opened(tmp_path)
    with keeper:
        keeper.save(1)
    unbuilt = tf.train.Checkpoint(model=Model(), optimizer=keras.optimizers.Adam())
    text = "the checkpoint has it, the model does not(.|\n)*all of them built"
    with (
        Keeper(tmp_path, unbuilt) as keeper,
        pytest.raises(compatibility.IncompatibleCheckpointError, match=text),
    ):
        keeper.restore()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"best": "loss"}, "does not say what is best"),
        ({"keep_recent": 0}, "keep_recent=0: expected at least 1"),
    ],
)
def test_what_makes_no_sense_is_refused_at_once(tmp_path, options, text):
    with pytest.raises(ValueError, match=text):
        Keeper(tmp_path / "none", tf.train.Checkpoint(), **options)
    assert not (tmp_path / "none").exists()


def test_a_save_that_fails_is_raised_where_it_is_waited_for(tmp_path):
    keeper, _, _ = opened(tmp_path)
    keeper.save(1)
    keeper.wait()
    recent = tmp_path / "recent"
    recent.rename(tmp_path / "gone")
    recent.write_text("in the way")
    with pytest.raises(RuntimeError, match="ckpt-2 could not be saved"):
        keeper.save(2)
        keeper.wait()
    recent.unlink()
    (tmp_path / "gone").rename(recent)
    keeper.save(3)
    keeper.close()


# The callback.


def compiled(*layers):
    model = keras.Sequential([*layers, keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


X = np.linspace(0, 1, 32, dtype=np.float32).reshape(16, 2)


def fit(model, callback, epochs):
    return model.fit(
        X, X[:, 0], epochs=epochs, verbose=0, shuffle=False, callbacks=[callback]
    )


def test_fit_goes_on_at_the_next_epoch_and_can_be_called_again(tmp_path):
    for epochs, expected in ((2, [0, 1]), (5, [2, 3, 4]), (5, [])):
        model = compiled(keras.layers.Input([2]))
        callback = KeeperCallback(tmp_path, best="loss:min", restore_best=True)
        assert fit(model, callback, epochs).epoch == expected
        assert fit(model, keras.callbacks.Callback(), 1).epoch == [0]


def test_a_model_that_is_not_built_is_refused_before_the_first_epoch(tmp_path):
    with pytest.raises(NotBuiltError, match=r"Input layer, or call model\.build"):
        fit(compiled(), KeeperCallback(pathlib.Path(tmp_path)), 1)
