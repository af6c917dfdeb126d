"""Data that can't be taken: one message that says what came and what mends it."""

import pathlib
import re
import resource

import keras
import numpy as np
import pytest
import tasks
import tensorflow as tf

from trainer import data, task
from trainer.data import datasets, one_pass, ragged
from trainer.model import parts, prediction

X = tasks.examples()["train"]["x"]
Y = tasks.examples()["train"]["y"]


def of(train, **splits):
    sources = {"train": train, "valid": tasks.examples()["valid"], **splits}
    return type("Of", (tasks.Plain,), {"sources": lambda self: sources})()


def built(given):
    sources = parts.seeded_sources(given, 0)
    return parts.build(given, sources, batch_size=4, seed=0, ema=0.0)


def refused(given, text, error=data.DataError):
    with pytest.raises(error, match=text):
        built(given)


# Arrays and examples.


@pytest.mark.parametrize(
    ("array", "text"),
    [
        (np.arange(30).astype("M8[s]"), r"'odd' \(datetime64\[s\]\) holds what no ten"),
        (np.array([object()] * 30), r"'odd' \(object\) holds what no tensor can: Fail"),
        (np.array(list(range(30)), object), r"'odd' \(object\) holds what no tensor"),
        ([1.0, None] * 15, r"'odd' \(list\) holds .*Convert it: np\.asarray\(values, "),
        ([2**70] * 30, r"'odd' \(list\) holds what no tensor can: .*out-of-range"),
        (None, r"'odd' is a single value, None; expected an array with .*Leave it out"),
        (3.5, r"'odd' is a single value, 3\.5; expected an array with one entry per"),
        (tf.sparse.from_dense(X), r"'odd' is a sparse tensor; .*tf\.sparse\.to_dense"),
    ],
)
def test_an_array_that_no_tensor_holds_is_named(array, text):
    refused(of({"x": X, "y": Y, "odd": array}), text)


def test_an_example_without_a_value_is_refused():
    refused(of([{} for _ in Y]), r"in example 0 of 'train', there is no value at all\.")


def test_numbers_in_the_order_of_other_machines_are_the_same_numbers(tmp_path):
    np.save(tmp_path / "x.npy", X.astype(">f4"))
    np.save(tmp_path / "y.npy", Y.astype(">f4"))
    rows = [{"x": x.astype(">f4"), "y": y} for x, y in zip(X, Y, strict=True)]
    given = [
        rows,
        {"x": X.astype(">f4"), "y": Y.astype(">f4")},
        data.memmap({"x": tmp_path / "x.npy", "y": tmp_path / "y.npy"}),
    ]
    for one in given:
        source = data.split({"train": one}, "train")
        (batch, _), *_ = data.ordered(source, 30)
        np.testing.assert_array_equal(batch["x"], X)
        np.testing.assert_array_equal(batch["y"], Y)
    assert ragged.length(X) == 30


@pytest.mark.parametrize(
    ("element", "text"),
    [
        (
            lambda x, y: {"in": {"x": x}, "y": y},
            r"have 'in', which holds 'x' in turn\.",
        ),
        (lambda x, y: ((x, x), y), r"have 'x', a tuple of 2, in the place of a tensor"),
        (lambda x, y: ({"a": x, "b": x}, y), r"have 'x', which holds 'a', 'b' in turn"),
    ],
)
def test_nested_elements_of_a_dataset_are_described_and_refused(element, text):
    nested = tf.data.Dataset.from_tensor_slices((X, Y)).map(element)
    refused(of(nested), text)
    found = datasets.describe(data.splits.adapted(nested, "train").dataset)
    assert re.match(r"a stream of \w+/\w+ float32 \(4,\), ", found)


@pytest.mark.parametrize("given", [({"x": X}, {"x": X}), None])
def test_sources_that_are_no_splits_are_refused(given):
    odd = type("Odd", (tasks.Plain,), {"sources": lambda self: given})()
    kind = type(given).__name__
    text = rf'^Odd\.sources\(\) returns {kind}; expected the data by split: return {{"t'
    refused(odd, text, task.TaskError)


