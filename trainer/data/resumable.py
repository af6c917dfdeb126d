"""Whether the position in a dataset tells the order of what comes next.

TensorFlow saves what each part of a dataset holds. A part that has come to its end lets
go of those before it, and so of the state of a shuffle among them: begun again, that
shuffle would draw the order of the first epoch once more.

>>> import tensorflow as tf
>>> from trainer.data import resumable
>>> shuffled = tf.data.Dataset.range(9).shuffle(9, seed=1)
>>> resumable.forgetting(shuffled.prefetch(1))
''
>>> resumable.forgetting(shuffled.padded_batch(2)), resumable.stuck(shuffled)
('padded_batch', False)
"""

from __future__ import annotations

import re

import tensorflow as tf

from trainer.compat.datasets import inputs, reshuffles, stops_on_empty
from trainer.data.datasets import endless, kind

# They hold on to their input when it has ended.
_HOLDING = ("Map", "ParallelMap", "Prefetch", "Options", "AssertCardinality")
# They let go of it, and end at once: what repeats them begins again in the same moment,
# unless something between them and the repetition works ahead.
_ENDING = ("Filter", "Take", "Skip", "FlatMap", "Repeat", "full Batch")
_AHEAD = ("ParallelMap", "Prefetch")


def forgetting(dataset: tf.data.Dataset) -> str:
    """The method after a shuffle by which the order of its next epoch is forgotten.

    Empty: there is none, for a dataset that is repeated at once.
    """
    return _forgetting(dataset, ())


def stuck(dataset: tf.data.Dataset) -> bool:
    """Whether datasets that end are sampled from, one of them after the other.

    Restored where one has ended, TensorFlow waits for ever.
    """
    sampled = kind(dataset) == "DirectedInterleave" and not stops_on_empty(dataset)
    if sampled and not all(map(endless, inputs(dataset)[1:])):
        return True
    return any(map(stuck, inputs(dataset)))


def _forgetting(dataset: tf.data.Dataset, above: tuple[str, ...]) -> str:
    if reshuffles(dataset) and (name := _first(above)):
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name.removeprefix("full ")).lower()
    name = kind(dataset)
    if name == "Batch" and all(
        one.shape[0] for one in tf.nest.flatten(dataset.element_spec)
    ):
        name = "full Batch"
    above = () if name == "Repeat" and endless(dataset) else (*above, name)
    found = (_forgetting(one, above) for one in inputs(dataset))
    return next(filter(None, found), "")


def _first(above: tuple[str, ...]) -> str:
    """The part that forgets among those above a shuffle, the last one first."""
    for place, name in enumerate(above):
        ahead = any(one in _AHEAD for one in above[:place])
        if name not in _HOLDING and (name not in _ENDING or ahead):
            return name
    return ""
