"""From the words of a command line to a command and what it is asked.

    >>> from trainer.commands import command_line
    >>> from trainer.config.flagfiles import opened
    >>> line = command_line.read(opened(["list", "--run_dir=runs/line"]))
    >>> command_line.asked(line, package="", as_json=False, debug=False).run.task
    'line:Line'

A command takes its own options and refuses another's by name. A flagfile describes a
run, so what `train` takes may stand in one for any command.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import re
from collections.abc import Iterable, Mapping
from typing import Any, Protocol, cast

from trainer.commands import console
from trainer.commands.asked import Asked, DebugOptions
from trainer.config import completion, fields, flagfiles, flags, options, run_record

NAMES = (
    *("train", "evaluate", "predict", "export", "average", "list", "show", "diff"),
    *("verify", "prove", "prune", "tasks"),
)
_ALWAYS = ("help", "h", "version", "debug")
_FORMAT = re.compile(r"--?format(=.*)?", re.DOTALL)
_CLOSE = 0.75


class Command(Protocol):
    """The module of a command; its docstring is its help."""

    OPTIONS: tuple[flags.Taken, ...]

    def run(self, asked: Asked, package: str) -> int:
        """Does it; gives the exit code."""


@dataclasses.dataclass(frozen=True)
class Line:
    """A command line, sorted.

    Attributes:
      command: that is asked for, or whose help is.
      explicit: whether it is named.
      help: whether help is asked for.
      version: whether the version is.
      words: all of them.
      every: what is given, flagfiles included.
      own: what is given on the command line itself.
    """

    command: str
    explicit: bool
    help: bool
    version: bool
    words: flagfiles.Words
    every: flags.Scan
    own: flags.Scan


def load(name: str) -> Command:
    """The module of a command."""
    return cast(Command, importlib.import_module(f"trainer.commands.{name}"))


def wants_json(words: Iterable[str]) -> bool:
    """Whether one JSON document is asked for, by the last `--format` that says it."""
    left, answer = list(words), "table"
    while left and (word := left.pop(0)) != "--":
        if match := _FORMAT.fullmatch(word):
            text = match[1][1:] if match[1] else (left or [""])[0]
            answer = [answer, *(w for w in text.split(",") if w in ("json", "table"))][
                -1
            ]
    return answer == "json"


def read(words: flagfiles.Words) -> Line:
    """Finds the command and what is given.

    Raises:
      options.ConfigError: there is no such command, or there are two.
    """
    kinds = _kinds(NAMES)
    every, own = (
        flags.scan(part, kinds, more=_ALWAYS[:3], commands=NAMES)
        for part in (words.every, words.own)
    )
    help = bool({"help", "h"} & every.given)
    found = list(every.words)
    if found[:1] == ["help"]:
        help, found = True, found[1:]
    if len(found) > 1:
        raise options.ConfigError(f"one command at a time, not {' and '.join(found)}.")
    command = found[0] if found else "train"
    if command not in NAMES:
        raise options.ConfigError(
            f"there is no command {command!r}.{options.suggest(command, NAMES)}"
        )
    version = "version" in every.given
    return Line(command, bool(found), help, version, words, every, own)


def asked(line: Line, *, package: str, as_json: bool, debug: bool) -> Asked:
    """Checks and reads the options.

    Raises:
      options.ConfigError: an option is unknown, is another command's, or has a value
        that is not allowed.
    """
    taken = load(line.command).OPTIONS
    names = {name for one in taken for name in one.names} | {"debug"}
    if line.every.unknown:
        known = hyperparameters(line, package, debug) if "set" in names else {}
        raise options.ConfigError(
            "\n".join(_unknown(line, names, known, *one) for one in line.every.unknown)
        )
    _refuse_foreign(line, names)
    kinds = _kinds([line.command])
    given = flags.parsed(line.words.every, kinds, ignored=_kinds(NAMES))
    made = [given.make(kind) for kind in kinds]
    run = given.make(options.RunOptions)
    if "run_dir" in names:
        checkpoint = "".join(getattr(one, "checkpoint", "") for one in made)
        run = completion.complete(run, line.every.given, checkpoint=checkpoint)
    return Asked(line.command, run, given, json=as_json, debug=debug)


def hyperparameters(line: Line, package: str, debug: bool) -> dict[str, dict[str, Any]]:
    """`{"name", "type", "default"}` by name, of the task that is named or recorded.

    What a run recorded is read, not imported: its file may come from a stranger.
    """
    try:
        given = flags.parsed(line.words.every, [options.RunOptions], _kinds(NAMES))
        run = given.make(options.RunOptions)
        if "task" in line.every.given:
            with console.quiet_import(debug):
                from trainer.commands.tasks import hyperparameters
                from trainer.config.lookup import find
            cls = find(run.task, package=package, trust=True)
            return {one["name"]: one for one in hyperparameters(cls)}
        record = run_record.read(run.directory() / "config.json")
    except Exception:  # of the user's own module, too: this is for better messages only
        return {}
    return {
        name: {"name": name, "type": type(value).__name__, "default": value}
        for name, value in record.choices["set"].items()
    }


def named_task(line: Line) -> str:
    """The task that the command line or its flagfile names."""
    given = flags.parsed(line.words.every, [options.RunOptions], _kinds(NAMES))
    return given.make(options.RunOptions).task


def _kinds(commands: Iterable[str]) -> list[flags.Kind]:
    """The dataclasses of options of these commands; the run's own come first."""
    kinds = [one.kind for name in commands for one in load(name).OPTIONS]
    return list(dict.fromkeys([options.RunOptions, *kinds, DebugOptions]))


