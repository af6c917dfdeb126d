"""The checkpoint that a user names: `latest`, `best`, `best:metric`, `step:N`, a path.

>>> import pathlib
>>> from trainer.checkpoint import layout, selection
>>> directory = layout.RunDirectory(pathlib.Path("runs/line"))
>>> selection.select(directory, "step:20", rules=[]).prefix
PosixPath('runs/line/recent/ckpt-20')
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Sequence

from trainer.base.errors import KeepstepError
from trainer.checkpoint import catalog, layout, manifest
from trainer.checkpoint.catalog import Catalog, Entry
from trainer.checkpoint.layout import RunDirectory
from trainer.checkpoint.manifest import Manifest
from trainer.checkpoint.retention import Best

_STEP = re.compile(r"step:(\d{1,18})")


class NoCheckpointError(KeepstepError, LookupError):
    """The checkpoint that was asked for is not there."""


class DamagedCheckpointError(KeepstepError, RuntimeError):
    """The files of a checkpoint are not what was committed."""


def select(directory: RunDirectory, text: str, rules: Sequence[Best]) -> Entry:
    """The checkpoint that a user names.

    Args:
      directory: of the run; not used for a path.
      text: `latest`, `best`, `best:metric`, `step:N` or a path such as
        `runs/a/recent/ckpt-1200`.
      rules: the run's own, the one that counts first.

    Raises:
      NoCheckpointError: there is none; says which there are.
    """
    found = catalog.scan(directory)
    if text == "latest":
        for entry, _ in found.readable:
            return entry
        raise _missing("there is no checkpoint yet.", found)
    if text == "best" or text.startswith("best:"):
        return _best(found, text, rules)
    if match := _STEP.fullmatch(text):
        for entry, _ in found.readable:
            if entry.step == int(match[1]):
                return entry
        raise _missing(f"there is no checkpoint of step {match[1]}.", found)
    path = pathlib.Path(text)
    number = path.name.removesuffix(".json").removesuffix(".index")
    number = number.removeprefix(f"{layout.PREFIX}-")
    for step in layout.steps(path.parent):
        if number == str(step):
            for entry in catalog.read_entry(path.parent, step):
                return entry
    raise _missing(
        f"there is no checkpoint {text!r}. Expected latest, best, best:metric, step:N "
        f"or the path of a committed one, such as {directory.recent}/ckpt-1200.",
        found,
    )


def _best(found: Catalog, text: str, rules: Sequence[Best]) -> Entry:
    wanted = text.partition(":")[2]
    for rule in rules:
        if wanted in ("", rule.metric):
            if best := found.ranked(found.directory.best(rule.metric), rule):
                return best[0]
            break
    names = ", ".join(rule.metric for rule in rules) or "no metric"
    raise _missing(
        f"there is no checkpoint {text!r}; this run keeps the best by {names}.", found
    )


def _missing(problem: str, found: Catalog) -> NoCheckpointError:
    """The problem, and which checkpoints there are."""
    steps = ", ".join(str(s) for s in sorted({one.step for one, _ in found.readable}))
    return NoCheckpointError(
        f"{problem} {found.directory.root} has checkpoints at the steps: "
        f"{steps or 'none'}."
    )


def verified(entry: Entry) -> Manifest:
    """The manifest of a checkpoint whose every byte is right.

    Raises:
      DamagedCheckpointError: the files are not what was committed.
      NoCheckpointError: a running `train` has deleted or replaced it meanwhile.
    """
    problem = entry.problem
    if entry.manifest is not None:
        problem = manifest.damage(entry.directory, entry.manifest)
        if problem and not manifest.is_current(entry.directory, entry.manifest):
            raise NoCheckpointError(
                f"{entry.prefix} was deleted or replaced by the running training while "
                "it was read. Run the same command again."
            )
    if entry.manifest is None or problem:
        raise DamagedCheckpointError(
            f"{entry.prefix} is damaged: {problem}. Choose another one; `list` shows "
            "which there are."
        )
    return entry.manifest
