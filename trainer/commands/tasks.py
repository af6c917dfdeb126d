"""List the registered tasks with their hyperparameters and defaults.

A task of your own is named by module and class: --task=my_tasks:Rings.

    python run.py tasks
"""

from __future__ import annotations

import dataclasses
from typing import Any

from trainer.commands import console
from trainer.commands.asked import AnswerOptions, Asked
from trainer.config import flags

OPTIONS = (flags.every(AnswerOptions),)


def run(asked: Asked, package: str) -> int:
    """Prints one row per task."""
    with console.quiet_import(asked.debug):
        from trainer.config.lookup import all_tasks
    found = [
        {
            "task": name,
            "about": (cls.__doc__ or "").partition("\n")[0],
            "hyperparameters": hyperparameters(cls),
        }
        for name, cls in sorted(all_tasks(package).items())
    ]
    if asked.json:
        console.answer(found)
    else:
        console.print_table([{**row, "hyperparameters": _text(row)} for row in found])
    return console.DONE


def hyperparameters(cls: type) -> list[dict[str, Any]]:
    """`{"name", "type", "default"}` of each; without a default it must be given."""
    found = []
    for field in dataclasses.fields(cls):
        kind = field.type if isinstance(field.type, str) else field.type.__name__
        row: dict[str, Any] = {"name": field.name, "type": kind}
        if field.default is not dataclasses.MISSING:
            row["default"] = _plain(field.default)
        elif field.default_factory is not dataclasses.MISSING:
            row["default"] = _plain(field.default_factory())
        found.append(row)
    return found


def as_text(value: Any) -> str:
    """A default as `--set` takes it."""
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _plain(value: Any) -> Any:
    """What JSON can hold."""
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    simple = value is None or isinstance(value, bool | int | float | str)
    return value if simple else str(value)


def _text(row: dict[str, Any]) -> str:
    texts = []
    for one in row["hyperparameters"]:
        default = f"={as_text(one['default'])}" if "default" in one else ""
        texts.append(one["name"] + default)
    return " ".join(texts)
