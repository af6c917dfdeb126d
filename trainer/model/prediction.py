"""What the networks of a task say of examples: `Task.predictions`, checked and run.

    >>> import keras, numpy as np
    >>> from trainer import data, task
    >>> from trainer.model import prediction
    >>> class Line(task.Task):
    ...     def sources(self): return {"train": {"x": np.ones([4, 2], np.float32)}}
    ...     def networks(self): return keras.Sequential([keras.layers.Dense(1)])
    ...     def optimizers(self): return keras.optimizers.SGD(0.5)
    ...     def values(self, networks, batch, training):
    ...         return {"loss": networks(batch["x"])[:, 0]}
    ...     def predictions(self, networks, batch): return {"y": networks(batch["x"])}
    >>> batches = data.ordered(data.split(Line().sources(), "train"), batch_size=3)
    >>> spec = batches.element_spec[0]
    >>> predictor = prediction.Predictor(Line(), Line().networks(), spec)
    >>> predictor.inputs, sum(len(y["y"]) for x, y in predictor.run(batches))
    (('x',), 4)

What a task makes use of in a batch is an input: it need not say so a second time.
"""

from __future__ import annotations

import json
import math
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, final

import numpy as np
import tensorflow as tf

from trainer.compat import autograph
from trainer.data import failures, one_pass
from trainer.model import learned_values, lookups, side_effects
from trainer.model.contract import is_value_name
from trainer.task import Task, TaskError

Arrays = dict[str, np.ndarray]


