"""Whether a checkpoint fits the state that a task builds: names, shapes and dtypes.

TensorFlow alone would not tell: optimizer slots are positional in the file, so a layer
that was frozen or moved since would get another one's momentum.
"""

from __future__ import annotations

from collections.abc import Sequence

from trainer.base.errors import KeepstepError
from trainer.checkpoint import manifest
from trainer.checkpoint.catalog import Entry
from trainer.checkpoint.saveable import Saveable

_SHOWN_DIFFERENCES = 3


class IncompatibleCheckpointError(KeepstepError, ValueError):
    """A checkpoint doesn't fit the state that the task builds."""


def check_entry(entry: Entry, current: Saveable) -> None:
    """Compares the variables of a checkpoint with those to restore into.

    Where its manifest was written anew and knows none, there is nothing to compare.

    Raises:
      IncompatibleCheckpointError: they are other ones.
    """
    if entry.manifest is not None and entry.manifest.variables:
        saved = entry.manifest.variables
        source, advice = str(entry.prefix), current.advice
        built = current.describe()
        if not any(one.path.startswith(current.later) for one in saved):
            built = tuple(v for v in built if not v.path.startswith(current.later))
        check(built, saved, source=source, advice=advice)


def check(
    built: Sequence[manifest.Variable],
    saved: Sequence[manifest.Variable],
    *,
    source: str,
    advice: str,
) -> None:
    """Compares the variables of a checkpoint with the built ones, by name.

    Raises:
      IncompatibleCheckpointError: names `source`, shows what differs, gives `advice`.
    """
    there = {variable.path: variable for variable in saved}
    here = {variable.path: variable for variable in built}
    lines = []
    for path in [*here, *(path for path in there if path not in here)]:
        if path not in there:
            lines.append(f"{path}: the model has it, the checkpoint does not")
        elif path not in here:
            lines.append(f"{path}: the checkpoint has it, the model does not")
        elif there[path].shape != here[path].shape:
            lines.append(
                f"{path}: the checkpoint has shape {there[path].shape}, "
                f"the model {here[path].shape}"
            )
        elif there[path].dtype != here[path].dtype:
            lines.append(
                f"{path}: the checkpoint has dtype {there[path].dtype}, "
                f"the model {here[path].dtype}"
            )
    if not lines:
        return
    shown = [f"  {line}" for line in lines[:_SHOWN_DIFFERENCES]]
    if hidden := len(lines) - len(shown):
        shown.append(f"  and {hidden} more differences")
    raise IncompatibleCheckpointError(
        f"cannot restore {source}.\n" + "\n".join(shown) + f"\n{advice}"
    )
