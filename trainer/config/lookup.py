"""From the name of a task to its class: the only place that imports code by a name.

>>> from trainer.config import lookup
>>> lookup.find("line:Line", package="models", trust=True)
<class 'line.Line'>
>>> lookup.find("line:Line", package="models", trust=False)
Traceback (most recent call last):
trainer.config.task_name.UntrustedTaskError: the run directory names the task ...
"""

from __future__ import annotations

import importlib
import importlib.util
import pathlib
import pkgutil
import sys
import types

from trainer import task
from trainer.config import options, task_name


def find(name: str, *, package: str, trust: bool) -> type[task.Task]:
    """The class of a task.

    Args:
      name: a registered name, `package.module:Class` or `path/to/file.py:Class`.
      package: where the registered tasks are, one module each.
      trust: whether the user of this command gave the name, or trusts who did.

    Raises:
      options.ConfigError: there is no such task.
      task_name.UntrustedTaskError: the name says which code to import, untrusted.
    """
    if task_name.is_registered(name):
        return _registered(name, package)
    task_name.check_trusted(name, trust)
    return _class(name, *module_of(name))


def module_of(name: str, *, flag: str = "task") -> tuple[types.ModuleType, str]:
    """The module that a name says, imported, and the name of a class in it.

    Args:
      name: `package.module:Class` or `path/to/file.py:Class`, of a user who is trusted.
      flag: that gave it, for messages.

    Raises:
      options.ConfigError: there is no such module.
    """
    place, _, class_name = name.rpartition(":")
    flag = f"--{flag}={name}"
    if not class_name.isidentifier() or not place:
        raise _malformed(flag)
    imported = _at if task_name.is_path(name) else _module
    return imported(flag, place), class_name


def all_tasks(package: str) -> dict[str, type[task.Task]]:
    """Every task registered in `package`, by name."""
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        importlib.import_module(f"{package}.{module.name}")
    return task.registered()


def _registered(name: str, package: str) -> type[task.Task]:
    known = all_tasks(package)
    if not name:
        raise options.ConfigError(
            f"no task given: use --task=NAME.{options.suggest('', known)}"
        )
    if name not in known:
        raise options.ConfigError(
            f"there is no task {name!r}.{options.suggest(name, known)} A task of your "
            "own is --task=package.module:Class or --task=path/to/file.py:Class."
        )
    return known[name]


def _module(flag: str, place: str) -> types.ModuleType:
    if not all(part.isidentifier() for part in place.split(".")):
        raise _malformed(flag)
    if "" not in sys.path:
        sys.path.insert(0, "")  # run.py may lie elsewhere; the user's file lies here
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{place}.".startswith(f"{error.name}."):
            raise  # the user's module is there, and one that it imports is not
        raise options.ConfigError(
            f"{flag}: there is no module {place!r} in the current directory or among "
            f"the installed packages. A file anywhere is {flag.partition('=')[0]}="
            "path/to/file.py:Class."
        ) from None


def _at(flag: str, place: str) -> types.ModuleType:
    """The module of a file, under the name that it has in its package, if in one."""
    path = pathlib.Path(place).absolute()
    if path.suffix != ".py" or not path.is_file():
        raise options.ConfigError(
            f"{flag}: there is no Python file {place}. Expected "
            "path/to/file.py:Class; if the file was moved, give its new place."
        )
    root, words = path.parent, [path.stem]
    while (root / "__init__.py").is_file():
        root, words = root.parent, [root.name, *words]
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))  # the file may import others beside it
    module_name = ".".join(words)
    known = sys.modules.get(module_name)
    if known is not None and _is_of(known, path):
        return known
    if len(words) > 1:
        module = importlib.import_module(module_name)
        if _is_of(module, path):
            return module
    if known is not None or module_name in sys.builtin_module_names:
        module_name = f"{module_name} at {path}"  # that name is another module's
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise _malformed(flag)
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[module_name]
        raise
    return module


def _is_of(module: types.ModuleType, path: pathlib.Path) -> bool:
    file = getattr(module, "__file__", None)
    return file is not None and pathlib.Path(file).resolve() == path.resolve()


def _class(name: str, module: types.ModuleType, class_name: str) -> type[task.Task]:
    cls = getattr(module, class_name, None)
    if isinstance(cls, type) and issubclass(cls, task.Task):
        return cls
    classes = [
        key
        for key, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, task.Task)
    ]
    raise options.ConfigError(
        f"--task={name}: {module.__name__} has no task class {class_name!r}."
        f"{options.suggest(class_name, classes)}"
    )


def _malformed(flag: str) -> options.ConfigError:
    return options.ConfigError(
        f"{flag}: expected package.module:Class, such as my_tasks:Rings, or "
        "path/to/file.py:Class."
    )
