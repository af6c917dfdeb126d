"""What a task promises, and what it hears if it doesn't keep it."""

import dataclasses
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer import task
from trainer.model import contract
from trainer.model.building import build
from trainer.model.values import checked_values

BATCH = {"x": tf.constant([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])}


@dataclasses.dataclass(frozen=True)
class Parts(task.Task):
    """A task that gives what the test gave it."""

    given: Any = None
    net: Any = None
    optimizer: Any = None
    extra: Any = dataclasses.field(default_factory=dict)

    def sources(self):
        return {}

    def networks(self):
        return self.net

    def optimizers(self):
        return self.optimizer

    def values(self, networks, batch, training):
        return self.given(networks, batch, training)

    def state(self, networks):
        return self.extra


def network(**options):
    layers = [keras.layers.Input([2]), keras.layers.Dense(1, **options)]
    return keras.Sequential(layers)


def first_output(net, batch, training):
    return net(batch["x"], training=training)[:, 0] ** 2


def one_loss(networks, batch, training):
    return {"loss": first_output(networks, batch, training)}


def two_losses(networks, batch, training):
    return {
        f"{name}_loss": first_output(net, batch, training)
        for name, net in networks.items()
    }


def checked(values, networks=()):
    def given(networks, batch, training):
        return values

    networks = dict(networks)
    found = checked_values(Parts(given), networks, BATCH, training=False)
    assert all(one.weight is None for one in found.values())
    return {name: one.total for name, one in found.items()}


def built(given, net, optimizer, **extra):
    parts = Parts(given, net, optimizer, extra)
    return build(parts, lambda step: BATCH, seed=0)


# Values.


@pytest.mark.parametrize(
    ("value", "shape"),
    [
        (tf.constant(0.5), r"\(\)"),
        (tf.zeros([3, 2]), r"\(3, 2\)"),
        (tf.zeros([2]), r"\(2,\)"),
        (tf.zeros([1]), r"\(1,\)"),
    ],
)
def test_a_value_is_one_number_an_example(value, shape):
    text = rf"Parts.values\(\) returns 'loss' with shape {shape}; expected one number"
    with pytest.raises(task.TaskError, match=text):
        checked({"loss": value})


def test_what_is_wrong_is_said_as_it_is_though_a_task_is_traced():
    def mean(networks, batch, training):
        return {"loss": tf.reduce_mean(first_output(networks, batch, training))}

    wrong = Parts(given=mean, net=network(), optimizer=keras.optimizers.SGD())
    text = r"^Parts\.values\(\) returns 'loss' with shape \(\); expected one number"
    with pytest.raises(task.TaskError, match=text):
        build(wrong, lambda step: BATCH, seed=0)


@pytest.mark.parametrize("name", ["", "a/b", "../a", ".hidden", "_a", "a b", "a:b"])
def test_a_name_that_is_no_directory_is_refused(name):
    with pytest.raises(task.TaskError, match="a name becomes a directory") as refused:
        checked({name: tf.zeros([3])})
    assert repr(name) in str(refused.value)


@pytest.mark.parametrize("name", ["a", "top-5", "f1.micro", "0", "a_b", "Loss"])
def test_a_name_may_have_letters_digits_and_some_signs(name):
    assert list(checked({name: tf.zeros([3])})) == [name]


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (tf.constant(["a", "b", "c"]), "string"),
        (tf.zeros([3], tf.complex64), "complex64"),
    ],
)
def test_a_value_is_a_number(value, name):
    text = rf"returns 'loss' as {name}; expected numbers"
    with pytest.raises(task.TaskError, match=text):
        checked({"loss": value})


@pytest.mark.parametrize(
    "value",
    [
        tf.constant([True, False, True]),
        tf.constant([1, 0, 1], tf.int32),
        tf.constant([1, 0, 1], tf.uint8),
        np.array([1, 0, 1]),
        [True, False, True],
    ],
)
def test_truths_and_whole_numbers_count_as_numbers(value):
    found = checked({"accuracy": value})["accuracy"]
    assert found.dtype == tf.float32
    assert found.numpy().tolist() == [1, 0, 1]


def test_a_column_is_taken_as_one_number_an_example():
    found = checked({"loss": tf.constant([[1.0], [2.0], [3.0]])})["loss"]
    assert found.numpy().tolist() == [1, 2, 3]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_a_value_keeps_its_precision(dtype):
    assert checked({"loss": tf.zeros([3], dtype)})["loss"].dtype == dtype


def test_what_layers_add_to_the_loss_is_added_to_each_loss_and_to_nothing_else():
    penalised = network(
        kernel_initializer="ones", kernel_regularizer=keras.regularizers.L2(0.25)
    )
    networks = {"a": penalised, "b": network()}
    values = {
        "loss": tf.ones([3]),
        "a_loss": tf.ones([3], tf.float64),
        "accuracy": tf.ones([3]),
        "lossless": tf.ones([3]),
    }
    found = checked(values, networks)
    # Two weights of one: 0.25 * (1 + 1).
    assert found["loss"].numpy().tolist() == [1.5] * 3
    assert found["a_loss"].numpy().tolist() == [1.5] * 3
    assert found["a_loss"].dtype == tf.float64
    assert found["accuracy"].numpy().tolist() == [1] * 3
    assert found["lossless"].numpy().tolist() == [1] * 3


