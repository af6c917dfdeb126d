"""What a task gives as data of a split, taken as a source or refused.

>>> from trainer import data
>>> source = data.split({"train": [(0.5, 0), (1.5, 1)]}, "train")
>>> len(source), source.outline.spec[("y",)].dtype.name
(2, 'int64')
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainer.data import ragged, several
from trainer.data.adapt import Adapted, adapted
from trainer.data.grouping import Grouped
from trainer.data.indexed import Indexed
from trainer.data.several import Several
from trainer.data.sources import Arrays, DataError, as_tensor, common_length

_KINDS = (
    "Expected arrays by name, a class with __len__ and __getitem__, a source of "
    "trainer.data or a tf.data.Dataset"
)


def split(sources: Mapping[str, Any], name: str) -> Any:
    """The examples of one split: a source, or a `tf.data.Dataset`, adapted.

    A mapping of arrays becomes a source, and so does what gives examples by index. A
    mapping of sources becomes several in one.

    Raises:
      DataError: there is no such split, or it is nothing that can be read.
    """
    if name not in sources:
        raise DataError(
            f"the task has no split {name!r}; it has {', '.join(sorted(sources))}."
        )
    given = taken(sources[name], name)
    if isinstance(given, Several):
        inner = {f"{name}/{key}": one for key, one in given.sources.items()}
        return given.of({key: split(inner, f"{name}/{key}") for key in given.sources})
    if isinstance(given, Grouped):
        return given.of(split({name: given.source}, name))
    return Arrays(given) if isinstance(given, Mapping) else given


def taken(given: Any, name: str) -> Any:
    """What a split was given as, ready to be read; a mapping stays one.

    Raises:
      DataError: it is nothing that can be read.
    """
    if isinstance(given, Several) or several.is_several(given):
        return _several(given, name)
    if isinstance(given, Mapping):
        return _evened(given, name)
    if isinstance(given, Grouped):
        return _grouped(given, name)
    if isinstance(given, tf.data.Dataset):
        return adapted(given, name)
    known = isinstance(given, Adapted | Indexed)
    if known or (hasattr(given, "gather") and hasattr(given, "__len__")):
        return given
    if problem := _problem(given, name):
        raise DataError(f"the data of {name!r} are {problem}")
    try:
        length = len(given)
    except Exception as error:
        raise DataError(
            f"the data of {name!r} are a {_kind(given)} whose __len__ fails: "
            f"{type(error).__name__}: {error}. Expected the number of examples, which "
            "decides what an epoch is. Return it from __len__."
        ) from error
    if length < 1:
        raise DataError(
            f"the data of {name!r} are a {_kind(given)} of {length} examples. Expected "
            "at least 1. Look at the path or the filter that they come from."
        )
    return Indexed(given, name)


def _evened(given: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Arrays by name; rows of unequal lengths are put together, once."""
    if several.is_mixed(given):
        raise DataError(
            f"the data of {name!r} hold both arrays and sources: "
            f"{', '.join(f'{key!r} ({_kind(one)})' for key, one in given.items())}. "
            f'Expected one of these. Name each source: {{"{name}": {{"labelled": '
            '{"x": x, "y": y}, "unlabelled": {"x": more}}}.'
        )
    lists = {k: v for k, v in given.items() if ragged.is_ragged(v)}
    return {**given, **{k: as_tensor(k, v) for k, v in lists.items()}}


def _several(given: Any, name: str) -> Several:
    found = given if isinstance(given, Several) else Several(given)
    if name != "train":
        raise DataError(
            f"the data of {name!r} are several sources ({', '.join(found.sources)}). "
            "Expected one: batches are made of several in training only. Give each a "
            f'split of its own: {{"{name}": ..., "{name}_{list(found.sources)[-1]}": '
            "...}."
        )
    inner = {}
    for key, one in found.sources.items():
        if isinstance(one, tf.data.Dataset | Several) or several.is_several(one):
            raise DataError(
                f"the data of '{name}/{key}' are a {_kind(one)}. Expected arrays by "
                "name, or examples by index: several sources are read from the middle. "
                f'Give what it reads from: data.Several({{"{key}": source, ...}}).'
            )
        inner[key] = taken(one, f"{name}/{key}")
    return found.of(inner)


def _grouped(given: Grouped, name: str) -> Grouped:
    source = taken(given.source, name)
    count = common_length(source) if isinstance(source, Mapping) else len(source)
    if count != len(given):
        raise DataError(
            f"the data of {name!r} are {count} examples, grouped by {len(given)} "
            "lengths. Expected a length for each example. Compute them from the very "
            "examples that are grouped."
        )
    return given.of(source)


def _problem(given: Any, name: str) -> str:
    """What is wrong with it, what is expected and what to write; empty: nothing."""
    kind = _kind(given)
    if isinstance(given, keras.utils.PyDataset):
        return (
            f"a {kind}, a PyDataset, which gives batches that may change from epoch to "
            f"epoch. {_KINDS}. Give the class that it reads from, with one example per "
            "__getitem__; --batch_size makes the batches."
        )
    if isinstance(given, Iterator):
        return (
            f"a {kind}, which can be read once and never from the middle. {_KINDS}. "
            f'Read it to its end: {{"{name}": list(examples)}}, or give what it reads '
            "from."
        )
    if callable(given) and not hasattr(given, "__getitem__"):
        return (
            f"a {kind}, which would have to be called. {_KINDS}. Call it: "
            f'{{"{name}": {getattr(given, "__name__", "it")}()}}.'
        )
    if isinstance(given, tuple):
        return (
            f"a tuple of {len(given)} ({', '.join(map(_shown, given))}), which has no "
            f"names. {_KINDS}. "
            f'Name them: {{"{name}": {{"x": x, "y": y}}}}.'
        )
    if isinstance(given, str | bytes):
        return f"a text, {given!r}. {_KINDS}. Read the file that it names."
    return _without_access(given)


def _without_access(given: Any) -> str:
    """What it lacks to be read by index; empty: nothing."""
    kind = _kind(given)
    if not hasattr(given, "__getitem__"):
        if hasattr(given, "__iter__"):
            return (
                f"a {kind}, which gives examples one after the other only. {_KINDS}. "
                "Add __len__ and __getitem__(index) to it, or give "
                "list(examples)."
            )
        return f"a {kind}. {_KINDS}. Return one of these from sources()."
    if not hasattr(given, "__len__"):
        return (
            f"a {kind}, which has __getitem__ and no __len__. {_KINDS}. Add to it: "
            "def __len__(self): return number_of_examples."
        )
    return ""


def _kind(given: Any) -> str:
    return type(given).__name__


def _shown(given: Any) -> str:
    if isinstance(given, np.ndarray | tf.Tensor):
        return f"{_kind(given)} {tuple(given.shape)}"
    return _kind(given)
