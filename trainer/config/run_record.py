"""What a run was started with, and what each resume changed.

`config.json` in the run directory. What a later command leaves unsaid is taken from
there; a choice that the numbers depend on may not change between two starts of one run,
unless the user says that it is meant. No TensorFlow.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import time
from collections.abc import Collection, Mapping
from typing import Any

import xxhash

from trainer.checkpoint.layout import RunDirectory
from trainer.config import comparison, flagfile, options, settings, task_name, values
from trainer.config.comparison import FIELDS
from trainer.storage import checked_json, files

_MAX_BYTES = 16 << 20
_LENGTH = {"steps", "epochs"}  # two ways to say one thing


@dataclasses.dataclass(frozen=True)
class Record:
    """The choices of a run.

    Attributes:
      choices: every recorded field by name; the task's hyperparameters are complete,
        defaults included, under `set`, as `values.encoded` gives them; what else the
        numbers depend on is under `facts`.
      changes: one entry a resume that differed: `{"time", "name": [old, new], ...}`.
      lineages: one entry each time it went back: `{"time", "asked", "step"}`.
    """

    choices: Mapping[str, Any]
    changes: tuple[Mapping[str, Any], ...] = ()
    lineages: tuple[Mapping[str, Any], ...] = ()

    def gone_back(self, asked: str, step: int) -> Record:
        """The record of a run that has gone back to `step`, as the user `asked`."""
        entry = {"time": round(time.time(), 3), "asked": asked, "step": step}
        return dataclasses.replace(self, lineages=(*self.lineages, entry))

    @property
    def digest(self) -> str:
        """Of the choices that the numbers depend on."""
        text = json.dumps(comparison.trajectory(self.choices), sort_keys=True)
        return xxhash.xxh3_128_hexdigest(text.encode())


def complete(
    config: options.RunOptions, given: Collection[str], *, checkpoint: str = ""
) -> options.RunOptions:
    """Fills what a command left unsaid with the run's own choices, if there is a run.

    A task that the command names is trusted: its code may be imported.

    Args:
      config: of the command.
      given: the names of the flags that it was given.
      checkpoint: that the command names: where neither a run nor a task is named, its
        path says which run.

    Raises:
      options.ConfigError: the directory holds a run of another task.
    """
    if "task" in given:
        name = task_name.absolute(config.task)
        config = dataclasses.replace(config, task=name, trust=True)
    if not config.run_dir and not config.task:
        run_dir = _run_of(checkpoint)
        if run_dir is None:
            return config
        config = dataclasses.replace(config, run_dir=str(run_dir))
    path = config.directory() / "config.json"
    if not path.exists():
        return config
    choices = read(path).choices
    if "task" in given and not task_name.same(config.task, choices["task"]):
        raise options.ConfigError(
            f"{config.directory()} holds a run of the task {choices['task']!r}, not "
            f"{config.task!r}. Give another --run_dir."
        )
    unsaid = {name for name in choices if name in FIELDS and name not in given}
    if _LENGTH & set(given):
        unsaid -= _LENGTH
    own = {name: choices[name] for name in unsaid}
    own |= {name: tuple(v) for name, v in own.items() if isinstance(v, list)}
    if "best" in given:
        rules = {text.partition(":")[0]: text for text in choices["best"]}
        own["best"] = tuple(rules.get(text, text) for text in config.best)
    texts = [settings.written(*one) for one in choices["set"].items()]
    own["set"] = (*texts, *(config.set if "set" in given else ()))
    try:
        return dataclasses.replace(config, run_dir=str(config.directory()), **own)
    except TypeError as error:
        raise _unreadable(path, error) from error


def settle(
    config: options.RunOptions,
    hyperparameters: Mapping[str, Any],
    facts: Mapping[str, Any],
    *,
    allowed: Collection[str] = (),
) -> Record:
    """Compares a command's choices with the run's own. Writes nothing.

    Args:
      config: of the command.
      hyperparameters: of the task, all of them.
      facts: what else the numbers depend on, such as the number of examples.
      allowed: the names of choices that may differ.

    Raises:
      options.ConfigError: a choice that the numbers depend on differs and is not
        allowed to; shows each, there and here.
    """
    choices = _choices(config, hyperparameters, facts)
    path = config.directory() / "config.json"
    if not path.exists():
        return Record(choices)
    before = read(path)
    different = comparison.of_trajectories(before.choices, choices)
    refused = {k: v for k, v in different.items() if k not in allowed}
    if refused:
        lines = [
            f"  {name}: {values.shown(there)} there, {values.shown(here)} here"
            for name, (there, here) in refused.items()
        ]
        allow = " ".join(f"--allow_change={name}" for name in refused)
        raise options.ConfigError(
            f"{config.directory()} holds a run that was started with other choices:\n"
            + "\n".join(lines)
            + "\nStart with the same ones, give another --run_dir, or say that you "
            f"mean it: {allow}"
        )
    changed = comparison.of_all(before.choices, choices)
    if not changed:
        return before
    entry = {"time": round(time.time(), 3), **changed}
    return dataclasses.replace(
        before, choices=choices, changes=(*before.changes, entry)
    )


def read(path: pathlib.Path) -> Record:
    """Reads a `config.json`.

    Raises:
      options.ConfigError: it is not one.
    """
    try:
        body = checked_json.opened(checked_json.read(path, max_bytes=_MAX_BYTES))
        choices, changes = body["choices"], tuple(body["changes"])
        lineages = tuple(body["lineages"])
        if not isinstance(choices, dict):
            raise TypeError("its choices are no object")
        if unknown := choices.keys() - {*FIELDS, "facts"}:
            raise TypeError(f"it has unknown choices: {', '.join(sorted(unknown))}")
        for name, kind in (("task", str), ("set", dict), ("facts", dict)):
            if not isinstance(choices[name], kind):
                raise TypeError(f"its {name} is no {kind.__name__}")
        for name, value in choices["set"].items():
            values.plain(value)
            if not name.isidentifier():
                raise TypeError(f"{name!r} is no name of a hyperparameter")
        return Record(choices, changes, lineages)
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as error:
        raise _unreadable(path, error) from error


def write(directory: RunDirectory, record: Record) -> None:
    """Writes `config.json`, and `run.flags`, which repeats the run elsewhere."""
    checked_json.write(directory.config, dataclasses.asdict(record))
    files.write_atomically(directory.flags, as_flags(record))


def as_flags(record: Record) -> str:
    """The choices as a flagfile."""
    return flagfile.written(record.choices)


def _run_of(checkpoint: str) -> pathlib.Path | None:
    """The run directory that a checkpoint's path leads through."""
    for parent in pathlib.Path(checkpoint).parents:
        if (parent / "config.json").is_file() and parent != pathlib.Path():
            return parent
    return None


def _choices(
    config: options.RunOptions,
    hyperparameters: Mapping[str, Any],
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    recorded = {name: getattr(config, name) for name in FIELDS}
    recorded["set"] = {
        name: settings.encoded(name, value) for name, value in hyperparameters.items()
    }
    recorded["facts"] = dict(facts)
    as_read_back: dict[str, Any] = json.loads(json.dumps(recorded))
    flagfile.check(as_read_back)
    return as_read_back


def _unreadable(path: pathlib.Path, error: Exception) -> options.ConfigError:
    return options.ConfigError(
        f"{path} is not the configuration of a run ({type(error).__name__}: {error}). "
        "Bring back the file, or give another --run_dir."
    )