# Names.


def test_a_name_is_given_once():
    @task.register("given once")
    class First(Parts):
        __module__ = "first"

    class Second(Parts):
        __module__ = "second"

    with pytest.raises(task.TaskError, match="'given once': first and second"):
        task.register("given once")(Second)
    assert task.registered()["given once"] is First


def test_a_module_that_is_loaded_again_replaces_its_task():
    @task.register("loaded again")
    class First(Parts):
        pass

    @task.register("loaded again")
    class Second(Parts):
        pass

    assert task.registered()["loaded again"] is Second


def test_a_single_network_has_a_name():
    assert contract.network_items("net") == {"model": "net"}


def test_several_networks_keep_theirs():
    several = {"b": 1, "a": 2}
    assert list(contract.network_items(several).items()) == [("b", 1), ("a", 2)]


@pytest.mark.parametrize(
    ("optimizer", "loss"), [("optimizer", "loss"), ("generator", "generator_loss")]
)
def test_an_optimizer_minimises_the_loss_of_its_name(optimizer, loss):
    assert contract.loss_of(optimizer) == loss


@pytest.mark.parametrize("method", ["sources", "networks", "optimizers", "values"])
def test_a_task_without_one_of_its_parts_cannot_be_made(method):
    incomplete = type("Incomplete", (Parts,), {method: getattr(task.Task, method)})
    with pytest.raises(TypeError, match=rf"abstract.*{method}"):
        incomplete()


def test_hyperparameters_are_the_fields():
    @dataclasses.dataclass(frozen=True)
    class Two(Parts):
        width: int = 8

    assert Two(net="a").hyperparameters() == {
        "given": None,
        "net": "a",
        "optimizer": None,
        "extra": {},
        "width": 8,
    }


# The state that is built from a task.


def test_one_optimizer_trains_every_network():
    networks = {"a": network(), "b": network()}

    def given(networks, batch, training):
        return {"loss": sum(two_losses(networks, batch, training).values())}

    current = built(given, networks, keras.optimizers.SGD(0.1))
    assert len(current.trained["optimizer"]) == 4


def test_each_of_several_optimizers_trains_the_network_of_its_name():
    networks = {"a": network(), "b": network(use_bias=False)}
    optimizers = {name: keras.optimizers.SGD(0.1) for name in networks}
    current = built(two_losses, networks, optimizers)
    assert {name: len(of) for name, of in current.trained.items()} == {"a": 2, "b": 1}
    assert current.trained["b"][0] is networks["b"].trainable_variables[0]


def test_an_optimizer_without_its_loss_is_refused():
    text = r"values\(\) gives no 'loss', which the optimizer 'optimizer' minimises; it "
    with pytest.raises(task.TaskError, match=text + "gives a_loss"):
        built(two_losses, {"a": network()}, keras.optimizers.SGD(0.1))


def test_one_of_several_optimizers_without_its_loss_is_refused():
    text = r"values\(\) gives no 'a_loss', which the optimizer 'a' minimises; it gives "
    with pytest.raises(task.TaskError, match=text + "loss"):
        built(one_loss, network(), {"a": keras.optimizers.SGD(0.1)})


def test_an_optimizer_without_a_network_is_refused():
    def given(networks, batch, training):
        loss = two_losses(networks, batch, training)
        return {**loss, "c_loss": loss["a_loss"]}

    networks = {"a": network(), "b": network()}
    optimizers = {name: keras.optimizers.SGD(0.1) for name in ("a", "c")}
    text = "no network for the optimizer 'c'; the networks are a, b. Give both one name"
    with pytest.raises(task.TaskError, match=text):
        built(given, networks, optimizers)


@pytest.mark.parametrize("name", ["step", "progress", "totals", "task"])
def test_a_network_cannot_have_the_name_of_another_part_of_the_state(name):
    networks, optimizers = {name: network()}, {name: keras.optimizers.SGD(0.1)}
    text = rf"a network or optimizer can't be called '{name}'.*taken are step, "
    with pytest.raises(task.TaskError, match=text):
        built(two_losses, networks, optimizers)


@pytest.mark.parametrize(
    ("value", "kind"),
    [(3, "int"), ("text", "str"), (object(), "object"), (np.zeros(3), "ndarray")],
)
def test_state_that_no_checkpoint_can_hold_is_refused(value, kind):
    text = rf"state\(\) gives 'memory' as {kind}, which no checkpoint can hold"
    with pytest.raises(task.TaskError, match=text):
        built(one_loss, network(), keras.optimizers.SGD(0.1), memory=value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: tf.Variable(0.0),
        lambda: keras.Variable(0.0),
        lambda: keras.metrics.Mean(),
        lambda: tf.random.Generator.from_seed(1),
        lambda: [tf.Variable(0.0), keras.Variable(0.0)],
        lambda: keras.layers.Dense(1),
    ],
    ids=["variable", "Keras variable", "metric", "generator", "list", "layer"],
)
def test_state_may_be_anything_with_variables(make, tmp_path):
    def fresh():
        sgd = keras.optimizers.SGD(0.1)
        return built(one_loss, network(), sgd, memory=make())

    one = fresh()
    one.pack()
    other = fresh()
    other.restore(one.tree.save(str(tmp_path / "ckpt")))
    assert set(other.variables()) == set(one.variables())
