"""Signals become a request that the loops look at; a second one acts as usual.

Schedulers announce the end of a machine by SIGTERM or SIGUSR1, people by Ctrl-C.
"""

from __future__ import annotations

import contextlib
import signal
import types
from collections.abc import Iterator
from typing import final

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


@final
class Request:
    """Whether the run was asked to stop, and by which signal."""

    def __init__(self) -> None:
        self.signal: str | None = None

    def __call__(self) -> bool:
        return self.signal is not None


@contextlib.contextmanager
def listening() -> Iterator[Request]:
    """Gives a `Request` that the first of the signals fills."""
    request = Request()
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def hear(number: int, frame: types.FrameType | None) -> None:
        request.signal = signal.Signals(number).name
        restore()

    for number in SIGNALS:
        signal.signal(number, hear)
    try:
        yield request
    finally:
        restore()
