"""Runs `run.py`, and scripts, as users do: as a process of its own.

result = processes.run("list", "--run_dir=run", cwd=tmp_path)
with processes.started("--task=digits", cwd=tmp_path) as child:
    child.wait_for("evaluated")
    child.send(signal.SIGKILL)
    result = child.finish()
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import os
import pathlib
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any

import forking
import pytest

from trainer.commands import cli
from trainer.exporting import roundtrip
from trainer.inspection import proof

PROJECT = forking.PROGRAM.parent
DIGITS = f"--flagfile={PROJECT / 'models' / 'digits.flags'}"
PATIENCE_SECS = 600  # a busy machine is no error


@dataclasses.dataclass(frozen=True)
class Result:
    """How a process ended; a signal is a negative code."""

    code: int
    stdout: str
    stderr: str


def run(
    *arguments: str,
    cwd: pathlib.Path,
    python: Sequence[str] = (),
    **environment: str,
) -> Result:
    """Runs `run.py` to its end.

    Args:
      arguments: of `run.py`.
      cwd: the directory that it runs in.
      python: options of the interpreter.
      **environment: what is added to its environment.
    """
    whole = {**os.environ, **environment}
    if python or _of_interpreter(whole) != _OURS:
        command = [sys.executable, *python, str(forking.PROGRAM), *arguments]
        done = subprocess.run(
            command,
            cwd=cwd,
            env=whole,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECS,
            check=False,
        )
        return Result(done.returncode, done.stdout, done.stderr)
    return _forked([str(forking.PROGRAM), *arguments], cwd, whole)


def script(*arguments: object, cwd: pathlib.Path, **environment: str) -> Result:
    """Runs a script, or `-c` and code, to its end.

    Args:
      arguments: what an interpreter would be given; no options but `-c`.
      cwd: the directory that it runs in.
      **environment: what is added to its environment.
    """
    return _forked(list(map(str, arguments)), cwd, {**os.environ, **environment})


def _forked(line: Sequence[str], cwd: pathlib.Path, whole: Mapping[str, str]) -> Result:
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = forking.Process(line, cwd, stdout=out, stderr=err, environment=whole)
        try:
            code = process.wait(PATIENCE_SECS)
        finally:
            process.kill()
        out.seek(0)
        err.seek(0)
        return Result(code, out.read(), err.read())


def prove(*arguments: object, cwd: pathlib.Path) -> Result:
    """The command `prove`, here; what it starts and kills are forks in `cwd`."""

    def start(command: Sequence[str], *, env: Mapping[str, str], **files: Any) -> Any:
        assert command[1:3] == [forking.PROGRAM.name, "train"]
        line = [forking.PROGRAM, *command[2:]]
        return forking.Process(line, cwd, environment=env, **files)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(proof, "prove", functools.partial(proof.prove, start=start))
        return call("prove", *arguments)


@contextlib.contextmanager
def forked_reloads() -> Iterator[None]:
    """Exports are loaded back in forks meanwhile: that spares imports of TensorFlow.

    A fork knows as little of the project as a fresh interpreter. Those are started in
    test_export.py and wherever `export` is itself a process.
    """

    def fresh(
        code: str, argument: str, environment: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        line = ["-c", code, argument]
        done = _forked(line, pathlib.Path.cwd(), environment)
        return subprocess.CompletedProcess(line, done.code, done.stdout, done.stderr)

    real, roundtrip.fresh = roundtrip.fresh, fresh
    try:
        yield
    finally:
        roundtrip.fresh = real


def _of_interpreter(environment: Mapping[str, str]) -> dict[str, str]:
    """What an interpreter and its libraries read of the environment at their start."""
    # Not TF_CPP_*: a command in this process sets how much is logged.
    names = ("PYTHON", "LC_", "LANG", "TF_ENABLE_", "TF_XLA_", "KERAS_", "CUDA_")
    return {
        key: one
        for key, one in environment.items()
        if key.startswith(names) and key != "PYTHONPATH"  # a fork reads it, too
    }


_OURS = _of_interpreter(os.environ)


def call(*arguments: object) -> Result:
    """A command in this very process, which has TensorFlow already."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main(["run.py", *map(str, arguments)], package="models")
    return Result(code, out.getvalue(), err.getvalue())


class Child:
    """A running `run.py`. Its log is read all the while, so it never waits for us."""

    def __init__(
        self, process: forking.Process, stdout: IO[str], stderr: IO[str]
    ) -> None:
        self._process = process
        self._stdout = stdout
        self._stderr = stderr
        self._log: list[str] = []
        self._unseen: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_for(self, text: str, count: int = 1) -> None:
        """Returns when `text` was in `count` more lines of the log."""
        while count:
            line = self._unseen.get(timeout=PATIENCE_SECS)
            if line is None:
                raise AssertionError(
                    f"it ended without {text!r}:\n{''.join(self._log)}"
                )
            count -= text in line

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def finish(self) -> Result:
        """Waits for its end."""
        code = self._process.wait(PATIENCE_SECS)
        self._reader.join(timeout=PATIENCE_SECS)
        self._stdout.seek(0)
        return Result(code, self._stdout.read(), "".join(self._log))

    def _read(self) -> None:
        for line in self._stderr:
            self._log.append(line)
            self._unseen.put(line)
        self._unseen.put(None)


@contextlib.contextmanager
def started(*arguments: str, cwd: pathlib.Path) -> Iterator[Child]:
    """Starts `run.py`; kills it if it is still there in the end."""
    reading, writing = os.pipe()
    with tempfile.TemporaryFile("w+") as stdout, open(reading) as stderr:
        with open(writing, "w") as log:
            process = forking.Process(
                [str(forking.PROGRAM), *arguments],
                cwd,
                stdout=stdout,
                stderr=log,
                environment=os.environ,
            )
        child = Child(process, stdout, stderr)
        try:
            yield child
        finally:
            process.kill()
            child.finish()
