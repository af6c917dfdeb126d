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

from trainer.checkpoint import catalog, manifest, retention, upkeep
from trainer.storage import failpoints

HERE = pathlib.Path(__file__).resolve().parent
RULES = (retention.Best("accuracy", "max", 2), retention.Best("loss", "min"))
STRIDE = int(os.environ.get("KEEPSTEP_STRIDE", "7"))
ACCURACY = {1: 0.5, 2: 0.75, 3: 0.25, 4: 0.75, 5: 1.0, 6: 0.0}


def rules(run_dir):
    return upkeep.Upkeep(run_dir=run_dir, keep_recent=2, keep_every_steps=4, best=RULES)


def metrics(step):
    return {"accuracy": ACCURACY[step], "loss": 1 - ACCURACY[step]}


def keep_house(run_dir):
    """What a run does with its directory from where it was, but for training."""
    house = rules(run_dir)
    house.prepare()
    house.settle()
    done = max(manifest.steps(house.recent), default=0)
    for step in [step for step in ACCURACY if step > done]:
        making.checkpoint(house.recent, step, metrics(step))
        house.settle()
    # The last step once more, as when it is evaluated only after a resume.
    making.checkpoint(house.staging, 6, {**metrics(6), "again": 1.0})
    house.settle()


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
    for entry in catalog.scan(run_dir):
        assert entry.manifest is not None, entry.problem
        assert manifest.damage(entry.directory, entry.manifest) is None
        steps[entry.directory.relative_to(run_dir).parts[0]].add(entry.step)
    staged = set(manifest.steps(run_dir / "recent" / "staging"))
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
