"""Tells the hooks of a run what happens, so that they can't change what happens next.

    >>> import pathlib
    >>> from trainer.reporting.hook import Hook
    >>> from trainer.training import listeners
    >>> class Shy(Hook):
    ...     def on_report(self, step, scalars):
    ...         raise RuntimeError("not today")
    >>> told = listeners.Listeners([Shy()], pathlib.Path("runs/line"))
    >>> told.begin(0, None)
    >>> told.report(5, {"loss": 0.5})              # logged, and training goes on
    >>> told.end(None)

Every call is made on the training thread. Commits become known on the thread that
saves, and wait until the training thread asks for them: before the next save begins, so
that a kill leaves at most the newest one untold.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import pathlib
import queue
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

from absl import logging

from trainer.checkpoint import layout
from trainer.checkpoint.catalog import Catalog, Entry
from trainer.checkpoint.layout import RunDirectory
from trainer.compat import session
from trainer.data import failures
from trainer.reporting import hooks

_LARGE_SHARE = 0.01


@dataclasses.dataclass
class _Account:
    """What one hook has cost, and how often it failed, by method."""

    secs: float = 0.0
    failures: dict[str, int] = dataclasses.field(default_factory=dict)


@final
class Listeners:
    """The hooks of one run.

    Args:
      listening: the hooks; each has some of the methods of `hook.Hook`.
      root: the run directory.
      clock: seconds, from any origin.
    """

    def __init__(
        self,
        listening: Sequence[Any],
        root: pathlib.Path,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._hooks = [(hook, _Account()) for hook in listening]
        self._directory = RunDirectory(root)
        self._clock = clock
        self._began = clock()
        self._committed: queue.SimpleQueue[Entry] = queue.SimpleQueue()
        # The ready ones draw nothing at random.
        ours = tuple(hooks.READY.values())
        foreign = any(type(hook) not in ours for hook in listening)
        self._guard = session.undisturbed if foreign else contextlib.nullcontext

    def begin(self, step: int, found: Catalog | None) -> None:
        """Training begins at a step.

        Args:
          step: 0, or of a checkpoint.
          found: where that is; its telling may have been prevented by a kill.
        """
        self._call("on_begin", step, step, self._directory.root)
        for entry, _ in found.readable if found else ():
            if entry.step == step:
                self._tell(entry)
                break

    def report(self, step: int, scalars: Mapping[str, float]) -> None:
        """The means of the training values, and what is reported with them."""
        self._call("on_report", step, step, _plain(scalars))

    def evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        """The metrics of an evaluation."""
        self._call("on_evaluation", step, step, _plain(metrics))

    def committed(self, entry: Entry) -> None:
        """A checkpoint is durable; called on any thread, told at `commits`."""
        if self._hooks:
            self._committed.put(entry)

    def commits(self) -> None:
        """Tells of the checkpoints that have become durable."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._tell(self._committed.get_nowait())

    def end(self, outcome: Any) -> None:
        """The run ends; tells in the log what went wrong, and what took long."""
        self.commits()
        self._call("on_end", None, outcome)
        passed = max(self._clock() - self._began, 1e-9)
        for hook, account in self._hooks:
            counts = [f"{name} {n}" for name, n in account.failures.items()]
            if counts:
                logging.error(
                    "errors of the hook %s: %s", _name(hook), ", ".join(counts)
                )
            if account.secs / passed > _LARGE_SHARE:
                logging.warning(
                    "the hook %s took %.1f s, %.0f%% of the run: training waits for it",
                    _name(hook),
                    account.secs,
                    100 * account.secs / passed,
                )

    def _tell(self, entry: Entry) -> None:
        """A commit, and the bests that it is."""
        step, manifest = entry.step, entry.manifest
        self._call("on_commit", step, step, entry.prefix)
        for name, record in (manifest.records if manifest else {}).items():
            if record["step"] == step:
                kept = layout.prefix(self._directory.best(name), step)
                self._call("on_best", step, step, name, float(record["value"]), kept)

    def _call(self, method: str, step: int | None, *arguments: Any) -> None:
        if not self._hooks:
            return
        with self._guard():
            for hook, account in self._hooks:
                told = getattr(hook, method, None)
                if told is None:
                    continue
                began = self._clock()
                try:
                    told(*map(copy.copy, arguments))
                except KeyboardInterrupt:
                    raise  # of the user, who wants to end at once
                except BaseException as error:
                    _note(hook, account, method, step, error)
                finally:
                    account.secs += self._clock() - began


def _note(
    hook: Any, account: _Account, method: str, step: int | None, error: BaseException
) -> None:
    """Counts an error, and tells the first one of each method."""
    count = account.failures.get(method, 0)
    account.failures[method] = count + 1
    if count:
        return
    place = failures.place(error.__traceback__)
    logging.error(
        "the hook %s failed in %s%s: %s: %s%s. Training goes on, and the hook is "
        "called again; further errors there are counted, and told at the end.",
        _name(hook),
        method,
        "" if step is None else f" of step {step}",
        type(error).__name__,
        error,
        f" ({place})" if place else "",
    )


def _name(hook: Any) -> str:
    return type(hook).__name__


def _plain(values: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items()}
