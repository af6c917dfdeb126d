"""Several sources that one batch is made of, each in an order of its own.

>>> import numpy as np
>>> from trainer import data
>>> arrays = {"x": np.zeros([100, 2])}, {"x": np.zeros([900, 2])}
>>> few, many = arrays
>>> given = data.Several({"few": few, "many": many}, batch_sizes={"many": 56})
>>> given.sizes(batch_size=8)
{'few': 8, 'many': 56}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import numpy as np
import tensorflow as tf
import xxhash

from trainer.data.sources import DataError


@final
class Several:
    """Named sources; the batch has a batch of each of them, by name.

    An epoch of the run is one of the first source. The others go on in epochs of their
    own, each in its own order.

    Attributes:
      sources: by name.
      batch_sizes: of those that have another one than `--batch_size`.

    Raises:
      DataError: there is no source, or a batch size is none.
    """

    def __init__(
        self, sources: Mapping[str, Any], batch_sizes: Mapping[str, int] | None = None
    ) -> None:
        self.sources = dict(sources)
        self.batch_sizes = dict(batch_sizes or {})
        if not self.sources:
            raise DataError(
                "Several() has no source. Expected at least one, by name: "
                'data.Several({"labelled": ..., "unlabelled": ...}).'
            )
        for name, size in self.batch_sizes.items():
            if name not in self.sources:
                raise DataError(
                    f"batch_sizes names {name!r}, which is no source; there are "
                    f"{', '.join(self.sources)}. Name one of them."
                )
            if isinstance(size, bool) or not isinstance(size, int) or size < 1:
                raise DataError(
                    f"batch_sizes has {size!r} for {name!r}. Expected a whole number "
                    f'of at least 1: batch_sizes={{"{name}": 56}}.'
                )

    def of(self, sources: Mapping[str, Any]) -> Several:
        """The same of other sources, such as these made ready."""
        return Several(sources, self.batch_sizes)

    def sizes(self, batch_size: int) -> dict[str, int]:
        """The batch size of each; `batch_size` of those that have none of their own."""
        return {name: self.batch_sizes.get(name, batch_size) for name in self.sources}

    def outline(self) -> str:
        """How many examples each has, in words."""
        own = {name: f" ({size} a step)" for name, size in self.batch_sizes.items()}
        return ", ".join(
            f"{len(one)} examples of {name}{own.get(name, '')}"
            for name, one in self.sources.items()
        )


def is_several(given: Any) -> bool:
    """Whether a mapping is one of sources, not of arrays."""
    return (
        isinstance(given, Mapping)
        and bool(given)
        and not any(map(_is_array, given.values()))
    )


def is_mixed(given: Mapping[str, Any]) -> bool:
    """Whether a mapping holds both arrays and what can only be a source."""
    sources = [isinstance(one, Mapping) or _is_records(one) for one in given.values()]
    return any(sources) and any(map(_is_array, given.values()))


def steps_per_epoch(examples: Any, batch_size: int) -> float:
    """How many steps go over a source once; of several, over the first."""
    if isinstance(examples, Several):
        name = next(iter(examples.sources))
        return len(examples.sources[name]) / examples.sizes(batch_size)[name]
    return len(examples) / batch_size


def rows(examples: Any, batch_size: int) -> int:
    """How many examples a step sees."""
    if isinstance(examples, Several):
        return sum(examples.sizes(batch_size).values())
    return batch_size


def seed_of(name: str, seed: int) -> int:
    """The seed of one of several sources, so that their orders are unlike."""
    return xxhash.xxh3_64_intdigest(f"{seed} {name}".encode()) % 2**31


def _is_array(given: Any) -> bool:
    """Whether it has a row for each example, and no example in itself."""
    if isinstance(given, list | tuple):
        return not _is_records(given)
    kinds = np.ndarray | np.generic | tf.Tensor | tf.Variable | tf.RaggedTensor
    plain = isinstance(given, kinds | str | bytes | int | float | None)
    return plain or hasattr(given, "__array__")


def _is_records(given: Any) -> bool:
    return isinstance(given, list) and bool(given) and isinstance(given[0], Mapping)
