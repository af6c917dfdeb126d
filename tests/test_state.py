"""The tree of everything that training changes: names, order, restoring."""

import dataclasses
import re

import keras
import numpy as np
import pytest
import tasks
import tensorflow as tf

from trainer.checkpoint import compatibility, manifest
from trainer.model import learning_rates, weights
from trainer.model.contract import network_items
from trainer.model.progress import Progress
from trainer.task import TaskError

layers = keras.layers
SHARED = ["keras_random", "progress", "skipped", "step", "save_counter"]


class Given(tasks.Plain):
    """With state of its own."""

    def state(self, networks):
        return {"mine": tf.Variable(1.0), "metric": keras.metrics.Mean()}


class Two(tasks.Plain):
    """Two networks that have one layer in common, and two optimizers."""

    def networks(self):
        shared = layers.Dense(2, name="shared")
        return {
            name: keras.Sequential(
                [layers.Input([tasks.FEATURES]), shared, layers.Dense(1, name="own")],
                name=name,
            )
            for name in ("b", "a")
        }

    def optimizers(self):
        return {"a": keras.optimizers.SGD(0.1), "b": keras.optimizers.Lion(0.01)}

    def values(self, networks, batch, training):
        values = super().values
        return {
            f"{name}_loss": values(network, batch, training)["loss"]
            for name, network in networks.items()
        }


class Apart(Two):
    """Two networks and nothing in common."""

    def networks(self):
        return {
            name: keras.Sequential(
                [layers.Input([tasks.FEATURES]), layers.Dense(1, name="own")], name=name
            )
            for name in ("b", "a")
        }


class Twins(keras.Model):
    """Two layers of one name."""

    def __init__(self):
        super().__init__(name="twins")
        self.first = layers.Dense(3, name="one")
        self.second = layers.Dense(1, name="one")

    def call(self, x):
        return self.second(self.first(x))


class Twinned(tasks.Plain):
    def networks(self):
        return Twins()


@pytest.fixture(scope="module")
def plain():
    return tasks.built(tasks.Plain())


def fill(current, number):
    """Another value in every variable."""
    for place, variable in enumerate(current.variables().values()):
        if variable.dtype != tf.string:
            value = tf.cast(number + place, variable.dtype)
            variable.assign(tf.fill(variable.shape, value))


def values(current):
    return {name: v.numpy() for name, v in current.variables().items()}


def write(current, directory):
    """As a whole checkpoint, which has a counter of saves."""
    current.pack()
    current.tree.write(str(directory / "ckpt"))


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name], name)


# Names.

MODEL = ["model/sequential/dense/kernel", "model/sequential/dense/bias"]
OPTIMIZER = [
    "optimizer/iteration",
    "optimizer/learning_rate",
    "optimizer/sequential_dense_kernel_momentum",
    "optimizer/sequential_dense_bias_momentum",
]


def test_the_variables_are_named_networks_first_and_then_optimizers():
    names = list(tasks.built(Given()).variables())
    assert names[:6] == [*MODEL, *OPTIMIZER]
    assert sorted(names[6:]) == sorted(
        [
            *SHARED,
            "norms/optimizer",
            "norms/optimizer/count",
            "random/_state_var",
            "task/mine",
            "task/metric/0",
            "task/metric/1",
            "totals/loss",
            "totals/examples",
        ]
    )


def test_several_networks_and_optimizers_are_named_by_their_names():
    current = tasks.built(Two())
    names = list(current.variables())
    assert names[:8] == [
        "b/b/shared/kernel",
        "b/b/shared/bias",
        "b/b/own/kernel",
        "b/b/own/bias",
        "a/b/shared/kernel",
        "a/b/shared/bias",
        "a/a/own/kernel",
        "a/a/own/bias",
    ]
    assert [n for n in names if n.startswith("a_optimizer/")] == [
        "a_optimizer/iteration",
        "a_optimizer/learning_rate",
    ]
    assert len([n for n in names if n.startswith("b_optimizer/")]) == 6
    for path in names:
        assert current.of_network(path) == path.startswith(("a/", "b/")), path


def test_no_two_variables_have_one_name():
    current = tasks.built(Twinned())
    names = [name for name in current.variables() if name.startswith("model/")]
    assert names == [
        "model/twins/one/kernel",
        "model/twins/one/bias",
        "model/twins/one/kernel#2",
        "model/twins/one/bias#2",
    ]
    shapes = [tuple(v.shape) for v in list(current.variables().values())[:4]]
    assert shapes == [(4, 3), (3,), (3, 1), (1,)]


