"""Training on a stream: its position is saved, or it is refused at the start."""

import re

import numpy as np
import pytest
import tasks
import tensorflow as tf

from trainer import data
from trainer.checkpoint import catalog
from trainer.checkpoint.layout import RunDirectory
from trainer.config import options
from trainer.data import adapt, stream
from trainer.inspection import diff
from trainer.model import audit
from trainer.model.steps import NonFiniteError

STEPS = 9
POSITION = "input/.ATTRIBUTES/ITERATOR_STATE"
CHOICES = {"steps": STEPS, "evaluate_every_steps": 3}


def examples(count=30):
    return tf.data.Dataset.from_tensor_slices(tasks.examples(train=count)["train"])


class Streamed(tasks.Plain):
    """Shuffled anew in each epoch, with a buffer that is part of the state."""

    def sources(self):
        shuffled = examples().shuffle(12, seed=5, reshuffle_each_iteration=True)
        return {"train": shuffled, "valid": tasks.examples()["valid"]}

    def augment(self, batch, seeds):
        noise = 0.1 * data.uniform(seeds, [tasks.FEATURES])
        return {**batch, "x": batch["x"] + noise}


def of(dataset):
    """A task that trains on a dataset."""
    sources = {"train": dataset, "valid": tasks.examples()["valid"]}
    return type("Of", (tasks.Plain,), {"sources": lambda self: sources})()


def train(run_dir, task, *arguments, **choices):
    """Trains as a new process does: the seeds of a dataset hang on TensorFlow's own."""
    tf.random.set_seed(0)
    return tasks.train(run_dir, task, *arguments, **choices)


def content(prefix):
    """The bytes of each tensor of a checkpoint, by key, iterators too."""
    reader = tf.train.load_checkpoint(str(prefix))
    return {
        key: tf.io.serialize_tensor(
            tf.raw_ops.RestoreV2(
                prefix=str(prefix),
                tensor_names=[key],
                shape_and_slices=[""],
                dtypes=[dtype],
            )[0]
        ).numpy()
        for key, dtype in reader.get_variable_to_dtype_map().items()
    }


def assert_same_run(straight, resumed, *, every=True):
    """Both ended alike: their checkpoints, metrics, records and curves.

    How far an iterator has read ahead may differ. Where it then goes on does not: the
    steps after it would tell.
    """
    recent = tasks.steps(straight / "recent")
    if every:
        assert set(recent) <= set(tasks.steps(resumed / "recent"))
    for step in recent if every else recent[-1:]:
        one, other = (run / f"recent/ckpt-{step}" for run in (straight, resumed))
        here, there = content(one), content(other)
        assert POSITION in here
        del here[POSITION], there[POSITION]
        assert here == there, step
        for entry in ("metrics", "records", "variables", "config_digest"):
            assert tasks.manifest(one)[entry] == tasks.manifest(other)[entry]
    tasks.assert_each_step_once(resumed)
    assert tasks.scalars(resumed) == tasks.scalars(straight)


# What is not finite.


@pytest.mark.parametrize("by_augment", [False, True])
@pytest.mark.parametrize("whole", [False, True], ids=["examples", "batches"])
def test_data_of_a_stream_that_are_not_finite_are_named(tmp_path, whole, by_augment):
    """It can't give a batch twice, so the last one is kept."""
    arrays = dict(tasks.examples()["train"])
    bad = arrays["label"].astype("float32")
    bad[:] = 0
    bad[[17, 19]] = 1
    if not by_augment:
        arrays["y"] = np.where(bad, np.nan, arrays["y"]).astype("float32")
    dataset = tf.data.Dataset.from_tensor_slices({**arrays, "bad": bad})

    class Given(tasks.Plain):
        def sources(self):
            return {"train": dataset.padded_batch(8) if whole else dataset}

        def augment(self, batch, seeds):
            if not by_augment:
                return batch
            y = tf.where(batch["bad"] > 0, np.float32("inf"), batch["y"])
            return {**batch, "y": y}

    choices = {} if whole else {"batch_size": 8}
    text = (
        r"became NaN or infinite at step 3\. .*The data of that step are not finite: "
        r"'y' in 2 of 8 examples\. Leave such"
    )
    with pytest.raises(NonFiniteError, match=text):
        tasks.train(
            tmp_path / "run", Given(), steps=5, evaluate_every_steps=5, **choices
        )


def test_finite_data_of_a_stream_are_not_blamed(tmp_path):
    class Given(tasks.Plain):
        def sources(self):
            return {"train": examples()}

        def values(self, networks, batch, training):
            loss = super().values(networks, batch, training)["loss"]
            return {"loss": loss / 0.0}

    with pytest.raises(NonFiniteError, match="the data of that step are finite"):
        train(tmp_path / "run", Given(), **CHOICES)


