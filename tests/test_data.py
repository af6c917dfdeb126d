"""Input as a pure function of the seed and the step."""

import dataclasses
import zipfile

import numpy as np
import pytest
import tensorflow as tf

from trainer import data, task

ROWS = 20_000


@dataclasses.dataclass(frozen=True)
class Watched(task.Task):
    """Shows the seeds that `augment` was given."""

    def sources(self):
        return {}

    def networks(self):
        return None

    def optimizers(self):
        return None

    def values(self, networks, batch, training):
        return {}

    def augment(self, batch, seeds):
        return {**batch, "seeds": seeds}


def shuffled(length, batch_size, seed=0):
    """Examples that are their own numbers."""
    return data.Shuffled(
        task=Watched(),
        source=data.Arrays({"number": np.arange(length)}),
        batch_size=batch_size,
        seed=seed,
    )


def batch(inputs, step):
    return {k: v.numpy() for k, v in inputs.batch(tf.constant(step, tf.int64)).items()}


def numbers(inputs, steps):
    return np.concatenate([batch(inputs, step)["number"] for step in steps])


def orders(length, epochs, seed=0):
    """The orders of the first epochs: `[epochs, length]`."""
    inputs = shuffled(length, length * epochs, seed)
    return batch(inputs, 0)["number"].reshape(epochs, length)


def row_seeds(column):
    """`ROWS` seeds that count up in one column: the worst that a run gives."""
    seeds = np.zeros([ROWS, 2], np.int32)
    seeds[:, column] = np.arange(ROWS)
    return tf.constant(seeds)


def correlation(one, other):
    return np.corrcoef(one, other)[0, 1]


# The order of the examples.


@pytest.mark.parametrize("step", [0, 1, 17, 10**9, 2**40])
def test_a_batch_is_a_function_of_seed_and_step(step):
    one, again = batch(shuffled(100, 32), step), batch(shuffled(100, 32), step)
    other = batch(shuffled(100, 32, seed=1), step)
    assert one["number"].tolist() == again["number"].tolist()
    assert one["seeds"].tolist() == again["seeds"].tolist()
    assert one["number"].tolist() != other["number"].tolist()


def test_a_batch_is_the_same_inside_a_graph():
    inputs = shuffled(100, 32)
    traced = tf.function(inputs.batch)(tf.constant(7, tf.int64))
    assert traced["number"].numpy().tolist() == batch(inputs, 7)["number"].tolist()