@pytest.mark.parametrize("task", [tasks.Rich(), Given(), Two(), Twinned()], ids=repr)
def test_two_builds_name_alike_and_every_variable_is_named(task):
    one, other = tasks.built(task), tasks.built(task)
    assert one.describe() == other.describe()
    named = {id(v) for v in one.variables().values()}
    there = {
        id(node.value if isinstance(node, keras.Variable) else node)
        for node in tf.train.TrackableView(one.tree).descendants()
        if isinstance(node, tf.Variable | keras.Variable)
    }
    assert named == there


def test_a_description_has_the_shape_and_the_type(plain):
    described = {v.path: (v.shape, v.dtype) for v in plain.describe()}
    assert described["model/sequential/dense/kernel"] == ((4, 1), "float32")
    assert described["step"] == ((), "int64")
    assert described["totals/loss"] == ((), "float64")
    assert described["progress"] == ((), "string")


def test_one_seed_builds_one_state_and_another_builds_another():
    one, same, other = (tasks.built(tasks.Rich(), seed=seed) for seed in (1, 1, 2))
    assert_same(values(one), values(same))
    differ = [
        name
        for name, value in values(other).items()
        if np.any(value != values(one)[name])
    ]
    assert "model/blocks/dense/kernel" in differ
    assert "model/seed_generator/seed_generator_state" in differ
    assert "keras_random" in differ
    assert "random/_state_var" in differ


class Drawn(tasks.Plain):
    """Weights that are drawn from all the generators there are."""

    def networks(self):
        network = super().networks()
        kernel = network.layers[0].kernel
        kernel.assign(
            tf.random.normal(kernel.shape)
            + tf.random.get_global_generator().normal(kernel.shape)
            + keras.random.normal(kernel.shape)
            + np.random.normal(size=kernel.shape)
        )
        return network


def test_the_seed_rules_whatever_weights_are_drawn_from():
    one, same, other = (tasks.built(Drawn(), seed=seed) for seed in (1, 1, 2))
    assert_same(values(one), values(same))
    kernel = "model/sequential/dense/kernel"
    assert np.all(values(one)[kernel] != values(other)[kernel])


# Saved and restored.


@pytest.mark.parametrize("task", [tasks.Rich(), Given(), Two(), Twinned()], ids=repr)
def test_every_variable_is_restored(tmp_path, task):
    current = tasks.built(task)
    fill(current, 3)
    records = {"loss": {"mode": "min", "step": 3, "value": 0.1 + 0.2}}
    current.progress = Progress().evaluated_at(3, {"loss": 0.1 + 0.2}, records)
    write(current, tmp_path)
    saved = values(current)
    other = tasks.built(task, seed=9)
    other.restore(str(tmp_path / "ckpt"))
    assert_same(values(other), saved)
    assert other.progress == current.progress


def test_packing_makes_the_counter_depend_on_the_step_alone(plain):
    plain.step.assign(7)
    for _ in range(2):
        plain.pack()
        assert int(plain.tree.save_counter.numpy()) == 6


@pytest.mark.parametrize(
    ("saved", "restored", "text"),
    [
        (Given(), tasks.Plain(), "Unresolved object in checkpoint"),
        (tasks.Plain(), Given(), "Found 3 Python objects that were not bound to check"),
    ],
    ids=["more than is built", "less than is built"],
)
def test_a_checkpoint_with_more_or_less_is_never_restored_in_part(
    tmp_path, saved, restored, text
):
    write(tasks.built(saved), tmp_path)
    current = tasks.built(restored)
    with pytest.raises(AssertionError, match=text):
        current.restore(str(tmp_path / "ckpt"))


def test_what_an_evaluation_reads_is_restored_from_a_checkpoint_with_more(tmp_path):
    saved = tasks.built(Given())
    fill(saved, 3)
    write(saved, tmp_path)
    current = tasks.built(tasks.Plain())
    before = values(current)
    current.restore_networks(str(tmp_path / "ckpt"))
    for name, value in values(current).items():
        evaluated = name.startswith(("model/", "random", "keras_random"))
        there = values(saved) if evaluated else before
        np.testing.assert_array_equal(value, there[name], name)


def test_the_own_state_of_a_task_is_restored_for_an_evaluation(tmp_path):
    """A value that depends on it is the same in the run and in `evaluate`."""
    saved = tasks.built(Given())
    fill(saved, 3)
    write(saved, tmp_path)
    current = tasks.built(Given())
    before = values(current)
    current.restore_networks(str(tmp_path / "ckpt"))
    after = values(current)
    assert after["task/mine"] == values(saved)["task/mine"] != before["task/mine"]
    for name in before:
        if name.startswith("task/metric"):
            assert after[name] == before[name], "a metric begins anew"
        assert current.of_evaluation(name) == name.startswith(("model/", "task/mine"))


