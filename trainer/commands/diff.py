"""Compare two checkpoints: which variables differ, and by how much.

Equal means the same bits, NaN included. The largest difference comes first.

    python run.py diff --run_dir=runs/digits --checkpoint=latest --against=best
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from trainer.commands import console
from trainer.commands.asked import AnswerOptions, Asked
from trainer.config import flags, options
from trainer.config.fields import COMMAND, Checked, option


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiffOptions(Checked):
    """The two checkpoints."""

    checkpoint: str = option(
        "",
        COMMAND,
        "CHECKPOINT",
        "First checkpoint: best, best:METRIC, latest, step:N or a path.",
        absent="latest",
    )
    against: str = option("", COMMAND, "CHECKPOINT", "Second checkpoint.")


OPTIONS = (
    flags.some(options.RunOptions, "task", "run_dir", "best"),
    flags.every(DiffOptions),
    flags.every(AnswerOptions),
)


def run(asked: Asked, package: str) -> int:
    """Prints one row per variable that differs."""
    del package
    chosen = asked.make(DiffOptions)
    if not chosen.against:
        raise options.ConfigError(
            "diff compares --checkpoint with --against: give both, e.g. "
            "--checkpoint=latest --against=best."
        )
    one = asked.selected(chosen.checkpoint, default="latest")
    other = asked.selected(chosen.against, default="latest")
    with console.quiet_import(asked.debug):
        from trainer.inspection.diff import compare
    found = [row for row in compare(one, other) if not row["equal"]]
    if asked.json:
        console.answer(found)
    elif found:
        console.print_table(_cells(found))
    else:
        console.say(f"{one.prefix} and {other.prefix} are equal, bit for bit.")
    return console.DONE


def _cells(found: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    def key(row: Mapping[str, Any]) -> tuple[float, str]:
        largest = row["max_difference"]
        known = largest is not None and not math.isnan(largest)
        return -largest if known else -math.inf, row["variable"]

    return [
        {
            "variable": row["variable"],
            "differ": str(row["differ"]),
            "max_difference": (
                "-" if row["max_difference"] is None else f"{row['max_difference']:.3g}"
            ),
        }
        for row in sorted(found, key=key)
    ]
