"""Datasets as people write them: the same examples, epochs, runs that resume."""

import pathlib
import re

import keras
import kinds
import numpy as np
import processes
import pytest
import tasks
import tensorflow as tf
import test_stream

from trainer import data
from trainer.checkpoint.layout import RunDirectory
from trainer.config import options
from trainer.data import adapt, batched, resumable
from trainer.data.inputs import training
from trainer.data.stream import StreamError
from trainer.model import audit
from trainer.model.audit import IncompleteStateError

ROWS = 14
LENGTHS = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Folders of images and of texts, by class."""
    path = tmp_path_factory.mktemp("folders")
    rng = np.random.default_rng(0)
    for number in range(ROWS):
        folder = "cats" if number % 2 else "dogs"
        for kind in ("images", "texts"):
            (path / kind / folder).mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, [9 + number % 3, 8, 3], np.uint8)
        image = path / "images" / folder / f"{number}.png"
        image.write_bytes(tf.io.encode_png(pixels).numpy())
        text = path / "texts" / folder / f"{number}.txt"
        text.write_text(f"{folder} like number {number}")
    return path


def images(root, **given):
    given = {"image_size": (4, 4), "batch_size": 3, "seed": 1, "verbose": 0, **given}
    return keras.utils.image_dataset_from_directory(root / "images", **given)


def texts(root, **given):
    given = {"batch_size": 4, "seed": 1, "verbose": 0, **given}
    return keras.utils.text_dataset_from_directory(root / "texts", **given)


def series(**given):
    rows = np.sin(np.arange(20, dtype="f"))[:, None]
    given = {"sequence_length": 5, "batch_size": 3, "seed": 2, **given}
    return keras.utils.timeseries_dataset_from_array(rows, np.cos(rows[:, 0]), **given)


def pairs(count=10):
    x = np.arange(count, dtype="f")[:, None] * [1, 2]
    return tf.data.Dataset.from_tensor_slices((x.astype("f"), np.arange(count)))


def sequences():
    """Of unequal lengths."""
    lengths = tf.data.Dataset.from_tensor_slices(LENGTHS)
    return lengths.map(lambda n: (tf.cast(tf.range(n), tf.float32), n))


def bucketed():
    return sequences().bucket_by_sequence_length(
        lambda x, y: tf.shape(x)[0], [3, 6], [4, 3, 2]
    )


def values(dataset, name="y"):
    """Of all examples, in their order."""
    given = adapt.adapted(dataset, "train").dataset
    return [np.asarray(one[name]).tolist() for one in given]


def of(dataset, make=None, valid=None):
    """A task that learns `y` from whatever `x` is."""

    class Of(tasks.Plain):
        def sources(self):
            train = dataset() if callable(dataset) else dataset
            splits = {"train": train}
            return splits | {"valid": valid or train} if valid != "none" else splits

        def networks(self):
            return keras.Sequential(
                make() if make else [keras.layers.Dropout(0.2), keras.layers.Dense(1)]
            )

        def values(self, networks, batch, training):
            x = batch["x"]
            if x.dtype != tf.string:
                axes = tf.range(1, tf.rank(x))
                x = tf.reduce_mean(tf.cast(x, tf.float32), axes)[:, None] / 100
                x.set_shape([None, 1])
            answers = networks(x, training=training)[:, 0]
            return {"loss": (answers - tf.cast(batch["y"], tf.float32)) ** 2}

        def predictions(self, networks, batch):
            return {"y": self.values(networks, {**batch, "y": 0.0}, False)["loss"]}

    return Of(learning_rate=0.01)


# The examples.


@pytest.mark.parametrize(
    ("dataset", "names"),
    [
        (pairs(), ["x", "y"]),
        (pairs().map(lambda x, y: (x, y, 1.0)), ["weight", "x", "y"]),
        (tf.data.Dataset.range(3), ["x"]),
        (pairs().map(lambda x, y: {"a": x}), ["a"]),
        (pairs().batch(3), ["x", "y"]),
        (tf.data.Dataset.range(9).batch(2), ["x"]),
    ],
)
def test_what_has_no_names_gets_them(dataset, names):
    assert sorted(adapt.adapted(dataset, "train").dataset.element_spec) == names


def test_a_dataset_of_dicts_stays_what_it_is():
    """Or the runs that were begun on it could not be resumed."""
    dataset = pairs().map(lambda x, y: {"x": x, "y": y})
    assert adapt.adapted(dataset, "train").dataset is dataset


BATCHED = {
    "batch": lambda d: d.batch(3),
    "prefetch": lambda d: d.batch(3).prefetch(2),
    "parallel": lambda d: d.batch(3, num_parallel_calls=2),
    "options": lambda d: d.batch(3).with_options(tf.data.Options()),
    "full": lambda d: d.batch(3, drop_remainder=True),
    "map": lambda d: d.batch(3).map(lambda x, y: (x * 2, y)).cache(),
    "shuffle": lambda d: d.batch(3).shuffle(2, seed=0),
    "repeat": lambda d: d.batch(3).repeat(2),
    "take": lambda d: d.batch(3).take(2),
    "take all": lambda d: d.batch(3).take(9),
    "skip": lambda d: d.batch(3).skip(3),
    "skip and take": lambda d: d.batch(3).skip(1).take(2),
    "zip": lambda d: tf.data.Dataset.zip(
        d.batch(3).map(lambda x, y: x), d.batch(3).map(lambda x, y: y)
    ),
    "concatenate": lambda d: d.batch(3).concatenate(d.batch(4)),
    "padded, of one shape": lambda d: d.padded_batch(3),
}


@pytest.mark.parametrize("way", BATCHED)
def test_batches_are_taken_apart_and_their_examples_counted(way):
    """Each example once, in its order, and as many as are said to be there."""
    given = BATCHED[way](pairs())
    expected = [int(y) for _, ys in given for y in ys]
    found = adapt.adapted(BATCHED[way](pairs()), "train")
    assert not found.whole
    assert [int(one["y"]) for one in found.dataset] == expected
    assert found.length == len(expected)
    assert found.dataset.element_spec["x"].shape == [2]


@pytest.mark.parametrize(
    ("given", "length"),
    [
        (pairs().batch(3).repeat(), tf.data.INFINITE_CARDINALITY),
        (pairs().repeat().batch(3), tf.data.INFINITE_CARDINALITY),
        (pairs().filter(lambda x, y: True).batch(3), tf.data.UNKNOWN_CARDINALITY),
        (pairs().batch(3).filter(lambda x, y: True), tf.data.UNKNOWN_CARDINALITY),
        (pairs().batch(3).shuffle(9).take(2), tf.data.UNKNOWN_CARDINALITY),
        (pairs().batch(3).rebatch(2), tf.data.UNKNOWN_CARDINALITY),
    ],
)
def test_what_is_not_known_is_not_made_up(given, length):
    assert batched.made_by(given)
    assert adapt.adapted(given, "train").length == length


def test_windows_made_by_batch_are_examples():
    windows = tf.data.Dataset.range(20).batch(5, drop_remainder=True)
    parted = windows.map(lambda w: {"x": w[:4], "y": w[4]})
    assert not batched.made_by(parted)
    nested = parted.batch(2).prefetch(1)
    assert values(nested) == [4, 9, 14, 19]


def test_batches_inside_of_other_datasets_are_none():
    flat = tf.data.Dataset.range(6).window(3).flat_map(lambda w: w.batch(3))
    assert not batched.made_by(flat)
    mixed = tf.data.Dataset.sample_from_datasets([pairs(), pairs()], seed=1)
    assert not batched.made_by(mixed)
    mixed = tf.data.Dataset.sample_from_datasets([pairs().batch(2)] * 2, seed=1)
    assert len(values(mixed)) == 20


def test_what_keras_makes_are_examples(root):
    found = adapt.adapted(images(root), "train")
    assert (found.length, found.whole) == (ROWS, False)
    assert found.dataset.element_spec["x"].shape == [4, 4, 3]
    assert sorted(values(images(root))) == sorted([0, 1] * (ROWS // 2))
    assert adapt.adapted(images(root, batch_size=None), "train").length == ROWS
    unlabelled = adapt.adapted(texts(root, labels=None), "train")
    assert (unlabelled.length, list(unlabelled.dataset.element_spec)) == (ROWS, ["x"])
    found = adapt.adapted(series(), "train")
    assert (found.length, found.whole) == (16, False)


# Epochs.


@pytest.mark.parametrize(
    ("dataset", "size", "steps"),
    [
        (lambda: pairs(20).batch(3), 8, 5),
        (lambda: pairs(20), 8, 5),
        (lambda: sequences().padded_batch(4), 64, 6),
    ],
    ids=["batches", "examples", "padded batches"],
)
def test_finite_datasets_count_epochs(tmp_path, dataset, size, steps):
    choices = {"epochs": 2.0, "batch_size": size, "evaluate_every_steps": 0}
    outcome = test_stream.train(tmp_path / "run", of(dataset), **choices)
    assert outcome.total_steps == outcome.step == steps
    for step, evaluated in {3: True, 4: False, steps: True}.items():
        found = tasks.manifest(tmp_path / f"run/recent/ckpt-{step}")["metrics"]
        assert bool(found) == evaluated, step


# Runs.


def dense():
    return [keras.layers.Dropout(0.2), keras.layers.Dense(1)]


def reading():
    """A network that takes texts."""
    vocabulary = ["cats", "dogs", "like", "number"]
    return [
        keras.layers.TextVectorization(vocabulary=vocabulary, output_mode="multi_hot"),
        keras.layers.Rescaling(1.0),
        *dense(),
    ]


KINDS = {
    "images": (lambda root: images(root), dense),
    "texts": (lambda root: texts(root), reading),
    "windows": (lambda root: series(shuffle=True), dense),
    "sampled": (
        lambda root: tf.data.Dataset.sample_from_datasets(
            [pairs(7).repeat(), pairs(9).shuffle(4, seed=4).repeat()],
            [0.3, 0.7],
            seed=3,
        ),
        dense,
    ),
    "padded": (lambda root: sequences().padded_batch(4).shuffle(2, seed=1), dense),
    "padded, shuffled before": (
        lambda root: sequences().shuffle(5, seed=1).repeat().padded_batch(4),
        dense,
    ),
    "bucketed": (lambda root: bucketed(), dense),
}


def still(name, root):
    """The same data to evaluate, in an order that stays."""
    if name == "images":
        return images(root, shuffle=False)
    return texts(root, shuffle=False) if name == "texts" else pairs(5).batch(2)


@pytest.mark.parametrize("name", KINDS)
def test_a_run_that_is_cut_off_ends_as_if_it_had_not_been(root, tmp_path, name):
    dataset, make = KINDS[name]
    task = of(lambda: dataset(root), make, still(name, root))
    choices = {"steps": 7, "evaluate_every_steps": 4, "batch_size": 5}
    if name.startswith(("padded", "bucketed")):
        choices["batch_size"] = options.RunOptions.batch_size
    test_stream.train(tmp_path / "straight", task, **choices)
    for step in (2, 5):
        run_dir = tasks.cut_back(tmp_path / "straight", tmp_path / f"run{step}", step)
        outcome = test_stream.train(run_dir, task, **choices)
        assert outcome.trained_steps == 7 - step
        test_stream.assert_same_run(tmp_path / "straight", run_dir)


def test_a_run_on_what_keras_makes_is_killed_and_resumes_exactly(tmp_path):
    kinds.make(tmp_path / "files")
    source = pathlib.Path(kinds.__file__).read_text("utf-8")
    (tmp_path / "kinds.py").write_text(source, "utf-8")
    arguments = ["--task=kinds:Utility", f"--set=root={tmp_path / 'files'}"]
    arguments += ["--batch_size=8", "--epochs=2", "--kills=1"]
    done = processes.run("prove", *arguments, cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert "exact: 1 kill survived, nothing differs" in done.stdout


def test_a_batch_of_a_step_has_the_size_that_it_was_made_with(tmp_path):
    """The last one of an epoch is smaller; each example counts once."""
    task = of(lambda: sequences().padded_batch(4))
    choices = {"steps": 3, "report_every_steps": 3, "batch_size": 64}
    test_stream.train(tmp_path / "run", task, evaluate_every_steps=3, **choices)
    record = RunDirectory(tmp_path / "run").config.read_text("utf-8")
    assert '"batch_size": 4' in record
    inputs = training(task, data.split(task.sources(), "train"), batch_size=4, seed=0)
    shapes = [inputs.batch(tf.constant(n, tf.int64))["x"].shape for n in range(4)]
    assert shapes == [(4, 4), (4, 9), (2, 5), (4, 4)]


def test_rows_of_batches_of_many_sizes_have_seeds_of_their_own():
    class Seeded(tasks.Plain):
        def augment(self, batch, seeds):
            return {**batch, "seeds": seeds}

    given = adapt.adapted(bucketed(), "train")
    inputs = training(Seeded(), given, batch_size=64, seed=3)
    batches = [inputs.batch(tf.constant(n, tf.int64)) for n in range(9)]
    assert len({len(one["y"]) for one in batches}) > 1
    seen = [tuple(row) for one in batches for row in one["seeds"].numpy().tolist()]
    assert len(set(seen)) == len(seen)


def test_another_batch_size_than_that_of_padded_batches_is_refused(tmp_path):
    text = (
        "--batch_size=8: the training data is padded batches of 4, which are taken as "
        "they are. Leave --batch_size out, or make others: dataset.padded_batch(8)."
    )
    task = of(lambda: sequences().padded_batch(4))
    with pytest.raises(data.DataError, match=re.escape(text)):
        test_stream.train(tmp_path / "run", task, steps=3)


def test_an_evaluation_counts_each_example_of_each_kind_of_batch_once(root):
    for dataset in (
        images(root, shuffle=False),
        pairs().batch(4).map(lambda x, y: (x, y)),
        sequences().padded_batch(4),
        bucketed(),
        series(),
    ):
        expected = [float(y) for _, ys in dataset for y in ys.numpy().ravel()]
        for size in (1, 3, 64):
            batches = data.ordered(data.split({"a": dataset}, "a"), size)
            seen = [
                float(y)
                for batch, counts in batches
                for y in batch["y"].numpy()[counts.numpy()].ravel()
            ]
            assert seen == expected


# Refused.


@pytest.mark.parametrize(
    ("way", "name"),
    [
        (lambda d: d.batch(3).map(lambda x, y: (x, y)), "batch"),
        (lambda d: d.filter(lambda x, y: True).prefetch(2), "filter"),
        (lambda d: d.take(5).map(lambda x, y: (x, y), num_parallel_calls=2), "take"),
        (lambda d: d.padded_batch(3), "padded_batch"),
        (lambda d: d.batch(3).repeat(), "batch"),
        (lambda d: tf.data.Dataset.zip(d, d), "zip"),
    ],
)
def test_a_shuffle_that_would_be_forgotten_is_refused(way, name):
    """TensorFlow begins it anew where what comes after it has ended."""
    text = (
        rf"the order that shuffle\(\) draws for the next epoch, which {name}\(\) "
        r"forgets\n(.*\n)*Repeat right after the shuffle, shuffle\(n\)\.repeat\(\),"
        r".*\(batch_size=None; --batch_size makes the batches\).*"
        r"reshuffle_each_iteration=False\)"
    )
    found = audit.examine_stream(way(pairs().shuffle(5, seed=1)))
    assert re.search(text, audit.describe(found))
    still = pairs().shuffle(5, seed=1, reshuffle_each_iteration=False)
    assert not audit.examine_stream(way(still))


@pytest.mark.parametrize(
    "way",
    [
        lambda d: d.batch(3).prefetch(1),
        lambda d: d.map(lambda x, y: (x, y), num_parallel_calls=2).prefetch(1),
        lambda d: d.filter(lambda x, y: True),
        lambda d: d.repeat().padded_batch(3),
    ],
)
def test_a_shuffle_that_is_kept_is_not(way):
    dataset = way(pairs().shuffle(5, seed=1))
    assert not audit.examine_stream(adapt.adapted(dataset, "train").dataset)


def test_sampling_from_datasets_that_end_is_refused(tmp_path):
    sample = tf.data.Dataset.sample_from_datasets
    text = (
        r"samples from datasets that end, and TensorFlow can't go on.*Repeat each: "
        r"sample_from_datasets\(\[a\.repeat\(\), b\.repeat\(\)\], \.\.\.\), or say "
        r"stop_on_empty_dataset=True"
    )
    with pytest.raises(StreamError, match=text):
        test_stream.train(tmp_path / "run", of(sample([pairs(), pairs()])), steps=3)
    assert not resumable.stuck(sample([pairs().repeat(), pairs().repeat()]))
    assert not resumable.stuck(sample([pairs()] * 2, stop_on_empty_dataset=True))


def test_an_evaluation_of_what_keras_shuffles_says_how_not_to(root, tmp_path):
    text = (
        r"the order of the examples to evaluate, which shuffle\(\) draws anew(.|\n)*"
        r"Of Keras' utilities: subset=\"both\" gives both splits, the second in one "
        r"order; or shuffle=False\."
    )
    with pytest.raises(IncompleteStateError, match=text):
        test_stream.train(tmp_path / "run", of(images(root)), steps=3)
    _, valid = images(root, validation_split=0.4, subset="both")
    task = of(lambda: images(root), valid=valid)
    assert test_stream.train(tmp_path / "run", task, steps=3).step == 3


def test_files_in_another_order_at_each_start_are_refused(root, tmp_path):
    seeds = iter([1, 2])
    task = of(lambda: images(root, seed=next(seeds)), valid="none")
    test_stream.train(tmp_path / "run", task, steps=2)
    text = (
        r"the training stream begins with other examples \(if a utility shuffles its "
        r"files, give it seed=1, or shuffle=False\)\. A resumed run would not"
    )
    with pytest.raises(options.ConfigError, match=text):
        test_stream.train(tmp_path / "run", task, steps=4)


def ragged():
    return tf.RaggedTensor.from_row_lengths(tf.range(3), [1, 2])


NAME = (
    r"Expected tensors by one name each, or \(x, y\), or \(x, y, weight\)\. Name them"
)


@pytest.mark.parametrize(
    ("way", "text"),
    [
        (
            lambda x, y: (x, y, y, y),
            r"the dataset of 'train' gives tuples of 4, which have no names\. "
            rf"{NAME}: dataset\.map\(lambda a, b, c, d: ",
        ),
        (
            lambda x, y: {"x": (x, y), "y": y},
            r"examples of 'train' have 'x', a tuple of 2, in the place of a tensor\. "
            rf'{NAME}: dataset\.map\(lambda one: {{"x": one\["x"\]\[0\]',
        ),
        (
            lambda x, y: ({"a": x, "b": x}, y),
            rf"examples of 'train' have 'x', which holds 'a', 'b' in turn\. {NAME}: "
            r'dataset\.map\(lambda x, y: {"a": x\["a"\], \.\.\., "y": y}\)\.',
        ),
        (
            lambda x, y: (x, None),
            r"gives 'y' as None\w*, without a value\. Expected tensors\. Leave it out",
        ),
        (
            lambda x, y: {"words": ragged(), "y": y},
            r"examples of 'train' have 'words' as a ragged tensor \(2, None\)\. "
            r'Expected tensors of one shape\..*one\["words"\]\.to_tensor.*padded_batch',
        ),
        (
            lambda x, y: {"x": tf.sparse.from_dense(x), "y": y},
            r"have 'x' as a sparse tensor \(2,\).*tf\.sparse\.to_dense\(one\[\"x\"\]\)",
        ),
    ],
    ids=["four", "tuple inside", "names inside", "None", "ragged", "sparse"],
)
def test_elements_that_are_no_examples_are_told(way, text):
    with pytest.raises(data.DataError, match=text):
        given = data.split({"train": pairs().map(way)}, "train")
        training(tasks.Plain(), given, batch_size=4, seed=0)


def test_windows_that_are_datasets_are_told():
    text = r"gives 'x' as datasets, as window\(\) makes them.*flat_map\(lambda window: "
    with pytest.raises(data.DataError, match=text):
        data.split({"train": tf.data.Dataset.range(9).window(3)}, "train")


def test_names_in_names_are_for_decode():
    class Decoding(tasks.Plain):
        def decode(self, example, seed):
            return {"x": example["x"]["a"], "y": example["y"]}

    nested = pairs().map(lambda x, y: ({"a": x}, y))
    given = data.split({"train": nested.batch(3)}, "train")
    inputs = training(Decoding(), given, batch_size=4, seed=0)
    assert inputs.batch(tf.constant(0, tf.int64))["x"].shape == [4, 2]
    padded = data.split({"train": sequences().padded_batch(3)}, "train")
    text = r"'train' gives padded batches, and decode\(self, example, seed\) takes one"
    with pytest.raises(data.DataError, match=text):
        training(Decoding(), padded, batch_size=4, seed=0)


def test_python_is_refused_before_it_is_run(tmp_path):
    runs = []

    def give():
        runs.append(1)
        yield np.zeros(2, "f"), np.float32(0)

    spec = (tf.TensorSpec([2]), tf.TensorSpec([]))
    dataset = tf.data.Dataset.from_generator(give, output_signature=spec)
    task = of(dataset.batch(2).prefetch(1), valid="none")
    text = "can't be saved: it runs Python, whose state no checkpoint holds"
    with pytest.raises(StreamError, match=text):
        test_stream.train(tmp_path / "run", task, steps=2)
    assert not runs


def test_a_stream_turns_out_to_be_empty(tmp_path):
    nothing = pairs().filter(lambda x, y: False).shuffle(3)
    with pytest.raises(StreamError, match="the training stream is empty: it ended"):
        test_stream.train(tmp_path / "run", of(nothing, valid=pairs()), steps=2)


def test_the_shuffles_of_a_stream_draw_for_it_alone():
    """Another iterator over the whole would take an order away from it."""

    def orders(look):
        tf.random.set_seed(0)
        given = adapt.adapted(pairs().shuffle(10, seed=1), "train")
        inputs = training(tasks.Plain(), given, batch_size=10, seed=0)
        if look:
            inputs.check()
        return [inputs.batch(tf.constant(n, tf.int64))["y"].numpy() for n in range(3)]

    np.testing.assert_array_equal(orders(True), orders(False))