@pytest.mark.parametrize("shape", [None, [None], [None, 2]])
def test_a_variable_of_unknown_shape_is_refused_by_name(shape):
    class Growing(tasks.Plain):
        def state(self, networks):
            variable = tf.Variable(
                tf.zeros([3, 2][: 3 if shape is None else len(shape)]),
                shape=tf.TensorShape(shape),
            )
            return {"grows": variable}

    text = re.escape(
        f"the variable task/grows has the shape {tf.TensorShape(shape)}, which may "
        "change from step to step; expected a shape that is known from the start. Make "
        "it without shape=: tf.Variable(initial_value)."
    )
    with pytest.raises(TaskError, match=text):
        tasks.built(Growing())


@pytest.mark.parametrize("kind", ["numbers", "texts", "none", "dense"])
def test_a_table_is_saved_in_the_order_of_its_keys(tmp_path, kind):
    """However it came to be what it is: by insertions, or by a resume."""
    keys = {
        "numbers": [9, 2, 40, 7],
        "texts": ["b", "a", "ba", ""],
        "none": [],
        "dense": [9, 2, 40, 7],
    }[kind]
    dtype = tf.string if kind == "texts" else tf.int64
    keys = tf.constant(keys, dtype)

    class Tabled(tasks.Plain):
        def state(self, networks):
            if kind == "dense":
                table = tf.lookup.experimental.DenseHashTable(
                    tf.int64, tf.int64, 0, empty_key=-1, deleted_key=-2
                )
            else:
                table = tf.lookup.experimental.MutableHashTable(dtype, tf.int64, 0)
            object.__setattr__(self, "_table", table)
            return {"table": table}

    written = []
    for number, order in enumerate(([0, 1, 2, 3], [3, 1, 0, 2])):
        task = Tabled()
        current = tasks.built(task)
        if kind != "none":
            order = tf.constant(order, tf.int64)
            task._table.insert(tf.gather(keys, order), order)
        (tmp_path / str(number)).mkdir()
        write(current, tmp_path / str(number))
        written.append(tasks.tensors(tmp_path / str(number) / "ckpt"))
        current.restore(str(tmp_path / str(number) / "ckpt"))
        assert int(task._table.size()) == len(keys)
    first, second = written
    saved = [key for key in first if "/table/" in key]
    assert len(saved) == 2
    for key in saved:
        assert first[key].tolist() == second[key].tolist()
        if key.endswith("-keys"):
            assert np.ravel(first[key]).tolist() == sorted(keys.numpy().tolist())


def test_networks_that_the_checkpoint_has_not_are_not_restored(tmp_path):
    saved = tasks.built(tasks.Plain())
    write(saved, tmp_path)
    current = tasks.built(Two())
    text = r"^Found \d+ Python objects that were not bound to checkpointed values"
    with pytest.raises(AssertionError, match=text):
        current.restore_networks(str(tmp_path / "ckpt"))


# Weights of another checkpoint.


@dataclasses.dataclass(frozen=True)
class Deep(tasks.Plain):
    names: tuple[str, ...] = ("in", "out")
    dtype: str = "float32"

    def values(self, networks, batch, training):
        answers = tf.cast(networks(batch["x"], training=training), tf.float32)
        return {"loss": (answers[:, 0] - batch["y"]) ** 2}

    def networks(self):
        widths = [*[3] * (len(self.names) - 1), self.width]
        return keras.Sequential(
            [layers.Input([tasks.FEATURES], name="x")]
            + [
                layers.Dense(width, name=name, dtype=self.dtype)
                for name, width in zip(self.names, widths, strict=True)
            ],
            name="net",
        )


def paths(text):
    return tuple(f"model/net/{name}" for name in text.split())


def take(current, prefix, saved):
    names = network_items(current.networks)
    return weights.take(current, weights.read(str(prefix), saved.describe(), names))


@pytest.mark.parametrize(
    ("task", "taken", "fresh", "unused"),
    [
        (Deep(), "in/kernel in/bias out/kernel out/bias", "", ""),
        (
            Deep(width=2),
            "in/kernel in/bias",
            "out/kernel out/bias",
            "out/kernel out/bias",
        ),
        (
            Deep(names=("in", "middle", "out")),
            "in/kernel in/bias out/kernel out/bias",
            "middle/kernel middle/bias",
            "",
        ),
        (
            Deep(names=("in", "head")),
            "in/kernel in/bias",
            "head/kernel head/bias",
            "out/kernel out/bias",
        ),
        (
            Deep(dtype="float64"),
            "",
            "in/kernel in/bias out/kernel out/bias",
            "in/kernel in/bias out/kernel out/bias",
        ),
    ],
    ids=["all", "wider", "deeper", "another head", "another type"],
)
def test_weights_that_fit_by_path_shape_and_type_are_taken(
    tmp_path, task, taken, fresh, unused
):
    saved = tasks.built(Deep())
    fill(saved, 3)
    write(saved, tmp_path)
    current = tasks.built(task)
    before = values(current)
    match = take(current, tmp_path / "ckpt", saved)
    assert match.taken == paths(taken)
    assert match.fresh == paths(fresh)
    assert match.unused == paths(unused)
    for name, value in values(current).items():
        there = values(saved) if name in match.taken else before
        np.testing.assert_array_equal(value, there[name], name)


