"""How a task is named: registered, `package.module:Class` or `path/to/file.py:Class`.

    >>> from trainer.config import task_name
    >>> task_name.absolute("rings.py:Rings")
    '/.../rings.py:Rings'
    >>> task_name.same("old/rings.py:Rings", "new/rings.py:Rings")
    True

No TensorFlow, and nothing is imported.
"""

from __future__ import annotations

import pathlib

from trainer.config.options import ConfigError


class UntrustedTaskError(ConfigError):
    """Code would be imported that nobody asked for in this command."""


def is_registered(name: str) -> bool:
    """Whether it is a name that a task has registered, and no place of code."""
    return ":" not in name


def is_path(name: str) -> bool:
    """Whether it names a file."""
    place = name.rpartition(":")[0]
    return place.endswith(".py") or "/" in place


def check_trusted(name: str, trust: bool) -> None:
    """Whether the code of a task may be imported and run.

    Args:
      name: of the task.
      trust: whether the user of this command gave the name, or trusts who did.

    Raises:
      UntrustedTaskError: it may not; says which code it is.
    """
    if trust or is_registered(name):
        return
    what = "the file" if is_path(name) else "the module"
    raise UntrustedTaskError(
        f"the run directory names the task {name!r}, and {what} "
        f"{name.rpartition(':')[0]!r} would be imported and run for it. Expected a "
        "registered task, or one that this command names. If you know that code, give "
        f"--task={name} or --trust."
    )


def absolute(name: str) -> str:
    """The name as it is valid from every directory."""
    if not is_path(name):
        return name
    place, _, cls = name.rpartition(":")
    return f"{pathlib.Path(place).absolute()}:{cls}"


def same(one: str, other: str) -> bool:
    """Whether two names may be of one task.

    A file may have been moved: where one of them is a file, its name and the class
    count.
    """
    if is_path(one) or is_path(other):
        return _short(one) == _short(other)
    return one == other


def canonical(name: str) -> str:
    """The part of the name that a run depends on: without the folder of a file."""
    return f"{_short(name).replace(':', '.py:')}" if is_path(name) else name


def _short(name: str) -> str:
    """`rings:Rings` of `/a/rings.py:Rings` as of `my.rings:Rings`."""
    place, _, cls = name.rpartition(":")
    if is_path(name):
        return f"{pathlib.PurePath(place).stem}:{cls}"
    return f"{place.rpartition('.')[2]}:{cls}"
