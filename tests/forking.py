"""Processes of Python that need not import TensorFlow first.

A server imports the libraries once, and nothing of the project. Asked for a process it
forks: that child has its own directory, environment and files, and runs a script, or
the code behind `-c`, from its first line. It can be killed, and ends with an exit code
or a signal, as any other. Half of what a short command costs is that import.

    files = {"stdout": out, "stderr": err}
    line = [forking.PROGRAM, "list"]
    process = forking.Process(line, cwd, environment=os.environ, **files)
    process.wait(timeout=60)
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import pathlib
import py_compile
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import types

PROGRAM = pathlib.Path(__file__).resolve().parents[1] / "run.py"
# Of others, as a run imports them.
_LIBRARIES = (
    "keras",
    "tensorflow",
    "PIL.ImageDraw",
    "PIL.ImageFont",
    "rich.live",
    "tensorboard.backend.event_processing.event_accumulator",
    "tensorboard.plugins.hparams.api",
    "tensorboard.plugins.image.metadata",
    "tensorboard.plugins.text.metadata",
    "tensorboard.summary.writer.record_writer",
    "xxhash",
)
_MOST_BYTES = 1 << 20


class Process:
    """A running process.

    Args:
      arguments: what an interpreter would be given: a script and its arguments, or
        `-c`, code, and its arguments.
      cwd: the directory that it runs in.
      stdout, stderr: open files.
      environment: all of it.

    Attributes:
      pid: of the process.
      returncode: its exit code, a signal as a negative one; None: it runs.
    """

    def __init__(self, arguments, cwd, *, stdout, stderr, environment):
        request = {
            "arguments": list(map(str, arguments)),
            "cwd": str(cwd),
            "environment": dict(environment),
        }
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(_address())
        files = [stdout.fileno(), stderr.fileno()]
        socket.send_fds(self._connection, [json.dumps(request).encode()], files)
        self._answers = b""
        self.pid = self._answer(None)
        self.returncode = None

    def send_signal(self, number):
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self):
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            self.send_signal(signal.SIGKILL)

    def wait(self, timeout=None):
        """The exit code; `subprocess.TimeoutExpired` if it is still there by then."""
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(self._answer(timeout))
            self._connection.close()
        return self.returncode

    def _answer(self, timeout):
        while b"\n" not in self._answers:
            if not select.select([self._connection], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(str(PROGRAM), timeout)
            self._answers += self._connection.recv(64)
        line, _, self._answers = self._answers.partition(b"\n")
        return int(line)


@functools.cache
def _address():
    """Where the server of this process listens; it ends with this process."""
    directory = tempfile.TemporaryDirectory()
    address = str(pathlib.Path(directory.name, "server"))
    server = subprocess.Popen(
        [sys.executable, __file__, address],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )

    def end():
        server.kill()
        server.wait()
        server.stdout.close()
        directory.cleanup()

    atexit.register(end)
    assert server.stdout.readline() == b"ready\n"
    return address


def _serve(address):
    """Returns in each process that is to run something, and nowhere else."""
    for name in _LIBRARIES:
        importlib.import_module(name)
    if sys.dont_write_bytecode:  # each process would compile the whole project
        _compile(pathlib.Path(address).parent / "bytecode")
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forks
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen(16)
        print("ready", flush=True)
        while True:
            connection, _ = listener.accept()
            if not os.fork():
                listener.close()
                return _fork(connection)
            connection.close()


def _compile(directory):
    """Compiles the project, for the processes to come."""
    sys.pycache_prefix = str(directory)
    for folder in ("trainer", "models"):
        for path in (PROGRAM.parent / folder).rglob("*.py"):
            py_compile.compile(str(path), doraise=True)


def _fork(connection):
    """A process that waits for another one and tells how it ended; returns in that."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    message, files, _, _ = socket.recv_fds(connection, _MOST_BYTES, 2)
    pid = os.fork()
    if not pid:
        connection.close()
        return json.loads(message), files
    for file in files:
        os.close(file)
    connection.sendall(f"{pid}\n".encode())
    _, status = os.waitpid(pid, 0)
    connection.sendall(f"{status}\n".encode())
    os._exit(0)


def _become(request, files):
    os.dup2(files[0], 1)
    os.dup2(files[1], 2)
    for file in files:
        os.close(file)
    os.chdir(request["cwd"])
    ours = _python_path()
    os.environ.clear()
    os.environ.update(request["environment"])
    tempfile.tempdir = None  # TMPDIR may be another one
    sys.path[1:] = _python_path() + [one for one in sys.path[1:] if one not in ours]
    first, *rest = request["arguments"]
    if first == "-c":
        sys.path[0], sys.argv = "", [first, *rest[1:]]
        module = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(rest[0], "<string>", "exec"), module.__dict__)
    else:
        sys.path[0], sys.argv = str(pathlib.Path(first).resolve().parent), [first]
        sys.argv += rest
        runpy.run_path(first, run_name="__main__")


def _python_path():
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return [one for one in given if one]


if __name__ == "__main__":
    _become(*_serve(sys.argv[1]))
