"""Saving behind the training: one at a time, and no failure is ever lost."""

import concurrent.futures
import json
import os
import re
import shutil
import subprocess
import sys

import processes
import pytest
import tasks

from trainer.checkpoint.cost import Account, Cost
from trainer.checkpoint.saver import Saver
from trainer.checkpoint.store import SaveError

EVENTS = "train/events.out.tfevents.1"


@pytest.fixture(scope="module")
def current():
    return tasks.built(tasks.Plain())


class Clock:
    """Every look at it takes a second."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        self.now += 1
        return self.now


# What it costs.


def test_a_save_tells_its_cost_once(current, tmp_path):
    with Saver(tasks.store(tmp_path), current) as saver:
        assert saver.collect() is None
        saver.begin(2)
        saver.save(tasks.draft(current, 5))
        cost = saver.wait()
        assert (cost.step, cost.since_steps) == (5, 3)
        size = sum(p.stat().st_size for p in (tmp_path / "recent").glob("ckpt-5.[id]*"))
        assert cost.bytes == size
        assert cost.stall_secs > 0
        assert cost.write_secs > 0
        assert saver.collect() is None
        assert saver.wait() is None
        saver.save(tasks.draft(current, 6))
        while not (cost := saver.collect()):
            pass
        assert (cost.step, cost.since_steps) == (6, 1)
    assert saver.failed is None


def test_the_cost_is_shown_by_these_names():
    cost = Cost(
        step=5,
        stall_secs=0.25,
        wait_secs=0.5,
        write_secs=2.0,
        bytes=3_000_000,
        since_secs=10.0,
        since_steps=7,
    )
    assert cost.scalars() == {
        "stall_ms": 250,
        "wait_ms": 500,
        "write_ms": 2000,
        "bytes": 3_000_000,
        "mb_per_s": 1.5,
        "overhead_percent": 7.5,
        "steps_at_risk": 7,
    }
    assert cost.total_secs == 2.75


def test_the_clock_says_when_a_save_is_due(current, tmp_path):
    clock = Clock()
    with Saver(tasks.store(tmp_path), current, clock=clock) as saver:
        saver.begin(0)
        started = clock.now
        clock.now = started + 8
        assert not saver.is_due(every_secs=10, overhead_percent=1)
        assert saver.is_due(every_secs=10, overhead_percent=1)
        assert saver.is_due(every_secs=0, overhead_percent=1), "the first costs nothing"
        saver.save(tasks.draft(current, 5))
        cost = saver.wait()
        assert cost.total_secs == 3, "one second for each look at the clock"
        began = started + 12
        for percent, secs in ((10, 30), (1, 300), (0.1, 600)):
            clock.now = began + secs - 2
            assert not saver.is_due(every_secs=0, overhead_percent=percent)
            assert saver.is_due(every_secs=0, overhead_percent=percent)


def test_the_overhead_is_told_after_a_few_saves():
    account = Account()
    account.begin(100.0)
    cost = Cost(
        1,
        stall_secs=1,
        wait_secs=1,
        write_secs=9,
        bytes=1,
        since_secs=20,
        since_steps=1,
    )
    with tasks.logged() as lines:
        for number in range(1, 7):
            assert account.overhead_percent(120) == (50 if number > 5 else 0)
            account.add(cost, 100 + 20.0 * number)
    assert account.overhead_percent(220) == 10
    assert lines == [
        "WARNING saving takes 10.0 % of the time: save less often, or leave it to "
        "--save_overhead (--save_every_steps=0 --save_every_secs=0)"
    ]


# One at a time.


@pytest.fixture
def blocked(tmp_path):
    """A directory in which a save can't go on before somebody writes to the pipe."""
    pipe = tmp_path / "summaries" / EVENTS
    pipe.parent.mkdir(parents=True)
    os.mkfifo(pipe)
    yield tmp_path, pipe


def test_one_save_is_in_flight_and_the_next_waits_for_it(current, blocked):
    run_dir, pipe = blocked
    saver = Saver(tasks.store(run_dir, "loss:min"), current)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        first = tasks.draft(current, 5, metrics={"loss": 1.0}, events={EVENTS: 0})
        saver.save(first)
        assert saver.collect() is None
        assert not saver.is_best(6, {"loss": 2.0}), "what is in flight counts"
        assert saver.is_best(6, {"loss": 0.5})
        second = pool.submit(saver.save, tasks.draft(current, 6))
        assert tasks.steps(run_dir / "recent") == []
        with tasks.logged() as lines, open(pipe, "wb"):
            assert second.exception() is None
    # A pipe can't be synced, so the first one failed; the second goes on after it.
    text = f"ERROR {run_dir}/recent/ckpt-5 could not be saved: "
    (said,) = (line for line in lines if line.startswith(text))
    assert said.endswith(" Trying again.")
    with saver:
        saver.wait()
        assert saver.is_best(7, {"loss": 2.0}), "what failed counts not"
    assert tasks.steps(run_dir / "recent") == [6]
    assert saver.failed is None


