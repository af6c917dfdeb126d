"""Arrays and a JSON outline of them in one `.npz`, which NumPy alone can read, too.

    >>> import pathlib
    >>> import numpy as np
    >>> from trainer.storage import array_archive
    >>> path = pathlib.Path("a.npz")
    >>> array_archive.write(path, {"holds": ["mean"]}, {"mean": np.zeros([2])})
    >>> array_archive.read(path)
    ({'holds': ['mean']}, {'mean': array([0., 0.])})
    >>> np.load(path)["mean"]
    array([0., 0.])

No pickles are written, and none are read. Nothing is compressed, so a file takes no
more memory than it takes space.
"""

from __future__ import annotations

import io
import json
import pathlib
import stat
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import xxhash

from trainer.storage import files

_OUTLINE = "outline.json"
_ARRAY = ".npy"


def write(
    path: pathlib.Path, outline: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> None:
    """Writes a file, atomically.

    Raises:
      ValueError: an array holds Python objects.
    """
    with files.replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as file:
        # A date would make two files of one content differ.
        file.writestr(zipfile.ZipInfo(_OUTLINE), _text(outline))
        for name, array in sorted(arrays.items()):
            member = zipfile.ZipInfo(name + _ARRAY)
            with file.open(member, "w", force_zip64=True) as target:
                np.lib.format.write_array(target, array, allow_pickle=False)


def read(path: pathlib.Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The outline and the arrays by name.

    Raises:
      ValueError: it is not such a file, or it is damaged.
      OSError: it can't be read.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError("it is not a regular file")
    try:
        with zipfile.ZipFile(path) as file:
            members = file.infolist()
            if any(one.compress_type != zipfile.ZIP_STORED for one in members):
                raise ValueError("it is compressed")
            content = {one.filename: file.read(one) for one in members}
        outline = json.loads(content.pop(_OUTLINE))
        arrays = {
            name.removesuffix(_ARRAY): np.lib.format.read_array(
                io.BytesIO(body), allow_pickle=False
            )
            for name, body in content.items()
        }
    except (
        zipfile.BadZipFile,
        KeyError,
        EOFError,
        MemoryError,
        NotImplementedError,
        RecursionError,
        RuntimeError,
    ) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
    if not isinstance(outline, dict):
        raise ValueError("its outline is no object")
    return outline, arrays


def digest(outline: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    """Of the content, whatever wrote the file; 32 hexadecimal digits."""
    found = xxhash.xxh3_128(_text(outline).encode())
    for name, array in sorted(arrays.items()):
        found.update(f"{name!r} {array.dtype.str} {array.shape};".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def _text(outline: Mapping[str, Any]) -> str:
    return json.dumps(outline, indent=1) + "\n"
