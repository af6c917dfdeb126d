"""Examples that TensorFlow reads without Python, and those that can't be decoded."""

import shutil

import kinds
import numpy as np
import pytest
import tasks
import tensorflow as tf

from trainer import data
from trainer.data import one_pass
from trainer.data.prepared import Prepared


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    root = tmp_path_factory.mktemp("kinds")
    kinds.make(root / "files")
    return root / "files"


@pytest.fixture
def root(files, tmp_path):
    """Files that a test may damage."""
    return shutil.copytree(files, tmp_path / "files")


class InPython:
    """The same source, with nothing but what any source has."""

    def __init__(self, given):
        self.given = given

    def __len__(self):
        return len(self.given)

    def __getitem__(self, index):
        return self.given[index]


def source(given):
    return data.split(given.sources(), "train")


def batches(given, source, first=0):
    inputs = Prepared(task=given, source=source, batch_size=6, seed=3)

    @tf.function
    def take(step):
        return inputs.batch(step)

    with inputs.reading(first, 9):
        return [take(tf.constant(n, tf.int64)) for n in range(first, first + 9)]


@pytest.mark.parametrize("first", [0, 10**7])
def test_what_tensorflow_reads_is_what_python_reads(files, first):
    given = kinds.Folder(root=str(files))
    plain = data.split(
        {"train": InPython(data.images(files / "train/images"))}, "train"
    )
    assert source(given).in_ops and not plain.in_ops
    some, others = batches(given, source(given), first), batches(given, plain, first)
    for one, other in zip(some, others, strict=True):
        assert one.keys() == other.keys() == {"x", "y"}
        for name in one:
            assert one[name].dtype == other[name].dtype
            assert np.array_equal(one[name], other[name])
    evaluated = [
        [
            (batch["x"].numpy().tobytes(), counts.numpy().tolist())
            for batch, counts in one
        ]
        for one in (data.ordered(every, 5, given) for every in (source(given), plain))
    ]
    assert evaluated[0] == evaluated[1]


def lost(given, path):
    path.unlink()
    return rf"example 1 of 'train' can't be read: FileNotFoundError: .*{path.name}'"


def cut_off(given, path):
    path.write_bytes(path.read_bytes()[:40])
    line = kinds.Folder.decode.__code__.co_firstlineno + 1
    return (
        rf"example 1 of 'train' \(.*{path.name}\) can't be decoded: "
        rf"InvalidArgumentError: .*PNG.* \(.*kinds\.py, line {line}, in decode\)\. "
        "Expected that decode"
    )


@pytest.mark.parametrize("damage", [lost, cut_off])
def test_a_file_that_is_bad_is_named_with_its_index(root, damage):
    given = kinds.Folder(root=str(root))
    found = source(given)
    found.outline  # noqa: B018  the trial, which looks at some examples only
    text = damage(given, found.given.paths[1])
    with pytest.raises(data.SourceError, match=text):
        batches(given, found)
    with pytest.raises(data.SourceError, match=text):
        list(one_pass.elements(data.ordered(found, 4, given)))


def test_a_bad_example_ends_a_run_with_its_index(root, tmp_path):
    given = kinds.Folder(root=str(root))
    bad = source(given).given.paths[1]
    bad.write_bytes(b"no image")
    with pytest.raises(
        data.SourceError,
        match=rf"example 1 of 'train' \(.*{bad.name}\) can't be decoded",
    ):
        tasks.train(tmp_path / "run", given, steps=12)


def test_a_record_that_is_bad_is_named_with_its_file(root):
    path = root / "train" / "a.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as file:
        for n in range(20):
            good = kinds.example(np.ones(4, "float32"), float(n))
            file.write(good if n != 1 else b"no example")
    given = kinds.Records(root=str(root))
    with pytest.raises(
        data.SourceError,
        match=r"example 1 of 'train' \(.*a\.tfrecord, record 2\) can't be decoded: "
        r"InvalidArgumentError: Could not parse",
    ):
        batches(given, source(given))


def test_an_error_of_a_step_is_no_error_of_the_input(files):
    given = kinds.Folder(root=str(files))
    inputs = Prepared(task=given, source=source(given), batch_size=6, seed=3)
    with (
        pytest.raises(tf.errors.InvalidArgumentError, match="is not finite"),
        inputs.reading(0, 1),
    ):
        tf.debugging.check_numerics(tf.constant(np.nan), "is not finite")
