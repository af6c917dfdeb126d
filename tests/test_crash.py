"""Killed at every file operation of commit, promotion and pruning, nothing is lost.

The matrix kills a process that keeps house without TensorFlow, so that each kill takes
a fraction of a second; `prove` and test_run.py kill whole runs. `KEEPSTEP_STRIDE=1`
in the environment takes every operation instead of a sample.
"""

import itertools
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys

import making
import pytest

from trainer.checkpoint import catalog, layout, manifest
from trainer.checkpoint.catalog import Entry
from trainer.checkpoint.layout import RunDirectory
from trainer.checkpoint.retention import Best, Rules
from trainer.checkpoint.upkeep import Upkeep
from trainer.storage import failpoints, files

HERE = pathlib.Path(__file__).resolve().parent
BEST = (Best("accuracy", "max", 2), Best("loss", "min"))
RULES = Rules(keep_recent=2, keep_every_steps=4, best=BEST)
STRIDE = int(os.environ.get("KEEPSTEP_STRIDE", "7"))
ACCURACY = {1: 0.5, 2: 0.75, 3: 0.25, 4: 0.75, 5: 1.0, 6: 0.0}


def metrics(step):
    return {"accuracy": ACCURACY[step], "loss": 1 - ACCURACY[step]}


def save(house, directory, step, metrics, **changes):
    """As a store does, the values aside."""
    files.make_directory(directory)
    partial = layout.marker(directory, step, layout.PARTIAL)
    files.touch(partial)
    mark = making.checkpoint(directory, step, metrics, **changes)
    files.delete(partial)
    house.added(Entry(directory, step, mark))
    house.settle()


def keep_house(run_dir):
    """All that a run does with its directory, from where it was, except training."""
    directory = RunDirectory(run_dir)
    house = Upkeep(directory, RULES)
    assert house.prepare() == {}, "nothing is ever left without a mark"
    house.settle()
    done = max(layout.steps(directory.recent), default=0)
    for step in [step for step in ACCURACY if step > done]:
        save(house, directory.recent, step, metrics(step))
    # The last step once more, as when it is evaluated only after a resume.
    again = {**metrics(6), "again": 1.0}
    save(house, directory.staging, 6, again, created=1.8e9)


def start(run_dir, point):
    code = (
        "import sys, pathlib, test_crash as t; t.keep_house(pathlib.Path(sys.argv[1]))"
    )
    environment = {
        **os.environ,
        failpoints.VARIABLE: point,
        "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)]),
    }
    command = [sys.executable, "-c", code, str(run_dir)]
    return subprocess.run(command, env=environment, check=False).returncode


def contents(run_dir):
    """Every file with its bytes."""
    return {
        path.relative_to(run_dir).as_posix(): path.read_bytes()
        for path in sorted(run_dir.rglob("*"))
        if path.is_file()
    }


def check_nothing_is_lost(run_dir):
    """At the instant of the kill, before anything is mended."""
    steps = {"recent": set(), "best": set()}
    for entry in catalog.scan(RunDirectory(run_dir)).entries:
        assert entry.manifest is not None, entry.problem
        assert manifest.damage(entry.directory, entry.manifest) is None
        steps[entry.directory.relative_to(run_dir).parts[0]].add(entry.step)
    staged = set(layout.steps(run_dir / "recent" / "staging"))
    if steps["best"]:
        assert steps["recent"] | staged
    if (steps["recent"] | staged) - {1}:
        # Each step was promoted before the next one was saved.
        assert steps["best"]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("straight") / "run"
    assert start(run_dir, "") == 0
    return contents(run_dir)


def test_a_kill_at_any_file_operation_loses_nothing_and_leaves_no_debris(
    tmp_path, uninterrupted
):
    run_dir = tmp_path / "run"
    for number in itertools.count(1, STRIDE):
        code = start(run_dir, f"storage@{number}")
        check_nothing_is_lost(run_dir)
        if code == 0:
            break
        assert code == -signal.SIGKILL
        assert start(run_dir, "") == 0
        assert contents(run_dir) == uninterrupted
        shutil.rmtree(run_dir)
    assert number > 100


def test_kill_after_kill_it_gets_there(tmp_path, uninterrupted):
    run_dir = tmp_path / "run"
    chance = random.Random(0)
    kills = 0
    while start(run_dir, f"storage@{chance.randint(8, 40)}") == -signal.SIGKILL:
        kills += 1
        check_nothing_is_lost(run_dir)
    assert kills > 3
    assert contents(run_dir) == uninterrupted
