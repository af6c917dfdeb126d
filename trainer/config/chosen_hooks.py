"""From `--hook` to the hooks of a run: ready ones, or those that the user names.

>>> from trainer.config import chosen_hooks
>>> chosen_hooks.made(["csv", "command(ls {path}.*)"])
[<trainer.reporting.hooks.Csv object at ...>, <trainer.reporting.hooks.Command ...>]

Nothing of it is recorded in a run directory, so none ever names the code of a hook.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from typing import Any

from trainer.config import lookup
from trainer.config.fields import ConfigError, closest, suggest
from trainer.data import failures
from trainer.reporting import hooks
from trainer.reporting.hook import METHODS

_TEXT = re.compile(r"([^()]+?)\s*(?:\((.*)\))?", re.DOTALL)
_FORM = (
    "expected csv, command(LINE), package.module:Class or path/to/file.py:Class, with "
    "the one argument of the class in parentheses, if it takes one."
)


def made(texts: Sequence[str], given: Sequence[Any] = ()) -> list[Any]:
    """The hooks of `--hook`, in that order.

    Args:
      texts: `NAME` or `NAME(ARGUMENT)`; a name is that of a ready one, or
        `package.module:Class`, or `path/to/file.py:Class`. They come from the user of
        this command: their code is imported.
      given: as objects, such as a script has them; they come first.

    Raises:
      ConfigError: there is no such hook, or it can't be made or called.
    """
    every = [*given, *map(_made, texts)]
    for hook in every:
        _check(hook)
    return every


def _made(text: str) -> Any:
    match = _TEXT.fullmatch(text)
    if match is None:
        raise ConfigError(f"--hook={text}: {_FORM}")
    name, argument = match[1], match[2]
    cls: Any = hooks.READY.get(name) or _named(name, text)
    try:
        return cls() if argument is None else cls(argument)
    except Exception as error:
        place = failures.place(error.__traceback__)
        raise ConfigError(
            f"--hook={text}: it can't be made: {error}{f' ({place})' if place else ''}"
        ) from error


def _named(name: str, text: str) -> Any:
    if ":" not in name:
        close = closest(name, hooks.READY)
        raise ConfigError(f"--hook={text}: there is no hook {name!r};{close} {_FORM}")
    module, class_name = lookup.module_of(name, flag="hook")
    cls = getattr(module, class_name, None)
    if not isinstance(cls, type):
        known = [key for key, value in vars(module).items() if isinstance(value, type)]
        raise ConfigError(
            f"--hook={text}: {module.__name__} has no class {class_name!r}."
            f"{suggest(class_name, known)}"
        )
    return cls


def _check(hook: Any) -> None:
    """Whether a run can call it; says what mends it."""
    name = type(hook).__name__
    if isinstance(hook, type):
        raise ConfigError(
            f"hooks has the class {hook.__name__} in it; expected an object of it: "
            f"hooks=[{hook.__name__}()]."
        )
    found = [one for one in dir(hook) if one.startswith("on_")]
    for one in found:
        if one not in METHODS:
            raise ConfigError(
                f"the hook {name} has a method {one}, which nothing calls."
                f"{suggest(one, METHODS)}"
            )
    if not found:
        raise ConfigError(
            f"the hook {name} has none of the methods {', '.join(METHODS)}. Derive it "
            "from trainer.Hook, and override one of them."
        )
    for one in found:
        try:
            inspect.signature(getattr(hook, one)).bind(*range(METHODS[one]))
        except (TypeError, ValueError):
            names = ", ".join(inspect.signature(getattr(hooks.Hook, one)).parameters)
            raise ConfigError(
                f"{name}.{one} can't be called as it is. Expected: "
                f"def {one}({names}): ..."
            ) from None
