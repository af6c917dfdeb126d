"""`run.flags`: the recorded choices as a flagfile that repeats the run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trainer.config import options, settings

_HEAD = """\
# Repeats this run in another directory:
#   python run.py --flagfile=<this file> --run_dir=<another directory>
"""


def written(choices: Mapping[str, Any]) -> str:
    """The choices, a line each."""
    lines = [f"--{name}={value}" for name, value in _flags(choices)]
    return _HEAD + "\n".join(lines) + "\n"


def check(choices: Mapping[str, Any]) -> None:
    """Whether a flagfile can hold them: absl reads lines, without blanks at the end.

    Raises:
      options.ConfigError: an option has a line break, or ends with a blank.
    """
    for name, value in _flags(choices):
        if value != value.rstrip() or len(value.splitlines()) > 1:
            raise options.ConfigError(
                f"--{name}={value!r} has a line break in it, or a blank at its end, "
                "which run.flags can't hold, so nothing could repeat this run. Choose "
                "another name."
            )


def _flags(choices: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in choices.items():
        if name == "set":
            for hyperparameter, recorded in value.items():
                yield name, settings.written(hyperparameter, recorded)
        elif name != "facts":
            for one in value if isinstance(value, list) else [value]:
                yield name, str(one)
