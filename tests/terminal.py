"""Runs `run.py` on a terminal of its own, of a chosen width.

screen = terminal.run("list", "--run_dir=run", cwd=tmp_path, columns=80)
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import pathlib
import pty
import re
import struct
import subprocess
import sys
import termios

import processes

_SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclasses.dataclass(frozen=True)
class Screen:
    """What a terminal was sent.

    Attributes:
      code: of the process.
      raw: all of it.
    """

    code: int
    raw: str

    @property
    def lines(self) -> list[str]:
        """Every line that was ever drawn, without what moves the cursor."""
        text = _SEQUENCE.sub("", self.raw)
        return [line for line in re.split(r"[\r\n]+", text) if line.strip()]


def run(*arguments: object, cwd: pathlib.Path, columns: int = 80) -> Screen:
    """Runs `run.py` to its end; stdout and stderr are the terminal."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
    environment |= {"TERM": "xterm", "PYTHONUTF8": "1"}
    command = [sys.executable, str(processes.PROJECT / "run.py"), *map(str, arguments)]
    with subprocess.Popen(
        command,
        cwd=cwd,
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env=environment,
    ) as process:
        os.close(follower)
        parts = []
        with contextlib.suppress(OSError):  # so ends what a terminal says on Linux
            while part := os.read(leader, 1 << 16):
                parts.append(part)
        process.wait(timeout=processes.PATIENCE_SECS)
    os.close(leader)
    return Screen(process.returncode, b"".join(parts).decode())
