"""The commands as functions, in a process that has a life of its own."""

import dataclasses
import os
import random
import signal
import threading

import keras
import numpy as np
import processes
import pytest
import tasks
import tensorflow as tf

import trainer

SHORT = {"batch_size": 8, "progress": "none", "best": "loss:min"}


def draws():
    """A number of every generator, and a name of Keras'."""
    return [
        random.random(),
        np.random.rand(),
        tf.random.uniform([]).numpy(),
        tf.random.get_global_generator().uniform([]).numpy(),
        np.asarray(keras.random.uniform([])),
        keras.layers.Dense(1).name,
    ]


def test_the_caller_goes_on_as_if_nothing_had_been_trained(tmp_path):
    model = keras.Sequential([keras.layers.Input([2]), keras.layers.Dense(2)])
    weights = model.get_weights()
    expected = []
    for trains in (False, True):
        keras.utils.set_random_seed(3)
        generator = tf.random.Generator.from_seed(4)
        tf.random.set_global_generator(generator)
        keras.utils.clear_session()
        if trains:
            trainer.train(tasks.Light(), tmp_path / "run", steps=4, **SHORT)
            trainer.evaluate(tmp_path / "run", task=tasks.Light())
        expected.append(draws())
        assert tf.random.get_global_generator() is generator
    assert expected[0] == expected[1]
    np.testing.assert_array_equal(model.get_weights()[0], weights[0])
    model(np.ones([1, 2]))


def test_it_is_the_run_that_the_command_line_makes(tmp_path):
    """Begun here and ended there, and the other way round: the same bits."""
    module = tmp_path / "mine.py"
    module.write_text((processes.PROJECT / "tests/tasks.py").read_text())
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, trainer, mine\n"
        "trainer.train(mine.Light(), sys.argv[1], steps=int(sys.argv[2]),"
        "batch_size=8, save_every_steps=2, best='loss:min', threads=2)\n"
    )
    options = ["--batch_size=8", "--save_every_steps=2", "--threads=2"]
    options += ["--task=mine:Light", "--best=loss:min"]

    def begin_here(run_dir, steps):
        path = os.pathsep.join([str(processes.PROJECT), str(tmp_path)])
        line = [script, run_dir, steps]
        done = processes.script(*line, cwd=tmp_path, PYTHONPATH=path)
        assert done.code == 0, done.stderr

    def begin_there(run_dir, steps):
        line = [*options, f"--run_dir={run_dir}", f"--steps={steps}"]
        assert processes.run("train", *line, cwd=tmp_path).code == 0

    begin_here("one", 3)
    begin_there("one", 6)
    begin_there("other", 3)
    begin_here("other", 6)
    one, other = (tmp_path / name / "recent/ckpt-6" for name in ("one", "other"))
    assert tasks.different(one, other) == []
    told = processes.call("list", f"--run_dir={tmp_path / 'one'}")
    assert "latest" in told.stdout


def test_what_is_left_out_is_what_the_run_recorded(tmp_path):
    first = trainer.train(tasks.Light(), tmp_path, steps=4, seed=7, **SHORT)
    assert (first.step, first.trained_steps, first.exit_code) == (4, 4, 0)
    again = trainer.train(tasks.Light(), tmp_path, steps=6, progress="none")
    assert (again.step, again.trained_steps) == (6, 2)
    metrics = trainer.evaluate(tmp_path, "latest", task=tasks.Light())
    assert metrics.keys() == {"loss"}


def test_predictions_are_arrays(tmp_path):
    class Predicting(tasks.Light):
        def predictions(self, networks, batch):
            return {"y": networks(batch["x"])[:, 0]}

    trainer.train(Predicting(), tmp_path, steps=2, **SHORT)
    x = np.zeros([3, tasks.FEATURES], np.float32)
    found = trainer.predict(tmp_path, task=Predicting(), data={"x": x})
    assert {name: one.shape for name, one in found.items()} == {"y": (3,)}
    with pytest.raises(ValueError, match="the examples have no array 'x'; expected x"):
        trainer.predict(tmp_path, task=Predicting(), data={"z": x})


def test_it_works_in_a_thread(tmp_path):
    outcomes = []

    def work():
        outcomes.append(trainer.train(tasks.Light(), tmp_path, steps=2, **SHORT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert outcomes[0].step == 2


def test_a_signal_saves_everything_and_returns(tmp_path):
    given = tasks.calling(
        tasks.Plain, lambda n: n == 3 and os.kill(os.getpid(), signal.SIGTERM)
    )
    before = signal.getsignal(signal.SIGTERM)
    outcome = trainer.train(given, tmp_path, steps=50, allow_inexact=True, **SHORT)
    assert (outcome.stopped_by, outcome.exit_code) == ("SIGTERM", 75)
    assert 3 <= outcome.step < 50
    assert tasks.steps(tmp_path / "recent")[-1] == outcome.step
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"epoch": 3}, r"train\(\) has no option 'epoch'\. Did you mean 'epochs'"),
        ({"steps": -1}, "--steps=-1 is out of range"),
        (
            {"task": "digits"},
            "got multiple values for argument 'task'|no option 'task'",
        ),
        ({"width": 3}, "has no option 'width'"),
    ],
)
def test_what_is_not_taken_is_told(tmp_path, options, text):
    with pytest.raises((trainer.KeepstepError, TypeError), match=text):
        trainer.train(tasks.Light(), tmp_path / "none", **options)
    assert not (tmp_path / "none").exists()


def test_a_task_that_is_not_given_is_trusted_only_if_that_is_said(tmp_path):
    trainer.train(tasks.Light(), tmp_path, steps=2, **SHORT)
    with pytest.raises(trainer.KeepstepError, match=r"'tasks:Light'.*--trust"):
        trainer.evaluate(tmp_path)
    expected = trainer.evaluate(tmp_path, task=tasks.Light())
    assert trainer.evaluate(tmp_path, trust=True) == expected


@dataclasses.dataclass(frozen=True)
class Settings(tasks.Light):
    sizes: tuple[int, ...] = (1, 2)


def test_hyperparameters_come_from_the_task(tmp_path):
    trainer.train(Settings(sizes=(3,)), tmp_path, steps=2, **SHORT)
    with pytest.raises(trainer.KeepstepError, match="sizes: "):
        trainer.train(Settings(), tmp_path, steps=2, **SHORT)
