"""Fingerprints: the same at each start of one code and data, another for others."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import textwrap
import time

import keras
import numpy as np
import processes
import pytest
import tasks
import tensorflow as tf
import test_conformance

from models import digits, mnist
from trainer import data
from trainer.data import adapt, stream
from trainer.data.fingerprint import digest, fingerprint, sample
from trainer.model import fingerprint as code
from trainer.model import steps

PROJECT = pathlib.Path(__file__).resolve().parents[1]


def traced(task):
    current = tasks.built(task)
    loop = steps.TrainLoop(task, current, tasks.inputs(task))
    return loop.traced, current.optimizers


def of(task):
    return code.digest(*traced(task))


# The code.

PROGRAM = """
    import json, sys
    import tensorflow as tf
    threads, unrelated = int(sys.argv[1]), int(sys.argv[2])
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    import keras
    for _ in range(unrelated):
        keras.Sequential([keras.layers.Input([3]), keras.layers.Dense(2)])
        tf.function(lambda x: x + tf.Variable(1.0))
    import test_fingerprint
    print(json.dumps(test_fingerprint.of_several()))
"""


def of_several():
    """The fingerprints of tasks of many kinds, in this process, as of runs."""
    tf.config.experimental.enable_op_determinism()
    given = [digits.Digits(), mnist.Mnist(), tasks.Plain(), tasks.Rich(), tasks.Light()]
    given += [test_conformance.Gan(), test_conformance.Optimizing()]
    return [of(one) for one in given]


def test_each_process_finds_the_same_whatever_else_it_did():
    """Another hash seed, other threads, other code before."""
    here = of_several()
    environment = dict(os.environ, PYTHONHASHSEED="99")
    assert os.environ.get("PYTHONHASHSEED") != "99", "else there is one hash seed"
    environment["PYTHONPATH"] = os.pathsep.join(map(str, (PROJECT, PROJECT / "tests")))
    there = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), "3", "3"],
        capture_output=True,
        text=True,
        env=environment,
        timeout=processes.PATIENCE_SECS,
        check=False,
    )
    assert there.returncode == 0, there.stderr
    assert json.loads(there.stdout) == here
    assert len(set(here)) == 7


def with_constant(number):
    class Given(tasks.Plain):
        def values(self, networks, batch, training):
            loss = super().values(networks, batch, training)["loss"]
            return {"loss": loss * number()}

    return Given()


def test_code_that_says_the_same_is_the_same():
    """Names and comments are no part of it, nor is what only speaks."""

    class Plain(tasks.Plain):
        def networks(self):
            dense = keras.layers.Dense(self.width, name="other")
            return keras.Sequential([keras.layers.Input([4]), dense], name="name")

        def optimizers(self):
            return keras.optimizers.SGD(0.05, momentum=0.9, name="own")

        def values(self, networks, batch, training):
            # Another way to write it.
            output = networks(batch["x"], training=training)
            tf.print("loss", output_stream="file:///dev/null")
            number = output[:, 0]
            return {"loss": (number - batch["y"]) ** 2}

    assert of(Plain()) == of(tasks.Plain())


@dataclasses.dataclass(frozen=True)
class Scheduled(tasks.Plain):
    """A schedule of its own, which can't say its settings."""

    factor: float = 0.5

    def optimizers(self):
        factor = self.factor

        class Own(keras.optimizers.schedules.LearningRateSchedule):
            def __call__(self, step):
                return factor / (1.0 + tf.cast(step, tf.float32))

        return keras.optimizers.SGD(Own())


class Told(tasks.Plain):
    """A setting that is in the optimizer, not in the graph."""

    def optimizers(self):
        return keras.optimizers.SGD(self.learning_rate, momentum=0.9)


