"""The train loop and the evaluation loop: the same numbers, however they are cut."""

import dataclasses
import itertools
import re

import keras
import numpy as np
import pytest
import tasks
import tensorflow as tf

from trainer import data
from trainer.data import adapt, stream
from trainer.model import evaluation, prediction, steps
from trainer.model.contract import network_items
from trainer.task import Task, TaskError

layers = keras.layers
KERNEL = "model/sequential/dense/kernel"


def loop_of(task, **given):
    current = tasks.built(task, **given)
    return current, steps.TrainLoop(task, current, tasks.inputs(task, **given))


def values(current):
    return {
        name: np.array(v.numpy())
        for name, v in current.variables().items()
        if name not in ("progress", "save_counter")
    }


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name], name)


def put_back(current, before):
    """To what `values` gave."""
    variables = current.variables()
    for name, value in before.items():
        variables[name].assign(value)


@pytest.fixture(scope="module")
def light():
    """A loop that is traced once, and the values to begin with."""
    current, loop = loop_of(tasks.Light())
    return current, loop, values(current)


# Training.


@pytest.mark.parametrize("chunks", [(1,) * 7, (3, 4), (6, 1), (2, 0, 5)])
def test_steps_give_the_same_bits_in_chunks_of_any_size(light, chunks):
    current, loop, before = light
    put_back(current, before)
    loop.run(7)
    whole = values(current)
    assert np.any(whole[KERNEL] != before[KERNEL])
    put_back(current, before)
    for count in chunks:
        loop.run(count)
    assert_same(values(current), whole)
    assert int(current.step.numpy()) == 7


def test_tracing_runs_nothing():
    current, loop = loop_of(tasks.Light())
    before = values(current)
    assert loop.traced is loop.traced
    assert_same(values(current), before)


def test_a_step_is_one_step_of_gradient_descent():
    task = tasks.Plain(learning_rate=0.125)
    current, loop = loop_of(task)
    kernel, bias = (v.numpy() for v in current.networks.variables)
    batch = tasks.inputs(task).batch(tf.constant(0, tf.int64))
    x, y = batch["x"].numpy(), batch["y"].numpy()
    error = (x @ kernel + bias)[:, 0] - y
    loop.run(1)
    new_kernel, new_bias = (v.numpy() for v in current.networks.variables)
    slope = 2 * x.T @ error[:, None] / len(x)
    np.testing.assert_allclose(new_kernel, kernel - 0.125 * slope, rtol=1e-5)
    np.testing.assert_allclose(new_bias, bias - 0.125 * 2 * error.mean(), rtol=1e-5)
    means = loop.take_means()
    assert means == {"loss": pytest.approx(np.mean(error**2), rel=1e-6)}


def test_the_means_are_those_since_they_were_taken_last():
    task = tasks.Plain(learning_rate=0.0)
    current, loop = loop_of(task)
    assert loop.take_means() == {}
    single = []
    for _ in range(3):
        loop.run(1)
        single.append(loop.take_means()["loss"])
    assert len(set(single)) == 3
    assert loop.take_means() == {}
    current.step.assign(0)
    loop.run(3)
    assert loop.take_means()["loss"] == pytest.approx(np.mean(single), rel=1e-12)


class Passive(tasks.Plain):
    """Two networks, each with a loss of which the other is a part."""

    def networks(self):
        return {"a": super().networks(), "b": super().networks()}

    def optimizers(self):
        return {name: keras.optimizers.SGD(0.25) for name in ("a", "b")}

    def values(self, networks, batch, training):
        a, b = (networks[name](batch["x"], training=training)[:, 0] for name in "ab")
        return {"a_loss": (a - b) ** 2, "b_loss": (b + a) ** 2}


def test_all_gradients_are_taken_at_one_point():
    """The second network doesn't see what the first one has just learned."""
    task = Passive()
    current, loop = loop_of(task)
    variables = {
        k: [v.numpy() for v in n.variables] for k, n in current.networks.items()
    }
    x = tasks.inputs(task).batch(tf.constant(0, tf.int64))["x"].numpy()
    a, b = ((x @ kernel + bias)[:, 0] for kernel, bias in variables.values())
    loop.run(1)
    for name, error in (("a", 2 * (a - b)), ("b", 2 * (b + a))):
        slope = x.T @ error[:, None] / len(x)
        found = current.networks[name].variables[0].numpy()
        expected = variables[name][0] - 0.25 * slope
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


# What is trained.


