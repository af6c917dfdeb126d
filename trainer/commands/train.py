"""Train to --steps or --epochs in total, resuming where the run was.

The same command again resumes from the newest good checkpoint. Ctrl-C, SIGTERM and
SIGUSR1 save everything and exit with 75; a second Ctrl-C ends at once.

    python run.py train --flagfile=models/digits.flags
    python run.py train --run_dir=runs/digits --steps=2000
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from trainer.checkpoint import catalog, selection
from trainer.checkpoint.layout import RunDirectory
from trainer.commands import console
from trainer.commands.asked import AnswerOptions, Asked
from trainer.config import flags, options
from trainer.config.fields import COMMAND, Checked, option
from trainer.config.start import StartOptions
from trainer.training import preemption

if TYPE_CHECKING:
    from trainer.training.loop import Outcome


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProgressOptions(Checked):
    """How a training run shows where it is."""

    progress: str = option(
        "auto",
        COMMAND,
        "",
        "Display of the progress on stderr; auto is a bar on a terminal, else lines.",
        choices=("auto", "bar", "lines", "none"),
    )


OPTIONS = (
    flags.every(options.RunOptions),
    flags.every(StartOptions),
    flags.every(ProgressOptions),
    flags.every(AnswerOptions),
)
_AGAIN = "go on      the same command again"


def run(asked: Asked, package: str) -> int:
    """Trains, and prints where everything is."""
    choices = asked.run
    choices.directory()
    choices.rules()  # raises here what would be wrong later
    with preemption.listening() as stop:
        try:
            choices, outcome = _trained(asked, package, stop)
        except preemption.Interrupted:
            return _say_interrupted(asked, stop.signal)
    code = console.STOPPED if outcome.stopped_by else console.DONE
    directory = RunDirectory(choices.directory())
    kept = catalog.scan(directory)
    found = {
        rule.metric: kept.ranked(directory.best(rule.metric), rule)
        for rule in choices.rules()
    }
    if asked.json:
        console.answer(_document(directory, outcome, found, code))
    elif outcome.stopped_by:
        place = f"step {outcome.step} of {outcome.total_steps}"
        console.say(f"stopped by {outcome.stopped_by} at {place}; everything is saved.")
        console.say(_AGAIN)
    else:
        _say_complete(choices, outcome, found)
    return code


def _trained(
    asked: Asked, package: str, stop: preemption.Request
) -> tuple[options.RunOptions, Outcome]:
    """The outcome, and the choices with what the task says of them."""
    choices, start = asked.run, asked.make(StartOptions)
    with stop.interrupting():
        with asked.tensorflow():
            from trainer.config import chosen_hooks, tasks
            from trainer.training import loop
        hooks = chosen_hooks.made(start.hook)
        task = tasks.of(choices, package=package)
    if not choices.best:
        choices = dataclasses.replace(choices, best=type(task).best)
    outcome = loop.train(
        choices,
        task,
        stop,
        start=start,
        progress=asked.make(ProgressOptions).progress,
        hooks=hooks,
    )
    return choices, outcome


def _say_interrupted(asked: Asked, signal: str | None) -> int:
    if asked.json:
        console.answer(
            {
                "run_dir": str(asked.directory().root),
                "step": None,
                "trained_steps": 0,
                "stopped_by": signal,
                "exit_code": console.STOPPED,
            }
        )
    else:
        console.say(f"stopped by {signal} before the first new step.")
        console.say(_AGAIN)
    return console.STOPPED


def _document(
    directory: RunDirectory,
    outcome: Outcome,
    found: dict[str, list[catalog.Entry]],
    code: int,
) -> dict[str, Any]:
    """The outcome as one JSON document."""
    best = {}
    for metric, entries in found.items():
        for entry in entries[:1]:
            values = entry.manifest.metrics if entry.manifest else {}
            best[metric] = {
                "step": entry.step,
                "value": values.get(metric),
                "path": str(entry.prefix),
            }
    return {
        "run_dir": str(directory.root),
        "step": outcome.step,
        "total_steps": outcome.total_steps,
        "trained_steps": outcome.trained_steps,
        "latest": str(selection.select(directory, "latest", ()).prefix),
        "best": best,
        "stopped_by": outcome.stopped_by,
        "stopped_early": outcome.stopped_early,
        "inexact": list(outcome.inexact),
        "exit_code": code,
    }


def _say_complete(
    choices: options.RunOptions,
    outcome: Outcome,
    found: dict[str, list[catalog.Entry]],
) -> None:
    run_dir = choices.directory()
    place = f"step {outcome.step} of {outcome.total_steps}"
    why, more = "", "--steps=N goes further."
    if outcome.stopped_early:
        why = f" after {choices.early_stop_patience} evaluations without a better one"
        more = "A larger --early_stop_patience goes further."
    if outcome.trained_steps:
        console.say(f"complete at {place}{why}.")
    else:
        console.say(f"already complete at {place}{why}: nothing to do. {more}")
    console.say(
        f"latest     {selection.select(RunDirectory(run_dir), 'latest', ()).prefix}"
    )
    for metric, entries in found.items():
        for entry in entries:
            if entry.manifest:
                value = entry.manifest.metrics[metric]
                console.say(f"best       {entry.prefix}  ({metric} {value:.4f})")
    for what in outcome.inexact:
        console.say(f"INEXACT    {what}")
    console.say(f"evaluate   {console.program()} evaluate --run_dir={run_dir}")
    console.say(f"watch      tensorboard --logdir={run_dir.parent}")