# Resumed.


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("straight") / "run"
    with tasks.logged() as lines:
        train(run_dir, Streamed(), **CHOICES)
    said = "training waits for each save: the state holds what can't be copied aside"
    assert len([line for line in lines if said in line]) == 1
    return run_dir


@pytest.mark.parametrize("step", [1, 4, 8])
def test_a_shuffled_stream_is_resumed_exactly(straight, tmp_path, step):
    """Within the first, the second and the third epoch."""
    run_dir = tasks.cut_back(straight, tmp_path / "run", step)
    outcome = train(run_dir, Streamed(), **CHOICES)
    assert outcome.trained_steps == STEPS - step
    assert_same_run(straight, run_dir)


def test_a_stream_that_is_not_restored_would_give_other_numbers(straight, tmp_path):
    """Or the tests above would prove nothing: the order of the examples matters."""

    class Otherwise(Streamed):
        def sources(self):
            other = examples().shuffle(12, seed=6, reshuffle_each_iteration=True)
            return {**super().sources(), "train": other}

    train(tmp_path / "run", Otherwise(), **{**CHOICES, "steps": 2})
    one, other = (
        content(run / "recent/ckpt-2") for run in (straight, tmp_path / "run")
    )
    assert one.keys() == other.keys()
    for key in ("variables/0/.ATTRIBUTES/VARIABLE_VALUE", POSITION):
        assert one[key] != other[key], key


@pytest.mark.parametrize(
    "dataset",
    [
        examples().shuffle(12).prefetch(2),
        examples().interleave(
            lambda one: tf.data.Dataset.from_tensors(one).repeat(2), cycle_length=3
        ),
        examples().map(lambda one: {**one, "x": one["x"] * 2}, num_parallel_calls=2),
        examples().filter(lambda one: one["label"] == 1).cache().shuffle(5),
        tf.data.Dataset.zip((examples(), tf.data.Dataset.random(seed=4))).map(
            lambda one, seed: {
                **one,
                "x": one["x"] + tf.random.stateless_normal([4], tf.stack([seed, seed])),
            }
        ),
    ],
    ids=["prefetched", "interleaved", "mapped", "cached", "with random seeds"],
)
def test_datasets_of_many_kinds_are_resumed_exactly(tmp_path, dataset):
    straight = tmp_path / "straight"
    choices = {"steps": 6, "evaluate_every_steps": 6}
    train(straight, of(dataset), **choices)
    run_dir = tasks.cut_back(straight, tmp_path / "run", 4)
    train(run_dir, of(dataset), **choices)
    assert_same_run(straight, run_dir)


def test_a_stopped_run_on_a_stream_is_resumed_exactly(straight, tmp_path):
    run_dir = tmp_path / "run"
    choices = {**CHOICES, "save_every_steps": 4, "allow_inexact": True}
    task, stop = tasks.stopping(Streamed, 1)
    assert train(run_dir, task, stop, **choices).step == 1
    task, _ = tasks.stopping(Streamed, None)
    train(run_dir, task, **choices)
    assert_same_run(straight, run_dir, every=False)


# The batches.


def test_the_stream_goes_round_and_every_batch_is_full():
    endless = stream.Stream(
        task=tasks.Plain(),
        given=adapt.adapted(examples(10), "train"),
        batch_size=4,
        seed=0,
    )
    x = tasks.examples(train=10)["train"]["x"]
    for step in range(6):
        batch = endless.batch(tf.constant(step, tf.int64))
        places = [(step * 4 + i) % 10 for i in range(4)]
        np.testing.assert_array_equal(batch["x"].numpy(), x[places])


def test_the_augmentation_hangs_on_the_step_and_the_seed_alone():
    def noise(seed, step):
        endless = stream.Stream(
            task=Streamed(),
            given=adapt.adapted(examples(8), "train"),
            batch_size=8,
            seed=seed,
        )
        batch = endless.batch(tf.constant(step, tf.int64))
        return batch["x"].numpy() - tasks.examples(train=8)["train"]["x"]

    np.testing.assert_allclose(noise(0, 3), noise(0, 3))
    assert np.all(noise(0, 3) != noise(0, 4))
    assert np.all(noise(0, 3) != noise(1, 3))


