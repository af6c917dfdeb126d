"""Examples as sources give them, as arrays by name.

>>> from trainer.data import records
>>> records.arrays((0.5, 3))
{('x',): array(0.5, dtype=float32), ('y',): array(3)}
>>> records.nested({("image", "left"): 1, ("image", "right"): 2, ("label",): 3})
{'image': {'left': 1, 'right': 2}, 'label': 3}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

Path = tuple[str, ...]
Spec = dict[Path, tf.TensorSpec]

_UNNAMED = ("x", "y", "weight")
_NUMBERS = "biufc"


class ValueProblemError(ValueError):
    """One value of an example is nothing that a tensor can hold."""


def arrays(element: Any) -> dict[Path, np.ndarray]:
    """One example as arrays by name; nested mappings have longer names.

    Numbers of Python become int64 and float32, texts become bytes. `(x, y)` and
    `(x, y, weight)` get these names, and a single value is called `x`.

    Raises:
      ValueProblemError: says which value no tensor can hold.
    """
    found = {path: array(path, value) for path, value in _leaves((), by_name(element))}
    if not found:
        raise ValueProblemError("there is no value at all")
    return found


def array(path: Path, value: Any) -> np.ndarray:
    """One value as an array of numbers, or of bytes.

    Raises:
      ValueProblemError: it can't be one.
    """
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, bytes):
        return np.array(value, object)
    try:
        found = np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueProblemError(f"{named(path)} is no array: {reason}") from error
    if found.dtype == np.float64 and not hasattr(value, "dtype"):
        return found.astype(np.float32)  # of Python, as TensorFlow takes them
    if found.dtype.kind == "U":
        found = np.char.encode(found, "utf-8")
    if found.dtype.kind == "S":
        return found.astype(object)
    if found.dtype.kind == "O":
        return _texts(path, found, value)
    if found.dtype.kind not in _NUMBERS and found.dtype.name != "bfloat16":
        raise ValueProblemError(f"{named(path)} has the dtype {found.dtype}")
    # Files of other machines have the bytes of a number in another order.
    return found if found.dtype.isnative else found.astype(found.dtype.newbyteorder())


def by_name(element: Any) -> Mapping[str, Any]:
    """The parts of an example by name: `x`, `y` and `weight` where they have none.

    Raises:
      ValueProblemError: a tuple of more parts than there are names for.
    """
    if isinstance(element, Mapping):
        return element
    if isinstance(element, tuple) and hasattr(element, "__match_args__"):
        return dict(zip(element.__match_args__, element, strict=True))
    if isinstance(element, tuple):
        if not 1 <= len(element) <= len(_UNNAMED):
            raise ValueProblemError(f"a tuple of {len(element)} has no names")
        return dict(zip(_UNNAMED, element, strict=False))
    return {"x": element}


def nested(flat: Mapping[Path, Any]) -> dict[str, Any]:
    """Values by path as mappings in mappings."""
    found: dict[str, Any] = {}
    for path, value in flat.items():
        inner = found
        for part in path[:-1]:
            inner = inner.setdefault(part, {})
        inner[path[-1]] = value
    return found


def named(path: Path) -> str:
    """A path as people read it."""
    return repr("/".join(path))


def spec(rows: list[dict[Path, np.ndarray]]) -> Spec:
    """What examples are like; a dimension in which they differ is None.

    They have the same names, dtypes and ranks (`difference`).
    """
    first = rows[0]
    return {
        path: tf.TensorSpec(
            [
                _common(sizes)
                for sizes in zip(*(r[path].shape for r in rows), strict=True)
            ],
            tf.string if one.dtype == object else tf.as_dtype(one.dtype),
        )
        for path, one in first.items()
    }


def of_any_length(one: tf.TensorSpec) -> tf.TensorSpec:
    """With a first dimension of any size."""
    if not one.shape.rank:
        return one
    return tf.TensorSpec([None, *one.shape[1:]], one.dtype)


def difference(row: Mapping[Path, np.ndarray], other: Mapping[Path, np.ndarray]) -> str:
    """How an example differs from another one in names, dtypes or ranks; or empty."""
    if row.keys() != other.keys():
        names, others = (
            ", ".join(named(path) for path in one) or "nothing" for one in (row, other)
        )
        return f"gives {names}; others give {others}"
    for path, one in row.items():
        like = other[path]
        if (one.dtype, one.ndim) != (like.dtype, like.ndim):
            return (
                f"gives {named(path)} as {described(one)}; others give "
                f"{described(like)}"
            )
    return ""


def described(one: np.ndarray) -> str:
    """Dtype and shape, such as `uint8 (28, 28)`."""
    return f"{'text' if one.dtype == object else one.dtype} {one.shape}"


def _common(sizes: tuple[int, ...]) -> int | None:
    return sizes[0] if len(set(sizes)) == 1 else None


def _leaves(path: Path, value: Any) -> Iterator[tuple[Path, Any]]:
    if not isinstance(value, Mapping):
        yield path, value
        return
    for name, inner in value.items():
        yield from _leaves((*path, str(name)), inner)


def _texts(path: Path, found: np.ndarray, value: Any) -> np.ndarray:
    """Objects that are all texts."""
    if value is None:
        raise ValueProblemError(f"{named(path)} is None")
    flat = [one.encode() if isinstance(one, str) else one for one in found.flat]
    for one in flat:
        if not isinstance(one, bytes):
            raise ValueProblemError(f"{named(path)} holds a {type(one).__name__}")
    texts = np.empty([len(flat)], object)
    texts[:] = flat
    return texts.reshape(found.shape)
