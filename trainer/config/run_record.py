"""What a run was started with, and what each resume changed.

`config.json` in the run directory. A choice that the numbers depend on may not change
between two starts of one run, unless the user says that it is meant. No TensorFlow.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

import xxhash

from trainer.checkpoint.catalog import Entry
from trainer.checkpoint.layout import RunDirectory
from trainer.config import comparison, flagfile, options, settings, values
from trainer.config.comparison import FIELDS
from trainer.storage import checked_json, files

_MAX_BYTES = 16 << 20


@dataclasses.dataclass(frozen=True)
class Record:
    """The choices of a run.

    Attributes:
      choices: every recorded field by name; the task's hyperparameters are complete,
        defaults included, under `set`, as `values.encoded` gives them; what else the
        numbers depend on is under `facts`.
      changes: one entry a resume that differed: `{"time", "name": [old, new], ...}`.
      lineages: one entry each time it went back: `{"time", "asked", "step"}`.
      committed: the step of its first checkpoint; None before there is one.
      batches: the outlines of a batch, in training and in an evaluation, as
        `data.specs` writes them; None where they are not known.
      recipe: how examples of the user's own are read like the task's; None: it has
        none.
    """

    choices: Mapping[str, Any]
    changes: tuple[Mapping[str, Any], ...] = ()
    lineages: tuple[Mapping[str, Any], ...] = ()
    committed: int | None = None
    batches: Mapping[str, Any] | None = None
    recipe: Mapping[str, Any] | None = None

    def noted(self, **changed: Any) -> Record:
        """The record with one more entry of what a resume changed."""
        entry = {"time": round(time.time(), 3), **changed}
        return dataclasses.replace(self, changes=(*self.changes, entry))

    def with_fact(
        self, name: str, value: Any, *, allowed: bool, problem: str, allow: str
    ) -> Record:
        """The record with something that the numbers depend on.

        Args:
          name: of the fact.
          value: JSON.
          allowed: whether it may be another one than at the start before.
          problem: what it means that it is.
          allow: what `--allow_change` calls it.

        Raises:
          options.ConfigError: it is another one, and that is not allowed.
        """
        before = self.choices["facts"].get(name)
        facts = {**self.choices["facts"], name: value}
        here = dataclasses.replace(self, choices={**self.choices, "facts": facts})
        if before in (None, value):
            return here
        if not allowed:
            raise options.ConfigError(
                f"{problem}. A resumed run would not be the one that was begun. Bring "
                "back what it was begun with, give another --run_dir, or say that you "
                f"mean it: --allow_change={allow}"
            )
        return here.noted(**{name: [before, value]})

    def gone_back(self, asked: str, step: int) -> Record:
        """The record of a run that has gone back to `step`, as the user `asked`."""
        entry = {"time": round(time.time(), 3), "asked": asked, "step": step}
        return dataclasses.replace(self, lineages=(*self.lineages, entry))

    @property
    def digest(self) -> str:
        """Of the choices that the numbers depend on."""
        known = comparison.of_first_release(comparison.trajectory(self.choices))
        text = json.dumps(known, sort_keys=True)
        return xxhash.xxh3_128_hexdigest(text.encode())


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
    path = RunDirectory(config.directory()).config
    if not path.exists():
        return Record(_choices(config, hyperparameters, facts))
    before = read(path)
    choices = _choices(config, hyperparameters, {**before.choices["facts"], **facts})
    different = comparison.of_trajectories(before.choices, choices)
    refused = {k: v for k, v in different.items() if k not in allowed}
    if refused:
        lines = [
            f"  {name}: {values.shown(there)} there, {values.shown(here)} here"
            for name, (there, here) in comparison.leaves(refused).items()
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
    return dataclasses.replace(before, choices=choices).noted(**changed)


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
        committed = body.get("committed")
        if committed is not None and type(committed) is not int:
            raise TypeError("its committed is no step")
        batches, recipe = body.get("batches"), body.get("recipe")
        for one in (batches, recipe):
            if one is not None and not isinstance(one, dict):
                raise TypeError("its batches or its recipe are no object")
        return Record(choices, changes, lineages, committed, batches, recipe)
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as error:
        raise unreadable(path, error) from error


def write(directory: RunDirectory, record: Record) -> None:
    """Writes `config.json`, and `run.flags`, which repeats the run elsewhere."""
    checked_json.write(directory.config, dataclasses.asdict(record))
    files.write_atomically(directory.flags, as_flags(record))


def note_commits(directory: RunDirectory) -> Callable[[Entry], None]:
    """A listener that notes the first checkpoint of a run, once it is there."""
    noted = False

    def note(entry: Entry) -> None:
        nonlocal noted
        if noted:
            return
        record = read(directory.config)
        if record.committed is None:
            write(directory, dataclasses.replace(record, committed=entry.step))
        noted = True

    return note


def as_flags(record: Record) -> str:
    """The choices as a flagfile."""
    return flagfile.written(record.choices)


def _choices(
    config: options.RunOptions,
    hyperparameters: Mapping[str, Any],
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    recorded = {name: getattr(config, name) for name in FIELDS}
    recorded["threads"] = config.thread_count()
    recorded["set"] = {
        name: settings.encoded(name, value) for name, value in hyperparameters.items()
    }
    recorded["facts"] = dict(facts)
    as_read_back: dict[str, Any] = json.loads(json.dumps(recorded))
    flagfile.check(as_read_back)
    return as_read_back


def unreadable(path: pathlib.Path, error: Exception) -> options.ConfigError:
    """The error for a `config.json` that can't be used."""
    return options.ConfigError(
        f"{path} is not the configuration of a run ({type(error).__name__}: {error}). "
        "Bring back the file, or give another --run_dir."
    )
