"""Ready hooks: a CSV file of each curve, and a command after each commit.

    >>> import pathlib, trainer
    >>> from line import Line
    >>> from trainer import hooks
    >>> choices = {"steps": 4, "report_every_steps": 2, "progress": "none"}
    >>> _ = trainer.train(Line(), "runs/new", hooks=[hooks.Csv()], **choices)
    >>> print(pathlib.Path("runs/new/train.csv").read_text())
    step,gradient_norm,learning_rate,loss
    2,...
    4,...

On the command line: `--hook=csv`, `--hook="command(rsync -a {path}.* host:)"`. No
TensorFlow.
"""

from __future__ import annotations

import pathlib
import queue
import shlex
import subprocess
import threading
from collections.abc import Mapping
from typing import Any, final

from absl import logging

from trainer.base.errors import KeepstepError
from trainer.reporting.csv_file import CsvFile
from trainer.reporting.hook import Hook

__all__ = ["READY", "Command", "Csv", "Hook", "HookError"]

_CLOCK = "speed/"


class HookError(KeepstepError, RuntimeError):
    """A ready hook could not do its work."""


@final
class Csv(Hook):
    """Writes `train.csv`, a row per report, and `eval.csv`, a row per evaluation.

        >>> import pathlib
        >>> from trainer import hooks
        >>> csv = hooks.Csv("runs/tables")
        >>> csv.on_begin(0, None)
        >>> csv.on_evaluation(5, {"loss": 0.5, "accuracy": 0.75})
        >>> csv.on_end(None)
        >>> print(pathlib.Path("runs/tables/eval.csv").read_text())
        step,accuracy,loss
        5,0.75,0.5

    Each step stands there once, and the files are the same, byte for byte, however
    often the run was killed: rows of steps that are trained once more are cut away.
    What depends on the clock is not written.

    Args:
      directory: for the files; the run directory, if not given.
    """

    def __init__(self, directory: str = "") -> None:
        self._directory = directory
        self._files: dict[str, CsvFile] = {}

    def on_begin(self, step: int, run_dir: pathlib.Path) -> None:
        """Cuts away what was written of later steps."""
        home = pathlib.Path(self._directory or run_dir)
        if not self._files:
            self._files = {
                name: CsvFile(home / name) for name in ("train.csv", "eval.csv")
            }
        for file in self._files.values():
            file.cut(step)

    def on_report(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes a row."""
        row = {k: v for k, v in scalars.items() if not k.startswith(_CLOCK)}
        self._files["train.csv"].write(step, row)

    def on_evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        """Writes a row."""
        self._files["eval.csv"].write(step, metrics)

    def on_end(self, outcome: Any) -> None:
        """Writes what could not be written before."""
        del outcome
        for file in self._files.values():
            file.close()


@final
class Command(Hook):
    """Runs a command after each commit, beside the training.

        >>> import pathlib
        >>> from trainer import hooks
        >>> told = hooks.Command("echo {step} {path} >> told.txt")
        >>> told.on_begin(0, pathlib.Path("runs/line"))
        >>> told.on_commit(30, pathlib.Path("runs/line/recent/ckpt-30"))
        >>> told.on_end(None)                          # waits for it
        >>> print(pathlib.Path("told.txt").read_text())
        30 runs/line/recent/ckpt-30

    They run one at a time, in the order of the commits. A checkpoint that is no longer
    kept when its turn comes is passed over; the end of the run waits for the rest.

    Args:
      line: for `sh`. In it, `{path}`, `{step}` and `{run_dir}` are replaced, quoted as
        the shell needs it; the files of a checkpoint are `{path}.*`.
    """

    def __init__(self, line: str) -> None:
        if not line.strip():
            raise HookError(
                "command() has nothing to run. Expected a line for the shell, such as "
                '--hook="command(rsync -a {path}.* host:)".'
            )
        self._line = line
        self._run_dir = pathlib.Path()
        self._waiting: queue.SimpleQueue[tuple[int, pathlib.Path] | None]
        self._waiting = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._runs = 0
        self._failures: list[str] = []

    def on_begin(self, step: int, run_dir: pathlib.Path) -> None:
        """Remembers which run it is."""
        self._run_dir = run_dir

    def on_commit(self, step: int, path: pathlib.Path) -> None:
        """Has the command run, in its turn."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, daemon=True)
            self._thread.start()
        self._waiting.put((step, path))

    def on_end(self, outcome: Any) -> None:
        """Waits for the commands that are left.

        Raises:
          HookError: some have failed.
        """
        del outcome
        if self._thread is not None:
            self._waiting.put(None)
            self._thread.join()
            self._thread = None
        failures, self._failures = self._failures, []
        if failures:
            raise HookError(
                f"{len(failures)} of {self._runs} commands failed, the first one "
                f"{failures[0]}"
            )

    def _work(self) -> None:
        while (commit := self._waiting.get()) is not None:
            step, path = commit
            if not path.with_name(f"{path.name}.json").exists():
                logging.info("step %d is no longer kept, so no command is run", step)
                continue
            self._runs += 1
            try:
                problem = self._run(step, path)
            except OSError as error:
                problem = f"could not be started: {error}"
            if problem:
                if not self._failures:
                    logging.error(
                        "the command for step %d %s. Further failures are counted, "
                        "and told at the end.",
                        step,
                        problem,
                    )
                self._failures.append(f"for step {step}: it {problem}")

    def _run(self, step: int, path: pathlib.Path) -> str:
        """What is wrong with how it ended, or nothing."""
        line = self._line
        known = {"path": path, "step": step, "run_dir": self._run_dir}
        for name, value in known.items():
            line = line.replace(f"{{{name}}}", shlex.quote(str(value)))
        done = subprocess.run(
            ["/bin/sh", "-c", line],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
            start_new_session=True,  # Ctrl-C is for the training, which ends in peace
        )
        if not done.returncode:
            return ""
        last = done.stdout.strip().rpartition("\n")[2]
        return f"ended with exit code {done.returncode}: {last or 'it said nothing'}"


READY: Mapping[str, type[Hook]] = {"csv": Csv, "command": Command}
