"""Sources by index: the same batches always, and runs that resume."""

import importlib.util
import re

import kinds
import numpy as np
import processes
import pytest
import tasks
import tensorflow as tf

from trainer import data
from trainer.data.inputs import training
from trainer.data.prepared import Prepared
from trainer.model.audit import IncompleteStateError
from trainer.model.steps import NonFiniteError

EVERY = [pytest.param(cls, id=cls.__name__) for cls in kinds.READY] + [
    pytest.param(
        cls,
        id=cls.__name__,
        marks=pytest.mark.skipif(
            importlib.util.find_spec(package) is None,
            reason=f"{package} is not installed; the extra `data` has it",
        ),
    )
    for package, cls in kinds.PACKAGES.items()
]
# What such packages warn of is theirs.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    path = tmp_path_factory.mktemp("kinds")
    kinds.make(path / "files")
    return path / "files"


def prepared(given, **ways):
    given = tasks.ready(given)
    source = data.split(given.sources(), "train")
    return Prepared(task=given, source=source, batch_size=6, seed=3, **ways)


def batches(inputs, first, count):
    """What a train loop would take."""

    @tf.function
    def take(step):
        return inputs.batch(step)

    with inputs.reading(first, count):
        found = [take(tf.constant(n, tf.int64)) for n in range(first, first + count)]
    return [{k: v.numpy() for k, v in flat(one).items()} for one in found]


def flat(batch):
    """By name; of several sources by `source/name`."""
    found = {}
    for name, one in batch.items():
        inner = one if isinstance(one, dict) else {"": one}
        found |= {f"{name}/{key}": value for key, value in inner.items()}
    return {name.rstrip("/"): one for name, one in found.items()}


