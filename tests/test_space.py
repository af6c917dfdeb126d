"""A full disk: nothing that was saved is lost, and the run says what is missing.

Really full: a small file system of its own, where that may be mounted, and a limit of
the operating system on the size of files, which is there for everyone.
"""

import contextlib
import os
import re
import resource
import shutil
import signal
import subprocess

import making
import processes
import pytest
import tasks

from trainer.checkpoint import catalog, manifest
from trainer.checkpoint.layout import RunDirectory

# Each checkpoint has some 160,000 bytes, its manifest and the event files a few.
ARGUMENTS = (
    "--task=mine:Plain",
    "--set=width=4000",
    "--run_dir=run",
    "--progress=lines",
    "--save_every_steps=10",
    "--evaluate_every_steps=10",
)
SAVED = "step 40 evaluated"
FAILED_ONCE = "Trying again."
FAILED_TWICE = "Training goes on (--on_save_error)."
FULL = (
    r"run/recent/ckpt-(\d+) could not be saved: it needs (\d+) bytes and (\d+) are "
    r"free: (\d+) short\. Every earlier checkpoint is as it was\."
)
TOO_LARGE = (
    r"run/recent/ckpt-(\d+) could not be saved: .*File too large.*\. Every earlier "
    r"checkpoint is as it was\."
)
# Not enough for a checkpoint, but for what is reported meanwhile.
LEFT, MOST = 60_000, 100_000


@pytest.fixture
def project(tmp_path):
    """A directory with a task module."""
    shutil.copy(tasks.__file__, tmp_path / "mine.py")
    return tmp_path