@pytest.mark.parametrize(
    ("length", "batch_size"),
    [(1, 1), (1, 4), (2, 3), (3, 2), (7, 7), (10, 4), (5, 16), (257, 64), (100, 1000)],
)
def test_each_epoch_sees_each_example_once(length, batch_size):
    steps = -(-3 * length // batch_size)
    seen = numbers(shuffled(length, batch_size), range(steps))
    for epoch in range(3):
        one = seen[epoch * length : (epoch + 1) * length]
        assert sorted(one) == list(range(length))


@pytest.mark.parametrize("step", [10**9, 2**40])
def test_so_does_an_epoch_far_away(step):
    assert sorted(batch(shuffled(50, 50), step)["number"]) == list(range(50))


@pytest.mark.parametrize("length", [100, 1197])
def test_each_epoch_has_an_order_of_its_own(length):
    found = orders(length, 400)
    assert len({order.tobytes() for order in found}) == 400


def test_each_seed_has_an_order_of_its_own():
    found = {orders(100, 1, seed).tobytes() for seed in [*range(260), 2**31 - 1]}
    assert len(found) == 261


@pytest.mark.parametrize("length", [20, 100])
def test_over_many_epochs_each_place_has_each_example_equally_often(length):
    epochs = 1000
    found = orders(length, epochs)
    for place in (0, 1, length - 1):
        counts = np.bincount(found[:, place], minlength=length)
        chi_square = np.sum((counts - epochs / length) ** 2) / (epochs / length)
        freedom = length - 1
        assert abs(chi_square - freedom) < 4.5 * np.sqrt(2 * freedom)


def test_augmentation_has_other_seeds_at_each_place_and_in_each_epoch():
    inputs = shuffled(10, 4)
    steps = [*range(50), *range(10**9, 10**9 + 50), *range(2**40, 2**40 + 50)]
    seeds = np.concatenate([batch(inputs, step)["seeds"] for step in steps])
    assert seeds.dtype == np.int32
    assert seeds.shape == (600, 2)
    assert len(np.unique(seeds, axis=0)) == 600


def test_augmentation_has_other_seeds_for_another_seed():
    found = [batch(shuffled(10, 4, seed), 3)["seeds"] for seed in (0, 1, 2, 2**31 - 1)]
    assert len(np.unique(np.concatenate(found), axis=0)) == 16


# Evaluation: in order.


@pytest.mark.parametrize(
    ("length", "batch_size"), [(1, 1), (1, 4), (5, 5), (10, 4), (4, 10)]
)
@pytest.mark.parametrize("kind", ["arrays", "dataset"])
def test_an_evaluation_sees_each_example_once_and_in_order(kind, length, batch_size):
    examples = {"number": np.arange(length)}
    given = {
        "arrays": data.Arrays(examples),
        "dataset": tf.data.Dataset.from_tensor_slices(examples),
    }[kind]
    seen = []
    for rows, counts in data.ordered(given, batch_size):
        size = min(batch_size, length) if kind == "arrays" else batch_size
        assert rows["number"].shape == counts.shape == [size]
        assert counts.dtype == tf.bool
        assert set(rows["number"].numpy()) <= set(range(length))
        seen += rows["number"].numpy()[counts.numpy()].tolist()
    assert seen == list(range(length))


# Sources.


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        ({}, r"lengths {}; expected one common length of at least 1"),
        ({"a": np.zeros([0, 3])}, r"lengths {'a': 0}; expected one common length"),
        (
            {"a": np.zeros(2), "b": np.zeros(3)},
            r"lengths {'a': 2, 'b': 3}; expected one common length",
        ),
        ({"a": np.float32(3)}, r"'a'.*expected"),
    ],
)
def test_arrays_without_one_common_length_are_refused(arrays, text):
    with pytest.raises(data.DataError, match=text):
        data.Arrays(arrays)


def test_arrays_give_the_examples_at_their_places():
    source = data.Arrays({"x": np.arange(6).reshape(3, 2), "y": np.array([7, 8, 9])})
    assert len(source) == 3
    found = source.gather(tf.constant([2, 0], tf.int64))
    assert found["x"].numpy().tolist() == [[4, 5], [0, 1]]
    assert found["y"].numpy().tolist() == [9, 7]


def test_a_mapping_of_arrays_is_a_source():
    source = data.split({"train": {"x": np.arange(3)}}, "train")
    assert source.gather(tf.constant([1], tf.int64))["x"].numpy().tolist() == [1]


def test_a_source_stays_what_it_is():
    source = data.Arrays({"x": np.arange(3)})
    assert data.split({"train": source}, "train") is source


def test_an_unknown_split_is_refused():
    with pytest.raises(data.DataError, match=r"no split 'tset'; it has test, train\."):
        data.split({"train": {}, "test": {}}, "tset")


def test_an_npz_gives_the_arrays_that_are_named(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.arange(3), y=np.zeros(3), z=np.ones(3))
    found = data.npz(tmp_path / "a.npz", ["y", "x"])
    assert list(found) == ["y", "x"]
    assert found["x"].tolist() == [0, 1, 2]


def missing(path):
    pass


def without_the_array(path):
    np.savez(path, image=np.zeros(3), lable=np.zeros(3))


def empty(path):
    path.touch()


def text(path):
    path.write_text("image, label\n")


def single_array(path):
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


def pickled(path):
    np.savez(path, image=np.array([{}]), label=np.zeros(1))


def other_zip(path):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("label.npy", "not an array")


def cut_off(path):
    np.savez(path, label=np.zeros(100))
    path.write_bytes(path.read_bytes()[:300])


