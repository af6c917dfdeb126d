"""A request to stop, at whichever moment of a turn it comes, finds everything saved."""

import contextlib
import os
import signal

import pytest
import tasks

from trainer.checkpoint import store
from trainer.model.steps import NonFiniteError
from trainer.training import preemption

CHOICES = {"steps": 7, "evaluate_every_steps": 3, "save_every_steps": 4}
CHOICES |= {"report_every_steps": 2, "eval_batch_size": 4}


class AtLook:
    """A request that is filled just after it was looked at for the n-th time."""

    def __init__(self, number):
        self._request = preemption.Request()
        self._left = number

    @property
    def signal(self):
        return self._request.signal

    def __call__(self):
        asked = self._request()
        self._left -= 1
        if self._left == 0:
            self._request.hear(signal.SIGTERM)
        return asked

    @contextlib.contextmanager
    def interrupting(self):
        yield


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("turns") / "straight"
    tasks.train(run_dir, tasks.Light(), **CHOICES)
    return run_dir


@pytest.mark.parametrize("number", range(1, 20))
def test_after_whichever_look_it_comes_it_is_saved(straight, tmp_path, number):
    run_dir = tmp_path / "run"
    outcome = tasks.train(run_dir, tasks.Light(), AtLook(number), **CHOICES)
    assert (outcome.exit_code == 75) == (outcome.stopped_by is not None)
    saved = tasks.steps(run_dir / "recent")
    assert (saved[-1] if saved else 0) == outcome.step
    assert outcome.stopped_by or outcome.step == CHOICES["steps"]
    tasks.train(run_dir, tasks.Light(), **CHOICES)
    tasks.assert_same_run(straight, run_dir, every=False)


def blocking(run_dir, at):
    """Puts a file in the place of the checkpoints, in the step `at`."""

    def hook(number):
        if number == at:
            (run_dir / "recent").rename(run_dir / "gone")
            (run_dir / "recent").write_text("in the way")

    return hook


def test_a_failed_save_that_meets_another_error_is_told_and_chained(tmp_path):
    """The save of step 3 fails behind; the loss of step 4 is no number."""
    given = tasks.calling(tasks.Poisoned, blocking(tmp_path, 3), first=3, last=3)
    choices = {"steps": 9, "save_every_steps": 3, "evaluate_every_steps": 9}
    with tasks.logged() as lines, pytest.raises(NonFiniteError) as raised:
        tasks.train(tmp_path, given, allow_inexact=True, **choices)
    assert any("ckpt-3 could not be saved" in line for line in lines), lines
    chain, error = [], raised.value
    while error is not None:
        chain.append(error)
        error = error.__context__
    told = [one for one in chain if isinstance(one, store.SaveError)]
    logged = [line for line in lines if line.startswith("ERROR")]
    assert told or any("Trying again" in line for line in logged), (chain, lines)


def test_a_real_signal_in_the_middle_of_an_evaluation_is_heard(tmp_path):
    class Signalled(tasks.Light):
        def figures(self, examples, predictions):
            os.kill(os.getpid(), signal.SIGTERM)
            return {}

        def predictions(self, networks, batch):
            return {"y": networks(batch["x"])[:, 0]}

    with preemption.listening() as stop:
        outcome = tasks.train(tmp_path, Signalled(), stop, **CHOICES)
    assert (outcome.stopped_by, outcome.step) == ("SIGTERM", 4), "one turn later"
    assert tasks.steps(tmp_path / "recent")[-1] == 4
    manifest = tasks.manifest(tmp_path / "recent/ckpt-3")
    assert manifest["metrics"].keys() == {"loss"}, "the evaluation was done in full"
