"""Hyperparameters on the command line: `--set=name=text` and `--set=name:=JSON`.

    >>> from trainer.config import settings
    >>> settings.parsed("1,2", tuple[int, ...])
    (1, 2)
    >>> settings.written("sizes", [1, 2])
    'sizes:=[1, 2]'

A text means what the type of the hyperparameter says. JSON means the same for every
type; by it a run's own values are given back to the task. No TensorFlow.
"""

from __future__ import annotations

import enum
import json
import math
import types
import typing
from collections.abc import Mapping
from typing import Any

from trainer.config import values
from trainer.config.options import ConfigError, suggest

_BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False}
_BOOLEANS["no"] = False


def chosen(task: str, texts: typing.Iterable[str], kinds: Mapping[str, Any]) -> Any:
    """The values of settings, by name; of two with one name the later wins.

    Args:
      task: its name, for messages.
      texts: `name=text` or `name:=JSON`.
      kinds: the type of each hyperparameter.

    Raises:
      ConfigError: there is no such hyperparameter, or the value is not of its type.
    """
    found = {}
    for setting in texts:
        name, equals, text = setting.partition("=")
        if not equals:
            raise ConfigError(f"--set={setting}: expected --set=name=value.")
        name, is_json = name.removesuffix(":"), name.endswith(":")
        if name not in kinds:
            hint = suggest(name, kinds) if kinds else ""
            raise ConfigError(
                f"--set={setting}: the task {task} has no hyperparameter {name!r}."
                + hint
            )
        try:
            if is_json:
                found[name] = values.decoded(_loaded(text), kinds[name])
            else:
                found[name] = parsed(text, kinds[name], name)
        except (ValueError, TypeError, RecursionError) as error:
            raise ConfigError(f"--set={setting}: {error}.") from None
    return found


def encoded(name: str, value: Any) -> Any:
    """A hyperparameter as it is recorded.

    Raises:
      ConfigError: it can't be.
    """
    try:
        return values.encoded(value)
    except (ValueError, RecursionError) as error:
        told = values.told(value)
        raise ConfigError(
            f"the hyperparameter {name!r} can't be recorded: {told} ({error}). "
            "Expected bool, int, float, str, None, an Enum, or a tuple, list or dict "
            f"of these. Declare it as one, such as {name}: str = {told!r}"
        ) from error


def written(name: str, recorded: Any) -> str:
    """A recorded hyperparameter as a setting that gives the same value back."""
    return f"{name}:={json.dumps(recorded)}"


def parsed(text: str, kind: Any, name: str = "name") -> Any:
    """`text` as a value of the annotated type.

    Raises:
      ValueError: it is not one.
    """
    inner = values.members(kind)
    if len(inner) > 1:
        return _parsed_union(text, inner, name)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return _member(text, {_word(one): one for one in arguments})
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return _member(text, dict(kind.__members__))
    container = origin or kind
    if container in (tuple, list) and not text.startswith("["):
        return _parsed_list(text, container, arguments, name)
    if container in (tuple, list, dict):
        value = values.decoded(_loaded(text), kind)
        if not values.fits(value, kind):
            raise ValueError(f"{value!r} is no {values.kind_name(kind)}")
        return value
    if kind is bool:
        if text.lower() not in _BOOLEANS:
            raise ValueError(f"{text!r} is neither true nor false")
        return _BOOLEANS[text.lower()]
    if kind in (int, float):
        return _number(text, kind)
    if kind is str:
        return text
    if kind is types.NoneType:
        if text.lower() != "none":
            raise ValueError(f"{text!r} is not none")
        return None
    raise ValueError(
        f"a hyperparameter of type {values.kind_name(kind)} can't be given as text; "
        f"give its value as JSON, such as --set='{name}:=1', or declare it as int, "
        "float, bool, str, a Literal, an Enum, an optional, a tuple, list or dict of "
        "these"
    )


def _parsed_union(text: str, inner: tuple[Any, ...], name: str) -> Any:
    """The one meaning that a text has among several types; `none` means None."""
    if types.NoneType in inner and text.lower() == "none":
        return None
    kinds = [one for one in inner if one is not types.NoneType]
    if len(kinds) == 1:
        return parsed(text, kinds[0], name)
    found: list[Any] = []
    for kind in kinds:
        try:
            value = parsed(text, kind, name)
        except ValueError:
            continue
        if not any(values.same(value, one) for one in found):
            found.append(value)
    if len(found) == 1:
        return found[0]
    names = " | ".join(map(values.kind_name, kinds))
    problem = "may mean several things" if found else "means nothing"
    raise ValueError(
        f"{text!r} {problem} as {names}, and so can't be given as text; give its value "
        f"as JSON: --set='{name}:=1' or --set='{name}:=\"1\"'"
    )


def _parsed_list(text: str, container: Any, arguments: Any, name: str) -> Any:
    """A flat tuple or list, with commas."""
    texts = text.split(",") if text else []
    if not arguments:
        raise ValueError(
            f"the type {container.__name__} doesn't say of what; declare it as "
            f"{container.__name__}[int, ...] or give JSON: --set='{name}:=[1, 2]'"
        )
    nested = [typing.get_origin(one) or one for one in arguments]
    if {tuple, list, dict} & set(nested) and text:
        raise ValueError(f"{text!r} is not JSON, such as --set='{name}=[[1, 2], [3]]'")
    if container is list or arguments[-1:] == (...,):
        arguments = arguments[:1] * len(texts)
    if len(texts) != len(arguments):
        raise ValueError(f"{text!r} has not {len(arguments)} parts")
    return container(parsed(*one, name) for one in zip(texts, arguments, strict=True))


def _number(text: str, kind: Any) -> Any:
    try:
        value = kind(text)
    except ValueError:
        number = "a whole number" if kind is int else "a number"
        raise ValueError(f"{text!r} is not {number}") from None
    if kind is float and math.isnan(value):
        raise ValueError(f"{text!r} is not a number")
    return value


def _member(text: str, known: Mapping[str, Any]) -> Any:
    if text not in known:
        raise ValueError(f"{text!r} is none of {', '.join(known)}")
    return known[text]


def _word(literal: Any) -> str:
    """A member of a Literal as it is given on the command line."""
    return literal.name if isinstance(literal, enum.Enum) else str(literal)


def _loaded(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is not JSON ({error})") from None
