"""Threads of Python that read for the threads of TensorFlow.

>>> from trainer.data.readers import Readers
>>> Readers(2).ask(lambda number: number * number, [1, 2, 3])
[1, 4, 9]

Python's own threads keep what is local to a thread; TensorFlow's don't. No lock is held
while anything is made here, as `concurrent.futures` does: a collection of garbage may
begin at any allocation, and may end an iterator of TensorFlow, which waits for all that
it has asked. If that waits for the lock in turn, all stand still.
"""

from __future__ import annotations

import queue
import threading
import weakref
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, final

_T = TypeVar("_T")
_Tasks = queue.SimpleQueue[Any]  # reentrant, and written in C


@final
class Readers:
    """Some threads, begun when they are first needed; they end when this does."""

    def __init__(self, count: int) -> None:
        self._tasks: _Tasks = queue.SimpleQueue()
        self._count = count
        self._begun = False

    def begin(self) -> None:
        """Starts the threads; best done where no iterator of TensorFlow waits."""
        if self._begun:
            return
        self._begun = True
        for _ in range(self._count):
            threading.Thread(
                target=_work, args=[self._tasks], name="source", daemon=True
            ).start()
        weakref.finalize(self, _end, self._tasks, self._count).atexit = False

    def ask(self, function: Callable[..., _T], arguments: Iterable[Any]) -> list[_T]:
        """What a function gives of each argument, in their order.

        Raises:
          Exception: what it raised, of the first argument at which it did.
        """
        self.begin()
        answers: _Tasks = queue.SimpleQueue()
        count = 0
        for argument in arguments:
            self._tasks.put((function, argument, count, answers))
            count += 1
        found = sorted((answers.get() for _ in range(count)), key=lambda one: one[0])
        for _, _, error in found:
            if error is not None:
                raise error
        return [result for _, result, _ in found]


def _work(tasks: _Tasks) -> None:
    while (task := tasks.get()) is not None:
        function, argument, place, answers = task
        answer: tuple[int, Any, BaseException | None]
        try:
            answer = (place, function(argument), None)
        except BaseException as error:
            answer = (place, None, error)
        answers.put(answer)
        # Nothing is kept alive while there is nothing to do.
        del task, function, argument, answers, answer


def _end(tasks: _Tasks, count: int) -> None:
    for _ in range(count):
        tasks.put(None)