def test_an_evaluation_of_a_dataset_counts_each_example_once(tmp_path):
    """Also those of the last batch, which is not full."""
    arrays = tasks.examples(valid=11)["valid"]

    class Evaluated(Streamed):
        def sources(self):
            valid = tf.data.Dataset.from_tensor_slices(arrays)
            return {**super().sources(), "valid": valid}

    for size in (1, 4, 11, 64):
        run_dir = tmp_path / str(size)
        choices = {"steps": 1, "evaluate_every_steps": 1, "eval_batch_size": size}
        train(run_dir, Evaluated(), **choices)
        weights = tf.train.load_checkpoint(str(run_dir / "recent/ckpt-1"))
        kernel, bias = (
            weights.get_tensor(f"variables/{n}/.ATTRIBUTES/VARIABLE_VALUE")
            for n in (0, 1)
        )
        losses = ((arrays["x"] @ kernel + bias)[:, 0] - arrays["y"]) ** 2
        metrics = tasks.manifest(run_dir / "recent/ckpt-1")["metrics"]
        assert metrics["loss"] == pytest.approx(losses.mean(), rel=1e-6)


# Refused.


def generated():
    def generate():
        yield from ({"x": np.zeros(4, "f4"), "y": np.float32(0)} for _ in range(9))

    signature = {
        "x": tf.TensorSpec([4], tf.float32),
        "y": tf.TensorSpec([], tf.float32),
    }
    return tf.data.Dataset.from_generator(generate, output_signature=signature)


def python_mapped():
    def change(one):
        x = tf.py_function(lambda x: x * 2, [one["x"]], tf.float32)
        return {**one, "x": tf.ensure_shape(x, [tasks.FEATURES])}

    return examples().map(change)


def randomly_mapped():
    return examples().map(lambda one: {**one, "x": one["x"] + tf.random.normal([4])})


def variable_mapped():
    variable = tf.Variable(0.0)
    return examples().map(lambda one: {**one, "x": one["x"] + variable.assign_add(1.0)})


CANNOT = (
    r"the position of the training stream can't be saved: .+ Make it of TensorFlow ops "
    r"without hidden state \(no from_generator, py_function or tf\.random\.\*\), or "
    r"give a source with random access \(trainer\.data\)\."
)


@pytest.mark.parametrize("make", [generated, python_mapped, randomly_mapped])
@pytest.mark.parametrize("deep", [False, True], ids=["", "below other datasets"])
def test_a_stream_whose_position_cannot_be_saved_is_refused(tmp_path, make, deep):
    dataset = make().prefetch(2).shuffle(3) if deep else make()
    with pytest.raises((stream.StreamError, audit.IncompleteStateError)) as error:
        train(tmp_path / "run", of(dataset), **CHOICES)
    text = str(error.value)
    if isinstance(error.value, stream.StreamError):
        assert re.fullmatch(CANNOT, text, re.S)
    else:
        assert re.search(
            r"^  the op \w+.* '\S+' in (the input stream|\S+)$", text, re.M
        )
    assert {p.name for p in (tmp_path / "run").rglob("*")} <= {"run.lock"}


def test_a_stream_that_changes_a_variable_is_refused(tmp_path):
    with pytest.raises(stream.StreamError) as error:
        train(tmp_path / "run", of(variable_mapped()), **CHOICES)
    assert re.fullmatch(CANNOT, str(error.value), re.S)
    assert {p.name for p in (tmp_path / "run").rglob("*")} <= {"run.lock"}


@pytest.mark.parametrize(
    "choices",
    [
        {"epochs": 2.0},
        {"epochs": 2.0, "evaluate_every_steps": 3},
        {"steps": 3},
    ],
    ids=["epochs", "epochs and a distance of evaluations", "no distance"],
)
@pytest.mark.parametrize(
    ("dataset", "text"),
    [
        (
            examples().repeat(),
            "the training data is a stream without an end, so it has no epochs: give "
            "--steps=N and --evaluate_every_steps=N, or leave out repeat(), for it is "
            "begun again by itself.",
        ),
        (
            examples().filter(lambda one: True),
            "the training data is a stream of unknown length, so it has no epochs: "
            "give --steps=N and --evaluate_every_steps=N, or say how many examples it "
            "gives: dataset.apply(tf.data.experimental.assert_cardinality(n)).",
        ),
    ],
    ids=["endless", "unknown"],
)
def test_a_stream_without_a_length_has_no_epochs(tmp_path, choices, dataset, text):
    choices = {"evaluate_every_steps": 0, **choices}
    with pytest.raises(options.ConfigError, match=re.escape(text)):
        train(tmp_path / "run", of(dataset), **choices)


