"""One writer for one run directory, whatever becomes of the file that names it."""

import errno
import fcntl
import json
import os
import re
import resource
import stat
import subprocess
import sys

import pytest

from trainer.checkpoint import locks

HOLD = """
import pathlib, sys
from trainer.checkpoint import locks
directory = pathlib.Path(sys.argv[1])
with locks.lock(directory, directory / "run.lock"):
    print("held", flush=True)
    sys.stdin.read()
"""


def start(directory):
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", HOLD, str(directory)]
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)


def lock(directory):
    return locks.lock(directory, directory / "run.lock")


def refused(text):
    return pytest.raises(locks.LockedError, match=text)


def test_a_second_writer_is_refused_until_the_first_is_killed(tmp_path):
    path = tmp_path / "run.lock"
    with start(tmp_path) as holder:
        assert holder.stdout.readline() == "held\n"
        place = re.escape(str(tmp_path))
        expected = f"{place} is being written by process {holder.pid} on .*--run_dir"
        for _ in range(2):  # to ask must not wipe out who it is
            with refused(expected), lock(tmp_path):
                pytest.fail("two writers")
        path.unlink()  # as by somebody who takes it for a stale one
        with refused("is being written by another process"), lock(tmp_path):
            pytest.fail("two writers")
        holder.kill()
    with lock(tmp_path):
        assert json.loads(path.read_text())["pid"] == os.getpid()


def test_a_writer_of_an_older_release_is_refused_and_refuses(tmp_path):
    """Releases up to 0.1.0 lock the file and nothing else."""
    path = tmp_path / "run.lock"
    with open(path, "w") as older:
        fcntl.flock(older, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with refused("is being written by another process"), lock(tmp_path):
            pytest.fail("two writers")
    with lock(tmp_path), open(path) as older, pytest.raises(BlockingIOError):
        fcntl.flock(older, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_the_lock_is_free_again_after_an_error(tmp_path):
    with pytest.raises(ZeroDivisionError), lock(tmp_path):
        raise ZeroDivisionError
    with lock(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == ["run.lock"]


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[]", b"null", b'{"pid": 1}'])
def test_a_lock_is_held_whatever_its_file_says(tmp_path, content):
    with lock(tmp_path):
        (tmp_path / "run.lock").write_bytes(content)
        expected = "is being written by another process.*One run directory has one wri"
        with refused(expected), lock(tmp_path):
            pytest.fail("two writers")


def test_a_disk_without_room_for_the_name_of_the_holder_is_locked(tmp_path):
    _, hard = before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        with lock(tmp_path), refused("written by another process"), lock(tmp_path):
            pytest.fail("two writers")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_link_in_the_place_of_the_file_is_not_written_through(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "run/run.lock").symlink_to(tmp_path / "mine")
    with lock(tmp_path / "run"), refused("is being written"), lock(tmp_path / "run"):
        pytest.fail("two writers")
    assert (tmp_path / "mine").read_text() == "mine"


@pytest.mark.parametrize("directories_too", [False, True])
def test_a_file_system_without_locks_is_noticed(tmp_path, monkeypatch, directories_too):
    """NFS has none on directories; there the file is locked in its place."""
    really = fcntl.flock

    def flock(descriptor, operation):
        if directories_too or os.fstat(descriptor).st_mode & stat.S_IFDIR:
            raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
        really(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    if directories_too:
        text = "is on a file system without locks, so two runs could.*Give a --run_dir"
        with pytest.raises(OSError, match=text), lock(tmp_path):
            pytest.fail("nothing holds it")
    else:
        with lock(tmp_path), refused("written by process"), lock(tmp_path):
            pytest.fail("two writers")
