"""Sources of unequal shapes: read many at a time, the same batches bit for bit."""

import contextlib

import numpy as np
import pytest
import tasks
import tensorflow as tf

from trainer import data
from trainer.data.prepared import Prepared

ROWS = 70  # more than are read at once, and no multiple of that


def rows(kind):
    rng = np.random.default_rng(0)
    lengths = [3, 0, *rng.integers(0, 9, ROWS - 2).tolist()]
    if kind == "numbers":
        return [np.arange(n, dtype=np.int64) + k for k, n in enumerate(lengths)]
    if kind == "vectors":
        return [rng.normal(size=[n, 2]).astype("f") for n in lengths]
    return [np.array([b"word%d" % k] * n, object) for k, n in enumerate(lengths)]


class Rows:
    """One example per `__getitem__`."""

    def __init__(self, kind):
        self.rows = rows(kind)

    def __len__(self):
        return ROWS

    def __getitem__(self, index):
        return {"tokens": self.rows[index], "y": np.float32(index)}


class ManyRows(Rows):
    """Many examples per `__getitems__`."""

    def __getitems__(self, indices):
        return [self[index] for index in indices]


class Plain(tasks.Light):
    def augment(self, batch, seeds):
        return batch


class Padded(Plain):
    pad = {"tokens": 0}  # noqa: RUF012
    pad_to = 4


class Words(Plain):
    pad = {"tokens": "none"}  # noqa: RUF012


class Decoded(Padded):
    """Reverses each row, which shows that it is whole and alone."""

    def decode(self, example, seed):
        return {"tokens": example["tokens"][::-1], "y": example["y"]}


def batches(given, source, batch_size, first=0, **ways):
    inputs = Prepared(task=given, source=source, batch_size=batch_size, seed=3, **ways)
    return taken(inputs, first)


def taken(inputs, first=0):
    @tf.function
    def take(step):
        return inputs.batch(step)

    with contextlib.closing(inputs), inputs.reading(first, 4):
        return [take(tf.constant(n, tf.int64)) for n in range(first, first + 4)]


def assert_same(some, others):
    for one, other in zip(some, others, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            assert one[name].dtype == other[name].dtype
            assert one[name].shape == other[name].shape
            assert np.array_equal(one[name], other[name])


@pytest.mark.parametrize("kind", ["numbers", "vectors", "words"])
@pytest.mark.parametrize("cls", [Rows, ManyRows])
def test_rows_by_index_are_batched_like_rows_in_memory(kind, cls):
    given = Words() if kind == "words" else Padded()
    source = cls(kind)
    found = data.split({"train": source}, "train")
    arrays = {
        "tokens": tf.RaggedTensor.from_row_lengths(
            np.concatenate(source.rows), [len(row) for row in source.rows]
        ),
        "y": np.arange(ROWS, dtype="f"),
    }
    in_memory = data.Shuffled(
        task=given, source=data.Arrays(arrays), batch_size=40, seed=3
    )
    assert_same(batches(given, found, 40), taken(in_memory))
    evaluated = [
        [(batch, counts) for batch, counts in data.ordered(one, 32, given)]
        for one in (found, data.Arrays(arrays))
    ]
    for (one, counts), (other, other_counts) in zip(*evaluated, strict=True):
        assert_same([one], [other])
        assert np.array_equal(counts, other_counts)


@pytest.mark.parametrize("kind", ["numbers", "vectors"])
@pytest.mark.parametrize("size", [1, 32, 64])
def test_rows_are_decoded_alone_however_many_are_read_at_once(kind, size):
    found = data.split({"train": ManyRows(kind)}, "train")
    asked = batches(Decoded(), found, size)
    assert_same(asked, batches(Decoded(), found, size, readers=1, prefetched=1))
    assert_same(asked[2:], batches(Decoded(), found, size, first=2)[:2])
    plain = batches(Padded(), found, size)
    for one, other in zip(asked, plain, strict=True):
        for row, whole, mask in zip(
            one["tokens"], other["tokens"], other["tokens_mask"], strict=True
        ):
            length = int(np.sum(mask))
            assert np.array_equal(row[:length], whole[:length][::-1])
            assert not np.any(row[length:])


class Grids:
    """Of unequal shapes in two dimensions, and in a name below a name."""

    def __len__(self):
        return ROWS

    def __getitem__(self, index):
        shape = 1 + index % 3, 1 + index % 5
        return {"grid": {"cells": np.full(shape, index)}, "y": np.float32(index)}


class Summed(Plain):
    def decode(self, example, seed):
        cells = example["grid"]["cells"]
        shape = tf.shape(cells)
        return {"x": tf.stack([tf.cast(cells[0, 0], tf.int32), *tf.unstack(shape)])}


def test_decode_gets_each_example_in_its_own_shape():
    found = data.split({"train": Grids()}, "train")
    assert not found.stacks
    for batch in batches(Summed(), found, 8):
        for number, height, width in batch["x"].numpy().tolist():
            assert (height, width) == (1 + number % 3, 1 + number % 5)


def test_several_at_once_are_asked_for_in_one_call():
    asked = []

    class Counted(ManyRows):
        def __getitems__(self, indices):
            asked.append(len(indices))
            return super().__getitems__(indices)

    found = data.split({"train": Counted("numbers")}, "train")
    found.outline  # noqa: B018  the trial asks for single ones, too
    asked.clear()
    batches(Padded(), found, 32)
    assert set(asked) == {32}
    asked.clear()
    batches(Decoded(), found, 64)
    assert set(asked) == {32}


def test_a_batch_of_several_sources_is_whole_where_one_of_them_is_padded():
    arrays = {"x": np.arange(100, dtype="f")}
    plain = [{"x": row} for row in arrays["x"]]
    both = {"a": Rows("numbers"), "b": plain}
    found = data.split({"train": both}, "train")
    by_index = batches(Padded(), found, 64)
    assert [len(batch["b"]["x"]) for batch in by_index] == [64] * 4
    assert [len(batch["a"]["y"]) for batch in by_index] == [64] * 4
    in_memory = data.split({"train": {"a": Rows("numbers"), "b": arrays}}, "train")
    for one, other in zip(by_index, batches(Padded(), in_memory, 64), strict=True):
        assert_same([one["a"], one["b"]], [other["a"], other["b"]])