@pytest.mark.parametrize("deep", [False, True])
def test_a_stream_that_writes_files_is_refused_before_it_is_opened(tmp_path, deep):
    """A second opening, after a kill, would find what the first one left."""
    kept = tmp_path / "kept"

    class Kept(Streamed):
        def sources(self):
            dataset = super().sources()["train"].cache(str(kept))
            return {"train": dataset.shuffle(3, seed=1) if deep else dataset}

    text = re.escape(
        f"the training stream has a cache({str(kept)!r}), which writes files of its "
        "own: opened again after a kill, it would find half of them. Leave it out, or "
        "write the data to a file beforehand and read that."
    )
    with pytest.raises(stream.StreamError, match=text):
        train(tmp_path / "run", Kept(), **CHOICES)
    assert not list(tmp_path.glob("kept*"))


def test_an_empty_stream_is_refused(tmp_path):
    text = r"^the training stream is empty: it ended before its first example\.$"
    with pytest.raises(stream.StreamError, match=text):
        train(tmp_path / "run", of(examples().take(0)), **CHOICES)


@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
def test_a_position_that_weighs_much_is_told(large):
    wide = tf.data.Dataset.random(seed=1).map(
        lambda n: {"x": tf.random.stateless_normal([20_000], [n, n])}
    )
    shuffled = wide.shuffle(20 if large else 2, seed=1)
    endless = stream.Stream(
        task=tasks.Plain(), given=adapt.adapted(shuffled, "train"), batch_size=4, seed=0
    )
    endless.check()
    with tasks.logged() as lines, endless.reading(0, 1):
        endless.batch(tf.constant(0, tf.int64))
    said = [
        float(found[1])
        for line in lines
        if (
            found := re.fullmatch(
                r"WARNING the position of the training stream is (\S+) MB, in every "
                r"checkpoint, for what it has in its buffers is part of it: make "
                r"shuffle buffers smaller, or give a source with random access "
                r"\(trainer\.data\)",
                line,
            )
        )
    ]
    assert len(said) == large, lines
    assert all(1.5 < size < 3 for size in said), "20 examples of 80 kB, and more"


def test_another_shape_of_the_examples_is_another_run(straight, tmp_path):
    run_dir = tasks.cut_back(straight, tmp_path / "run", 4)
    fewer = of(examples().map(lambda one: {"x": one["x"], "y": one["y"]}))
    text = (
        r"train_data: 'a stream of .*label int64 \(\).*' there, 'a stream of x float32 "
        r"\(4,\), y float32 \(\): .*, Map; \d+ examples' here"
    )
    with pytest.raises(options.ConfigError, match=text):
        train(run_dir, fewer, **CHOICES)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ([6], ["past the data of 3 steps"]),
        ([6, 8], ["past the data of 3 steps", "past the data of 2 steps"]),
    ],
)
def test_a_rewind_on_a_stream_goes_past_the_bad_data(tmp_path, bad, said):
    """Back to the weights, but not to the examples."""
    arrays = tasks.examples(train=160)["train"]
    for batch in bad:
        arrays["y"][8 * batch : 8 * batch + 8] = np.nan
    task = of(tf.data.Dataset.from_tensor_slices(arrays))
    with tasks.logged() as lines:
        outcome = tasks.train(
            tmp_path / "run",
            task,
            steps=10,
            evaluate_every_steps=10,
            save_every_steps=4,
            on_nonfinite="rewind",
        )
    assert outcome.step == 10
    rewinds = [line for line in lines if "rewound to step 4" in line]
    assert len(rewinds) == len(said), rewinds
    for line, text in zip(rewinds, said, strict=True):
        assert text in line


def test_two_checkpoints_with_an_iterator_are_compared(straight):
    """As `diff` and `prove` do; a position has no value that could be shown."""
    found = catalog.scan(RunDirectory(straight))
    entries = {e.step: e for e in found.entries if "recent" in str(e.prefix)}
    rows = list(diff.compare(entries[4], entries[4]))
    assert all(row["equal"] for row in rows)
    assert not [row for row in rows if "input" in row["variable"]]
    other = list(diff.compare(entries[4], entries[5]))
    assert len(other) == len(rows)
    assert not all(row["equal"] for row in other)


def test_an_evaluation_that_differs_each_time_is_refused(tmp_path):
    """Here: of five examples by chance."""
    valid = tf.data.Dataset.from_tensor_slices(tasks.examples()["valid"])
    sources = {**Streamed().sources(), "valid": valid.shuffle(10, seed=3).take(5)}
    task = type("Sampled", (tasks.Plain,), {"sources": lambda self: sources})()
    text = r"the order of the examples to evaluate, which shuffle\(\) draws anew"
    with pytest.raises(audit.IncompleteStateError, match=text):
        train(tmp_path / "run", task, **CHOICES)