@final
class Predictor:
    """The predictions of one task by given networks.

    Attributes:
      inputs: which entries of a batch they depend on; found by tracing.
      spec: of these, by name, with a free batch dimension.
      traced: the concrete function from inputs to predictions.
      layers: that the task has prepared.
    """

    def __init__(
        self, task: Task, networks: Any, spec: Mapping[str, tf.TensorSpec]
    ) -> None:
        """Takes the outline of a batch as `spec`.

        Raises:
          task.TaskError: the task doesn't say what it predicts, or not as it should.
        """
        self._task = task
        self._networks = networks
        self.layers = learned_values.layers(task.prepared)
        free = {
            name: tf.TensorSpec([None, *one.shape[1:]], one.dtype, name=name)
            for name, one in spec.items()
        }
        whole = tf.function(self._checked, autograph=False)
        with lookups.told(f"{type(task).__name__}.predictions()", free, "a batch"):
            used = _used(whole.get_concrete_function(free).graph, free)
        self.traced = self._traced_with(used, free)
        self.inputs = tuple(name for name in free if name in used)
        self.spec = {name: free[name] for name in self.inputs}

    def predict(self, inputs: Mapping[str, Any]) -> Arrays:
        """The predictions for arrays `[B, ...]` by name, as arrays `[B, ...]`."""
        tensors = {
            name: tf.convert_to_tensor(inputs[name], self.spec[name].dtype)
            for name in self.inputs
        }
        return {name: array(one) for name, one in self.traced(**tensors).items()}

    def run(self, batches: tf.data.Dataset) -> Iterator[tuple[Arrays, Arrays]]:
        """Examples and predictions, batch by batch, of every example exactly once.

        Args:
          batches: what `data.ordered` gives.

        Raises:
          data.DataError: an example can't be read, or there is none, or no end.
        """
        with side_effects.undone(self.traced):
            for batch, counts in one_pass.elements(batches):
                rows = counts.numpy()
                predicted = self.predict(batch)
                yield (
                    {name: array(one)[rows] for name, one in batch.items()},
                    {name: one[rows] for name, one in predicted.items()},
                )

    def _traced_with(self, used: set[str], free: Mapping[str, tf.TensorSpec]) -> Any:
        """The predictions from these inputs; adds what is looked up besides."""
        while True:
            spec = {name: one for name, one in free.items() if name in used}
            try:
                named = tf.function(self._named, autograph=False)
                return named.get_concrete_function(**spec)
            except Exception as error:
                name = failures.looked_up(error)
                if name not in free or name in used:
                    raise
                used.add(name)

    def _named(self, **inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._checked(inputs)

    def _checked(self, batch: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        name = type(self._task).__name__
        given = autograph.converted(self._task.predictions)(self._networks, batch)
        if not isinstance(given, Mapping) or not given:
            raise TaskError(
                f"{name}.predictions() returns {type(given).__name__}; expected "
                'tensors by name, such as {"probability": ...}.'
            )
        predicted = {key: tf.convert_to_tensor(one) for key, one in given.items()}
        for key, one in predicted.items():
            if not is_value_name(key):
                raise TaskError(
                    f"{name}.predictions() returns {key!r}: a name becomes that of an "
                    "output, so use letters, digits, '_', '-' and '.'."
                )
            if one.shape.rank == 0:
                raise TaskError(
                    f"{name}.predictions() returns {key!r} as a single value; expected "
                    "one entry an example, shape [B, ...]."
                )
        return predicted


def _used(graph: Any, spec: Mapping[str, Any]) -> set[str]:
    """Of which of its arguments, in one mapping, a traced function makes use."""
    waiting = [*(one.op for one in graph.outputs), *graph.control_outputs]
    seen = set(waiting)
    while waiting:
        one = waiting.pop()
        before = {*(value.op for value in one.inputs), *one.control_inputs} - seen
        seen |= before
        waiting += before
    arguments = zip(sorted(spec), graph.inputs, strict=False)  # then what it captures
    return {name for name, one in arguments if one.op in seen}


def as_lines(predicted: Iterable[Arrays]) -> Iterator[str]:
    """One JSON object an example: its index, and each prediction by name.

    JSON has no NaN and no infinities: they become null.
    """
    index = 0
    for batch in numbered(predicted):
        for row in range(len(next(iter(batch.values())))):
            values = {name: _plain(one[row].tolist()) for name, one in batch.items()}
            yield json.dumps({"index": index, **values}, allow_nan=False)
            index += 1


def numbered(predicted: Iterable[Arrays]) -> Iterator[Arrays]:
    """Predictions that are about to get the number of each example beside them.

    Raises:
      task.TaskError: one of them has the name of that number.
    """
    for batch in predicted:
        if "index" in batch:
            raise TaskError(
                "predictions() returns 'index', which is what the number of an example "
                "is called beside them. Expected another name. Rename it, or write an "
                ".npz, which has no such number: --output=predictions.npz."
            )
        yield batch


def joined(batches: Iterable[Arrays]) -> Arrays:
    """Batches of arrays as arrays `[N, ...]` by name.

    Batches that are padded to other lengths are filled up to the longest, with zeros,
    False and empty texts.
    """
    every = list(batches)
    return {name: _concatenated([batch[name] for batch in every]) for name in every[0]}


def write_npz(path: pathlib.Path, predicted: Iterable[Arrays]) -> int:
    """Writes all predictions as arrays `[N, ...]` by name; returns N."""
    arrays: Any = joined(predicted)
    with path.open("wb") as file:
        np.savez(file, **arrays)
    return len(next(iter(arrays.values())))


def _concatenated(arrays: list[np.ndarray]) -> np.ndarray:
    shapes = {one.shape[1:] for one in arrays}
    if len(shapes) == 1 or len({len(shape) for shape in shapes}) > 1:
        return np.concatenate(arrays)
    longest = [max(sizes) for sizes in zip(*shapes, strict=True)]
    found = np.zeros([sum(map(len, arrays)), *longest], np.result_type(*arrays))
    row = 0
    for one in arrays:
        place = (slice(row, row + len(one)), *map(slice, one.shape[1:]))
        found[place] = one
        row += len(one)
    return found


def array(tensor: Any) -> np.ndarray:
    """Texts as NumPy's own bytes: a file could hold objects only as a pickle."""
    values = np.asarray(tensor)
    return values.astype("S") if values.dtype == object else values


def _plain(value: Any) -> Any:
    """What JSON can hold."""
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return None if isinstance(value, float) and not math.isfinite(value) else value
