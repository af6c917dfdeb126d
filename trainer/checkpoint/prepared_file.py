"""What a task has prepared, as it lies in the run directory: `prepared.npz`.

    >>> import pathlib
    >>> from trainer.checkpoint import prepared_file
    >>> given = prepared_file.Prepared({"mapping": [["spread", 0.5]]}, {})
    >>> prepared_file.write(pathlib.Path("prepared.npz"), given)
    >>> found = prepared_file.read(pathlib.Path("prepared.npz"), given.digest)
    >>> prepared_file.rows(found)
    [{'prepared': 'spread', 'is': '0.5'}]

The outline is JSON. A text, a number, true, false and null stand for themselves; all
else is an object with one entry: `list`, `tuple` and `mapping` hold others, the last
one as pairs; `array` and `texts` name one of the arrays of the file; `bytes` are
hexadecimal; `scalar` is a dtype and such bytes; `layer` is the class of a preprocessing
layer of Keras, and beside it stands its `config`.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from trainer.base.errors import KeepstepError
from trainer.checkpoint.layout import RunDirectory
from trainer.storage import array_archive

FACT = "prepared"  # what config.json calls the digest
_LEARNED = ("vocabulary", "mean", "variance", "bin_boundaries")  # of a layer
_SHOWN = 5
_SHOWN_CHARACTERS = 60


class PreparedError(KeepstepError, RuntimeError):
    """What was learned from the data before training is missing, or another one."""


@dataclasses.dataclass(frozen=True)
class Prepared:
    """What `Task.prepare` gave, as plain values and arrays.

    Attributes:
      outline: JSON, as this module describes it.
      arrays: by name.
    """

    outline: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]

    @functools.cached_property
    def digest(self) -> str:
        """Of all values; 32 hexadecimal digits."""
        return array_archive.digest(self.outline, self.arrays)


def write(path: pathlib.Path, given: Prepared) -> None:
    """Writes the file, atomically."""
    array_archive.write(path, given.outline, given.arrays)


def read(path: pathlib.Path, digest: str) -> Prepared:
    """Reads what was recorded with that digest.

    Raises:
      PreparedError: it is missing, damaged, or another one.
    """
    mend = (
        "Bring it back from a copy of the run, or give the command `train` once more "
        "where the data are: it makes the file anew if that gives the same"
    )
    try:
        outline, arrays = array_archive.read(path)
    except FileNotFoundError:
        raise PreparedError(
            f"there is no {path}. Expected what the task learned from its data before "
            f"training (Task.prepare), with the digest {digest}. {mend}."
        ) from None
    except (OSError, ValueError) as error:
        raise PreparedError(
            f"{path} can't be read: {error}. Expected what the task learned from its "
            f"data before training (Task.prepare). {mend}."
        ) from error
    found = Prepared(outline, arrays)
    if found.digest != digest:
        raise PreparedError(
            f"{path} is another one than the run was begun with: its digest is "
            f"{found.digest}, expected {digest} (config.json). {mend}."
        )
    return found


def of_run(directory: RunDirectory, choices: Mapping[str, Any]) -> Prepared | None:
    """What a run has prepared, by its recorded choices; None: nothing.

    Raises:
      PreparedError: it is missing, damaged, or another one.
    """
    digest = choices["facts"].get(FACT)
    return None if digest is None else read(directory.prepared, digest)


def rows(given: Prepared) -> list[dict[str, str]]:
    """What there is, by name, in words."""
    return [
        {"prepared": name, "is": told}
        for name, told in _told((), given.outline, given.arrays)
    ]


def plain(node: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """A value as JSON people read: arrays by dtype and shape, texts as they are."""
    if not isinstance(node, dict):
        return node
    ((kind, inner), *_) = node.items()
    if kind in ("list", "tuple"):
        return [plain(one, arrays) for one in inner]
    if kind == "mapping":
        return {str(name): plain(one, arrays) for name, one in inner}
    if kind == "texts":
        return [one.decode(errors="replace") for one in arrays[inner].ravel().tolist()]
    if kind == "layer":
        config = plain(node["config"], arrays)
        return {inner: {k: v for k, v in config.items() if k in _LEARNED}}
    return _words(node, arrays)


def _told(
    path: tuple[str, ...], node: Any, arrays: Mapping[str, np.ndarray]
) -> Iterator[tuple[str, str]]:
    if isinstance(node, dict) and "mapping" in node:
        for name, one in node["mapping"]:
            yield from _told((*path, str(name)), one, arrays)
    else:
        yield "/".join(path), _words(node, arrays)


def _words(node: Any, arrays: Mapping[str, np.ndarray]) -> str:
    if not isinstance(node, dict):
        return str(node)
    ((kind, inner), *_) = node.items()
    if kind in ("list", "tuple"):
        return f"{kind} of {len(inner)}: {_some([_words(i, arrays) for i in inner])}"
    if kind == "scalar":
        return f"{np.dtype(inner[0]).name} ()"
    if kind in ("array", "texts"):
        array = arrays[inner]
        name = "texts" if kind == "texts" else array.dtype.name
        return f"{name} {array.shape}"
    if kind == "layer":
        config = dict(map(tuple, node["config"]["mapping"]))
        told = config.get("vocabulary")
        size = f" with {_words(told, arrays)}" if isinstance(told, dict) else ""
        return f"layer {inner}{size}"
    return str(kind)


def _some(values: list[str]) -> str:
    text = ", ".join(values[:_SHOWN])
    more = ", ..." if len(values) > _SHOWN else ""
    return text[:_SHOWN_CHARACTERS] + more