@pytest.mark.parametrize("given", [Apart(), Two()], ids=["apart", "sharing a layer"])
def test_weights_of_several_networks_go_to_those_of_their_names(tmp_path, given):
    saved = tasks.built(given)
    fill(saved, 3)
    write(saved, tmp_path)
    current = tasks.built(given, seed=4)
    match = take(current, tmp_path / "ckpt", saved)
    assert (match.fresh, match.unused) == ((), ())
    for name in match.taken:
        np.testing.assert_array_equal(values(current)[name], values(saved)[name], name)
    assert int(current.step.numpy()) == 0


# Learning rates.


def test_the_configured_learning_rate_wins_over_the_restored_one(tmp_path):
    write(tasks.built(tasks.Plain(learning_rate=0.25)), tmp_path)
    current = tasks.built(tasks.Plain(learning_rate=0.5))
    current.restore(str(tmp_path / "ckpt"))
    assert current.current_learning_rates() == {"learning_rate": 0.25}
    assert learning_rates.apply(current.optimizers, current.learning_rates) == {
        "optimizer": (0.25, 0.5)
    }
    assert current.current_learning_rates() == {"learning_rate": 0.5}
    assert learning_rates.apply(current.optimizers, current.learning_rates) == {}


def test_a_schedule_is_a_function_of_the_step_and_never_in_the_way():
    current = tasks.built(tasks.Rich(learning_rate=0.1))
    assert learning_rates.apply(current.optimizers, current.learning_rates) == {}
    (rate,) = current.current_learning_rates().values()
    assert rate == pytest.approx(0.1)
    current.optimizers["optimizer"].iterations.assign(20)
    (rate,) = current.current_learning_rates().values()
    assert rate == pytest.approx(0, abs=1e-9)


def test_several_optimizers_have_a_learning_rate_each():
    rates = tasks.built(Two()).current_learning_rates()
    assert rates == {
        "learning_rate/a": pytest.approx(0.1),
        "learning_rate/b": pytest.approx(0.01),
    }


# Whether a checkpoint fits.


def variable(path, shape=(2,), dtype="float32"):
    return manifest.Variable(path, shape, dtype)


BUILT = [variable("a"), variable("b"), variable("c", (2, 3))]
ADVICE = "Do something else."


@pytest.mark.parametrize(
    ("saved", "lines"),
    [
        (BUILT[:2], ["  c: the model has it, the checkpoint does not"]),
        (
            [*BUILT, variable("d")],
            ["  d: the checkpoint has it, the model does not"],
        ),
        (
            [*BUILT[:2], variable("c", (3, 2))],
            ["  c: the checkpoint has shape (3, 2), the model (2, 3)"],
        ),
        (
            [*BUILT[:2], variable("c", (2, 3), "float16")],
            ["  c: the checkpoint has dtype float16, the model float32"],
        ),
        (
            [variable("a", ()), variable("b", (2,), "int8"), variable("d")],
            [
                "  a: the checkpoint has shape (), the model (2,)",
                "  b: the checkpoint has dtype int8, the model float32",
                "  c: the model has it, the checkpoint does not",
                "  and 1 more differences",
            ],
        ),
        (
            [*BUILT, *(variable(name) for name in "defgh")],
            [f"  {name}: the checkpoint has it, the model does not" for name in "def"]
            + ["  and 2 more differences"],
        ),
    ],
)
def test_what_differs_is_shown(saved, lines):
    with pytest.raises(compatibility.IncompatibleCheckpointError) as error:
        compatibility.check(BUILT, saved, source="run/ckpt-5", advice=ADVICE)
    assert str(error.value) == "\n".join(["cannot restore run/ckpt-5.", *lines, ADVICE])


def test_another_order_is_no_difference():
    compatibility.check(BUILT, BUILT[::-1], source="run/ckpt-5", advice=ADVICE)
    with pytest.raises(
        compatibility.IncompatibleCheckpointError, match=re.escape("a:")
    ):
        compatibility.check(BUILT, BUILT[1:], source="run/ckpt-5", advice=ADVICE)