class Shared(tasks.Plain):
    """Two networks have a layer in common."""

    def networks(self):
        shared = layers.Dense(1, name="shared")
        return {
            name: keras.Sequential([layers.Input([tasks.FEATURES]), shared])
            for name in "ab"
        }

    def values(self, networks, batch, training):
        a, b = (networks[name](batch["x"], training=training)[:, 0] for name in "ab")
        return {"loss": ((a + b) / 2 - batch["y"]) ** 2}


def test_a_shared_layer_is_trained_once():
    """As if it were in one network alone."""
    kernels = []
    for task in (Shared(), tasks.Plain()):
        current, loop = loop_of(task)
        assert [len(one) for one in current.trained.values()] == [2]
        (network, *_) = network_items(current.networks).values()
        for variable in network.variables:
            variable.assign(tf.fill(variable.shape, 0.5))
        loop.run(3)
        kernels.append(network.variables[0].numpy())
    np.testing.assert_allclose(*kernels, rtol=1e-5)


@dataclasses.dataclass(frozen=True)
class Scaled(tasks.Plain):
    """Has a variable beside the network; `kind` says which and what for."""

    kind: str = "given"

    def networks(self):
        network = super().networks()
        teacher = keras.Sequential([layers.Input([tasks.FEATURES]), layers.Dense(1)])
        teacher.trainable = self.kind != "frozen teacher"
        scale = {
            "keras": lambda: keras.Variable(1.0, name="scale"),
            "fixed in Keras": lambda: keras.Variable(1.0, trainable=False),
            "fixed": lambda: tf.Variable(1.0, trainable=False),
        }.get(self.kind, lambda: tf.Variable(1.0, name="scale"))()
        object.__setattr__(self, "_scale", scale)
        return {"model": network, "teacher": teacher}

    def optimizers(self):
        return {"model": super().optimizers()}

    def state(self, networks):
        return {"scale": self._scale}

    def values(self, networks, batch, training):
        loss = super().values(networks["model"], batch, training)["loss"]
        taught = networks["teacher"](batch["x"])[:, 0]
        if "teacher" in self.kind:
            loss += taught**2
        elif self.kind == "assigned":
            loss += 0.1 * self._scale.assign_add(1.0)
        elif self.kind == "stopped":
            loss += tf.stop_gradient(taught * self._scale)
        elif self.kind == "in a loop":
            for _ in tf.range(2):
                loss *= self._scale
        else:
            loss *= self._scale
        return {"model_loss": loss}


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("given", ["task/scale () float32"]),
        ("keras", ["task/scale () float32"]),
        ("in a loop", ["task/scale () float32"]),
        (
            "teacher",
            ["teacher/.*/kernel (4, 1) float32", "teacher/.*/bias (1,) float32"],
        ),
    ],
)
def test_what_a_loss_reaches_and_nobody_trains_is_refused(kind, names):
    _, loop = loop_of(Scaled(kind=kind))
    with pytest.raises(TaskError) as refused:
        loop.run(1)
    first, *lines = str(refused.value).splitlines()
    assert first == (
        "a loss depends on trainable variables that no optimizer trains; they would "
        "keep their initial values:"
    )
    found = sorted(lines[:-1], reverse=True)
    for line, name in zip(found, sorted(names, reverse=True), strict=True):
        assert re.fullmatch(f"  {re.escape(name).replace(re.escape('.*'), '.*')}", line)
    assert "tf.Variable(..., trainable=False)" in lines[-1]
    assert 'networks["name"].trainable = False' in lines[-1]


@pytest.mark.parametrize(
    "kind", ["fixed", "fixed in Keras", "assigned", "stopped", "frozen teacher"]
)
def test_what_is_not_meant_to_be_trained_is_not_refused(kind):
    current, loop = loop_of(Scaled(kind=kind))
    loop.run(2)
    assert int(current.step.numpy()) == 2


def test_a_loss_that_no_variable_moves_is_refused():
    class Aside(tasks.Plain):
        def values(self, networks, batch, training):
            networks(batch["x"])
            return {"loss": batch["y"]}

    text = (
        r"^loss depends on none of the variables that the optimizer 'optimizer' "
        r"trains: sequential/dense/kernel, sequential/dense/bias\. Compute it from what"
    )
    _, loop = loop_of(Aside())
    with pytest.raises(TaskError, match=text):
        loop.run(1)