@pytest.fixture
def disk(tmp_path):
    """A file system of a few MB."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=6m", "none", str(place)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"nothing may be mounted here: {mounted.stderr.strip()}")
    shutil.copy(tasks.__file__, place / "mine.py")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(place, left):
    """Takes all the space but for `left` bytes."""
    ballast = place / "ballast"
    with open(ballast, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(place).free - left)
    return ballast


def sound(run_dir):
    """The steps of the checkpoints whose every byte is right; there are no others."""
    entries = catalog.scan(RunDirectory(run_dir)).entries
    for entry in entries:
        assert entry.manifest is not None, entry.problem
        assert manifest.damage(entry.directory, entry.manifest) is None
    return sorted({e.step for e in entries if e.directory.name == "recent"})


def assert_no_debris(run_dir):
    recent = run_dir / "recent"
    steps = tasks.steps(recent)
    names = {"checkpoint"} | {
        f"ckpt-{step}.{suffix}"
        for step in steps
        for suffix in ("index", "data-00000-of-00001", "json")
    }
    assert {path.name for path in recent.iterdir()} == names


@contextlib.contextmanager
def halted(child):
    """It does nothing meanwhile."""
    child.send(signal.SIGSTOP)
    try:
        yield
    finally:
        child.send(signal.SIGCONT)


def test_on_a_full_disk_training_goes_on_and_saves_when_there_is_room(disk):
    arguments = (*ARGUMENTS, "--steps=100000", "--on_save_error=continue")
    with processes.started(*arguments, cwd=disk) as child:
        child.wait_for(SAVED)
        with halted(child):
            ballast = fill(disk, LEFT)
        child.wait_for(FAILED_TWICE)
        with halted(child):
            held = sound(disk / "run")
            ballast.unlink()
        child.wait_for(" evaluated", 6)
        child.send(signal.SIGTERM)
        result = child.finish()
    assert result.code == 75, result.stderr
    assert len(held) == 3, "what was saved before is there"
    step, needed, free, short = map(int, re.search(FULL, result.stderr).groups())
    assert step > held[-1]
    assert short == needed - free > 0
    saved = sound(disk / "run")
    assert saved[0] > held[-1], "all of them are from when there was room again"
    assert_no_debris(disk / "run")


def test_a_disk_that_is_full_to_the_last_byte_takes_nothing_away(disk):
    """Not even a scalar has room; the curves have no gap when there is some again."""
    arguments = (*ARGUMENTS, "--steps=100000", "--on_save_error=continue")
    with processes.started(*arguments, cwd=disk) as child:
        child.wait_for(SAVED)
        with halted(child):
            ballast = fill(disk, 0)
        child.wait_for("the scalars up to step")
        ballast.unlink()
        child.wait_for(" evaluated", 5)
        child.send(signal.SIGTERM)
        result = child.finish()
    assert result.code == 75, result.stderr
    assert "scalars wait until they can be written: " in result.stderr
    text = r"the scalars up to step \d+ could not be written: .*No space left on device"
    assert re.search(text, result.stderr)
    assert_no_debris(disk / "run")
    curve = [step for step, _ in tasks.scalars(disk / "run")["eval/loss"]]
    assert curve == list(range(10, curve[-1] + 1, 10)), "each step once, and no gap"
    tasks.assert_each_step_once(disk / "run")


@pytest.mark.parametrize("lock", [True, False], ids=["with a lock", "without"])
def test_prune_makes_room_on_a_disk_that_is_full_to_the_last_byte(disk, lock):
    run_dir = disk / "run"
    for step in range(1, 8):
        making.checkpoint(run_dir / "recent", step, {"loss": 1 / step})
    if lock:
        (run_dir / "run.lock").write_text("{}")
    fill(disk, 0)
    before = shutil.disk_usage(disk).free
    done = processes.run(
        "prune", "--run_dir=run", "--keep_recent=2", "--best=loss:min", cwd=disk
    )
    assert done.code == 0, done.stderr
    assert sound(run_dir) == [6, 7]
    assert done.stdout.count("deleted run/recent/ckpt-") == 5
    assert tasks.steps(run_dir / "best/loss") == [7]
    assert shutil.disk_usage(disk).free > before


def test_on_a_full_disk_the_run_stops_after_the_second_failure(disk):
    with processes.started(*ARGUMENTS, "--steps=100000", cwd=disk) as child:
        child.wait_for(SAVED)
        with halted(child):
            fill(disk, LEFT)
        result = child.finish()
    assert result.code == 1
    assert re.search(f"{FULL} {FAILED_ONCE}", result.stderr), result.stderr
    assert re.fullmatch(f"SaveError: {FULL}", result.stderr.splitlines()[-1])
    assert len(sound(disk / "run")) == 3
    assert_no_debris(disk / "run")


def limit(child, most):
    """The most bytes that a file which the process writes may have; None: any."""
    _, hard = resource.prlimit(child.pid, resource.RLIMIT_FSIZE)
    soft = hard if most is None else most
    resource.prlimit(child.pid, resource.RLIMIT_FSIZE, (soft, hard))


def test_what_may_not_be_written_is_written_when_it_may(project):
    arguments = (*ARGUMENTS, "--steps=100000", "--on_save_error=continue")
    with processes.started(*arguments, cwd=project) as child:
        child.wait_for(SAVED)
        limit(child, MOST)
        child.wait_for(FAILED_TWICE)
        with halted(child):
            held = sound(project / "run")
            limit(child, None)
        child.wait_for(" evaluated", 6)
        child.send(signal.SIGTERM)
        result = child.finish()
    assert result.code == 75, result.stderr
    assert len(held) == 3, "what was saved before is there"
    assert int(re.search(TOO_LARGE, result.stderr)[1]) > held[-1]
    saved = sound(project / "run")
    assert saved[0] > held[-1], "all of them are from when they might be written"
    assert_no_debris(project / "run")


def test_what_may_not_be_written_stops_the_run_after_the_second_failure(project):
    with processes.started(*ARGUMENTS, "--steps=100000", cwd=project) as child:
        child.wait_for(SAVED)
        limit(child, MOST)
        result = child.finish()
    assert result.code == 1
    assert re.search(f"{TOO_LARGE} {FAILED_ONCE}", result.stderr, re.S), result.stderr
    assert re.search(rf"\nSaveError: {TOO_LARGE}\n\Z", result.stderr, re.S)
    assert len(sound(project / "run")) == 3
    assert_no_debris(project / "run")