# Failures.


def replace_by_file(run_dir):
    """The directory of the checkpoints is gone, and a file is in its place."""
    (run_dir / "recent").rename(run_dir / "aside")
    (run_dir / "recent").write_text("not a directory")


def put_back(run_dir):
    (run_dir / "recent").unlink()
    (run_dir / "aside").rename(run_dir / "recent")


def collect(saver):
    while saver.collect() is None and not saver.failed:
        pass


CALLS = {
    "save": lambda saver, draft: saver.save(draft),
    "wait": lambda saver, draft: saver.wait(),
    "collect": lambda saver, draft: collect(saver),
    "finish": lambda saver, draft: saver.finish(lambda: draft),
    "end": lambda saver, draft: saver.__exit__(None, None, None),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_the_second_failure_in_a_row_is_raised_by_the_next_call(
    current, tmp_path, call
):
    saver = Saver(tasks.store(tmp_path), current)
    saver.save(tasks.draft(current, 4))
    saver.wait()
    replace_by_file(tmp_path)
    draft = tasks.draft(current, 5)
    text = (
        rf"{re.escape(str(tmp_path))}/recent/ckpt-5 could not be saved: "
        rf"cannot write to the directory {re.escape(str(tmp_path))}/recent: .*\. "
        r"Every earlier checkpoint is as it was\."
    )
    with tasks.logged() as lines:
        saver.save(draft)
        collect(saver)
    assert re.fullmatch(rf"ERROR {text} Trying again\.", lines[-1])
    assert re.fullmatch(text, str(saver.failed))
    saver.save(draft)
    with pytest.raises(SaveError, match=f"^{text}$") as error:
        call(saver, draft)
    assert isinstance(error.value.__cause__, OSError)
    put_back(tmp_path)
    assert tasks.steps(tmp_path / "recent") == [4]
    with Saver(tasks.store(tmp_path), current) as saver:
        saver.save(draft)
    assert tasks.steps(tmp_path / "recent") == [4, 5]


def test_a_failure_at_the_very_end_is_raised(current, tmp_path):
    saver = Saver(tasks.store(tmp_path), current)
    replace_by_file(tmp_path)
    saver.save(tasks.draft(current, 5))
    with pytest.raises(SaveError, match="ckpt-5 could not be saved: cannot"):
        saver.__exit__(None, None, None)


def test_what_could_not_be_flushed_fails_the_save(current, tmp_path):
    def full():
        raise OSError(28, "No space left on device")

    saver = Saver(tasks.store(tmp_path), current, before=full)
    saver.save(tasks.draft(current, 5))
    saver.wait()
    text = "the scalars up to step 5 could not be written: [Errno 28] No space left"
    assert str(saver.failed).startswith(text)
    assert tasks.steps(tmp_path / "recent") == []


def test_another_error_on_its_way_is_not_hidden_by_that_of_a_save(current, tmp_path):
    def train():
        with Saver(tasks.store(tmp_path), current) as saver:
            replace_by_file(tmp_path)
            saver.save(tasks.draft(current, 5))
            raise ArithmeticError("the loss is bad")

    bad = pytest.raises(ArithmeticError, match="the loss is bad")
    with tasks.logged() as lines, bad as error:
        train()
    failed = error.value.__context__
    assert isinstance(failed, SaveError)
    assert f"ERROR {failed}" in lines


# In a run.


CHOICES = {
    "evaluate_every_steps": 4,
    "save_every_steps": 2,
    "best": (),
    "allow_inexact": True,
}


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("straight") / "run"
    tasks.train(run_dir, calm(), **CHOICES, steps=12)
    return run_dir


def calm():
    return tasks.calling(tasks.Light, lambda number: None)


def lead(run_dir, to):
    """The directory of the checkpoints is another one, or none, from one instant on."""
    link = run_dir / "link"
    link.symlink_to(run_dir / to)
    link.replace(run_dir / "recent")


def harmed(run_dir, mended_at=None):
    """Four good steps, and a task that then harms the directory, and may mend it."""
    tasks.train(run_dir, calm(), **CHOICES, steps=4)
    (run_dir / "recent").rename(run_dir / "good")
    (run_dir / "recent").symlink_to(run_dir / "good")
    (run_dir / "bad").write_text("not a directory")

    def hook(number):
        if number == 1:
            lead(run_dir, "bad")
        if number == mended_at:
            lead(run_dir, "good")

    return tasks.calling(tasks.Light, hook)


def test_a_run_tries_again_once_and_then_stops(straight, tmp_path):
    run_dir = tmp_path / "run"
    task = harmed(run_dir)
    text = r"run/recent/ckpt-\d+ could not be saved: cannot write to the directory"
    with tasks.logged() as lines, pytest.raises(SaveError, match=text):
        tasks.train(run_dir, task, **CHOICES, steps=12)
    said = [line for line in lines if "could not be saved" in line]
    assert len(said) == 1
    assert said[0].startswith("ERROR ")
    assert said[0].endswith(" Trying again.")
    lead(run_dir, "good")
    assert tasks.steps(run_dir / "recent") == [2, 4]
    tasks.train(run_dir, calm(), **CHOICES, steps=12)
    tasks.assert_same_run(straight, run_dir)


@pytest.mark.parametrize("mended_at", [5, None], ids=["and is mended", "to the end"])
def test_a_run_may_go_on_without_saving(straight, tmp_path, mended_at):
    """It saves when it is due again; the end of a run must be saved."""
    run_dir = tmp_path / "run"
    task = harmed(run_dir, mended_at)
    choices = {**CHOICES, "steps": 12, "on_save_error": "continue"}
    with tasks.logged() as lines:
        if mended_at:
            assert tasks.train(run_dir, task, **choices).step == 12
        else:
            with pytest.raises(SaveError) as error:
                tasks.train(run_dir, task, **choices)
            assert str(error.value) == (
                "the state of step 12 could not be saved. Every earlier checkpoint is "
                "as it was: make room, and run the same command again."
            )
            lead(run_dir, "good")
    said = [line for line in lines if "could not be saved" in line]
    assert said[0].endswith(" Trying again.")
    if not mended_at:
        assert said[1].endswith(" Training goes on (--on_save_error).")
        assert tasks.steps(run_dir / "recent") == [2, 4]
    tasks.train(run_dir, calm(), **choices)
    tasks.assert_same_run(straight, run_dir, every=False)


def test_a_process_that_may_not_write_so_much_fails_and_can_be_run_again(tmp_path):
    """The limit on the size of files is that of the operating system."""
    shutil.copy(tasks.__file__, tmp_path / "mine.py")
    wide = {"task": "mine:Plain", "set": ("width=20000",), "steps": 4}
    wide |= {"save_every_steps": 2, "evaluate_every_steps": 4}
    flags = tasks.CHOICES | wide | {"set": "width=20000", "run_dir": "run"}
    arguments = " ".join(f"--{name}={value}" for name, value in flags.items())
    script = f"ulimit -f 200; exec {sys.executable} {processes.PROJECT}/run.py"
    limited = subprocess.run(
        ["/bin/bash", "-c", f"{script} {arguments}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=processes.PATIENCE_SECS,
        check=False,
    )
    assert limited.returncode == 1, limited
    assert "SaveError: run/recent/ckpt-" in limited.stderr
    assert "could not be saved: " in limited.stderr
    assert "File too large" in limited.stderr
    assert "Traceback" not in limited.stderr
    assert tasks.steps(tmp_path / "run/recent") == []
    tasks.train(tmp_path / "run", tasks.Plain(width=20000), **wide)
    assert tasks.steps(tmp_path / "run/recent") == [2, 4]
    size = sum(path.stat().st_size for path in (tmp_path / "run/recent").glob("*-4.d*"))
    assert size > 200 * 1024
    assert json.loads((tmp_path / "run/config.json").read_text())["changes"] == []


def test_a_promotion_that_fails_is_a_failed_save(current, tmp_path):
    (tmp_path / "best").mkdir()
    (tmp_path / "best/loss").write_text("not a directory")
    store = tasks.store(tmp_path, "loss:min")
    draft = tasks.draft(current, 5, metrics={"loss": 1.0})
    text = r"ckpt-5 is saved, but what follows from that.*failed: .*best/loss"
    with pytest.raises(SaveError, match=text):
        store.save(current.tree, draft)
    assert tasks.steps(tmp_path / "recent") == [5]