def test_a_variable_without_a_gradient_is_told_by_keras():
    class Half(tasks.Plain):
        def networks(self):
            return keras.Sequential(
                [layers.Input([tasks.FEATURES]), layers.Dense(1), layers.Dense(1)]
            )

        def values(self, networks, batch, training):
            networks(batch["x"])
            answers = networks.layers[0](batch["x"])[:, 0]
            return {"loss": (answers - batch["y"]) ** 2}

    _, loop = loop_of(Half())
    with pytest.warns(
        UserWarning, match="Gradients do not exist for variables.*dense_1"
    ):
        loop.run(1)


# What is not finite.


@dataclasses.dataclass(frozen=True)
class Bad(tasks.Plain):
    """Bad from one step on, in one way or another."""

    kind: str = "nan"
    first: int = 3

    def augment(self, batch, seeds):
        bad = seeds[:, 1] // 8 >= self.first
        number = {"nan": np.float32("nan"), "infinite": np.float32("inf")}
        if self.kind in number:
            return {**batch, "y": tf.where(bad, number[self.kind], batch["y"])}
        return {**batch, "y": tf.where(bad, 0.0, batch["y"]), "bad": bad}

    def values(self, networks, batch, training):
        loss = super().values(networks, batch, training)["loss"]
        if self.kind == "gradient":
            # Its value is finite everywhere, its slope is not at 0.
            loss += tf.sqrt(tf.where(batch["bad"], 0.0, 1.0) * loss * loss)
        return {"loss": loss}


BOTH = "loss and the gradient of loss"


@pytest.mark.parametrize(
    ("kind", "what"),
    [("nan", BOTH), ("infinite", BOTH), ("gradient", "the gradient of loss")],
)
def test_what_is_not_finite_stops_the_loop_at_its_very_step(kind, what):
    current, loop = loop_of(Bad(kind=kind))
    before = values(current)
    reason = (
        "Lower the learning rate, or clip the gradients: the data of that step are "
        "finite"
        if kind == "gradient"
        else "The data of that step are not finite: 'y' in 8 of 8 examples. Leave such "
        "examples out, or replace the values: "
        "tf.where(tf.math.is_finite(x), x, 0.0)"
    )
    text = (
        rf"^{what} became NaN or infinite at step 4\. Nothing was saved over the last "
        rf"good checkpoint\. {re.escape(reason)}; with the same choices it will happen "
        r"again\.$"
    )
    for chunks in ((1, 1, 1, 1), (9,), (2, 7)):
        put_back(current, before)
        for count in chunks[:-1]:
            loop.run(count)
        with pytest.raises(steps.NonFiniteError, match=text):
            loop.run(chunks[-1])
        assert int(current.step.numpy()) == 4


def test_the_loss_that_is_bad_is_named_among_several():
    class Half(Passive):
        def values(self, networks, batch, training):
            found = super().values(networks, batch, training)
            return {**found, "b_loss": found["b_loss"] * np.float32("inf")}

    _, loop = loop_of(Half())
    text = r"^b_loss and the gradient of b_loss became NaN or infinite at step 1\."
    with pytest.raises(steps.NonFiniteError, match=text):
        loop.run(5)


def test_a_metric_may_be_anything():
    class Odd(tasks.Plain):
        def values(self, networks, batch, training):
            found = super().values(networks, batch, training)
            return {**found, "odd": found["loss"] * np.float32("nan")}

    _, loop = loop_of(Odd())
    loop.run(2)
    means = loop.take_means()
    assert np.isnan(means["odd"])
    assert np.isfinite(means["loss"])


# Evaluations.


class Recording(tasks.Plain):
    """A value that tells which examples were counted."""

    def values(self, networks, batch, training):
        found = super().values(networks, batch, training)
        if training:
            return found
        return {**found, "number": 10.0 ** batch["place"]}


def evaluation_of(task, arrays, batch_size, network=None):
    network = network or task.networks()
    batches = data.ordered(data.Arrays(arrays), batch_size)
    return network, steps.EvaluationLoop(task, network, batches)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 5, 7, 100])
def test_each_example_is_counted_once(batch_size):
    arrays = tasks.examples(valid=5)["valid"]
    arrays["place"] = np.arange(5, dtype="f4")
    network, loop = evaluation_of(Recording(), arrays, batch_size)
    metrics = loop.run()
    assert loop.names == ("loss", "number")
    assert metrics["number"] == 11111 / 5
    losses = (network(arrays["x"]).numpy()[:, 0] - arrays["y"]) ** 2
    assert metrics["loss"] == pytest.approx(np.mean(losses, dtype="f8"), rel=1e-6)


def test_an_evaluation_can_be_repeated_and_sees_the_new_weights():
    network, loop = evaluation_of(tasks.Plain(), tasks.examples()["valid"], 4)
    first = loop.run()
    assert loop.run() == first
    network.variables[0].assign(network.variables[0] + 1)
    assert loop.run() != first


