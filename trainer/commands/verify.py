"""Read every byte of every checkpoint against its manifest.

Changes nothing without --repair. Exits with 0 only if there are checkpoints and all of
them are sound.

    python run.py verify --run_dir=runs/digits
    python run.py verify --run_dir=runs/digits --repair
"""

from __future__ import annotations

import dataclasses
from typing import Any

from trainer.checkpoint import locks, prepared_file
from trainer.checkpoint.layout import RunDirectory
from trainer.commands import console, tables
from trainer.commands.asked import AnswerOptions, Asked
from trainer.config import flags, options, run_record
from trainer.config.fields import COMMAND, Checked, option
from trainer.inspection import rows


@dataclasses.dataclass(frozen=True, kw_only=True)
class RepairOptions(Checked):
    """Whether manifests are written."""

    repair: bool = option(
        False,
        COMMAND,
        "",
        "First write the manifest anew for each checkpoint that has none and that "
        "TensorFlow reads in full.",
    )


OPTIONS = (
    flags.some(options.RunOptions, "task", "run_dir"),
    flags.every(RepairOptions),
    flags.every(AnswerOptions),
)


def run(asked: Asked, package: str) -> int:
    """Prints one row per checkpoint, with what is wrong, and one for what it needs."""
    del package
    directory = asked.directory()
    if asked.make(RepairOptions).repair:
        for row in _repair(directory, asked.debug):
            done = row["problem"] or "its manifest is written anew"
            console.say(f"{row['path']}: {done}", error=asked.json)
    checkpoints = rows.verify(directory)
    found = [*checkpoints, *_prepared(directory)]
    if asked.json:
        console.answer(found)
    else:
        console.print_table(
            [
                {"path": row["path"], "size": tables.size(row["bytes"])}
                | {"problem": row["problem"] or "none"}
                for row in found
            ]
        )
    bad = [row for row in found if row["problem"]]
    return console.FAILED if bad or not checkpoints else console.DONE


def _prepared(directory: RunDirectory) -> list[dict[str, Any]]:
    """The row of what the run learned from its data, if it did."""
    try:
        choices = run_record.read(directory.config).choices
        if prepared_file.of_run(directory, choices) is None:
            return []
        problem = None
    except (FileNotFoundError, options.ConfigError):
        return []  # nothing says that there should be anything
    except prepared_file.PreparedError as error:
        problem = str(error)
    path = directory.prepared
    size = path.stat().st_size if path.exists() else 0
    return [{"path": str(path), "bytes": size, "problem": problem}]


def _repair(directory: RunDirectory, debug: bool) -> list[dict[str, Any]]:
    with console.quiet_import(debug):
        from trainer.inspection import repair
    with locks.lock(directory.root, directory.lock):
        return repair.repair(directory)