def assert_equal(some, others):
    assert len(some) == len(others)
    for one, other in zip(some, others, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            assert one[name].dtype == other[name].dtype
            assert one[name].tobytes() == other[name].tobytes()


@pytest.mark.parametrize("cls", EVERY)
def test_batches_are_the_same_however_they_are_read(root, cls):
    given = cls(root=str(root))
    straight = batches(prepared(given), 0, 15)
    assert_equal(straight, batches(prepared(given, readers=1, prefetched=1), 0, 15))
    assert_equal(straight, batches(prepared(given, readers=9, prefetched=8), 0, 15))
    again = prepared(given)
    assert_equal(straight[7:], batches(again, 7, 8))
    assert_equal(straight[2:4], batches(again, 2, 2))
    assert_equal(straight[4:9], batches(again, 4, 5))


@pytest.mark.parametrize("cls", EVERY)
def test_a_run_that_is_cut_off_ends_as_if_it_had_not_been(root, tmp_path, cls):
    given = cls(root=str(root))
    tasks.train(tmp_path / "straight", given, steps=11)
    tasks.cut_back(tmp_path / "straight", tmp_path / "resumed", 5)
    tasks.train(tmp_path / "resumed", given, steps=11)
    tasks.assert_same_run(tmp_path / "straight", tmp_path / "resumed")


def test_a_table_with_categories_resumes(root, tmp_path):
    pytest.importorskip("pyarrow", reason="the extra `data` has it")
    given = kinds.People(root=str(root))
    tasks.train(tmp_path / "straight", given, steps=11)
    tasks.cut_back(tmp_path / "straight", tmp_path / "resumed", 5)
    tasks.train(tmp_path / "resumed", given, steps=11)
    tasks.assert_same_run(tmp_path / "straight", tmp_path / "resumed")


def test_the_same_examples_by_index_and_in_memory_are_the_same_batches(root):
    on_disk = kinds.OnDisk(root=str(root))
    arrays = {name: np.load(root / "train" / f"{name}.npy") for name in "xy"}
    in_memory = data.Shuffled(
        task=on_disk, source=data.Arrays(arrays), batch_size=6, seed=3
    )
    found = batches(prepared(on_disk), 0, 15)
    assert_equal(found, batches(in_memory, 0, 15))


@pytest.mark.parametrize("name", ["Folder", "Texts"])
def test_a_run_that_is_killed_resumes_exactly(root, tmp_path, name):
    (tmp_path / "kinds.py").write_text((tasks.pathlib.Path(kinds.__file__)).read_text())
    arguments = [f"--task=kinds:{name}", f"--set=root={root}", "--batch_size=8"]
    arguments += ["--steps=6", "--kills=1", "--evaluate_every_steps=3"]
    done = processes.prove(*arguments, cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert "exact: 1 kill survived, nothing differs" in done.stdout


def test_an_evaluation_sees_each_example_once_and_always_alike(root):
    given = kinds.Folder(root=str(root))
    source = data.split(given.sources(), "valid")
    for size in (1, 4, 11, 64):
        seen = [
            label
            for batch, counts in data.ordered(source, size, given)
            for label in batch["y"].numpy()[counts.numpy()].tolist()
        ]
        assert seen == list(source.given.labels)
    one, other = (
        np.concatenate([b["x"][c] for b, c in data.ordered(source, size, given)])
        for size in (3, 5)
    )
    assert one.tobytes() == other.tobytes()


def test_the_first_batch_far_away_is_at_hand(root):
    inputs = prepared(kinds.OnDisk(root=str(root)))
    (found,) = batches(inputs, 10**7, 1)
    assert found["x"].shape == (6, 4)


# What a source may do.


class Source:
    """Twenty examples; `give` says what each is."""

    def __init__(self, give):
        self.give = give

    def __len__(self):
        return 20

    def __getitem__(self, index):
        return self.give(index)


def given(give):
    class Given(tasks.Light):
        def sources(self):
            return {"train": Source(give)}

    return Given()


def vector(index):
    return np.full([4], index, np.float32)


def test_tuples_get_names():
    source = data.split({"train": [(0.5, 1, 2.0)]}, "train")
    assert [path for (path,) in source.outline.spec] == ["x", "y", "weight"]


def test_a_source_that_minds_threads_is_read_by_one(root, tmp_path):
    shared = kinds.SharedFile(root=str(root))
    source = data.split(shared.sources(), "train")
    inputs = Prepared(task=shared, source=source, batch_size=6, seed=3)
    rows = np.load(root / "train" / "x.npy")
    plain = data.Arrays({"x": rows, "y": rows[:, 0]})
    straight = data.Shuffled(task=shared, source=plain, batch_size=6, seed=3)
    assert_equal(batches(inputs, 0, 20), batches(straight, 0, 20))


def test_an_error_in_a_source_names_the_example_and_the_line(tmp_path):
    def give(index):
        if index == 13:
            raise RuntimeError("a bad sector")
        return {"x": vector(index), "y": np.float32(index)}

    line = give.__code__.co_firstlineno + 2
    with pytest.raises(
        data.SourceError,
        match=rf"example 13 of 'train' can't be read: RuntimeError: a bad sector "
        rf"\(.*test_indexed\.py, line {line}, in give\)\. Expected an example",
    ):
        tasks.train(tmp_path / "run", given(give), steps=30, evaluate_every_steps=30)
    assert tasks.steps(tmp_path / "run" / "recent") in ([], [1], [1, 2])


@pytest.mark.parametrize(
    ("odd", "text"),
    [
        (
            lambda i: {"x": vector(i).astype(np.float64), "y": np.float32(i)},
            r"example 13 of 'train' gives 'x' as float64 \(4,\); others give float32",
        ),
        (
            lambda i: {"x": vector(i)[:3], "y": np.float32(i)},
            r"examples of 'train' have 'x' of unequal shapes, \(None,\)\. Expected one "
            r'shape.*in the task: pad = {"x": 0}\. Or pad, cut or resize it in decode',
        ),
        (
            lambda i: {"x": vector(i)},
            r"example 13 of 'train' gives 'x'; others give 'x', 'y'",
        ),
        (
            lambda i: {"x": [[1.0], [1.0, 2.0]], "y": np.float32(i)},
            r"in example 13 of 'train', 'x' is no array: .*inhomogeneous",
        ),
        (
            lambda i: {"x": vector(i), "y": None},
            r"in example 13 of 'train', 'y' is None\. Expected numbers or texts",
        ),
    ],
)
def test_an_example_that_is_not_like_the_others_is_told(odd, text, tmp_path):
    def give(index):
        if index == 13:
            return odd(index)
        return {"x": vector(index), "y": np.float32(index)}

    with pytest.raises(data.DataError, match=text):
        tasks.train(tmp_path / "run", given(give), steps=30, evaluate_every_steps=30)


def test_a_source_that_answers_otherwise_each_time_is_refused(tmp_path):
    rng = np.random.default_rng()

    def give(index):
        return {"x": vector(index) + rng.normal(size=4).astype("f"), "y": 1.0}

    with pytest.raises(
        IncompleteStateError,
        match=r"example \d+ of 'train', which is another one each time it is asked "
        r"for(.|\n)*take what is random out of __getitem__ and into decode",
    ):
        tasks.train(tmp_path / "run", given(give), steps=3)
    tasks.train(tmp_path / "run", given(give), steps=3, allow_inexact=True)


def test_data_that_are_not_finite_are_told_before_the_learning_rate(tmp_path):
    def give(index):
        bad = np.float32("nan") if index == 13 else np.float32(index)
        return {"x": vector(0), "y": bad}

    with pytest.raises(
        NonFiniteError,
        match=r"The data of that step are not finite: 'y' in 1 of 8 examples\. Leave",
    ) as told:
        tasks.train(tmp_path / "run", given(give), steps=9, evaluate_every_steps=9)
    assert "learning rate" not in str(told.value)


# What is refused.


class NoLength:
    def __getitem__(self, index):
        return vector(index)


class OnlyIterable:
    def __iter__(self):
        return iter(())


def numbers():
    yield 1


class Batches(tf.keras.utils.PyDataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        return np.zeros([2]), np.zeros([2])


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (
            lambda: (np.zeros([3, 2]), np.zeros(3)),
            r"a tuple of 2 \(ndarray \(3, 2\), ndarray \(3,\)\), which has no names\. "
            r'.*Name them: {"train": {"x": x, "y": y}}\.',
        ),
        (numbers, r"a generator, which can be read once.*list\(examples\)"),
        (lambda: numbers, r"a function, which would have to be called.*numbers\(\)"),
        (NoLength, r"a NoLength, which has __getitem__ and no __len__.*def __len__"),
        (OnlyIterable, r"a OnlyIterable, which gives examples one after the other"),
        (Batches, r"a Batches, a PyDataset, which gives batches.*one example per"),
        (lambda: "a.npz", r"a text, 'a.npz'.*Read the file that it names"),
        (list, r"a list of 0 examples\. Expected at least 1"),
        (lambda: 3, r"a int\. Expected arrays by name"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_is_no_source_is_refused_with_what_to_write(wrong, text):
    with pytest.raises(data.DataError, match=rf"the data of 'train' are {text}"):
        data.split({"train": wrong()}, "train")


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda p: data.images(p / "no"), r"there is no folder .*no\. Expected one"),
        (lambda p: data.images(p), r"holds no images in folders by class"),
        (lambda p: data.tfrecords([]), r"there are no files to read"),
        (lambda p: data.tfrecords(p / "no"), r"there is no file .*no"),
        (lambda p: data.tfrecords(p / "text"), r"text is not made of whole records"),
        (lambda p: data.memmap({"x": p / "text"}), r"can't be read as an \.npy file"),
        (lambda p: data.windows(np.zeros(3), 4), r"3 rows has no window of length=4"),
    ],
)
def test_files_that_are_not_what_is_asked_for_are_refused(tmp_path, make, text):
    (tmp_path / "text").write_text("some words, and some more of them")
    with pytest.raises(data.DataError, match=text):
        make(tmp_path)


def test_an_index_is_made_anew_when_its_file_changes(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("one\ntwo\n")
    assert len(data.lines(path)) == 2
    assert (tmp_path / "a.txt.index.npz").exists()
    path.write_text("one\ntwo\nthree")
    source = data.lines(path, index_dir=tmp_path / "elsewhere")
    assert [source[n]["line"] for n in range(3)] == [b"one", b"two", b"three"]
    assert len(data.lines(path)) == 3


def test_a_file_that_was_cut_off_is_an_error_and_not_the_end(root, tmp_path):
    path = tmp_path / "x.npy"
    path.write_bytes((root / "train" / "x.npy").read_bytes())
    source = data.memmap({"x": path})
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(EOFError, match=re.escape(f"{path} ends before row")):
        source[len(source) - 1]


def test_arrays_stay_in_the_graph_and_other_sources_beside_it(root):
    plain = tasks.Light()
    arrays = data.split(plain.sources(), "train")
    assert isinstance(training(plain, arrays, batch_size=4, seed=0), data.Shuffled)
    assert isinstance(
        training(plain, data.split({"train": [1.0]}, "train"), batch_size=4, seed=0),
        Prepared,
    )


def test_a_dataset_is_decoded_as_well(tmp_path):
    class Halved(tasks.Light):
        def sources(self):
            splits = tasks.examples().items()
            return {k: tf.data.Dataset.from_tensor_slices(v) for k, v in splits}

        def decode(self, example, seed):
            return {"x": example["x"] / 2, "y": example["y"]}

    one = Halved()
    sources = {k: data.split(one.sources(), k) for k in ("train", "valid")}
    inputs = training(one, sources["train"], batch_size=4, seed=0)
    assert set(inputs.iterator.element_spec) == {"x", "y"}
    for batch, _ in data.ordered(sources["valid"], 4, one):
        assert set(batch) == {"x", "y"}
    assert tasks.train(tmp_path / "run", one, steps=3).step == 3
