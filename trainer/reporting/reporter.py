"""Everything that a run says: TensorBoard scalars, log lines, a progress bar.

The scalars of training and of evaluation have the same tags, so TensorBoard lays them
over each other. Only what lies under `speed/` and `checkpoint/` depends on the clock.
"""

from __future__ import annotations

import contextlib
import pathlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import xxhash
from absl import logging

from trainer.reporting import event_file
from trainer.reporting.progress_bar import ProgressBar, duration

TRAIN, EVAL = "train", "eval"
_SECS_BETWEEN_LINES = 5.0


@final
class Reporter:
    """Says what happens in a run. A context manager: the bar lives inside it.

    Args:
      directory: for the event files; made at the first scalar.
      progress: `bar`, `lines`, `none`, or `auto` for a bar on a terminal, else lines.
      total_steps: where the run ends.
      batch_size: for examples a second.
      clock: seconds, from any origin.
    """

    def __init__(
        self,
        directory: pathlib.Path,
        *,
        progress: str,
        total_steps: int,
        batch_size: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if progress == "auto":
            progress = "bar" if sys.stderr.isatty() else "lines"
        self._directory = directory
        self._style = progress
        self._total_steps = total_steps
        self._batch_size = batch_size
        self._clock = clock
        self._files = {
            kind: event_file.EventFile(directory / kind) for kind in (TRAIN, EVAL)
        }
        self._exit = contextlib.ExitStack()
        self._bar: ProgressBar | None = None
        self._last_line = -_SECS_BETWEEN_LINES
        self._mark = (0, 0.0)
        self._best = ""

    def __enter__(self) -> Reporter:
        return self

    def __exit__(self, *exception: object) -> None:
        self._exit.close()
        self.close()

    def close(self) -> None:
        """Closes the event files; the next scalar begins new ones."""
        for file in self._files.values():
            with contextlib.suppress(OSError):
                file.flush()
            file.close()

    def begin(self, step: int) -> None:
        """Training goes on from `step`: the clock of the rates starts here."""
        self._mark = (step, self._clock())
        if self._style == "bar":
            bar = ProgressBar(self._total_steps, step=step, clock=self._clock)
            self._bar = self._exit.enter_context(bar)

    def describe(
        self, hyperparameters: Mapping[str, Any], flags: str, *, kind: str
    ) -> None:
        """Writes the hyperparameters and the flags of the run, once per run.

        TensorBoard's table of hyperparameters shows beside them the metrics of `kind`,
        in a row of the run's own: not even one with the same choices shares it.

        Args:
          hyperparameters: all choices that the numbers depend on; a column each.
          flags: repeat the run elsewhere.
          kind: `TRAIN` or `EVAL`.
        """
        place = self._directory.resolve()
        trial = xxhash.xxh3_128_hexdigest(f"{place}\n{flags}".encode())
        table = event_file.hyperparameters(hyperparameters, trial=trial)
        text = event_file.text("flags", "```\n" + flags + "```")
        self._write(kind, 0, [*table, text])

    def train(
        self, step: int, means: Mapping[str, float], more: Mapping[str, float]
    ) -> dict[str, float]:
        """Training values since the last report, and more that only curves show.

        Returns:
          All scalars, by tag.
        """
        steps_per_sec = self._steps_per_sec(step)
        speeds = {
            "speed/steps_per_sec": steps_per_sec,
            "speed/examples_per_sec": steps_per_sec * self._batch_size,
        }
        scalars = {**means, **more, **speeds}
        self._scalars(TRAIN, step, scalars)
        now = self._clock()
        if self._style == "lines" and now - self._last_line >= _SECS_BETWEEN_LINES:
            self._last_line = now
            left = (self._total_steps - step) / steps_per_sec if steps_per_sec else 0
            logging.info(
                "step %d of %d: %s; %.0f steps/s, %s to go",
                step,
                self._total_steps,
                _listed(means),
                steps_per_sec,
                duration(left),
            )
        if self._bar is not None:
            self._bar.show(values=means)
        return scalars

    def evaluation(
        self, step: int, metrics: Mapping[str, float], best: Mapping[str, Any]
    ) -> None:
        """The metrics of an evaluation, and the best values so far with their steps."""
        bests = {f"best/{name}": record["value"] for name, record in best.items()}
        self._scalars(EVAL, step, {**metrics, **bests})
        self._best = "; ".join(
            f"best {name} {record['value']:.4f} at step {record['step']}"
            for name, record in best.items()
        )
        if self._style == "lines":
            logging.info(
                "step %d evaluated: %s; %s", step, _listed(metrics), self._best
            )
        if self._bar is not None:
            found = {name: (one["value"], one["step"]) for name, one in best.items()}
            self._bar.show(values=metrics, best=found)

    def figures(self, step: int, shown: Mapping[str, Any]) -> None:
        """What a task shows of an evaluation, by name.

        Images (uint8 `[H, W, C]`), texts, numbers and `figures.Histogram`s.
        """
        drawn = [event_file.shown(name, one) for name, one in shown.items()]
        self._write(EVAL, step, drawn)

    def advance(self, step: int) -> None:
        """Training has come to `step`."""
        if self._bar is not None:
            self._bar.advance(step)

    def restart_clock(self, step: int) -> None:
        """What happened since the last step was not training."""
        self._mark = (step, self._clock())
        if self._bar is not None:
            self._bar.restart_clock(step)

    def saved(self, step: int, costs: Mapping[str, float]) -> None:
        """What the save of `step` cost."""
        costs = {f"checkpoint/{name}": value for name, value in costs.items()}
        self._scalars(TRAIN, step, costs)

    def flush(self) -> None:
        """Hands all scalars to the operating system; call it before each save.

        Raises:
          OSError: it can't; nothing is forgotten.
        """
        for file in self._files.values():
            file.flush()

    def _steps_per_sec(self, step: int) -> float:
        last, then = self._mark
        self._mark = (step, self._clock())
        return (step - last) / max(self._mark[1] - then, 1e-9)

    def _scalars(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        scalars = [event_file.scalar(tag, value) for tag, value in values.items()]
        self._write(kind, step, scalars)

    def _write(self, kind: str, step: int, values: Sequence[Any]) -> None:
        if not values:
            return
        self._files[kind].add(step, values)
        try:
            self._files[kind].flush()
        except OSError as error:  # a save asks again, and does not succeed without
            logging.log_first_n(
                logging.ERROR, "scalars wait until they can be written: %s", 1, error
            )


def _listed(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in values.items())