@pytest.mark.parametrize("batches", [0, 1, 2])
def test_an_evaluation_that_is_asked_to_stop_gives_nothing(batches):
    _, loop = evaluation_of(tasks.Plain(), tasks.examples()["valid"], 4)
    asked = iter([False] * batches + [True] * 9)
    assert loop.run(lambda: next(asked)) is None
    assert loop.run() is not None


class Moving(layers.Layer):
    """Counts its calls, in training or not."""

    def __init__(self):
        super().__init__()
        self.calls = self.add_weight(
            shape=(), initializer="zeros", trainable=False, name="calls"
        )

    def call(self, x):
        self.calls.assign_add(1.0)
        return x * self.calls


@pytest.mark.parametrize("asked", [False, True], ids=["to its end", "stopped"])
def test_an_evaluation_leaves_no_trace_in_the_state(asked):
    class Traced(tasks.Plain):
        def networks(self):
            return keras.Sequential(
                [
                    layers.Input([tasks.FEATURES]),
                    layers.BatchNormalization(),
                    Moving(),
                    layers.Dense(1),
                ]
            )

        def values(self, networks, batch, training):
            noise = tf.random.get_global_generator().normal([1, tasks.FEATURES])
            noise += keras.random.normal([1, tasks.FEATURES])
            batch = {**batch, "x": batch["x"] + noise}
            return super().values(networks, batch, training)

    task = Traced()
    current = tasks.built(task)
    valid = tasks.examples()["valid"]
    _, loop = evaluation_of(task, valid, 4, current.networks)
    before = values(current)
    answers = iter([False, asked, asked])
    first = loop.run(lambda: next(answers))
    assert_same(values(current), before)
    assert (first is None) == asked
    assert loop.run() == loop.run()


def seen():
    """A table that counts what was looked at, and a metric of all of it."""
    table = tf.lookup.experimental.MutableHashTable(tf.int64, tf.float32, 0.0)
    table.insert([7, 3], [1.0, 2.0])
    return table, keras.metrics.Mean(name="of_all")


@dataclasses.dataclass(frozen=True)
class Noting(tasks.Plain):
    """Writes a table and a metric wherever it is called."""

    def networks(self):
        object.__setattr__(self, "_seen", seen())
        return super().networks()

    def state(self, networks):
        table, metric = self._seen
        return {"table": table, "metric": [metric]}

    def values(self, networks, batch, training):
        table, metric = self._seen
        found = super().values(networks, batch, training)
        keys = batch["label"] + 10 * tf.cast(training, tf.int64)
        table.insert(keys, table.lookup(keys) + 1)
        metric.update_state(found["loss"])
        return {**found, "of_all": tf.zeros_like(found["loss"]) + metric.result()}


def content(task):
    table, metric = task._seen
    keys, counts = (one.numpy().tolist() for one in table.export())
    pairs = zip(keys, counts, strict=True)
    return sorted(pairs), [v.numpy().tolist() for v in metric.variables]


@pytest.mark.parametrize("asked", [False, True], ids=["to its end", "stopped"])
def test_an_evaluation_puts_tables_and_metrics_back(asked):
    task = Noting()
    current, train = loop_of(task)
    train.run(2)
    before = content(task)
    assert {3, 7} < {key for key, _ in before[0]}
    valid = data.ordered(data.split(task.sources(), "valid"), 4)
    loop = steps.EvaluationLoop(task, current.networks, valid, metrics=current.metrics)
    answers = iter([False, asked, asked])
    assert (loop.run(lambda: next(answers)) is None) == asked
    assert content(task) == before


def test_a_metric_begins_anew_in_an_evaluation():
    """What it has counted in training is no part of what it says of the examples."""
    task = Noting()
    current, train = loop_of(task)
    valid = data.ordered(data.split(task.sources(), "valid"), 10)

    def evaluate(metrics):
        return steps.EvaluationLoop(
            task, current.networks, valid, metrics=metrics
        ).run()

    train.run(2)
    found = evaluate(current.metrics)
    assert found["of_all"] == pytest.approx(found["loss"], rel=1e-6)
    assert evaluate(current.metrics) == found
    assert evaluate(())["of_all"] != pytest.approx(found["loss"], rel=1e-3)


