"""The commands that look at a run directory: `list`, `show`, `diff`, `verify`, `prune`.

But for `diff`, which reads the variables themselves, none of them needs TensorFlow.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from trainer.checkpoint import catalog, layout, locks, selection, upkeep
from trainer.checkpoint.catalog import Entry
from trainer.checkpoint.layout import RunDirectory
from trainer.commands import console
from trainer.config import options
from trainer.inspection import rows


def list_checkpoints(choices: options.Config, package: str) -> int:
    """Every checkpoint of a run: step, metrics, size, age, marks"""
    del package
    found = rows.list_checkpoints(RunDirectory(choices.directory()), choices.rules())
    if choices.format == "json":
        console.say(json.dumps(found, indent=1))
    else:
        console.print_table([_list_row(row) for row in found])
    return console.DONE


def show(choices: options.Config, package: str) -> int:
    """One checkpoint: manifest, variables with shape and size"""
    del package
    shown = rows.show_checkpoint(_selected(choices, choices.checkpoint))
    if choices.format == "json":
        console.say(json.dumps(shown, indent=1))
        return console.DONE
    facts = {k: v for k, v in shown.items() if k not in ("variables", "files")}
    console.print_table([{"what": k, "is": _text(v)} for k, v in facts.items()])
    console.say("")
    console.print_table(shown["files"])
    console.say("")
    console.print_table(shown["variables"])
    return console.DONE


def diff(choices: options.Config, package: str) -> int:
    """--checkpoint and --against: which variables differ, by how much"""
    del package
    if not choices.against:
        raise options.ConfigError(
            "diff compares --checkpoint with --against: give both, e.g. "
            "--checkpoint=latest --against=best."
        )
    one = _selected(choices, choices.checkpoint)
    other = _selected(choices, choices.against)
    with console.quiet_import(choices.debug):
        from trainer.inspection.diff import compare
    found = [row for row in compare(one, other) if not row["equal"]]
    if choices.format == "json":
        console.say(json.dumps(found, indent=1))
    elif found:
        console.print_table(found)
    else:
        console.say(f"{one.prefix} and {other.prefix} are equal, bit for bit.")
    return console.DONE


def verify(choices: options.Config, package: str) -> int:
    """Re-reads every byte against the manifests; exit 0 only if all is well"""
    del package
    found = rows.verify(RunDirectory(choices.directory()))
    if choices.format == "json":
        console.say(json.dumps(found, indent=1))
    else:
        console.print_table(found)
    bad = [row for row in found if row["problem"]]
    return console.FAILED if bad or not found else console.DONE


def prune(choices: options.Config, package: str) -> int:
    """Applies the retention rules now (--dry_run shows what would go)"""
    del package
    run_dir = choices.directory()
    rules = upkeep.Upkeep(RunDirectory(run_dir), choices.retention())
    if not rows.list_checkpoints(rules.directory):
        raise selection.NoCheckpointError(f"{run_dir} has no checkpoints.")
    if choices.dry_run:
        rules.catalog = catalog.scan(rules.directory)
        wanted = rules.plan()
    else:
        with locks.lock(run_dir, rules.directory.lock):
            rules.prepare()
            wanted = rules.settle()
    doomed = [layout.prefix(home, mark.step) for home, mark in wanted.doomed]
    for path in doomed:
        console.say(f"{'would delete' if choices.dry_run else 'deleted'} {path}")
    if not doomed:
        console.say("nothing to delete.")
    return console.DONE


def _selected(choices: options.Config, text: str) -> Entry:
    return selection.select(
        RunDirectory(choices.directory()), text or "latest", choices.rules()
    )


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_text(one)}" for name, one in value.items())
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _list_row(row: Mapping[str, Any]) -> dict[str, str]:
    marks = ["latest"] if row["latest"] else []
    for metric in row["best_of"]:
        rank = row["ranks"].get(metric, 1)
        marks.append(f"best {metric}" if rank == 1 else f"{rank}. best {metric}")
    metrics = " ".join(f"{name}={value:.4f}" for name, value in row["metrics"].items())
    age = "" if row["created"] is None else _age(time.time() - row["created"])
    marks += [f"lineage {row['lineage']}"] if row["lineage"] else []
    return {
        "step": str(row["step"]),
        "path": row["path"],
        "metrics": metrics,
        "size": f"{row['bytes'] / 1e6:.2f} MB",
        "age": age,
        "marks": ", ".join(marks),
        "status": row["status"],
    }


def _age(secs: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if secs >= length:
            return f"{secs / length:.0f} {unit}"
    return f"{max(secs, 0):.0f} s"
