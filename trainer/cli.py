"""The table of commands; exceptions become one clear message and an exit code.

Exit codes: 0 done; 1 failed; 2 the command line or the configuration is wrong;
75 stopped on request with everything saved (run the same command again).
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import pathlib
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import rich.console
import rich.table
from absl import flags
from absl import logging as absl_logging

from trainer import catalog, config, inspection, preemption, record, retention

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
    _log_plainly()
    try:
        values = flags.FlagValues()  # type: ignore[no-untyped-call]
        config.define_flags(values)
        flags.DEFINE_boolean("help", False, "Show this.", flag_values=values)
        words = values(list(argv))[1:]
        if values["help"].value:
            print(_usage(values))
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
                with _quiet_import(choices.debug):
                    from trainer import lookup, loop
                task = lookup.create(choices.task, choices.set, package=package)
            if not choices.best:
                choices = dataclasses.replace(choices, best=type(task).best)
            outcome = loop.train(choices, task, stop)
        except preemption.Interrupted:
            print(f"stopped by {stop.signal} before the first new step.")
            print("go on      the same command again")
            return STOPPED
    place = f"step {outcome.step} of {outcome.total_steps}"
    if outcome.stopped_by:
        print(f"stopped by {outcome.stopped_by} at {place}; everything is saved.")
        print("go on      the same command again")
        return STOPPED
    why, more = "", "--steps=N goes further."
    if outcome.stopped_early:
        why = f" after {choices.early_stop_patience} evaluations without a better one"
        more = "A larger --early_stop_patience goes further."
    if outcome.trained_steps:
        print(f"complete at {place}{why}.")
    else:
        print(f"already complete at {place}{why}: nothing to do. {more}")
    print(f"latest     {catalog.select(run_dir, 'latest', ()).prefix}")
    for rule in map(retention.Best.parse, choices.best):
        for entry in catalog.ranked(run_dir / catalog.BEST / rule.metric, rule):
            if entry.manifest:
                value = entry.manifest.metrics[rule.metric]
                print(f"best       {entry.prefix}  ({rule.metric} {value:.4f})")
    for what in outcome.inexact:
        print(f"INEXACT    {what}")
    print(f"evaluate   python run.py evaluate --run_dir={run_dir}")
    print(f"watch      tensorboard --logdir={run_dir.parent}")
    return DONE


def _evaluate(choices: config.Config, package: str) -> int:
    """evaluates --checkpoint on --split and prints the metrics"""
    run_dir = choices.directory()
    rules = [retention.Best.parse(text) for text in choices.best]
    entry = catalog.select(run_dir, choices.checkpoint or catalog.BEST, rules)
    with _quiet_import(choices.debug):
        from trainer import evaluation, lookup
    task = lookup.create(choices.task, choices.set, package=package)
    metrics = evaluation.evaluate(choices, task, entry)
    row = {"step": entry.step, "path": str(entry.prefix), "split": choices.split}
    if choices.format == "json":
        print(json.dumps({**row, "metrics": metrics}))
    else:
        _print_table([{**row, **{k: f"{v:.6g}" for k, v in metrics.items()}}])
    return DONE


def _list(choices: config.Config, package: str) -> int:
    """every checkpoint of a run: step, metrics, size, age, marks"""
    del package
    rows = inspection.list_checkpoints(choices.directory())
    if choices.format == "json":
        print(json.dumps(rows, indent=1))
    else:
        _print_table([_readable(row) for row in rows])
    return DONE


def _prove(choices: config.Config, package: str) -> int:
    """kills and resumes this very task; proves that nothing differs"""
    del package
    with _quiet_import(choices.debug):
        from trainer import proof
    directory = pathlib.Path(tempfile.mkdtemp(prefix="keepstep-prove-"))
    arguments = config.as_arguments(choices)
    command = [sys.executable, sys.argv[0], "train", *arguments]
    verdict = proof.prove(command, directory, kills=choices.kills, seed=choices.seed)
    if choices.format == "json":
        print(json.dumps(dataclasses.asdict(verdict)))
    else:
        kinds = {f"kills in {k}": v for k, v in verdict.kills.items()}
        kinds |= {f"{k} compared": v for k, v in verdict.compared.items()}
        _print_table([{"what": k, "count": v} for k, v in kinds.items()])
    if verdict.differences:
        for difference in verdict.differences[:_SHOWN_DIFFERENCES]:
            print(difference)
        print(f"NOT EXACT: {len(verdict.differences)} differences; see {directory}")
        return FAILED
    print(f"exact: {sum(verdict.kills.values())} kills survived, nothing differs.")
    shutil.rmtree(directory)
    return DONE


def _tasks(choices: config.Config, package: str) -> int:
    """the registered tasks, their hyperparameters and defaults"""
    with _quiet_import(choices.debug):
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
        print(json.dumps(rows, indent=1))
    else:
        _print_table(rows)
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


def _print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    if not rows:
        print("none")
        return
    table = rich.table.Table(box=None, pad_edge=False, header_style="bold")
    for name in rows[0]:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*map(str, row.values()))
    console = rich.console.Console()
    if not console.is_terminal:
        console.width = 1000  # what a program reads is not folded
    console.print(table)


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
    print(f"{type(error).__name__}: {error}", file=sys.stderr)
    return code


class _Lines(logging.Handler):
    """Plain lines on whatever stderr is now, so that they pass above a progress bar.

    What TensorFlow's Python says below a warning is its own affair.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        own_affair = f"{os.sep}tensorflow{os.sep}" in record.pathname
        return record.levelno >= logging.WARNING or not own_affair

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr, flush=True)


def _log_plainly() -> None:
    logger = absl_logging.get_absl_logger()
    handler = _Lines()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logger.handlers[:] = [handler]
    logger.propagate = False
    logger.setLevel(logging.INFO)


@contextlib.contextmanager
def _quiet_import(debug: bool) -> Iterator[None]:
    """Imports TensorFlow without the lines that its libraries write to stderr.

    They come from C++, before any log level is obeyed. If the import fails they are
    shown after all.
    """
    if debug:
        yield
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.stderr.flush()
    real = os.dup(2)
    with tempfile.TemporaryFile() as hidden:
        os.dup2(hidden.fileno(), 2)
        try:
            import tensorflow as tf

            tf.config.list_logical_devices()  # the drivers speak up here
            yield
        except BaseException:
            hidden.seek(0)
            os.write(real, hidden.read())
            raise
        finally:
            os.dup2(real, 2)
            os.close(real)
