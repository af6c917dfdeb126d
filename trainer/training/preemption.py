"""Signals become a request that the loops look at; a second one acts as usual.

Schedulers announce the end of a machine by SIGTERM or SIGUSR1, people by Ctrl-C.

    >>> import signal
    >>> from trainer.training import preemption
    >>> with preemption.listening() as stop:
    ...     with stop.interrupting():         # nothing to save yet: stops right here
    ...         steps = 0
    ...     while not stop():                 # something to save: stops at a border
    ...         steps += 1
    ...         stop.hear(signal.SIGTERM)     # as where that signal comes
    >>> steps, stop.signal
    (1, 'SIGTERM')
"""

from __future__ import annotations

import contextlib
import signal
import threading
import types
from collections.abc import Iterator
from typing import final

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class Interrupted(BaseException):
    """The run was asked to stop where there was nothing to save."""


@final
class Request:
    """Whether the run was asked to stop, and by which signal.

    Attributes:
      signal: its name, such as `SIGTERM`, or None.
    """

    def __init__(self) -> None:
        self.signal: str | None = None
        self._interrupts = False

    def __call__(self) -> bool:
        return self.signal is not None

    def hear(self, number: int) -> None:
        """Takes note of a signal.

        Raises:
          Interrupted: inside `interrupting`.
        """
        self.signal = signal.Signals(number).name
        self._interrupt()

    @contextlib.contextmanager
    def interrupting(self) -> Iterator[None]:
        """While this is open, a request doesn't wait: it raises `Interrupted`."""
        self._interrupts = True
        try:
            self._interrupt()
            yield
        finally:
            self._interrupts = False

    def _interrupt(self) -> None:
        if self.signal is not None and self._interrupts:
            raise Interrupted(self.signal)


@contextlib.contextmanager
def listening() -> Iterator[Request]:
    """Gives a `Request` that the first of the signals fills.

    Signals reach the main thread of a process only: elsewhere nobody fills it.
    """
    request = Request()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def hear(number: int, frame: types.FrameType | None) -> None:
        restore()
        request.hear(number)

    for number in SIGNALS:
        signal.signal(number, hear)
    try:
        yield request
    finally:
        restore()