def flipped(path):
    np.savez(path, label=np.zeros(100))
    content = bytearray(path.read_bytes())
    content[400] ^= 1
    path.write_bytes(content)


def directory(path):
    path.mkdir()


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (missing, r"there is no file .*a\.npz\. Expected an \.npz with the arrays"),
        (without_the_array, r"a\.npz has no array 'label'; it has image, lable\."),
        (empty, r"a\.npz cannot be read as an \.npz with the arrays image, label"),
        (text, r"a\.npz cannot be read as an \.npz"),
        (single_array, r"a\.npz cannot be read as an \.npz"),
        (pickled, r"a\.npz cannot be read as an \.npz.*allow_pickle=False"),
        (directory, r"a\.npz cannot be read as an \.npz"),
    ],
)
def test_what_is_no_npz_with_these_arrays_is_refused(tmp_path, make, text):
    make(tmp_path / "a.npz")
    with pytest.raises(data.DataError, match=text):
        data.npz(tmp_path / "a.npz", ["image", "label"])


@pytest.mark.parametrize("make", [cut_off, flipped, other_zip])
def test_a_damaged_npz_is_refused(tmp_path, make):
    make(tmp_path / "a.npz")
    with pytest.raises(data.DataError, match=r"a\.npz cannot be read as an \.npz"):
        data.npz(tmp_path / "a.npz", ["label"])


# Random numbers for augmentation.


@pytest.mark.parametrize("shape", [[], [1], [3], [2, 5]])
def test_uniform_has_the_shape_that_is_asked_for(shape):
    found = data.uniform(row_seeds(1)[:7], shape)
    assert found.dtype == tf.float32
    assert found.shape == [7, *shape]


def test_uniform_depends_on_the_own_row_alone():
    seeds = row_seeds(1)[:100]
    mixed = np.random.default_rng(0).permutation(100)
    straight = data.uniform(seeds, [4]).numpy()
    assert data.uniform(tf.gather(seeds, mixed), [4]).numpy().tolist() == (
        straight[mixed].tolist()
    )
    assert data.uniform(seeds[:1], [4]).numpy().tolist() == straight[:1].tolist()


def test_uniform_takes_every_seed():
    ends = [0, 1, -1, 2**31 - 1, -(2**31)]
    seeds = tf.constant([[a, b] for a in ends for b in ends], tf.int32)
    found = data.uniform(seeds, [2]).numpy()
    assert len(np.unique(found[:, 0])) == len(np.unique(found[:, 1])) == 25


@pytest.mark.parametrize("column", [0, 1])
def test_uniform_is_uniform(column):
    found = data.uniform(row_seeds(column), [3]).numpy().astype(np.float64)
    assert found.min() >= 0
    assert found.max() < 1
    for one in found.T:
        assert abs(one.mean() - 1 / 2) < 4.5 * np.sqrt(1 / 12 / ROWS)
        assert abs(one.var() - 1 / 12) < 4.5 * np.sqrt(1 / 180 / ROWS)
        counts, _ = np.histogram(one, bins=16, range=(0, 1))
        chi_square = np.sum((counts - ROWS / 16) ** 2) / (ROWS / 16)
        assert chi_square < 45, "one in ten thousand is larger"


@pytest.mark.parametrize("column", [0, 1])
def test_uniform_does_not_repeat_itself(column):
    found = data.uniform(row_seeds(column), [2]).numpy()
    assert len(np.unique(found, axis=0)) == ROWS


@pytest.mark.parametrize("column", [0, 1])
def test_neighbours_have_nothing_to_do_with_each_other(column):
    found = data.uniform(row_seeds(column), [3]).numpy().astype(np.float64)
    bound = 4.5 / np.sqrt(ROWS)
    for one in found.T:
        assert abs(correlation(one[:-1], one[1:])) < bound
    assert abs(correlation(found[:, 0], found[:, 1])) < bound
    assert abs(correlation(found[:, 1], found[:, 2])) < bound
    assert abs(correlation(found[:-1, 0], found[1:, 1])) < bound
