"""How this program was started, and how another process of it is started.

    subprocess.run([*program.command_line(), "train", "--task=digits"])
    print(f"evaluate   {program.name()} evaluate --run_dir=...")

It may be `python run.py`, the installed command `keepstep`, or `python -m trainer`.
"""

from __future__ import annotations

import importlib.util
import pathlib
import shlex
import sys
from collections.abc import Sequence

from trainer.config.options import ConfigError, suggest

INSTALLED, CHECKOUT = "keepstep_tasks", "models"
_COMMAND = "keepstep"


def command_line() -> list[str]:
    """What starts this very program once more, in the same directory."""
    if module := _module():
        return [sys.executable, "-m", module]
    script = pathlib.Path(sys.argv[0])
    if script.is_file():
        return [sys.executable, str(script.absolute())]
    return [sys.executable, "-m", "trainer"]


def name() -> str:
    """What the user types to start it, for messages."""
    if module := _module():
        return f"python -m {module}"
    script = pathlib.Path(sys.argv[0])
    if script.suffix == ".py":
        return f"python {shlex.quote(sys.argv[0])}"
    return script.name or _COMMAND


def tasks_package() -> str:
    """Where the shipped tasks are: as installed, else in the project's own folder.

    Raises:
      ConfigError: they are in neither.
    """
    if importlib.util.find_spec(INSTALLED) is not None:
        return INSTALLED
    found = importlib.util.find_spec(CHECKOUT)
    project = pathlib.Path(__file__).resolve().parents[2]
    places = found.submodule_search_locations if found else None
    if str(project / CHECKOUT) in map(str, places or ()):
        return CHECKOUT
    raise ConfigError(
        f"the shipped tasks are not there: expected the package {INSTALLED}, or the "
        f"folder {CHECKOUT} of the project. Install it: pip install keepstep"
    )


def with_flagfiles(argv: Sequence[str], package: str) -> list[str]:
    """The arguments with the flagfiles that ship put in place of their names.

    `--flagfile=digits` means `digits.flags` of the package, unless a file is called so.

    Raises:
      ConfigError: there is neither.
    """
    found = list(argv)
    for place, word in enumerate(argv):
        key, equals, text = word.partition("=")
        if word == "--":
            break
        if equals and key.lstrip("-") == "flagfile" and key.startswith("-"):
            found[place] = f"{key}={_flagfile(text, package)}"
    return found


def _flagfile(text: str, package: str) -> str:
    if pathlib.Path(text).exists() or pathlib.Path(text).name != text:
        return text  # absl tells what is wrong with a path
    spec = importlib.util.find_spec(package)
    for place in (spec.submodule_search_locations or ()) if spec else ():
        shipped = {path.stem: path for path in pathlib.Path(place).glob("*.flags")}
        if path := shipped.get(text.removesuffix(".flags")):
            return str(path)
        raise ConfigError(
            f"--flagfile={text}: there is no such file, and none of that name ships."
            f"{suggest(text, shipped)}"
        )
    return text


def _module() -> str:
    """The module that `python -m` was told to run; "" if it was not."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec.name.removesuffix(".__main__") if spec is not None else ""
