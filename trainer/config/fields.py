"""One option: a field of a frozen dataclass that knows its range, its unit, its help.

    >>> import dataclasses
    >>> from trainer.config import fields
    >>> @dataclasses.dataclass(frozen=True, kw_only=True)
    ... class Options(fields.Checked):
    ...     steps: int = fields.option(0, fields.RUN, "STEPS", "Last step.", minimum=0)
    >>> Options(steps=-5)
    Traceback (most recent call last):
    trainer.config.fields.ConfigError: --steps=-5 is out of range: expected 0 or more.

No TensorFlow here: a mistyped option is answered at once.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Iterable, Sequence
from typing import Any

from trainer.base.errors import KeepstepError

# What an option touches: the numbers that come out (`TRAJECTORY`), only the course of
# the run (`RUN`), or nothing but this one command (`COMMAND`, never written down).
TRAJECTORY, RUN, COMMAND = "trajectory", "run", "command"


class ConfigError(KeepstepError, ValueError):
    """The command line or the configuration is wrong."""


def option(
    default: Any,
    touches: str,
    unit: str,
    help: str,
    *,
    zero: str = "",
    absent: str = "",
    minimum: float | None = None,
    maximum: float = math.inf,
    choices: Sequence[str] | None = None,
) -> Any:
    """A field of a dataclass that is an option of the command line.

    Args:
      default: its type is that of the option; a tuple may be given several times.
      touches: `TRAJECTORY`, `RUN` or `COMMAND`.
      unit: of the value, such as `STEPS`; "" for a boolean and for `choices`.
      help: one sentence or two for `--help`.
      zero: the meaning of 0, if it has one of its own.
      absent: what is used without the option, where the default doesn't say it.
      minimum: the least number that is allowed; None for what is no number.
      maximum: the largest.
      choices: the only words that are allowed.
    """
    metadata = {
        "touches": touches,
        "unit": unit,
        "help": help,
        "zero": zero,
        "absent": absent,
        "minimum": minimum,
        "maximum": maximum,
        "choices": choices,
    }
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checked:
    """The base of every group of options: values are checked as they come in.

    Raises:
      ConfigError: a value is of another type, out of range, or no choice.
    """

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            _check(field, getattr(self, field.name))


def by_name(kind: type[Checked]) -> dict[str, dataclasses.Field[Any]]:
    """The fields of a dataclass of options."""
    return {field.name: field for field in dataclasses.fields(kind)}


def recorded(kind: type[Checked]) -> dict[str, dataclasses.Field[Any]]:
    """The fields that a run writes down, by name."""
    return {
        name: field
        for name, field in by_name(kind).items()
        if field.metadata["touches"] != COMMAND
    }


def closest(word: str, known: Iterable[str]) -> str:
    """` Did you mean 'x'?` for the closest of the known words, if one is close."""
    close = difflib.get_close_matches(word, sorted(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def suggest(word: str, known: Iterable[str]) -> str:
    """` Did you mean 'x'?` for the closest of the known words, or the known words."""
    known = sorted(known)
    every = f" Known: {', '.join(known)}." if known else ""
    return closest(word, known) or every


def _check(field: dataclasses.Field[Any], value: Any) -> None:
    name, choices = field.name, field.metadata["choices"]
    _check_type(name, value, type(field.default))
    if choices and value not in choices:
        raise ConfigError(
            f"--{name}={value}: expected {', '.join(choices)}.{closest(value, choices)}"
        )
    minimum, maximum = field.metadata["minimum"], field.metadata["maximum"]
    if minimum is None or (minimum <= value <= maximum and value < math.inf):
        return
    more = "or more, finite" if type(field.default) is float else "or more"
    upper = more if maximum == math.inf else f"to {maximum}"
    raise ConfigError(f"--{name}={value} is out of range: expected {minimum} {upper}.")


def _check_type(name: str, value: Any, kind: type) -> None:
    """Values from absl are right by themselves; those from a file may not be."""
    fits = type(value) is kind or (kind is float and type(value) is int)
    if kind is tuple and fits:
        fits = all(isinstance(one, str) for one in value)
    if not fits:
        raise ConfigError(f"--{name}={value!r}: expected {kind.__name__}.")