def test_a_constant_that_differs_is_another_code(monkeypatch):
    monkeypatch.setenv("KEEPSTEP_TEST", "2.5")
    by_environment = with_constant(lambda: float(os.environ["KEEPSTEP_TEST"]))
    first = of(by_environment)
    assert of(by_environment) == first
    monkeypatch.setenv("KEEPSTEP_TEST", "2.25")
    assert of(by_environment) != first
    random = np.random.default_rng(0)
    for number in (
        lambda: time.time() % 1,
        random.random,
        lambda: tf.constant(random.random()),
    ):
        drawn = with_constant(number)
        assert of(drawn) != of(drawn)
    array = with_constant(lambda: random.normal(size=[8]).astype("f"))
    assert of(array) != of(array)
    assert of(Scheduled(factor=0.5)) == of(Scheduled(factor=0.5))
    assert of(Scheduled(factor=0.5)) != of(Scheduled(factor=0.5000001))
    assert of(Told(learning_rate=0.1)) != of(Told(learning_rate=0.1 + 1e-7))


def test_a_captured_scalar_counts_and_captured_data_do_not():
    def captured(number):
        held = tf.constant(number)
        return with_constant(lambda: held)

    assert of(captured(1.5)) == of(captured(1.5))
    assert of(captured(1.5)) != of(captured(1.25))

    class Shifted(tasks.Plain):
        def sources(self):
            split = tasks.examples()["train"]
            return {"train": {**split, "x": split["x"] + 1}}

    class Fewer(tasks.Plain):
        def sources(self):
            return {"train": tasks.examples(train=29)["train"]}

    assert of(Shifted()) == of(tasks.Plain())
    assert of(Fewer()) != of(tasks.Plain())


def test_an_order_that_matters_is_seen():
    variable = tf.Variable(1.0)

    def effects(*acts):
        def function():
            for act in acts:
                act(variable)
            return variable.read_value()

        traced = tf.function(function, autograph=False).get_concrete_function()
        return code.digest(traced, {})

    def add(variable):
        variable.assign_add(1.0)

    def double(variable):
        variable.assign(variable * 2)

    assert effects(add, double) == effects(add, double)
    assert effects(add, double) != effects(double, add)


def test_what_happens_inside_a_branch_or_a_loop_counts():
    def looped(number, count):
        def step(x):
            return tf.while_loop(
                lambda i, x: i < count,
                lambda i, x: (i + 1, tf.cond(x > 0, lambda: x * number, lambda: x)),
                [0, x],
            )[1]

        return tf.function(step).get_concrete_function(tf.TensorSpec([], tf.float32))

    first = code.digest(looped(2.0, 3), {})
    assert code.digest(looped(2.0, 3), {}) == first
    assert code.digest(looped(2.5, 3), {}) != first
    assert code.digest(looped(2.0, 4), {}) != first


def test_it_is_cheap():
    function, optimizers = traced(tasks.Rich())
    began = time.perf_counter()
    code.digest(function, optimizers)
    assert time.perf_counter() - began < 2, "a tenth of it, on a quiet machine"


# The data.


def arrays(**changes):
    numbers = np.arange(1000)
    found = {
        "x": numbers.astype("f4").reshape(500, 2),
        "text": np.array([f"{n}" for n in numbers[:500]]),
        "label": numbers[:500] % 3,
    }
    return {"train": found | changes, "valid": {"x": np.zeros([3, 2])}}


class Rows:
    """A source of a user's own."""

    def __init__(self, x):
        self.x = x
        self.asked = []

    def __len__(self):
        return len(self.x)

    def gather(self, indices):
        self.asked.append(int(tf.size(indices)))
        return {"x": tf.gather(self.x, indices)}


def test_the_sample_has_both_ends_and_is_spread():
    assert sample(1).tolist() == [0]
    assert sample(5).tolist() == [0, 1, 2, 3, 4]
    large = sample(10**12)
    assert (large[0], large[-1], len(large)) == (0, 10**12 - 1, 64)
    assert large.dtype == np.int64
    assert np.all(np.diff(large) > 10**10)


def test_the_same_data_have_one_fingerprint():
    found = fingerprint(arrays())
    assert fingerprint(arrays()) == found
    assert list(found) == ["train", "valid"]
    assert found["train"]["length"] == 500
    assert (
        found["train"]["examples"] == "x float32 (2,), text string (), label int64 ()"
    )
    assert len(found["train"]["digest"]) == 32
    held = {name: data.Arrays(split) for name, split in arrays().items()}
    assert fingerprint(held) == found


