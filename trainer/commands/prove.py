"""Kill and resume this very task; prove that nothing differs.

Trains the task once without interruption, then again under SIGKILL at seeded instants,
in a temporary directory, and compares everything that both leave behind, bit for bit.

    python run.py prove --flagfile=models/digits.flags --kills=20
"""

from __future__ import annotations

import dataclasses
import pathlib
import shutil
import sys
import tempfile
from typing import Any

from trainer.commands import console
from trainer.commands.asked import AnswerOptions, Asked
from trainer.config import flags, options, task_name
from trainer.config.fields import COMMAND, Checked, option

_SHOWN_DIFFERENCES = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProveOptions(Checked):
    """How hard the proof is."""

    kills: int = option(
        20, COMMAND, "N", "Number of processes to kill in all.", minimum=1
    )


OPTIONS = (
    flags.every(options.RunOptions),
    flags.every(ProveOptions),
    flags.every(AnswerOptions),
)


def run(asked: Asked, package: str) -> int:
    """Prints the kills, what was compared, and the verdict."""
    del package
    task_name.check_trusted(asked.run.task, asked.run.trust)
    with console.quiet_import(asked.debug):
        from trainer.inspection import proof
    directory = pathlib.Path(tempfile.mkdtemp(prefix="keepstep-prove-"))
    program = (sys.executable, *console.launcher())
    command = [*program, "train", *flags.as_arguments(asked.run)]
    kills = asked.make(ProveOptions).kills
    verdict = proof.prove(command, directory, kills=kills, seed=asked.run.seed)
    if asked.json:
        console.answer(dataclasses.asdict(verdict))
    else:
        _tell(verdict, directory)
    if verdict.differences:
        return console.FAILED
    shutil.rmtree(directory)
    return console.DONE


def _tell(verdict: Any, directory: pathlib.Path) -> None:
    """The verdict for people."""
    kinds = {f"kills in {k}": v for k, v in verdict.kills.items()}
    kinds |= {f"{k} compared": v for k, v in verdict.compared.items()}
    console.print_table([{"what": k, "count": v} for k, v in kinds.items()])
    for difference in verdict.differences[:_SHOWN_DIFFERENCES]:
        console.say(difference)
    if verdict.differences:
        count = len(verdict.differences)
        console.say(f"NOT EXACT: {count} differences; the runs are in {directory}")
    else:
        kills = sum(verdict.kills.values())
        word = "kill" if kills == 1 else "kills"
        console.say(f"exact: {kills} {word} survived, nothing differs.")
