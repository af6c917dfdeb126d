"""Show one checkpoint: its manifest, its files, its variables.

Sizes and shapes are those in the manifest; nothing is loaded.

    python run.py show --run_dir=runs/digits --checkpoint=best
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from trainer.checkpoint import prepared_file
from trainer.commands import console, tables
from trainer.commands.asked import AnswerOptions, Asked
from trainer.config import flags, options, run_record
from trainer.config.fields import COMMAND, Checked, option
from trainer.inspection import rows


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShowOptions(Checked):
    """Which checkpoint is shown."""

    checkpoint: str = option(
        "",
        COMMAND,
        "CHECKPOINT",
        "Checkpoint to show: best, best:METRIC, latest, step:N or a path.",
        absent="latest",
    )


OPTIONS = (
    flags.some(options.RunOptions, "task", "run_dir", "best"),
    flags.every(ShowOptions),
    flags.every(AnswerOptions),
)


def run(asked: Asked, package: str) -> int:
    """Prints the manifest as three tables."""
    del package
    entry = asked.selected(asked.make(ShowOptions).checkpoint, default="latest")
    shown = {**rows.show_checkpoint(entry), "prepared": _prepared(asked)}
    if asked.json:
        console.answer(shown)
        return console.DONE
    prepared = shown.pop("prepared")
    facts = {k: v for k, v in shown.items() if k not in ("variables", "files")}
    facts |= {"bytes": sum(file["bytes"] for file in shown["files"])}
    console.print_table([{"what": k, "is": _text(v)} for k, v in facts.items()])
    console.say("")
    console.print_table(
        [
            {"file": one["file"], "size": tables.size(one["bytes"])}
            | {"xxh3_128": one["xxh3_128"]}
            for one in shown["files"]
        ]
    )
    console.say("")
    console.print_table(
        [{**one, "shape": one["shape"].replace(" ", "")} for one in shown["variables"]]
    )
    if "problem" in prepared:
        console.say(f"\n{prepared['problem']}")
    elif prepared:
        console.say("")
        console.print_table(prepared["holds"])
        console.say(f"prepared by the run when it began, digest {prepared['digest']}")
    return console.DONE


def _prepared(asked: Asked) -> dict[str, Any]:
    """What the run learned from its data before training; nothing, if it did not."""
    directory = asked.directory()
    if not directory.config.exists():
        return {}
    choices = run_record.read(directory.config).choices
    try:
        found = prepared_file.of_run(directory, choices)
    except prepared_file.PreparedError as error:
        return {"problem": str(error)}
    if found is None:
        return {}
    return {"digest": found.digest, "holds": prepared_file.rows(found)}


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_text(one)}" for name, one in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)
