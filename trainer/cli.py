"""The table of commands; exceptions become one clear message and an exit code.

Exit codes: 0 done; 1 failed; 2 the command line or the configuration is wrong;
75 stopped on request with everything saved (run the same command again).
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from absl import flags

from trainer import (
    catalog,
    config,
    inspection,
    preemption,
    record,
    retention,
    terminal,
)

# Modules that need TensorFlow are imported by the commands that train: `list` answers
# in a fraction of the time that its import takes.

DONE, FAILED, WRONG, STOPPED = 0, 1, 2, 75
_SHOWN_DIFFERENCES = 10


def main(argv: Sequence[str], *, package: str) -> int:
    """Runs one command.

    Args:
      argv: `[program, COMMAND, --flag=value, ...]`, the command anywhere.
      package: where the registered tasks are.

    Returns:
      The exit code.
    """
    debug = "--debug" in argv
    terminal.log_plainly()
    try:
        values = flags.FlagValues()  # type: ignore[no-untyped-call]
        config.define_flags(values)
        flags.DEFINE_boolean("help", False, "Show this.", flag_values=values)
        words = values(list(argv))[1:]
        if values["help"].value:
            terminal.say(_usage(values))
            return DONE
        if len(words) > 1:
            raise config.ConfigError(
                f"one command at a time, not {' and '.join(words)}."
            )
        command = words[0] if words else "train"
        if command not in _COMMANDS:
            raise config.ConfigError(
                f"there is no command {command!r}.{config.suggest(command, _COMMANDS)}"
            )
        given = {name for name in values if values[name].present}
        choices = record.complete(config.from_flags(values), given)
        debug = choices.debug
        return _COMMANDS[command](choices, package)
    except (config.ConfigError, flags.Error) as error:
        return _tell(error, debug, WRONG)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        return _tell(error, debug, FAILED)


def _train(choices: config.Config, package: str) -> int:
    """trains to --steps or --epochs in total; goes on from where it was"""
    run_dir = choices.directory()
    with preemption.listening() as stop:
        try:
            with stop.interrupting():
                with terminal.quiet_import(choices.debug):
                    from trainer import lookup, loop
                task = lookup.create(choices.task, choices.set, package=package)
            if not choices.best:
                choices = dataclasses.replace(choices, best=type(task).best)
            outcome = loop.train(choices, task, stop)
        except preemption.Interrupted:
            terminal.say(f"stopped by {stop.signal} before the first new step.")
            terminal.say("go on      the same command again")
            return STOPPED
    place = f"step {outcome.step} of {outcome.total_steps}"
    if outcome.stopped_by:
        terminal.say(
            f"stopped by {outcome.stopped_by} at {place}; everything is saved."
        )
        terminal.say("go on      the same command again")
        return STOPPED
    why, more = "", "--steps=N goes further."
    if outcome.stopped_early:
        why = f" after {choices.early_stop_patience} evaluations without a better one"
        more = "A larger --early_stop_patience goes further."
    if outcome.trained_steps:
        terminal.say(f"complete at {place}{why}.")
    else:
        terminal.say(f"already complete at {place}{why}: nothing to do. {more}")
    terminal.say(f"latest     {catalog.select(run_dir, 'latest', ()).prefix}")
    for rule in map(retention.Best.parse, choices.best):
        for entry in catalog.ranked(run_dir / catalog.BEST / rule.metric, rule):
            if entry.manifest:
                value = entry.manifest.metrics[rule.metric]
                terminal.say(f"best       {entry.prefix}  ({rule.metric} {value:.4f})")
    for what in outcome.inexact:
        terminal.say(f"INEXACT    {what}")
    terminal.say(f"evaluate   python run.py evaluate --run_dir={run_dir}")
    terminal.say(f"watch      tensorboard --logdir={run_dir.parent}")
    return DONE


def _evaluate(choices: config.Config, package: str) -> int:
    """evaluates --checkpoint on --split and prints the metrics"""
    run_dir = choices.directory()
    rules = [retention.Best.parse(text) for text in choices.best]
    entry = catalog.select(run_dir, choices.checkpoint or catalog.BEST, rules)
    with terminal.quiet_import(choices.debug):
        from trainer import evaluation, lookup
    task = lookup.create(choices.task, choices.set, package=package)
    metrics = evaluation.evaluate(choices, task, entry)
    row = {"step": entry.step, "path": str(entry.prefix), "split": choices.split}
    if choices.format == "json":
        terminal.say(json.dumps({**row, "metrics": metrics}))
    else:
        terminal.print_table([{**row, **{k: f"{v:.6g}" for k, v in metrics.items()}}])
    return DONE


def _list(choices: config.Config, package: str) -> int:
    """every checkpoint of a run: step, metrics, size, age, marks"""
    del package
    rows = inspection.list_checkpoints(choices.directory())
    if choices.format == "json":
        terminal.say(json.dumps(rows, indent=1))
    else:
        terminal.print_table([_readable(row) for row in rows])
    return DONE


def _prove(choices: config.Config, package: str) -> int:
    """kills and resumes this very task; proves that nothing differs"""
    del package
    with terminal.quiet_import(choices.debug):
        from trainer import proof
    directory = pathlib.Path(tempfile.mkdtemp(prefix="keepstep-prove-"))
    arguments = config.as_arguments(choices)
    command = [sys.executable, sys.argv[0], "train", *arguments]
    verdict = proof.prove(command, directory, kills=choices.kills, seed=choices.seed)
    if choices.format == "json":
        terminal.say(json.dumps(dataclasses.asdict(verdict)))
    else:
        kinds = {f"kills in {k}": v for k, v in verdict.kills.items()}
        kinds |= {f"{k} compared": v for k, v in verdict.compared.items()}
        terminal.print_table([{"what": k, "count": v} for k, v in kinds.items()])
    if verdict.differences:
        for difference in verdict.differences[:_SHOWN_DIFFERENCES]:
            terminal.say(difference)
        terminal.say(
            f"NOT EXACT: {len(verdict.differences)} differences; see {directory}"
        )
        return FAILED
    terminal.say(
        f"exact: {sum(verdict.kills.values())} kills survived, nothing differs."
    )
    shutil.rmtree(directory)
    return DONE


def _tasks(choices: config.Config, package: str) -> int:
    """the registered tasks, their hyperparameters and defaults"""
    with terminal.quiet_import(choices.debug):
        from trainer import lookup
    rows = [
        {
            "task": name,
            "about": (cls.__doc__ or "").partition("\n")[0],
            "hyperparameters": " ".join(
                f"{field.name}={field.default}" for field in dataclasses.fields(cls)
            ),
        }
        for name, cls in lookup.all_tasks(package).items()
    ]
    if choices.format == "json":
        terminal.say(json.dumps(rows, indent=1))
    else:
        terminal.print_table(rows)
    return DONE


_COMMANDS: Mapping[str, Callable[[config.Config, str], int]] = {
    "train": _train,
    "evaluate": _evaluate,
    "list": _list,
    "prove": _prove,
    "tasks": _tasks,
}


def _readable(row: Mapping[str, Any]) -> dict[str, str]:
    marks = ["latest"] if row["latest"] else []
    marks += [f"best {metric}" for metric in row["best_of"]]
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


def _usage(values: flags.FlagValues) -> str:
    lines = [
        "python run.py [COMMAND] [--flagfile=FILE] [--flag=value ...]",
        "",
        "commands",
    ]
    lines += [f"  {k:<12}{v.__doc__}" for k, v in _COMMANDS.items()]
    lines += ["", "flags (default)"]
    for field in dataclasses.fields(config.Config):
        default = values[field.name].default
        shown = f" ({default})" if default not in ("", None, [], 0, False) else ""
        lines.append(f"  --{field.name:<22}{field.metadata['help']}{shown}")
    return "\n".join(lines)


def _tell(error: Exception, debug: bool, code: int) -> int:
    """One message on stderr; the traceback only where it is asked for."""
    if debug:
        traceback.print_exception(error, file=sys.stderr)
    terminal.say(f"{type(error).__name__}: {error}", error=True)
    return code
