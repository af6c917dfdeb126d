"""Hyperparameters as JSON from which the very same values come back.

    >>> from trainer.config import values
    >>> values.encoded((1, [2.5]))
    [1, {'$list': [2.5]}]
    >>> values.decoded([1, {"$list": [2.5]}], tuple)
    (1, [2.5])

What JSON has itself stands as it is; an array is a tuple. What JSON has not is an
object with one key: `$list`, `$dict` (pairs), `$enum`, `$float`. No TensorFlow.
"""

from __future__ import annotations

import collections.abc
import enum
import json
import math
import types
import typing
from typing import Any

_LARGEST_BITS = 13_000  # Python reads no whole numbers of more than 4,300 digits
_TOLD = 200
_SEQUENCES = (tuple, list, collections.abc.Sequence)
_MAPPINGS = (dict, collections.abc.Mapping)


def encoded(value: Any) -> Any:
    """A value as JSON.

    Raises:
      ValueError: it can't be; says why.
    """
    kind = type(value)
    if value is None or kind in (bool, str):
        return value
    if kind is int:
        if value.bit_length() > _LARGEST_BITS:
            raise ValueError(f"a number of {value.bit_length()} bits is too large")
        return value
    if kind is float:
        return {"$float": "nan"} if math.isnan(value) else value
    if kind is tuple:
        return [encoded(one) for one in value]
    if kind is list:
        return {"$list": [encoded(one) for one in value]}
    if kind is dict:
        return {"$dict": [[encoded(k), encoded(v)] for k, v in value.items()]}
    if isinstance(value, enum.Enum) and kind.__members__.get(value.name) is value:
        return {"$enum": f"{kind.__qualname__}.{value.name}"}
    raise ValueError(f"{kind.__module__}.{kind.__qualname__} is not among the types")


def decoded(given: Any, kind: Any = Any) -> Any:
    """The value that `encoded` gave as JSON; also of JSON as people write it.

    There an array is a list where the type says so, an object a dict, and the name of
    a member of an Enum that member.

    Args:
      given: of the types that JSON has.
      kind: the annotated type. Decides only what the JSON leaves open.

    Raises:
      ValueError: it is not such JSON.
    """
    return _decoded(given, kind, {one.__qualname__: one for one in _enums(kind)})


def same(one: Any, other: Any) -> bool:
    """Whether both are the same value of the same type, to the last bit."""
    if type(one) is not type(other):
        return False
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return same(list(one.items()), list(other.items()))
    if isinstance(one, float):
        return repr(one) == repr(other)
    return bool(one == other)


def fits(value: Any, kind: Any) -> bool:
    """Whether a value is of an annotated type, as far as the type is known here."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, one) for one in arguments)
    if origin is typing.Literal:
        return any(same(value, one) for one in arguments)
    container = origin or kind
    if container is tuple:
        return isinstance(value, tuple) and _fits_tuple(value, arguments)
    if container in _SEQUENCES:
        wanted = list if container is list else tuple | list
        return isinstance(value, wanted) and _fits_all(value, arguments)
    if container in _MAPPINGS:
        return isinstance(value, dict) and (
            not arguments
            or (
                (_fits_all(value, arguments[:1]))
                and _fits_all(value.values(), arguments[1:])
            )
        )
    if kind is None or kind is types.NoneType:
        return value is None
    if kind is float:
        return type(value) in (float, int)
    if kind in (int, bool, str):
        return type(value) is kind
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return isinstance(value, kind)
    return True


def shown(given: Any) -> str:
    """Encoded JSON for people, nearly as Python writes the value."""
    tag, content = _mark(given)
    return content if tag in ("$enum", "$float") else repr(plain(given))


def plain(given: Any) -> Any:
    """Encoded JSON with lists, and dicts of texts, in place of their marks.

    Raises:
      ValueError: a mark is not what `encoded` writes.
    """
    if isinstance(given, list):
        return [plain(one) for one in given]
    tag, content = _mark(given)
    if tag == "$list":
        return plain(content)
    if tag != "$dict":
        return given
    pairs = [(plain(key), plain(one)) for key, one in content]
    simple = all(isinstance(key, str) for key, _ in pairs)
    return dict(pairs) if simple else {tag: [list(pair) for pair in pairs]}


def equal(one: Any, other: Any) -> bool:
    """Whether two values are recorded alike; 1 is 1.0, and no truth value."""
    one, other = plain(one), plain(other)
    if isinstance(one, int | float) and isinstance(other, int | float):
        return isinstance(one, bool) == isinstance(other, bool) and one == other
    return json.dumps(one) == json.dumps(other)


def told(value: Any) -> str:
    """Any value in an error message: short, and whatever its `repr` does."""
    try:
        text = repr(value)
    except Exception as error:
        text = f"<a {type(value).__name__}: {error}>"
    return text if len(text) <= _TOLD else f"{text[:_TOLD]}..."


def members(kind: Any) -> tuple[Any, ...]:
    """The types of a union; of any other type itself."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return typing.get_args(kind)
    return (kind,)


