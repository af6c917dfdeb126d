"""One line on a terminal: position, rate, time to go, the best, and a bar.

    >>> from trainer.reporting import progress_bar
    >>> with progress_bar.ProgressBar(1200, step=0) as bar:
    ...     bar.advance(40)
    ...     bar.show(values={"loss": 0.5}, best={"accuracy": (0.9, 20)})
    >>> line = progress_bar.Line(40, 1200, 20.0, {"loss": 0.5}, {"accuracy": (0.9, 20)})
    >>> line.fitted(50)
    '  40/1200  20/s  0:00:58  best accuracy 0.9000'

The line never wraps: where the terminal is narrow, the least important parts go first.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, final

import rich.console
import rich.live
from rich.cells import cell_len
from rich.text import Text

from trainer.reporting.plain_text import plain

_WINDOW_SECS = 30.0
_WIDE, _SHORT = 24, 10  # cells of the bar itself
_DRAWN, _ASCII = ("━", "─"), ("#", "-")  # what is done, what is left
_MARK_SECS = 0.25


@dataclasses.dataclass(frozen=True)
class Line:
    """What the line says.

    Attributes:
      step: of the run.
      total: its last step.
      steps_per_sec: of late; 0 if that isn't known yet.
      values: of the last report, by name.
      best: by metric the best value and its step, the one that counts first.
      signs: of the bar, for what is done and what is left.
    """

    step: int
    total: int
    steps_per_sec: float
    values: Mapping[str, float]
    best: Mapping[str, tuple[float, int]]
    signs: tuple[str, str] = _DRAWN

    def fitted(self, width: int) -> str:
        """The richest text of at most `width` cells."""
        for parts in self._variants():
            text = "  ".join(part for part in parts if part)
            if cell_len(text) <= width:
                return text
        return f"{self.step}"[:width]

    def _variants(self) -> Iterator[tuple[str, ...]]:
        """From the richest to the poorest; each gives up what matters least."""
        place = f"{self.step:>{len(str(self.total))}}/{self.total}"
        rate, brief = self._rate(" steps"), self._rate("")
        left = self._left()
        to_go = f"{left} to go"
        long, one, short = self._bests()
        values = [f"{plain(k)} {v:.4f}" for k, v in self.values.items()]
        wide, narrow = self._bar(_WIDE), self._bar(_SHORT)
        every, first = ", ".join(values), "".join(values[:1])
        yield wide, place, rate, to_go, every, long
        yield narrow, place, rate, to_go, every, long
        yield narrow, place, rate, to_go, first, long
        yield narrow, place, rate, to_go, first, one
        yield narrow, place, rate, to_go, one
        yield narrow, place, rate, to_go, short
        yield place, rate, to_go, short
        yield place, rate, left, short
        yield place, brief, left, short
        bare = short.rpartition(" ")[2]
        yield place, brief, left, f"best {bare}" if bare else ""
        yield place, brief, left
        yield place, left
        yield (place,)

    def _bests(self) -> tuple[str, str, str]:
        """All of the best, the first of them, and that without its step."""
        texts = [
            (f"best {plain(name)} {value:.4f}", f" at step {step}")
            for name, (value, step) in self.best.items()
        ]
        if not texts:
            return "", "", ""
        first = texts[0]
        return "; ".join(map("".join, texts)), "".join(first), first[0]

    def _rate(self, unit: str) -> str:
        rate = self.steps_per_sec
        if rate <= 0:
            return ""
        if rate < 0.5:
            return f"{1 / rate:.1f} s/step"
        digits = 0 if rate >= 10 else 1
        return f"{rate:.{digits}f}{unit}/s"

    def _left(self) -> str:
        if self.steps_per_sec <= 0:
            return "-:--:--"
        secs = (self.total - self.step) / self.steps_per_sec
        return duration(secs)

    def _bar(self, width: int) -> str:
        full = int(width * min(self.step / max(self.total, 1), 1.0))
        return self.signs[0] * full + self.signs[1] * (width - full)


@final
class ProgressBar:
    """The line, live on stderr. A context manager: it is shown inside.

    Args:
      total: the last step.
      step: where the run is.
      clock: seconds, from any origin.
      console: to draw on; stderr, if None.
    """

    def __init__(
        self,
        total: int,
        *,
        step: int = 0,
        clock: Callable[[], float] = time.monotonic,
        console: rich.console.Console | None = None,
    ) -> None:
        self._clock = clock
        self._line = Line(step, total, 0.0, {}, {})
        self._marks = collections.deque([(clock(), step)])
        self._console = console or rich.console.Console(stderr=True)
        self._exit = contextlib.ExitStack()

    def __enter__(self) -> ProgressBar:
        live = rich.live.Live(
            self, console=self._console, refresh_per_second=10, transient=False
        )
        self._exit.enter_context(live)
        return self

    def __exit__(self, *exception: object) -> None:
        self._exit.close()

    def __rich_console__(
        self, console: rich.console.Console, options: rich.console.ConsoleOptions
    ) -> Iterator[Any]:
        drawn = options.encoding.startswith("utf")
        line = dataclasses.replace(self._line, signs=_DRAWN if drawn else _ASCII)
        text = line.fitted(options.max_width)
        text = text.encode(options.encoding, "replace").decode(options.encoding)
        yield Text(text, no_wrap=True, overflow="crop", end="")

    def advance(self, step: int) -> None:
        """The run has come to `step`."""
        now = self._clock()
        if now - self._marks[-1][0] >= _MARK_SECS:
            self._marks.append((now, step))
        while len(self._marks) > 2 and now - self._marks[1][0] > _WINDOW_SECS:
            self._marks.popleft()
        then, first = self._marks[0]
        rate = (step - first) / max(now - then, 1e-9)
        self._line = dataclasses.replace(
            self._line, step=step, steps_per_sec=max(rate, 0.0)
        )

    def restart_clock(self, step: int) -> None:
        """What happened up to `step` says nothing about the rate."""
        self._marks.clear()
        self._marks.append((self._clock(), step))

    def show(
        self,
        *,
        values: Mapping[str, float] | None = None,
        best: Mapping[str, tuple[float, int]] | None = None,
    ) -> None:
        """Shows other values, or another best."""
        line = self._line
        self._line = dataclasses.replace(
            line,
            values=line.values if values is None else dict(values),
            best=line.best if best is None else dict(best),
        )


def duration(secs: float) -> str:
    """`h:mm:ss`."""
    minutes, seconds = divmod(round(secs), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"
