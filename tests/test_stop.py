"""The signals that ask a run to stop, sent to real processes in each of its phases.

Each phase lasts for ever, so a process that ends has heard the signal in it.
"""

import json
import signal

import pytest

from tests import processes

TASK = """
import dataclasses
import itertools
import os
import sys
import threading

import keras
import numpy as np
import tensorflow as tf

from trainer import task


def last_for_ever(phase):
    if os.environ.get("PHASE") == phase:
        print("now:", phase, file=sys.stderr, flush=True)
        threading.Event().wait()  # signals are heard all the same


def one_after_another():
    endless = os.environ.get("PHASE") == "evaluation"
    for number in itertools.count() if endless else range(8):
        if endless and number == 50:
            print("now: evaluation", file=sys.stderr, flush=True)
        yield {"x": np.float32([number % 7, 1])}


last_for_ever("import")


@dataclasses.dataclass(frozen=True)
class Slow(task.Task):

    def sources(self):
        try:
            last_for_ever("sources")
        except BaseException:
            last_for_ever("sources")  # deaf to the first one
        spec = {"x": tf.TensorSpec([2])}
        valid = tf.data.Dataset.from_generator(one_after_another, output_signature=spec)
        return {"train": {"x": np.ones([64, 2], np.float32)}, "valid": valid}

    def networks(self):
        last_for_ever("networks")
        return keras.Sequential([keras.layers.Dense(1)])

    def optimizers(self):
        return keras.optimizers.SGD(1e-3)

    def values(self, networks, batch, training):
        last_for_ever("training's trace" if training else "evaluation's trace")
        return {"loss": tf.square(networks(batch["x"], training=training)[:, 0])}
"""
ARGUMENTS = ("--task=slow:Slow", "--run_dir=run", "--batch_size=4", "--progress=lines")


@pytest.fixture
def started(tmp_path, monkeypatch):
    """Starts a run that stays in one phase, once it is there."""
    (tmp_path / "slow.py").write_text(TASK)

    def start(phase, *arguments):
        monkeypatch.setenv("PHASE", phase)
        return processes.started(*ARGUMENTS, *arguments, cwd=tmp_path)

    return start


@pytest.mark.parametrize(
    ("phase", "number"),
    [
        ("import", signal.SIGTERM),
        ("networks", signal.SIGINT),
        ("training's trace", signal.SIGUSR1),
        ("evaluation's trace", signal.SIGTERM),
    ],
)
def test_before_the_first_step_a_run_stops_at_once(started, tmp_path, phase, number):
    with started(phase, "--steps=20") as child:
        child.wait_for(f"now: {phase}")
        child.send(number)
        result = child.finish()
    assert result.code == 75, result.stderr
    assert result.stdout.splitlines() == [
        f"stopped by {number.name} before the first new step.",
        "go on      the same command again",
    ]
    assert not list(tmp_path.rglob("ckpt-*"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_in_training_it_saves_first(started, tmp_path, number):
    with started("training", "--steps=1000000000", "--evaluate_every_steps=50") as run:
        run.wait_for("evaluated", 2)
        run.send(number)
        result = run.finish()
    assert result.code == 75, result.stderr
    first, last = result.stdout.splitlines()
    step = int(first.split()[5])
    said = (
        f"stopped by {number.name} at step {step} of 1000000000; everything is saved."
    )
    assert (first, last) == (said, "go on      the same command again")
    assert json.loads((tmp_path / f"run/recent/ckpt-{step}.json").read_text())


def test_in_an_evaluation_it_saves_and_evaluates_when_it_goes_on(started, tmp_path):
    schedule = ("--steps=20", "--evaluate_every_steps=10")
    with started("evaluation", *schedule) as child:
        child.wait_for("now: evaluation")
        child.send(signal.SIGTERM)
        result = child.finish()
    assert result.code == 75, result.stderr
    assert "stopped by SIGTERM at step 10 of 20; everything is saved." in result.stdout
    manifest = json.loads((tmp_path / "run/recent/ckpt-10.json").read_text())
    assert manifest["metrics"] == {}, "the evaluation was not finished"
    with started("", *schedule) as child:
        result = child.finish()
    assert result.code == 0, result.stderr
    evaluated = [line for line in result.stderr.splitlines() if "evaluated" in line]
    assert [line.split()[2] for line in evaluated] == ["10", "20"]


def test_a_second_signal_acts_as_usual(started):
    with started("sources", "--steps=20") as child:
        child.wait_for("now: sources")
        child.send(signal.SIGTERM)
        child.wait_for("now: sources")
        child.send(signal.SIGTERM)
        result = child.finish()
    assert result.code == -signal.SIGTERM, result.stderr