def _decoded(given: Any, kind: Any, enums: dict[str, Any]) -> Any:
    tag, content = _mark(given)
    if tag == "$float":
        return float(content)
    if tag == "$enum":
        name, _, member = content.rpartition(".")
        if member not in getattr(enums.get(name), "__members__", ()):
            raise ValueError(f"{content} is not in the type {kind_name(kind)}")
        return enums[name][member]
    if tag == "$dict" or (isinstance(given, dict) and not tag):
        pairs = content if tag else given.items()
        keys, ones = _part(kind, _MAPPINGS, 0), _part(kind, _MAPPINGS, 1)
        return {_decoded(k, keys, enums): _decoded(v, ones, enums) for k, v in pairs}
    if tag == "$list" or isinstance(given, list):
        inner = content if tag else given
        ones = [
            _decoded(one, _part(kind, _SEQUENCES, place), enums)
            for place, one in enumerate(inner)
        ]
        containers = [typing.get_origin(one) or one for one in members(kind)]
        as_list = tag or (list in containers and tuple not in containers)
        return ones if as_list else tuple(ones)
    if isinstance(given, str) and not fits(given, kind):
        for one in members(kind):
            if given in getattr(one, "__members__", ()):
                return one[given]
    return given


def kind_name(kind: Any) -> str:
    """A type as it is written in a class."""
    return kind.__name__ if type(kind) is type else str(kind).replace("typing.", "")


def _mark(given: Any) -> tuple[str, Any]:
    """The mark of a JSON object and its content; "" if it has none."""
    if isinstance(given, dict) and len(given) == 1:
        ((tag, content),) = given.items()
        expected = list if tag in ("$list", "$dict") else str
        if tag in ("$list", "$dict", "$enum", "$float"):
            if not isinstance(content, expected):
                raise ValueError(f"{tag} holds no {expected.__name__}")
            return tag, content
    return "", None


def _part(kind: Any, containers: tuple[Any, ...], place: int) -> Any:
    """The type of the element at `place` of the first fitting container in a type."""
    for one in members(kind):
        arguments = typing.get_args(one)
        if typing.get_origin(one) in containers and arguments:
            repeats = arguments[-1] is ... or len(arguments) == 1
            index = 0 if repeats else place
            return arguments[index] if index < len(arguments) else Any
    return Any


def _enums(kind: Any) -> set[Any]:
    """Every Enum that a type names, also inside others."""
    if isinstance(kind, enum.Enum):
        return {type(kind)}
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return {kind}
    return {found for one in typing.get_args(kind) for found in _enums(one)}


def _fits_all(given: Any, arguments: tuple[Any, ...]) -> bool:
    return not arguments or all(fits(one, arguments[0]) for one in given)


def _fits_tuple(value: tuple[Any, ...], arguments: tuple[Any, ...]) -> bool:
    if not arguments or arguments[-1] is ...:
        return _fits_all(value, arguments[:1])
    if arguments == ((),):
        arguments = ()
    return len(value) == len(arguments) and all(map(fits, value, arguments))
