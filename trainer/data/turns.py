"""Whether a source minds threads, tried without chance.

A race shows now and then, and on a busy machine perhaps never. So one thread is stopped
in the source wherever Python could switch to another, at each line and after each call,
and another thread reads an example whole in the meantime. A file that is opened once
and moved in then gives the wrong example every time.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from concurrent import futures
from types import CodeType, FrameType
from typing import Any

from trainer.data.failures import SourceError

_DEEPEST = 8
_TRIAL_SECS = 2.0
_STUCK_SECS = 0.5
_OURS = __name__.rpartition(".")[0] + "."


def differing(digest: Callable[[int], str], digests: Mapping[int, str]) -> int | None:
    """The index of an example that is another one when two threads take turns.

    Calls in the source are followed from the outside in, as deep as the time allows.

    Args:
      digest: reads the example at an index; raises `SourceError`.
      digests: what it gave without turns, by index.
    """
    first = next(iter(digests))
    apart = [one for one in digests if digests[one] != digests[first]]
    if not apart:
        return None
    other = apart[-1]  # far away, for a source that keeps what lies nearby
    deadline = time.monotonic() + _TRIAL_SECS
    for depth in range(1, _DEEPEST + 1):
        turns = _Turns(lambda: digest(other), depth, deadline)
        try:
            found = turns.take(lambda: digest(first))
        except SourceError:
            return first
        if found[0] != digests[first]:
            return first
        if set(found[1]) - {digests[other]}:
            return other
        if not found[1] or turns.stuck or time.monotonic() > deadline:
            break
    return None


class _Turns:
    """One thread's reading, and another's at each place where it may be stopped."""

    def __init__(self, other: Callable[[], str], depth: int, deadline: float) -> None:
        self.stuck = False
        self._other = other
        self._depth = depth
        self._deadline = deadline
        self._seen: set[tuple[CodeType, int, str]] = set()
        self._asked: list[futures.Future[str]] = []

    def take(self, one: Callable[[], str]) -> tuple[str, list[str]]:
        """What the one read, and what the other did in its pauses."""
        with futures.ThreadPoolExecutor(1) as here, futures.ThreadPoolExecutor(1) as it:
            self._threads = it
            found = here.submit(self.watched, one).result()
            return found, [asked.result() for asked in self._asked]

    def watched(self, one: Callable[[], str]) -> str:
        """Reads one, with a pause for the other wherever this may be stopped."""
        traced, profiled = sys.gettrace(), sys.getprofile()
        sys.settrace(self._event)
        sys.setprofile(self._event)
        try:
            return one()
        finally:
            sys.setprofile(profiled)
            sys.settrace(traced)

    def _event(self, frame: FrameType, event: str, _: Any) -> Any:
        if event in ("line", "c_return") and self._is_there(frame):
            place = frame.f_code, frame.f_lasti, event
            if place not in self._seen:
                self._seen.add(place)
                self._pause()
        return self._event

    def _is_there(self, frame: FrameType) -> bool:
        if _ours(frame):
            return False
        depth = 0
        above: FrameType | None = frame
        while above is not None and depth <= self._depth:
            if above.f_code is _Turns.watched.__code__:
                return depth == self._depth
            depth += not _ours(above)
            above = above.f_back
        return False

    def _pause(self) -> None:
        if self.stuck or time.monotonic() > self._deadline:
            return
        asked = self._threads.submit(self._other)
        self._asked.append(asked)
        # The source may have a lock, which this thread holds: then all is well.
        self.stuck = not futures.wait([asked], _STUCK_SECS).done


def _ours(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__", "")).startswith(_OURS)
