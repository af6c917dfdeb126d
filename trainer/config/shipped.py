"""Where the shipped tasks and their flagfiles are: installed, or in the checkout.

>>> from trainer.config import shipped
>>> package = shipped.tasks_package()        # "models", or "keepstep_tasks"
>>> shipped.with_flagfiles(["--flagfile=digits", "--steps=5"], package)
['--flagfile=/...digits.flags', '--steps=5']
"""

from __future__ import annotations

import importlib.util
import pathlib
from collections.abc import Sequence

from trainer.config.options import ConfigError, suggest

INSTALLED, CHECKOUT = "keepstep_tasks", "models"


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
