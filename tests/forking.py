"""Processes of `run.py` that need not import TensorFlow first.

A server imports the libraries once, and nothing of the project. Asked for a process it
forks: that child has its own directory, environment and files, and runs `run.py` from
its first line. It can be killed, and ends with an exit code or a signal, as any other.
Half of what a short command costs is that import.

    files = {"stdout": out, "stderr": err}
    process = forking.Process(["list"], cwd, environment=os.environ, **files)
    process.wait(timeout=60)
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import json
import os
import pathlib
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile

PROGRAM = pathlib.Path(__file__).resolve().parents[1] / "run.py"
_MOST_BYTES = 1 << 20


class Process:
    """A running `run.py`.

    Attributes:
      pid: of the process.
      returncode: its exit code, a signal as a negative one; None: it runs.
    """

    def __init__(self, arguments, cwd, *, stdout, stderr, environment):
        request = {
            "arguments": list(arguments),
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
    """Returns in each process that is to run `run.py`, and nowhere else."""
    import keras  # noqa: F401
    import tensorflow  # noqa: F401

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
    os.environ.clear()
    os.environ.update(request["environment"])
    tempfile.tempdir = None  # TMPDIR may be another one
    sys.argv = [str(PROGRAM), *request["arguments"]]
    sys.path[0] = str(PROGRAM.parent)
    runpy.run_path(str(PROGRAM), run_name="__main__")


if __name__ == "__main__":
    _become(*_serve(sys.argv[1]))
