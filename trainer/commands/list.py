"""List the checkpoints of a run: step, metrics, size, age, marks.

The newest step comes first. The status compares file sizes only; `verify` reads every
byte. Works while the run is training.

    python run.py list --run_dir=runs/digits
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from trainer.commands import console, tables
from trainer.commands.asked import AnswerOptions, Asked
from trainer.config import flags, options
from trainer.inspection import rows

OPTIONS = (
    flags.some(options.RunOptions, "task", "run_dir", "best"),
    flags.every(AnswerOptions),
)
_METRICS_BESIDE = 3


def run(asked: Asked, package: str) -> int:
    """Prints one row per checkpoint."""
    del package
    found = rows.list_checkpoints(asked.directory(), asked.run.rules())
    if asked.json:
        console.answer(found)
    elif console.is_terminal():
        console.print_table(_for_terminal(found))
    else:
        console.print_table([_cells(row) | _metrics_as_one(row) for row in found])
    return console.DONE


def _for_terminal(found: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """A column per metric, if they are few; the path at the end; no idle columns."""
    names = {name: None for row in found for name in row["metrics"]}
    shown = []
    for row in found:
        cells = _cells(row)
        metrics = _metrics_as_one(row)
        if len(names) <= _METRICS_BESIDE:
            values = row["metrics"]
            metrics = {
                name: tables.number(values[name]) if name in values else ""
                for name in names
            }
        order = {"step": cells["step"], **metrics, "size": cells["size"]}
        shown.append(order | {k: cells[k] for k in ("age", "marks", "status", "path")})
    if all(row["status"] == "ok" for row in shown):
        for row in shown:
            del row["status"]
    return shown


def _cells(row: Mapping[str, Any]) -> dict[str, str]:
    marks = ["latest"] if row["latest"] else []
    for metric in row["best_of"]:
        rank = row["ranks"].get(metric, 1)
        marks.append(f"best {metric}" if rank == 1 else f"{rank}. best {metric}")
    marks += [f"lineage {row['lineage']}"] if row["lineage"] else []
    created = row["created"]
    return {
        "step": str(row["step"]),
        "path": row["path"],
        "metrics": "",
        "size": tables.size(row["bytes"]),
        "age": "" if created is None else tables.age(time.time() - created),
        "marks": ", ".join(marks),
        "status": row["status"],
    }


def _metrics_as_one(row: Mapping[str, Any]) -> dict[str, str]:
    values = row["metrics"].items()
    return {"metrics": " ".join(f"{k}={tables.number(v)}" for k, v in values)}