# Names that aren't there.


def test_a_name_that_a_split_lacks_is_told_with_the_line(tmp_path):
    lacking = of({"x": X, "y": Y}, valid={"x": X, "z": Y})
    text = (
        r"^Of\.values\(\) looks up 'y', which a batch of an evaluation doesn't have "
        r"\(\S+tasks\.py, line \d+, in values\); it has x, z\. Expected one of these\. "
        r'Name it so in sources\(\) or decode\(\), in each split: {"y": \.\.\.}\.$'
    )
    with pytest.raises(task.TaskError, match=text):
        tasks.train(tmp_path / "run", lacking, steps=1)
    text = r"^Of\.values\(\) looks up 'x', which a batch of training doesn't have \("
    refused(of({"z": X, "y": Y}), text, task.TaskError)


def test_a_name_in_a_mapping_of_one_s_own_is_an_error_of_one_s_own():
    class Own(tasks.Plain):
        def values(self, networks, batch, training):
            return {"loss": {"x": 1}["w"]}

    with pytest.raises(task.TaskError, match="looks up 'w', which a batch of training"):
        built(Own())

    class There(Own):
        def values(self, networks, batch, training):
            return {"loss": {"x": 1}["y"]}

    with pytest.raises(KeyError, match="'y'"):
        built(There())


class Sum(keras.Model):
    """Takes the batch as it is."""

    def __init__(self):
        super().__init__()
        self.last = keras.layers.Dense(1)

    def call(self, batch):
        return self.last(batch["x"] + batch["z"])


class Whole(tasks.Plain):
    def predictions(self, networks, batch):
        return {"said": networks(batch)[:, 0]}


class Picks(Whole):
    def predictions(self, networks, batch):
        batch["y"]  # looked up, and not made use of
        inputs = {name: batch.get(name) for name in ("x", "z")}
        return {"said": networks(inputs)[:, 0]}


@pytest.mark.parametrize(
    ("given", "inputs"), [(Whole(), ("x", "z")), (Picks(), ("x", "y", "z"))]
)
def test_a_network_may_take_the_batch_as_a_mapping(given, inputs):
    spec = {
        "x": tf.TensorSpec([4, 2], tf.float32),
        "y": tf.TensorSpec([4], tf.float32),
        "z": tf.TensorSpec([4, 2], tf.float32),
    }
    model = Sum()
    predictor = prediction.Predictor(given, model, spec)
    assert predictor.inputs == inputs
    arrays = {"x": np.ones([3, 2]), "z": np.ones([3, 2]), "y": np.ones([3])}
    said = predictor.predict(arrays)["said"]
    expected = model({"x": tf.ones([3, 2]), "z": tf.ones([3, 2])})[:, 0]
    np.testing.assert_array_equal(said, expected)


def test_what_a_network_looks_up_in_vain_is_told():
    text = r"^Whole\.predictions\(\) looks up 'z', which a batch doesn't have \("
    spec = {"x": tf.TensorSpec([4, 2], tf.float32)}
    model = Sum()
    model({"x": tf.ones([1, 2]), "z": tf.ones([1, 2])})  # as in training
    with pytest.raises(task.TaskError, match=text):
        prediction.Predictor(Whole(), model, spec)


def test_what_a_network_looks_up_and_leaves_is_an_input():
    class Idle(Sum):
        def call(self, batch):
            assert batch["y"] is not None
            return super().call(batch)

    spec = {name: tf.TensorSpec([4, 2], tf.float32) for name in ("x", "y", "z", "w")}
    predictor = prediction.Predictor(Whole(), Idle(), spec)
    assert predictor.inputs == ("x", "y", "z")


# What has no end, or no beginning.

ENDLESS = "^the dataset to evaluate or predict has no end, and each of its examples "
EMPTY = "^the dataset to evaluate or predict is empty: it ended before its first exa"


def points(count=7):
    return tf.data.Dataset.from_tensor_slices({"x": X[:count], "y": Y[:count]})