def remembering(numbers):
    """Examples from a generator that goes on where it was."""

    def generate():
        for _ in range(4):
            yield {"x": np.full([tasks.FEATURES], next(numbers), np.float32)}

    spec = {"x": tf.TensorSpec([tasks.FEATURES], tf.float32)}
    return tf.data.Dataset.from_generator(generate, output_signature=spec)


class Reading(tasks.Plain):
    def values(self, networks, batch, training):
        return {"loss": tf.reduce_sum(batch["x"], 1)}


def test_other_examples_than_the_last_time_are_refused():
    """Not even where the first ones are the same."""
    given = data.ordered(remembering(iter([0, 1, 2, 3, 0, 1, 2, 4])), 2)
    loop = steps.EvaluationLoop(Reading(), {}, given)
    assert loop.run() == {"loss": 6.0}
    text = (
        r"^the examples to evaluate are not those of the last evaluation: the Python "
        r"function that gives them remembers something\..*A generator must begin anew "
        r"each time it is called"
    )
    with pytest.raises(evaluation.ChangedExamplesError, match=text):
        loop.run()
    given = data.ordered(remembering(itertools.count()), 2)
    loop = steps.EvaluationLoop(Reading(), {}, given, allow_inexact=True)
    assert loop.run() != loop.run()


def test_what_only_an_evaluation_gives_is_known_without_running_it():
    arrays = {**tasks.examples()["valid"], "place": np.arange(10, dtype="f4")}
    _, loop = evaluation_of(Recording(), arrays, 4)
    assert loop.names == ("loss", "number")


def test_an_optimizer_that_scales_the_loss_learns_what_the_plain_one_learns():
    class Scaled(tasks.Plain):
        def optimizers(self):
            return keras.optimizers.LossScaleOptimizer(
                super().optimizers(), initial_scale=1024.0
            )

    weights = []
    for task in (tasks.Plain(), Scaled()):
        current, loop = loop_of(task)
        loop.run(3)
        weights.append([v.numpy() for v in current.networks.variables])
    for plain, scaled in zip(*weights, strict=True):
        np.testing.assert_allclose(scaled, plain, rtol=1e-4)


# Python that TensorFlow has to convert.


def clipped(x):
    """A branch and a loop over tensors, in a function that a task calls."""
    if tf.reduce_sum(x) > 0:
        x = x * 2
    for _ in tf.range(2):
        x = x + 1
    return x


def clipped_by_numpy(x):
    return (x * 2 if x.sum() > 0 else x) + 2


@dataclasses.dataclass(frozen=True)
class Rows:
    """A source of a user's own."""

    x: np.ndarray

    def __len__(self):
        return len(self.x)

    def gather(self, indices):
        if tf.reduce_min(indices) < 0:
            indices = -indices
        return {"x": tf.gather(self.x, indices)}


class Branching(Task):
    """Each of its functions needs to be converted."""

    def sources(self):
        x = np.arange(16, dtype=np.float32).reshape(8, 2) - 5
        return {"train": Rows(x), "valid": Rows(x)}

    def networks(self):
        return keras.Sequential([layers.Input([2]), layers.Dense(1)])

    def optimizers(self):
        return {}

    def augment(self, batch, seeds):
        return {"x": clipped(batch["x"])}

    def values(self, networks, batch, training):
        return {"loss": clipped(tf.reduce_sum(batch["x"], axis=1))}

    def predictions(self, networks, batch):
        return {"y": clipped(batch["x"])}


def first(inputs):
    """The batch of step 0, traced as the train loop traces it."""

    def trace():
        return inputs.batch(tf.constant(0, tf.int64))

    return tf.function(trace)()


def test_branches_and_loops_over_tensors_work_in_all_that_a_task_gives():
    one = Branching()
    x = one.sources()["valid"].x
    batches = data.ordered(one.sources()["valid"], 8)
    found = steps.EvaluationLoop(one, one.networks(), batches).run()
    expected = clipped_by_numpy(x.sum(1)).mean()
    assert found["loss"] == pytest.approx(expected)
    given = {"task": one, "batch_size": 8, "seed": 0}
    dataset = tf.data.Dataset.from_tensor_slices({"x": x})
    for inputs in (
        data.Shuffled(source=Rows(x), **given),
        stream.Stream(given=adapt.adapted(dataset, "train"), **given),
    ):
        shown = np.sort(first(inputs)["x"].numpy(), axis=0)
        np.testing.assert_array_equal(shown, clipped_by_numpy(x))
    spec = batches.element_spec[0]
    predictor = prediction.Predictor(one, one.networks(), spec)
    np.testing.assert_array_equal(predictor.predict({"x": x})["y"], clipped_by_numpy(x))