X = arrays()["train"]["x"]


@pytest.mark.parametrize(
    "changes",
    [
        {"x": X[::-1]},
        {"x": X.astype("f8")},
        {"x": X.reshape(500, 1, 2)},
        {"x": X + np.eye(500, 2, dtype="f4")},
        {"x": np.where(X[-1] == X, np.float32("nan"), X)},
        {"text": np.array(["0"] * 500)},
        {"other": np.zeros(500)},
        {name: array[:-1] for name, array in arrays()["train"].items()},
    ],
    ids=["order", "dtype", "shape", "first", "last", "text", "name", "length"],
)
def test_other_data_have_another_fingerprint(changes):
    here, there = fingerprint(arrays()), fingerprint(arrays(**changes))
    assert here["train"] != there["train"]
    assert here["valid"] == there["valid"]


def test_numbers_that_are_none_are_the_same_each_time():
    given = arrays(x=np.full([500, 2], np.nan, "f4"))
    assert fingerprint(given) == fingerprint(given)
    values = [np.float64("nan"), np.float64("-inf"), -0.0, b"\0", "", [], {}, ()]
    assert len({digest(one) for one in values}) == 7, "a list is as good as a tuple"
    assert digest(np.array([b"a", b"bc"], object)) != digest(
        np.array([b"ab", b"c"], object)
    )


def test_a_source_is_asked_for_the_sample_alone():
    rows = Rows(np.arange(5000.0))
    found = fingerprint({"train": rows})
    assert rows.asked == [64]
    assert found["train"]["length"] == 5000
    assert fingerprint({"train": Rows(np.arange(5000.0) + 1)}) != found


def test_a_list_is_as_good_as_an_array():
    found = fingerprint({"train": {"x": [1.0, 2.0], "y": tf.constant([1, 2])}})
    assert found["train"]["examples"] == "x float64 (), y int32 ()"


def streamed(number=1, **changes):
    dataset = tf.data.Dataset.from_tensor_slices(arrays(**changes)["train"])
    return dataset.map(lambda row: {**row, "n": number})


def test_a_dataset_is_described_and_its_first_elements_are_looked_at():
    found = fingerprint({"train": streamed(), "valid": streamed()})
    assert fingerprint({"train": streamed(), "valid": streamed()}) == found
    assert found["train"]["examples"] == stream.describe(streamed())
    assert found["train"]["length"] == found["valid"]["length"] == 500
    assert found["train"]["digest"] == "", "it is opened once, by Stream.check"
    assert found["valid"]["digest"]
    other = fingerprint({"train": streamed(2), "valid": streamed(x=X + 1)})
    assert other["train"]["code"] != found["train"]["code"]
    assert other["valid"]["code"] == found["valid"]["code"]
    assert other["valid"]["digest"] != found["valid"]["digest"]
    endless = fingerprint({"valid": streamed().repeat()})
    assert endless["valid"]["length"] == -1


def test_what_must_not_be_opened_for_a_look_is_not(tmp_path):
    asked = []

    def generate():
        asked.append(1)
        yield 1

    spec = {"output_signature": tf.TensorSpec([], tf.int64)}
    given = tf.data.Dataset.from_generator(generate, **spec).map(lambda x: {"x": x})
    kept = streamed().cache(str(tmp_path / "kept"))
    found = fingerprint({"valid": given, "test": kept})
    assert asked == []
    assert list(tmp_path.iterdir()) == []
    assert {one["digest"] for one in found.values()} == {""}


def test_the_check_of_a_stream_gives_the_digest_of_its_first_batch():
    def checked(dataset):
        return stream.Stream(
            task=tasks.Plain(),
            given=adapt.adapted(dataset, "train"),
            batch_size=4,
            seed=0,
        ).check()

    assert checked(streamed()) == checked(streamed())
    assert checked(streamed()) != checked(streamed(x=X + 1))
