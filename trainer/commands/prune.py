"""Delete the checkpoints that the retention rules do not keep.

The rules are those of the run, unless others are given here.

    python run.py prune --run_dir=runs/digits --keep_recent=1 --dry_run
"""

from __future__ import annotations

import dataclasses

from trainer.checkpoint import catalog, layout, locks, selection, upkeep
from trainer.commands import console
from trainer.commands.asked import AnswerOptions, Asked
from trainer.config import flags, options
from trainer.config.fields import COMMAND, Checked, option
from trainer.inspection import rows


@dataclasses.dataclass(frozen=True, kw_only=True)
class PruneOptions(Checked):
    """Whether anything is deleted."""

    dry_run: bool = option(
        False, COMMAND, "", "Only print the checkpoints that would be deleted."
    )


OPTIONS = (
    flags.some(
        options.RunOptions,
        *("task", "run_dir", "keep_recent", "keep_every_steps", "best"),
        "best_min_delta",
    ),
    flags.every(PruneOptions),
    flags.every(AnswerOptions),
)


def run(asked: Asked, package: str) -> int:
    """Deletes, and prints what."""
    del package
    directory, dry_run = asked.directory(), asked.make(PruneOptions).dry_run
    house = upkeep.Upkeep(directory, asked.run.retention())
    if not rows.list_checkpoints(directory):
        raise selection.NoCheckpointError(f"{directory.root} has no checkpoints.")
    if dry_run:
        house.catalog = catalog.scan(directory)
        wanted = house.plan()
    else:
        with locks.lock(directory.root, directory.lock):
            house.prepare()
            wanted = house.settle()
    paths = [str(layout.prefix(home, mark.step)) for home, mark in wanted.doomed]
    if asked.json:
        console.answer(
            {
                "run_dir": str(directory.root),
                "dry_run": dry_run,
                "deleted": [] if dry_run else paths,
                "would_delete": paths if dry_run else [],
            }
        )
        return console.DONE
    for path in paths:
        console.say(f"{'would delete' if dry_run else 'deleted'} {path}")
    if not paths:
        console.say("nothing to delete.")
    return console.DONE