def _owners() -> dict[str, list[str]]:
    """By option, the commands that take it."""
    owners: dict[str, list[str]] = {}
    for command in NAMES:
        for one in load(command).OPTIONS:
            for name in one.names:
                owners.setdefault(name, []).append(command)
    return owners


def _refuse_foreign(line: Line, names: set[str]) -> None:
    owners = _owners()
    lines = []
    for name in sorted(line.every.given - names - set(_ALWAYS)):
        if name not in line.own.given and "train" in owners[name]:
            continue  # a flagfile describes a run
        where = "" if name in line.own.given else " (in a flagfile)"
        lines.append(
            f"--{name}{where} is an option of {_listed(owners[name])}, not of "
            f"{line.command}."
        )
    if lines:
        raise options.ConfigError("\n".join([*lines, _more(line)]))


def _unknown(
    line: Line,
    names: set[str],
    known: Mapping[str, Mapping[str, Any]],
    flag: str,
    value: str | None,
) -> str:
    """What is said of an option that no command has."""
    name = flag.lstrip("-")
    setting = _setting(name, value, known)
    if setting:
        return f"--{name} is a hyperparameter of the task: --set={setting}"
    said = f"{line.command} has no option --{name}."
    close = difflib.get_close_matches(name, [*names, *known, "flagfile"], n=1)
    if close and close[0] in known and close[0] not in names:
        return f"{said} Did you mean --set={_setting(close[0], value, known)}?"
    if close:
        return f"{said} Did you mean --{close[0]}?"
    owners = _owners()
    other = difflib.get_close_matches(name, owners, n=1, cutoff=_CLOSE)
    if other:
        of = _listed(owners[other[0]])
        return f"{said} Did you mean --{other[0]}, an option of {of}?"
    return f"{said} {_more(line)}"


def _setting(
    name: str, value: str | None, known: Mapping[str, Mapping[str, Any]]
) -> str:
    """As `--set` takes it, if it is a hyperparameter; else nothing."""
    if name in known:
        if value is None:
            value = "true" if known[name]["type"] == "bool" else "VALUE"
        return f"{name}={value}"
    off = name.removeprefix("no")
    return f"{off}=false" if off in known and value is None and off != name else ""


def _more(line: Line) -> str:
    return (
        f"`{console.program()} {line.command} --help` lists the options of "
        f"{line.command}."
    )


def _listed(words: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def fields_of(command: str) -> dict[str, Any]:
    """The options that a command takes, in order, by name."""
    found: dict[str, Any] = {}
    for one in load(command).OPTIONS:
        every = fields.by_name(one.kind)
        found |= {name: every[name] for name in one.names}
    return found | fields.by_name(DebugOptions)
