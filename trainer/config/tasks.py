"""From `--task` and `--set` to a `Task`.

digits = tasks.create("digits", ["width=64"], package="models")
"""

from __future__ import annotations

import dataclasses
import importlib
import math
import pkgutil
import sys
import types
import typing
from collections.abc import Sequence
from typing import Any

from trainer import task
from trainer.config import options

_BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False}
_BOOLEANS["no"] = False


def create(name: str, settings: Sequence[str], *, package: str) -> task.Task:
    """The task of that name with its hyperparameters set.

    Args:
      name: a registered name, or `package.module:Class`.
      settings: `name=value` texts; of two with one name the later wins.
      package: where the registered tasks are, one module each.

    Raises:
      options.ConfigError: there is no such task or hyperparameter, or a value is not of
        the hyperparameter's type.
    """
    cls = find(name, package)
    types_by_name = _hyperparameter_types(cls)
    values = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise options.ConfigError(f"--set={setting}: expected --set=name=value.")
        if key not in types_by_name:
            hint = options.suggest(key, types_by_name) if types_by_name else ""
            raise options.ConfigError(
                f"--set={setting}: the task {name} has no hyperparameter {key!r}.{hint}"
            )
        try:
            values[key] = _parse(text, types_by_name[key])
        except ValueError as error:
            raise options.ConfigError(f"--set={setting}: {error}.") from None
    for field in dataclasses.fields(cls):
        defaults = (field.default, field.default_factory)
        if field.name not in values and defaults == (dataclasses.MISSING,) * 2:
            raise options.ConfigError(
                f"the task {name} needs a value for {field.name!r}: give "
                f"--set={field.name}=..."
            )
    try:
        return cls(**values)
    except ValueError as error:
        raise options.ConfigError(
            f"the task {name} refuses its settings: {error}"
        ) from (error)


def find(name: str, package: str) -> type[task.Task]:
    """The class of a task.

    Raises:
      options.ConfigError: there is no such task.
    """
    return _load(name) if ":" in name else _find(name, package)


def all_tasks(package: str) -> dict[str, type[task.Task]]:
    """Every task registered in `package`, by name."""
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        importlib.import_module(f"{package}.{module.name}")
    return task.registered()


def _find(name: str, package: str) -> type[task.Task]:
    known = all_tasks(package)
    if not name:
        raise options.ConfigError(
            f"no task given: use --task=NAME.{options.suggest('', known)}"
        )
    if name not in known:
        raise options.ConfigError(
            f"there is no task {name!r}.{options.suggest(name, known)} A task of your "
            "own is --task=package.module:Class."
        )
    return known[name]


def _load(name: str) -> type[task.Task]:
    module_name, _, class_name = name.partition(":")
    if not all(part.isidentifier() for part in [*module_name.split("."), class_name]):
        raise options.ConfigError(
            f"--task={name}: expected package.module:Class, such as my_tasks:Rings."
        )
    if "" not in sys.path:
        sys.path.insert(0, "")  # run.py may lie elsewhere; the user's file lies here
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the user's module is there, and one that it imports is not
        raise options.ConfigError(
            f"--task={name}: there is no module {module_name!r} in the current "
            "directory or among the installed packages."
        ) from None
    cls = getattr(module, class_name, None)
    if not (isinstance(cls, type) and issubclass(cls, task.Task)):
        classes = [
            key
            for key, value in vars(module).items()
            if isinstance(value, type) and issubclass(value, task.Task)
        ]
        raise options.ConfigError(
            f"--task={name}: {module_name} has no task class {class_name!r}."
            f"{options.suggest(class_name, classes)}"
        )
    return cls


def _hyperparameter_types(cls: type[task.Task]) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def _parse(text: str, kind: Any) -> Any:
    """`text` as a value of the annotated type.

    Raises:
      ValueError: it is not one.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if type(None) in arguments and text.lower() == "none":
            return None
        inner = [one for one in arguments if one is not type(None)]
        if len(inner) == 1:
            return _parse(text, inner[0])
    if origin is tuple:
        texts = text.split(",") if text else []
        if arguments[-1:] == (...,):
            arguments = arguments[:1] * len(texts)
        if len(texts) != len(arguments):
            raise ValueError(f"{text!r} has not {len(arguments)} parts")
        return tuple(map(_parse, texts, arguments))
    if kind is bool:
        if text.lower() not in _BOOLEANS:
            raise ValueError(f"{text!r} is neither true nor false")
        return _BOOLEANS[text.lower()]
    if kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            number = "a whole number" if kind is int else "a number"
            raise ValueError(f"{text!r} is not {number}") from None
        if kind is float and math.isnan(value):
            raise ValueError(f"{text!r} is not a number")
        return value
    if kind is str:
        return text
    raise ValueError(
        f"a hyperparameter of type {kind} can't be given as text; use int, float, "
        "bool, str, an optional or a tuple of these"
    )
