"""From `--task` and `--set` to a `Task` that a run can record.

>>> from trainer.config import tasks
>>> tasks.create("line:Line", ["rate=0.5"], package="models", trust=True)
Line(rate=0.5)
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import typing
from collections.abc import Iterator, Sequence
from typing import Any

from trainer import task
from trainer.config import lookup, options, settings, values


def of(choices: options.RunOptions, *, package: str) -> task.Task:
    """The task of a command, with the hyperparameters of its run.

    Raises:
      options.ConfigError, task_name.UntrustedTaskError: as `create`.
    """
    return create(choices.task, choices.set, package=package, trust=choices.trust)


def create(
    name: str, chosen: Sequence[str], *, package: str, trust: bool = False
) -> task.Task:
    """The task of that name with its hyperparameters set.

    Args:
      name: a registered name, `package.module:Class` or `path/to/file.py:Class`.
      chosen: `name=text` or `name:=JSON`; of two with one name the later wins.
      package: where the registered tasks are, one module each.
      trust: whether code may be imported that `name` says; see `lookup.find`.

    Raises:
      options.ConfigError: there is no such task or hyperparameter, a value is not of
        the hyperparameter's type, or no run could record it.
      task_name.UntrustedTaskError: the name is not trusted.
    """
    cls = lookup.find(name, package=package, trust=trust)
    kinds = _kinds(cls)
    given = settings.chosen(name, chosen, kinds)
    for field in _fields(cls):
        defaults = (field.default, field.default_factory)
        if field.name not in given and defaults == (dataclasses.MISSING,) * 2:
            raise options.ConfigError(
                f"the task {name} needs a value for {field.name!r}: give "
                f"--set={field.name}=..."
            )
    try:
        created = cls(**given)
    except (ValueError, TypeError) as error:
        raise options.ConfigError(
            f"the task {name} refuses its settings: {error}"
        ) from error
    check(created)
    return created


def check(given: task.Task) -> None:
    """Whether a run can record this task, and make the same one of its record.

    Raises:
      options.ConfigError: it can't; names the field, its type, and what mends it.
    """
    cls = type(given)
    kinds, again = _kinds(cls), {}
    for field in _fields(cls):
        value, kind = getattr(given, field.name), kinds[field.name]
        again[field.name] = _restored(cls, field.name, value, kind)
        if not values.fits(value, kind) and not values.same(value, field.default):
            found = type(value).__name__
            raise options.ConfigError(
                f"{cls.__name__}.{field.name} is {values.told(value)} of type {found}, "
                f"and declared as {values.kind_name(kind)}. Give a value of that type, "
                f"or declare it as what it is: {field.name}: {found}"
            )
    try:
        twin = cls(**again)
    except (ValueError, TypeError) as error:
        raise options.ConfigError(
            f"{cls.__name__} refuses the hyperparameters that it has itself: {error}. "
            "A later command makes the task of them: let __post_init__ take them."
        ) from error
    for name, value in again.items():
        other = getattr(twin, name)
        if not values.same(other, value):
            raise options.ConfigError(
                f"{cls.__name__}.{name} is {values.told(value)}, and a task made with "
                f"that has {values.told(other)}: a later command would have another "
                f"task. Leave {name} as it is in __post_init__, and compute what you "
                "need of it in a property."
            )


def _restored(cls: type[task.Task], name: str, value: Any, kind: Any) -> Any:
    """What a later command will have for this value.

    Raises:
      options.ConfigError: something else, or nothing.
    """
    reason = "it comes back as something else"
    try:
        back = values.decoded(json.loads(json.dumps(values.encoded(value))), kind)
        if values.same(back, value):
            return back
    except (ValueError, TypeError, RecursionError) as error:
        reason = str(error)
    raise options.ConfigError(
        f"{cls.__name__}.{name} can't be recorded, so a later command would have "
        f"another task: {values.told(value)} of the declared type "
        f"{values.kind_name(kind)} ({reason}). Hyperparameters are bool, int, "
        "float, str, None, an Enum that the type names, a Literal, and tuple, list "
        "and dict of these: declare it as one, such as "
        f"{_declaration(name, value)}, and make of it what you need in a method."
    )


def _declaration(name: str, value: Any) -> str:
    """A line for the class, in place of what can't be recorded."""
    if hasattr(value, "dtype") and getattr(value, "shape", None) == ():
        value = value.item()
        return f"{name}: {type(value).__name__} = {value!r}"
    if isinstance(value, set | frozenset):
        return f"{name}: tuple[{_element(value)}, ...] = {tuple(value)!r}"
    return f"{name}: str = {values.told(value)!r}"


def _element(given: Any) -> str:
    return type(next(iter(given), "")).__name__


def _fields(cls: type[task.Task]) -> list[dataclasses.Field[Any]]:
    return [field for field in dataclasses.fields(cls) if field.init]


def _kinds(cls: type[task.Task]) -> dict[str, Any]:
    """The type of each hyperparameter.

    Raises:
      options.ConfigError: the class has fields that are none, and would be ignored.
    """
    try:
        hints = typing.get_type_hints(cls)
    except (NameError, TypeError) as error:
        raise options.ConfigError(
            f"the types of the fields of {cls.__name__} can't be found out: {error}. "
            "Import what they name where the module begins, not under TYPE_CHECKING."
        ) from error
    for line in _ignored(cls, hints):
        raise options.ConfigError(line)
    return {field.name: hints[field.name] for field in _fields(cls)}


def _ignored(cls: type[task.Task], hints: dict[str, Any]) -> Iterator[str]:
    """What looks like a hyperparameter and is none, with what mends it."""
    fields = {field.name for field in dataclasses.fields(cls)}
    for base in cls.__mro__[: cls.__mro__.index(task.Task)]:
        own = inspect.get_annotations(base)
        for name in own:
            if isinstance(hints[name], dataclasses.InitVar):
                yield (
                    f"{base.__name__}.{name} is an InitVar, which no run can record. "
                    "Make it a field: take away the InitVar[]."
                )
        if "__dataclass_fields__" in vars(base):
            continue
        plain = [name for name in own if not _is_class_variable(hints[name])]
        if not issubclass(base, task.Task):  # only what it gives a value to
            plain = [n for n in plain if n in vars(base) and n not in fields]
        if plain:
            yield (
                f"{base.__name__} declares {', '.join(plain)} and is no dataclass, so "
                "that would be ignored as a hyperparameter. Put above the class: "
                "@dataclasses.dataclass(frozen=True). What is none is declared as "
                "ClassVar[...]."
            )
        parameters = inspect.signature(vars(base).get("__init__", _none)).parameters
        if len(parameters) > 1:
            yield (
                f"{base.__name__}.__init__ takes {', '.join(list(parameters)[1:])}, "
                "which no run would record. Declare them as fields of a dataclass, and "
                "leave __init__ out: @dataclasses.dataclass(frozen=True)."
            )


def _none(self: Any) -> None:
    """What a class has that has no `__init__` of its own."""


def _is_class_variable(hint: Any) -> bool:
    return hint is typing.ClassVar or typing.get_origin(hint) is typing.ClassVar
