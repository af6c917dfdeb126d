"""The version of a SavedModel, as TensorFlow Serving counts: the highest is served.

    >>> import pathlib
    >>> from trainer.checkpoint.layout import RunDirectory
    >>> from trainer.exporting import versions
    >>> run = RunDirectory(pathlib.Path("runs/line"))
    >>> first = versions.take(run)
    >>> versions.take(run) - first      # also where nothing was exported meanwhile
    1

A number is given once and recorded before an export gets it as its name, so it rises
also where exports were deleted, and where an earlier step is exported later.
"""

from __future__ import annotations

import pathlib
import re

from trainer.checkpoint.layout import RunDirectory
from trainer.exporting.saved_model import ExportError
from trainer.storage import checked_json, files

_KIND = "saved_model"
_NUMBER = re.compile(r"0|[1-9]\d{0,17}", re.ASCII)
_MAX_BYTES = 1 << 12


def take(run: RunDirectory) -> int:
    """The next version, which nobody is given again.

    It is above every one that lies there, whoever put it there: up to release 0.1.0,
    directories of SavedModels were called by their step.

    Raises:
      ExportError: the record of the last one is damaged.
    """
    there = (_NUMBER.fullmatch(name) for name in files.names(_base(run)))
    found = 1 + max([_last(run), *(int(one[0]) for one in there if one)])
    checked_json.write(run.last_served, {"version": found})
    return found


def place(run: RunDirectory, version: int) -> pathlib.Path:
    """Where a version is."""
    return run.export(_KIND, version)


def _base(run: RunDirectory) -> pathlib.Path:
    """Where the versions are, which TensorFlow Serving calls the base path."""
    return place(run, 0).parent


def _last(run: RunDirectory) -> int:
    """The last version that was given; 0: none was."""
    path = run.last_served
    try:
        body = checked_json.opened(checked_json.read(path, max_bytes=_MAX_BYTES))
        number = body["version"]
        if type(number) is not int or not _NUMBER.fullmatch(str(number)):
            raise ValueError(f"its version is {number!r}")
    except FileNotFoundError:
        return 0
    except (ValueError, KeyError, AttributeError, RecursionError) as error:
        raise ExportError(
            f"{path} does not tell the version of the last SavedModel ({error}). "
            'Expected what an export wrote, {"version": 3} with its digest. Delete it '
            f"if no version above those in {_base(run)} is being served."
        ) from error
    return int(number)
