"""Options as flags: command lines, flagfiles, and dataclasses made of them.

    >>> from trainer.config import flags, options
    >>> words = ["--steps=5", "--stepz=6"]
    >>> flags.scan(words, [options.RunOptions]).unknown
    (('--stepz', '6'),)
    >>> flags.parsed(words, [options.RunOptions]).make(options.RunOptions).steps
    5

Parsing is absl's: `--flag=value`, `--flag value`, `-flag`, `--noflag`, `--`, flagfiles.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar, final

from absl import flags

from trainer.config import fields

Kind = type[fields.Checked]
_Made = TypeVar("_Made", bound=fields.Checked)
# As absl says it: "flag --steps=many: invalid literal for int() with base 10: 'many'".
_VALUE = re.compile(r"flag --(?P<name>\w+)=(?P<value>.*?): ", re.DOTALL)
_EXPECTED = {"int": "a whole number", "float": "a number", "bool": "true or false"}


@dataclasses.dataclass(frozen=True)
class Taken:
    """Options that a command takes on its command line: some or all of a dataclass."""

    kind: Kind
    names: tuple[str, ...]


def every(kind: Kind) -> Taken:
    """All options of a dataclass."""
    return Taken(kind, tuple(fields.by_name(kind)))


def some(kind: Kind, *names: str) -> Taken:
    """The named options of a dataclass; the others are not for this command."""
    return Taken(kind, names)


@dataclasses.dataclass(frozen=True)
class Scan:
    """The words of a command line, sorted without looking at the values.

    Attributes:
      given: the names of the known flags among them.
      unknown: the words that are flags and not known, each with its value: what
        follows `=`, or the next word if that is no flag; None without one.
      words: all that is no flag.
    """

    given: frozenset[str]
    unknown: tuple[tuple[str, str | None], ...]
    words: tuple[str, ...]


def scan(
    words: Iterable[str],
    kinds: Iterable[Kind],
    *,
    more: Iterable[str] = (),
    commands: Iterable[str] = (),
) -> Scan:
    """Sorts the words of a command line.

    Args:
      words: without the program.
      kinds: whose fields are known flags.
      more: the names of further boolean flags.
      commands: words that are never the value of an unknown flag.

    Raises:
      fields.ConfigError: a flag has no value, or a boolean one has a wrong one.
    """
    values = _new()
    _define_untyped(values, kinds, skip=())
    for name in more:
        flags.DEFINE_boolean(name, False, "", flag_values=values)
    rest = _parse(values, words)
    unknown: list[tuple[str, str | None]] = []
    found: list[str] = []
    while rest:
        word = rest.pop(0)
        if word == "--":
            found += rest
            break
        if not word.startswith("-") or word == "-":
            found.append(word)
            continue
        name, equals, text = word.partition("=")
        value = text if equals else None
        if value is None and rest and not rest[0].startswith("-"):
            value = None if rest[0] in commands else rest.pop(0)
        unknown.append((name, value))
    present = frozenset(name for name in values if values[name].present)
    return Scan(present, tuple(unknown), tuple(found))


@final
class Given:
    """Parsed flags, from which dataclasses of options are made."""

    def __init__(self, values: flags.FlagValues) -> None:
        self._values = values

    def make(self, kind: type[_Made]) -> _Made:
        """The options of one dataclass.

        Raises:
          fields.ConfigError: a value is out of range, or two contradict each other.
        """
        chosen: dict[str, Any] = {
            name: self._values[name].value for name in fields.by_name(kind)
        }
        chosen |= {k: tuple(v) for k, v in chosen.items() if isinstance(v, list)}
        return kind(**chosen)


def parsed(
    words: Iterable[str], kinds: Sequence[Kind], ignored: Iterable[Kind] = ()
) -> Given:
    """Parses a command line.

    Args:
      words: without the program and the command.
      kinds: whose fields are flags.
      ignored: whose fields may be given, and are not looked at. Nor is what is no
        flag of either.

    Raises:
      fields.ConfigError: a value is not of its type.
    """
    values = _new()
    for kind in kinds:
        for field in fields.by_name(kind).values():
            _define(values, field)
    _define_untyped(values, ignored, skip=set(values))
    _parse(values, words)
    return Given(values)


def as_arguments(choices: fields.Checked) -> list[str]:
    """The flags of what a run records and differs from the defaults."""
    arguments = []
    for name, field in fields.recorded(type(choices)).items():
        value = getattr(choices, name)
        if value != field.default:
            values = value if isinstance(value, tuple) else [value]
            arguments += [f"--{name}={one}" for one in values]
    return arguments


def _new() -> flags.FlagValues:
    return flags.FlagValues()  # type: ignore[no-untyped-call]


def _parse(values: flags.FlagValues, words: Iterable[str]) -> list[str]:
    """Sets the values; gives the words that are no flag, or not a known one."""
    try:
        return list(values(["", *words], known_only=True)[1:])
    except (flags.Error, ValueError) as error:
        raise fields.ConfigError(_explained(str(error), values)) from error


def _explained(problem: str, values: flags.FlagValues) -> str:
    """What absl says of a value, with what was expected instead."""
    match = _VALUE.match(problem)
    if match is None or match["name"] not in values:
        return f"{problem}."
    parser, text = values[match["name"]].parser, match["value"]
    if isinstance(parser, flags.EnumParser):
        words = list(parser.enum_values)
        expected = f"{', '.join(words)}.{fields.closest(text, words)}"
    else:
        expected = f"{_EXPECTED.get(parser.flag_type(), 'another value')}."
    return f"--{match['name']}={text}: expected {expected}"


def _define(values: flags.FlagValues, field: dataclasses.Field[Any]) -> None:
    """One absl flag of the field's type."""
    default: Any = field.default
    name, help = field.name, field.metadata["help"]
    if field.metadata["choices"]:
        words = list(field.metadata["choices"])
        flags.DEFINE_enum(name, default, words, help, flag_values=values)
    elif isinstance(default, bool):
        flags.DEFINE_boolean(name, default, help, flag_values=values)
    elif isinstance(default, int):
        flags.DEFINE_integer(name, default, help, flag_values=values)
    elif isinstance(default, float):
        flags.DEFINE_float(name, default, help, flag_values=values)
    elif isinstance(default, tuple):
        flags.DEFINE_multi_string(name, list(default), help, flag_values=values)
    else:
        flags.DEFINE_string(name, default, help, flag_values=values)


def _define_untyped(
    values: flags.FlagValues, kinds: Iterable[Kind], skip: Iterable[str]
) -> None:
    """Flags that take any text, or nothing, where the field is a boolean."""
    found = {k: v for kind in kinds for k, v in fields.by_name(kind).items()}
    for name in found.keys() - set(skip):
        if isinstance(found[name].default, bool):
            flags.DEFINE_boolean(name, False, "", flag_values=values)
        else:
            flags.DEFINE_multi_string(name, [], "", flag_values=values)
