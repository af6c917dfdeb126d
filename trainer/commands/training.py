"""The commands that run a task: `train`, `prove`, `tasks`.

TensorFlow is imported inside them, so that the others answer without it.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shutil
import tempfile
from typing import Any

from trainer.checkpoint import catalog
from trainer.commands import console
from trainer.config import options, program, task_name
from trainer.training import preemption

_SHOWN_DIFFERENCES = 10


def train(choices: options.Config, package: str) -> int:
    """Trains to --steps or --epochs in total; goes on from where it was"""
    run_dir = choices.directory()
    choices.rules()  # raises here what would be wrong later
    with preemption.listening() as stop:
        try:
            with stop.interrupting():
                with console.quiet_import(choices.debug):
                    from trainer.config.tasks import of
                    from trainer.training import loop
                task = of(choices, package=package)
            if not choices.best:
                choices = dataclasses.replace(choices, best=type(task).best)
            outcome = loop.train(choices, task, stop)
        except preemption.Interrupted:
            console.say(f"stopped by {stop.signal} before the first new step.")
            console.say("go on      the same command again")
            return console.STOPPED
    place = f"step {outcome.step} of {outcome.total_steps}"
    if outcome.stopped_by:
        console.say(f"stopped by {outcome.stopped_by} at {place}; everything is saved.")
        console.say("go on      the same command again")
        return console.STOPPED
    why, more = "", "--steps=N goes further."
    if outcome.stopped_early:
        why = f" after {choices.early_stop_patience} evaluations without a better one"
        more = "A larger --early_stop_patience goes further."
    if outcome.trained_steps:
        console.say(f"complete at {place}{why}.")
    else:
        console.say(f"already complete at {place}{why}: nothing to do. {more}")
    console.say(f"latest     {catalog.select(run_dir, 'latest', ()).prefix}")
    for rule in choices.rules():
        for entry in catalog.ranked(run_dir / catalog.BEST / rule.metric, rule):
            if entry.manifest:
                value = entry.manifest.metrics[rule.metric]
                console.say(f"best       {entry.prefix}  ({rule.metric} {value:.4f})")
    for what in outcome.inexact:
        console.say(f"INEXACT    {what}")
    console.say(f"evaluate   {program.name()} evaluate --run_dir={run_dir}")
    console.say(f"watch      tensorboard --logdir={run_dir.parent}")
    return console.DONE


def prove(choices: options.Config, package: str) -> int:
    """Kills and resumes this very task; proves that nothing differs"""
    del package
    task_name.check_trusted(choices.task, choices.trust)
    with console.quiet_import(choices.debug):
        from trainer.inspection import proof
    directory = pathlib.Path(tempfile.mkdtemp(prefix="keepstep-prove-"))
    arguments = options.as_arguments(choices)
    command = [*program.command_line(), "train", *arguments]
    verdict = proof.prove(command, directory, kills=choices.kills, seed=choices.seed)
    if choices.format == "json":
        console.say(json.dumps(dataclasses.asdict(verdict)))
    else:
        _tell(verdict, directory)
    if verdict.differences:
        return console.FAILED
    shutil.rmtree(directory)
    return console.DONE


def tasks(choices: options.Config, package: str) -> int:
    """The registered tasks, their hyperparameters and defaults"""
    with console.quiet_import(choices.debug):
        from trainer.config.tasks import all_tasks
    rows = [
        {
            "task": name,
            "about": (cls.__doc__ or "").partition("\n")[0],
            "hyperparameters": " ".join(
                f"{field.name}={field.default}" for field in dataclasses.fields(cls)
            ),
        }
        for name, cls in all_tasks(package).items()
    ]
    if choices.format == "json":
        console.say(json.dumps(rows, indent=1))
    else:
        console.print_table(rows)
    return console.DONE


def _tell(verdict: Any, directory: pathlib.Path) -> None:
    """The verdict of `prove` for people."""
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
        console.say(f"exact: {kills} kills survived, nothing differs.")
