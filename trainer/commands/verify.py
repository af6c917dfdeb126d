"""Read every byte of every checkpoint against its manifest.

Changes nothing. Exits with 0 only if there are checkpoints and all of them are sound.

    python run.py verify --run_dir=runs/digits
"""

from __future__ import annotations

from trainer.commands import console, tables
from trainer.commands.asked import AnswerOptions, Asked
from trainer.config import flags, options
from trainer.inspection import rows

OPTIONS = (
    flags.some(options.RunOptions, "task", "run_dir"),
    flags.every(AnswerOptions),
)


def run(asked: Asked, package: str) -> int:
    """Prints one row per checkpoint, with what is wrong."""
    del package
    found = rows.verify(asked.directory())
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
    return console.FAILED if bad or not found else console.DONE