@pytest.mark.parametrize(
    ("valid", "text"),
    [
        (points().repeat(), ENDLESS + r".*dataset\.take\(n\)\.$"),
        (points().repeat().filter(lambda one: one["y"] < 99).shuffle(2, 1), ENDLESS),
        (points().take(0), EMPTY),
    ],
)
def test_what_can_not_be_evaluated_is_refused_at_the_start(tmp_path, valid, text):
    with pytest.raises(data.DataError, match=text):
        tasks.train(tmp_path / "run", of({"x": X, "y": Y}, valid=valid), steps=1)
    assert not list((tmp_path / "run").rglob("ckpt-*"))


def test_what_turns_out_to_be_empty_is_told():
    nothing = points().filter(lambda one: one["y"] > 99)
    with pytest.raises(data.DataError, match=EMPTY):
        list(one_pass.elements(nothing))


def test_what_ends_is_read():
    ending = points().repeat().filter(lambda one: one["y"] < 99).take(9)
    assert len(list(one_pass.elements(ending))) == 9
    until = points().repeat().take_while(lambda one: one["y"] < -99)
    assert not datasets.endless(until)


# Unequal shapes in a dataset that nobody pads.


class Words(tasks.Plain):
    def networks(self):
        return keras.Sequential([keras.layers.Embedding(9, 2), keras.layers.Dense(1)])

    def values(self, networks, batch, training):
        return {"loss": networks(batch["x"])[:, 0, 0] ** 2}


def growing():
    return tf.data.Dataset.range(12).map(
        lambda n: {"x": tf.ones([n % 5 + 1], tf.int64)}
    )


@pytest.mark.parametrize("split", ["train", "valid"])
def test_examples_of_unequal_shapes_that_nobody_pads_are_told(tmp_path, split):
    sources = {name: {"x": np.ones([6, 3], "i8")} for name in ("train", "valid")}
    sources[split] = growing()
    given = type("Given", (Words,), {"sources": lambda self: sources})()
    text = (
        r"^examples of unequal shapes are to be one batch: \[\d\] and \[\d\]\. "
        r'Expected one shape\. Fill them up, in the task: pad = {"tokens": 0} '
        r".*A tf\.data\.Dataset may make the batches itself: dataset\.padded_batch\(n"
    )
    with pytest.raises(data.DataError, match=text):
        tasks.train(tmp_path / "run", given, steps=3, evaluate_every_steps=3)
    padded = type("Padded", (type(given),), {"pad": {"x": 0}})()
    tasks.train(tmp_path / "padded", padded, steps=3, evaluate_every_steps=3)


# Files.


def test_there_may_be_more_files_than_a_process_may_open(tmp_path):
    paths = [tmp_path / f"{n:04}.txt" for n in range(300)]
    for n, path in enumerate(paths):
        path.write_text(f"{n}\n{n + 1000}\n")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
    try:
        source = data.lines(paths)
        for n in (0, 127, 128, 299):
            assert source[2 * n + 1] == {"line": str(n + 1000).encode()}
        before = len(list(pathlib.Path("/proc/self/fd").iterdir()))
        assert source[599] == {"line": b"1299"}
        assert len(list(pathlib.Path("/proc/self/fd").iterdir())) == before
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_what_is_no_npy_file_and_no_window_is_refused(tmp_path):
    np.savez(tmp_path / "x.npz", x=X)
    text = r"x\.npz can't be read as an \.npy file: it is an archive of arrays, \.npz"
    with pytest.raises(data.DataError, match=text):
        data.memmap({"x": tmp_path / "x.npz"})
    with pytest.raises(data.DataError, match=r"windows are to have {'length': 2\.5, "):
        data.windows(np.arange(9.0), 2.5)
    with pytest.raises(data.DataError, match=r"cut out of one value, .*an array \[T, "):
        data.windows(np.float32(3), 2)


def test_a_mark_of_the_byte_order_is_no_text(tmp_path):
    for content in (b"", b"\xef\xbb\xbf"):
        path = tmp_path / f"{len(content)}.txt"
        path.write_bytes(content + b"one\r\ntwo")
        assert [data.lines(path)[n]["line"] for n in (0, 1)] == [b"one", b"two"]
