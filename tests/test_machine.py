"""The bits depend on the threads per op, not on the cores; the rest is told."""

import contextlib
import json
import os
import shutil

import processes
import pytest

from trainer.checkpoint import environment
from trainer.storage import checked_json

STEPS = ("--steps=6", "--save_every_steps=3", "--evaluate_every_steps=3")


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """Digits with two threads on one core."""
    cwd = tmp_path_factory.mktemp("machine")
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("this machine has one core: nothing to compare")
    line = [processes.DIGITS, *STEPS, "--threads=2", "--run_dir=one"]
    with one_core():
        result = processes.run(*line, cwd=cwd)
    assert result.code == 0, result.stderr
    return cwd / "one"


@contextlib.contextmanager
def one_core():
    """Processes that are started meanwhile have one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def test_on_all_cores_the_bits_are_the_same(run_dir):
    line = [processes.DIGITS, *STEPS, "--threads=2", "--run_dir=all"]
    result = processes.run(*line, cwd=run_dir.parent)
    assert result.code == 0, result.stderr
    for step in (3, 6):
        command = ["diff", "--checkpoint", run_dir / f"recent/ckpt-{step}"]
        command += ["--against", run_dir.parent / f"all/recent/ckpt-{step}"]
        told = processes.call(*command, f"--run_dir={run_dir}")
        assert "are equal, bit for bit" in told.stdout, told.stdout


def test_a_run_keeps_its_threads_wherever_it_goes_on(run_dir, tmp_path):
    shutil.copytree(run_dir, tmp_path / "one")
    refused = processes.run(
        processes.DIGITS, "--run_dir=one", "--threads=1", *STEPS, cwd=tmp_path
    )
    assert refused.code == 2
    assert "threads: 2 there, 1 here" in refused.stderr
    with one_core():
        resumed = processes.run(
            processes.DIGITS, "--run_dir=one", "--steps=9", cwd=tmp_path
        )
    assert resumed.code == 0, resumed.stderr
    manifest = json.loads((tmp_path / "one/recent/ckpt-9.json").read_text())
    assert manifest["machine"]["threads"] == "2"


@pytest.fixture
def elsewhere(run_dir, tmp_path):
    """The run as another machine would have left it."""
    shutil.copytree(run_dir, tmp_path / "one")
    for path in (tmp_path / "one").glob("*/**/ckpt-*.json"):
        body = json.loads(path.read_text())
        body["machine"]["cpu"] = "Another CPU"
        body["versions"]["keras"] = "3.0.0"
        del body[checked_json.DIGEST]
        checked_json.write(path, body)
    return tmp_path


def test_another_machine_is_told_once_and_recorded(elsewhere):
    line = [processes.DIGITS, "--run_dir=one", "--steps=9"]
    result = processes.run(*line, cwd=elsewhere)
    assert result.code == 0, result.stderr
    assert "the machine is not the one that saved step 6:" in result.stderr
    assert f"cpu: Another CPU then, {environment.machine()['cpu']} now" in result.stderr
    changes = json.loads((elsewhere / "one/config.json").read_text())["changes"]
    told = next(one["machine"] for one in changes if "machine" in one)
    assert told["cpu"][0] == "Another CPU"
    assert told["keras"][0] == "3.0.0"
    again = processes.run(*line, cwd=elsewhere)
    assert "the machine is not" not in again.stderr


def test_another_machine_may_be_refused(elsewhere):
    line = [processes.DIGITS, "--run_dir=one", "--steps=9", "--require_same_machine"]
    result = processes.run(*line, cwd=elsewhere)
    assert result.code == 2
    assert "The same bits need the same one (--require_same_machine)" in result.stderr


def test_what_is_compared_can_be_told():
    assert environment.machine().keys() >= {"cpu", "threads", "onednn", "devices"}
    assert environment.differences({}, {}) == {}
    now = environment.versions()
    assert environment.differences({**now, "numpy": "0"}, {})["numpy"][0] == "0"
