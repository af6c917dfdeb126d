"""The commands that look at a run directory: `list`, `show`, `diff`, `verify`, `prune`.

But for `diff`, which reads the variables themselves, none of them needs TensorFlow.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from trainer import catalog, config, inspection, storage, terminal, upkeep


def list_checkpoints(choices: config.Config, package: str) -> int:
    """Every checkpoint of a run: step, metrics, size, age, marks"""
    del package
    rows = inspection.list_checkpoints(choices.directory(), choices.rules())
    if choices.format == "json":
        terminal.say(json.dumps(rows, indent=1))
    else:
        terminal.print_table([_list_row(row) for row in rows])
    return terminal.DONE


def show(choices: config.Config, package: str) -> int:
    """One checkpoint: manifest, variables with shape and size"""
    del package
    shown = inspection.show_checkpoint(_selected(choices, choices.checkpoint))
    if choices.format == "json":
        terminal.say(json.dumps(shown, indent=1))
        return terminal.DONE
    facts = {k: v for k, v in shown.items() if k not in ("variables", "files")}
    terminal.print_table([{"what": k, "is": _text(v)} for k, v in facts.items()])
    terminal.say("")
    terminal.print_table(shown["files"])
    terminal.say("")
    terminal.print_table(shown["variables"])
    return terminal.DONE


def diff(choices: config.Config, package: str) -> int:
    """--checkpoint and --against: which variables differ, by how much"""
    del package
    if not choices.against:
        raise config.ConfigError(
            "diff compares --checkpoint with --against: give both, e.g. "
            "--checkpoint=latest --against=best."
        )
    one = _selected(choices, choices.checkpoint)
    other = _selected(choices, choices.against)
    with terminal.quiet_import(choices.debug):
        from trainer import difference
    rows = [row for row in difference.compare(one, other) if not row["equal"]]
    if choices.format == "json":
        terminal.say(json.dumps(rows, indent=1))
    elif rows:
        terminal.print_table(rows)
    else:
        terminal.say(f"{one.prefix} and {other.prefix} are equal, bit for bit.")
    return terminal.DONE


def verify(choices: config.Config, package: str) -> int:
    """Re-reads every byte against the manifests; exit 0 only if all is well"""
    del package
    rows = inspection.verify(choices.directory())
    if choices.format == "json":
        terminal.say(json.dumps(rows, indent=1))
    else:
        terminal.print_table(rows)
    bad = [row for row in rows if row["problem"]]
    return terminal.FAILED if bad or not rows else terminal.DONE


def prune(choices: config.Config, package: str) -> int:
    """Applies the retention rules now (--dry_run shows what would go)"""
    del package
    run_dir = choices.directory()
    rules = upkeep.Upkeep.of(choices)
    if not inspection.list_checkpoints(run_dir):
        raise catalog.NoCheckpointError(f"{run_dir} has no checkpoints.")
    if choices.dry_run:
        doomed = rules.doomed()
    else:
        with storage.lock(run_dir / "run.lock"):
            rules.prepare()
            doomed = rules.doomed()
            rules.settle()
    for path in doomed:
        terminal.say(f"{'would delete' if choices.dry_run else 'deleted'} {path}")
    if not doomed:
        terminal.say("nothing to delete.")
    return terminal.DONE


def _selected(choices: config.Config, text: str) -> catalog.Entry:
    return catalog.select(choices.directory(), text or "latest", choices.rules())


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
