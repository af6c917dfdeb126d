"""Tasks that try to lose state: each is resumed exactly, or refused before it starts.

There is no third outcome. What is refused names what would be lost and what to do.
"""

import dataclasses
import re

import keras
import numpy as np
import pytest
import tasks
import tensorflow as tf

from trainer import audit, catalog, compatibility, config, evaluation, lookup
from trainer import task as contract

layers = keras.layers
STEPS, KILLED_AT = 6, (1, 4)
CHOICES = {"steps": STEPS, "evaluate_every_steps": 2}


def dense(*more, width=4):
    """A small network with more layers in it."""
    return keras.Sequential(
        [layers.Input([tasks.FEATURES]), layers.Dense(width), *more, layers.Dense(1)]
    )


def extended(make=dense, **methods):
    """A task with another network or other methods than `Plain`."""
    methods = {"networks": lambda self: make(), **methods}
    return type("Extended", (tasks.Plain,), methods)()


def error_of(networks, batch, training):
    return (networks(batch["x"], training=training)[:, 0] - batch["y"]) ** 2


# Resumed exactly.


class Counting(layers.Layer):
    """Keeps variables where it is hard to see them."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind

    def build(self, shape):
        weight = self.add_weight(shape=(), initializer="zeros", trainable=False)
        if self.kind == "attribute":
            self.calls = weight
        else:
            self.calls = {"list": [weight], "tuple": (weight,), "dict": {"n": weight}}[
                self.kind
            ]

    def call(self, x):
        calls = self.calls
        if self.kind != "attribute":
            (calls,) = calls.values() if self.kind == "dict" else calls
        calls.assign_add(1.0)
        return x * (1 + 0.01 * tf.sin(calls))


class Drawing(layers.Layer):
    """Random numbers with a generator that is kept in a list."""

    def __init__(self):
        super().__init__()
        self.generators = [keras.random.SeedGenerator(3)]

    def call(self, x, training=False):
        if not training:
            return x
        return x + keras.random.normal(tf.shape(x), seed=self.generators[0])


class Recurrent(tasks.Plain):
    """A stateful LSTM, whose state is fed by one batch for the next."""

    def sources(self):
        x = tasks.examples(train=48, valid=16)
        return {k: {"x": v["x"][:, :, None], "y": v["y"]} for k, v in x.items()}

    def networks(self):
        return keras.Sequential(
            [
                layers.Input(batch_shape=[8, tasks.FEATURES, 1]),
                layers.LSTM(3, stateful=True),
                layers.Dense(1),
            ]
        )


@dataclasses.dataclass(frozen=True)
class Gan(contract.Task):
    """Two networks, each with an optimizer and a loss of its own."""

    best = ("generator_loss:min",)

    def sources(self):
        return tasks.examples()

    def networks(self):
        return {
            "generator": keras.Sequential(
                [layers.Input([3]), layers.Dense(5, "relu"), layers.Dense(4)]
            ),
            "discriminator": dense(layers.Dropout(0.2)),
        }

    def optimizers(self):
        return {
            "generator": keras.optimizers.Adam(0.01),
            "discriminator": keras.optimizers.RMSprop(0.01, momentum=0.5),
        }

    def values(self, networks, batch, training):
        noise = tf.random.get_global_generator().normal([batch["x"].shape[0], 3])
        fake = networks["generator"](noise, training=training)
        of_fake = networks["discriminator"](fake, training=training)[:, 0]
        of_real = networks["discriminator"](batch["x"], training=training)[:, 0]
        return {
            "generator_loss": tf.math.softplus(-of_fake),
            "discriminator_loss": tf.math.softplus(of_fake)
            + tf.math.softplus(-of_real),
        }


class Averaging(tasks.Plain):
    """An average of the loss in a variable that no network knows of."""

    def networks(self):
        object.__setattr__(self, "_average", tf.Variable(0.0, name="average"))
        return super().networks()

    def values(self, networks, batch, training):
        loss = error_of(networks, batch, training)
        if training:
            mean = tf.reduce_mean(loss)
            self._average.assign(0.9 * self._average + 0.1 * mean)
        return {"loss": loss * (1 + 0.1 * tf.tanh(self._average))}


class AveragingAndSaying(Averaging):
    def state(self, networks):
        return {"average": self._average}


class Measuring(tasks.Plain):
    """A Keras metric in a dictionary, whose result goes into the loss."""

    def networks(self):
        object.__setattr__(self, "_metrics", {"mean": keras.metrics.Mean()})
        return super().networks()

    def values(self, networks, batch, training):
        loss = error_of(networks, batch, training)
        if training:
            self._metrics["mean"].update_state(loss)
        return {"loss": loss * (1 + 0.1 * tf.tanh(self._metrics["mean"].result()))}


class MeasuringAndSaying(Measuring):
    def state(self, networks):
        return dict(self._metrics)


class MeasuringOnTheModel(Measuring):
    """The same on the network, where Keras finds it."""

    def networks(self):
        networks = super().networks()
        networks.own_metrics = self._metrics
        return networks


class OwnGenerator(tasks.Plain):
    """A random generator of the task itself."""

    def networks(self):
        generator = tf.random.Generator.from_seed(5, alg="philox")
        object.__setattr__(self, "_generator", generator)
        return super().networks()

    def values(self, networks, batch, training):
        noise = self._generator.normal([tasks.FEATURES])
        return {
            "loss": error_of(networks, {**batch, "x": batch["x"] + noise}, training)
        }


class OwnGeneratorAndSaying(OwnGenerator):
    def state(self, networks):
        return {"generator": self._generator}


class Remembering(tasks.Plain):
    """A table that training writes to: how often it saw each label."""

    def networks(self):
        table = tf.lookup.experimental.MutableHashTable(tf.int64, tf.float32, 0.0)
        object.__setattr__(self, "_table", table)
        return super().networks()

    def values(self, networks, batch, training):
        loss = error_of(networks, batch, training)
        seen = self._table.lookup(batch["label"])
        if training:
            count = tf.reduce_sum(tf.cast(batch["label"] == 1, tf.float32))
            one = tf.constant([1], tf.int64)
            self._table.insert(one, self._table.lookup(one) + count)
        return {"loss": loss * (1 + 0.1 * tf.sin(seen))}


class RememberingAndSaying(Remembering):
    def state(self, networks):
        return {"table": self._table}


class Translating(tasks.Plain):
    """A table that is only read."""

    def networks(self):
        keys, values = tf.constant([0, 1], tf.int64), tf.constant([0.5, 2.0])
        table = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(keys, values), 0.0
        )
        object.__setattr__(self, "_table", table)
        return super().networks()

    def values(self, networks, batch, training):
        weight = self._table.lookup(batch["label"])
        return {"loss": error_of(networks, batch, training) * weight}


def noisy_keras(self, networks, batch, training):
    noise = keras.random.normal([1, tasks.FEATURES])
    return {"loss": error_of(networks, {**batch, "x": batch["x"] + noise}, training)}


def noisy_global(self, networks, batch, training):
    noise = tf.random.get_global_generator().normal([1, tasks.FEATURES])
    return {"loss": error_of(networks, {**batch, "x": batch["x"] + noise}, training)}


def noisy_in_training(self, networks, batch, training):
    """One noise for training, another one for evaluations."""
    if training:
        return noisy_global(self, networks, batch, training)
    return noisy_keras(self, networks, batch, training)


def many_metrics(self, networks, batch, training):
    loss = error_of(networks, batch, training)
    return {
        "loss": loss,
        "small": loss < 1,
        "label": batch["label"],
        "rounded": tf.cast(loss, tf.int32),
        "byte": tf.cast(batch["label"], tf.uint8),
        "half": tf.cast(loss, tf.float16),
        "double": tf.cast(loss, tf.float64) / 3,
        "infinite": tf.where(batch["label"] == 1, np.float32("inf"), loss),
    }


def stateless_augment(self, batch, seeds):
    noise = tf.map_fn(
        lambda seed: tf.random.stateless_normal([tasks.FEATURES], seed),
        seeds,
        fn_output_signature=tf.float32,
    )
    return {**batch, "x": batch["x"] + noise}


def optimizer(make):
    return extended(optimizers=lambda self: make())


def image_layers():
    return keras.Sequential(
        [
            layers.Input([tasks.FEATURES]),
            layers.Reshape([2, 2, 1]),
            layers.RandomFlip("horizontal_and_vertical"),
            layers.RandomRotation(0.2),
            layers.GaussianNoise(0.1),
            layers.Flatten(),
            layers.Dense(1),
        ]
    )


def regularised():
    return dense(
        layers.Dense(
            4, kernel_regularizer="l2", activity_regularizer="l1", activation="relu"
        )
    )


def embedded():
    """Gradients of embeddings are sparse; a spectral norm keeps a vector."""
    return keras.Sequential(
        [
            layers.Input([tasks.FEATURES]),
            layers.Lambda(lambda x: tf.cast(tf.abs(x) * 3, tf.int32) % 10),
            layers.Embedding(10, 3),
            layers.Flatten(),
            layers.SpectralNormalization(layers.Dense(4)),
            layers.LayerNormalization(),
            layers.Dense(1),
        ]
    )


def partly_frozen():
    network = dense(layers.BatchNormalization(), layers.Dense(3))
    network.layers[0].trainable = False
    return network


def shared():
    """One layer twice, and a model inside a model."""
    inner = keras.Sequential([layers.Input([4]), layers.Dense(4), layers.Dropout(0.1)])
    inputs = keras.Input([tasks.FEATURES])
    both = inner(inputs) + inner(inputs * 2)
    return keras.Model(inputs, layers.Dense(1)(both))


EXACT = {
    "a counter in an attribute": extended(lambda: dense(Counting("attribute"))),
    "a counter in a list": extended(lambda: dense(Counting("list"))),
    "a counter in a tuple": extended(lambda: dense(Counting("tuple"))),
    "a counter in a dictionary": extended(lambda: dense(Counting("dict"))),
    "a seed generator in a list": extended(lambda: dense(Drawing())),
    "a metric of the model": MeasuringOnTheModel(),
    "a metric that is given": MeasuringAndSaying(),
    "an average that is given": AveragingAndSaying(),
    "a generator that is given": OwnGeneratorAndSaying(),
    "a written table that is given": RememberingAndSaying(),
    "a table that is read": Translating(),
    "numbers of keras.random": extended(values=noisy_keras),
    "numbers of the global generator": extended(values=noisy_global),
    "other numbers in evaluations": extended(values=noisy_in_training),
    "stateless numbers in augment": extended(augment=stateless_augment),
    "two networks and optimizers": Gan(),
    "a stateful LSTM": Recurrent(),
    "regularisation losses": extended(regularised),
    "layers that augment": extended(image_layers),
    "sparse gradients": extended(embedded),
    "a frozen layer": extended(partly_frozen),
    "a shared layer": extended(shared),
    "values of all kinds": extended(values=many_metrics),
    "Nadam": optimizer(lambda: keras.optimizers.Nadam(0.01)),
    "Adam with AMSGrad": optimizer(lambda: keras.optimizers.Adam(0.01, amsgrad=True)),
    "Lion": optimizer(lambda: keras.optimizers.Lion(0.01)),
    "gradients that are collected": optimizer(
        lambda: keras.optimizers.SGD(0.01, gradient_accumulation_steps=3)
    ),
    "a scaled loss": optimizer(
        lambda: keras.optimizers.LossScaleOptimizer(
            keras.optimizers.SGD(0.01), initial_scale=4.0, dynamic_growth_steps=2
        )
    ),
}


@pytest.mark.parametrize("task", EXACT.values(), ids=EXACT.keys())
def test_it_is_resumed_exactly(tmp_path, task):
    straight = tmp_path / "straight"
    outcome = tasks.train(straight, task, **CHOICES)
    assert (outcome.step, outcome.inexact) == (STEPS, ())
    for step in KILLED_AT:
        run_dir = tasks.cut_back(straight, tmp_path / f"killed-{step}", step)
        outcome = tasks.train(run_dir, task, **CHOICES)
        assert outcome.trained_steps == STEPS - step
        tasks.assert_same_run(straight, run_dir)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("a counter in a list", "counting"),
        ("a counter in a tuple", "counting"),
        ("a counter in a dictionary", "counting"),
        ("a seed generator in a list", "seed_generator"),
        ("a metric of the model", "mean"),
        ("a metric that is given", "task/mean"),
        ("an average that is given", "task/average"),
        ("a generator that is given", "task/generator"),
        ("a stateful LSTM", "lstm"),
        ("gradients that are collected", "accum"),
        ("a scaled loss", "dynamic_scale"),
    ],
)
def test_its_hidden_variables_are_in_the_manifest_by_name(tmp_path, name, part):
    tasks.train(tmp_path / "run", EXACT[name], **{**CHOICES, "steps": 1})
    paths = [
        v["path"] for v in tasks.manifest(tmp_path / "run/recent/ckpt-1")["variables"]
    ]
    assert [path for path in paths if part in path], paths


# Refused.


def random_augment(self, batch, seeds):
    return {**batch, "x": batch["x"] + tf.random.normal([tasks.FEATURES])}


def nested_random_augment(self, batch, seeds):
    def one(x):
        return tf.cond(
            x[0] > 0, lambda: x + tf.random.uniform([tasks.FEATURES]), lambda: x
        )

    return {**batch, "x": tf.map_fn(one, batch["x"])}


def python_augment(self, batch, seeds):
    x = tf.py_function(lambda x: x * 2, [batch["x"]], tf.float32)
    x.set_shape(batch["x"].shape)
    return {**batch, "x": x}


def numpy_augment(self, batch, seeds):
    x = tf.numpy_function(lambda x: x * 2, [batch["x"]], tf.float32)
    x.set_shape(batch["x"].shape)
    return {**batch, "x": x}


def random_evaluation(self, networks, batch, training):
    """Such as the sampling of an autoencoder, where it is evaluated only."""
    loss = error_of(networks, batch, training)
    return {"loss": loss if training else loss + tf.random.uniform([1])}


class CountingEvaluations(Averaging):
    """The state that is missing is that of the evaluations."""

    def values(self, networks, batch, training):
        loss = error_of(networks, batch, training)
        if not training:
            self._average.assign_add(1.0)
        return {"loss": loss + self._average}


SOURCES = "Random numbers that resume come from the seeds that augment"
SAVED = r"is saved if the task gives it: def state\(self, networks\): return"
PYTHON = "What Python keeps between steps is lost with the process"
REFUSED = {
    "an average that is not given": (
        Averaging(),
        r"the variable average:0 \(\) float32, used by '\S+'",
        SAVED,
    ),
    "a metric that is not given": (
        Measuring(),
        r"the variable \S*total\S* \(\) float32, used by '\S+'",
        SAVED,
    ),
    "a generator that is not given": (
        OwnGenerator(),
        r"the variable StateVar:0 \(3,\) int64, used by '\S+'",
        SAVED,
    ),
    "a written table that is not given": (
        Remembering(),
        r"the resource .*, used by '\S+'",
        SAVED,
    ),
    "tf.random in augment": (
        extended(augment=random_augment),
        r"the op RandomStandardNormal, which has a hidden state of its own, '\S+' in",
        SOURCES,
    ),
    "tf.random deep inside": (
        extended(augment=nested_random_augment),
        r"the op RandomUniform, which has a hidden state of its own, '\S+' in \S+",
        SOURCES,
    ),
    "a Python function": (
        extended(augment=python_augment),
        r"the op EagerPyFunc \(tf.py_function or tf.numpy_function\) '\S+' in",
        PYTHON,
    ),
    "a NumPy function": (
        extended(augment=numpy_augment),
        r"the op PyFunc \(tf.py_function or tf.numpy_function\) '\S+' in",
        PYTHON,
    ),
    "tf.random in evaluations": (
        extended(values=random_evaluation),
        r"the op RandomUniform, which has a hidden state of its own, '\S+' in",
        SOURCES,
    ),
    "a counter of evaluations": (
        CountingEvaluations(),
        r"the variable average:0 \(\) float32, used by '\S+'",
        SAVED,
    ),
}


@pytest.mark.parametrize(("task", "what", "remedy"), REFUSED.values(), ids=REFUSED)
def test_it_is_refused_before_the_first_step(tmp_path, task, what, remedy):
    with pytest.raises(audit.IncompleteStateError) as refused:
        tasks.train(tmp_path / "run", task, **CHOICES)
    text = str(refused.value)
    assert text.startswith(
        "this task can't be resumed exactly: training changes what no checkpoint holds"
    )
    assert re.search(rf"^  {what}", text, re.M), text
    assert re.search(rf"^{remedy}|{remedy}", text, re.M), text
    assert text.endswith("Or give --allow_inexact to train all the same.")
    written = {path.name for path in (tmp_path / "run").rglob("*")}
    assert written <= {"run.lock"}


@pytest.mark.parametrize(
    "name", ["an average that is not given", "tf.random in augment"]
)
def test_it_is_trained_all_the_same_if_that_is_allowed(tmp_path, name):
    task, what, _ = REFUSED[name]
    with tasks.logged() as lines:
        outcome = tasks.train(tmp_path / "run", task, **CHOICES, allow_inexact=True)
    (found,) = outcome.inexact
    assert re.match(what, found)
    assert f"WARNING a resumed run will not be exact: {found}" in lines
    for path in (tmp_path / "run/recent").glob("*.json"):
        assert tasks.manifest(path.with_suffix(""))["inexact"] == [found]
    run_dir = tasks.cut_back(tmp_path / "run", tmp_path / "killed", 4)
    outcome = tasks.train(run_dir, task, **CHOICES, allow_inexact=True)
    assert outcome.inexact == (found,)
    last = "recent/ckpt-6"
    moved = tasks.different(tmp_path / "run" / last, run_dir / last)
    assert [key for key in moved if key.startswith("variables/")], (
        "the audit was wrong: nothing was lost"
    )


# Code that changed between two starts.


def frozen(self):
    network = dense()
    network.layers[0].trainable = False
    return network


@pytest.mark.parametrize(
    ("before", "after", "lines"),
    [
        (
            extended(),
            extended(networks=frozen),
            [r"  optimizer/\S+kernel\S*: the checkpoint has it, the model does not"],
        ),
        (
            extended(networks=frozen),
            extended(),
            [r"  optimizer/\S+kernel\S*: the model has it, the checkpoint does not"],
        ),
        (
            extended(),
            extended(lambda: dense(width=5)),
            [
                r"  model/\S+/kernel: the checkpoint has shape \(4, 4\), the model "
                r"\(4, 5\)",
                r"  and \d+ more differences",
            ],
        ),
        (
            extended(),
            extended(lambda: dense(layers.Dropout(0.5))),
            [r"  model/\S*seed\S*: the model has it, the checkpoint does not"],
        ),
        (
            extended(),
            optimizer(lambda: keras.optimizers.Adam()),
            [r"  optimizer/\S+velocity: the model has it, the checkpoint does not"],
        ),
        (
            extended(),
            optimizer(lambda: keras.optimizers.SGD(0.05)),
            [r"  optimizer/\S+momentum: the checkpoint has it, the model does not"],
        ),
    ],
    ids=["frozen", "thawed", "wider", "with dropout", "Adam", "no momentum"],
)
def test_code_that_builds_another_state_is_refused(tmp_path, before, after, lines):
    run_dir = tmp_path / "run"
    tasks.train(run_dir, before, **{**CHOICES, "steps": 2})
    files = {p: p.read_bytes() for p in run_dir.rglob("*-2.*")}
    with pytest.raises(compatibility.IncompatibleCheckpointError) as refused:
        tasks.train(run_dir, after, **CHOICES)
    text = str(refused.value)
    assert text.startswith(f"cannot restore {run_dir}/recent/ckpt-2.\n")
    for line in lines:
        assert re.search(rf"^{line}$", text, re.M), text
    assert "The task builds another state than the one that was saved" in text
    assert {p: p.read_bytes() for p in run_dir.rglob("*-2.*")} == files


# The tasks of this project.

REGISTERED = {
    name: cls
    for name, cls in lookup.all_tasks("models").items()
    if cls.__module__.startswith("models.")
}


@pytest.mark.parametrize("name", REGISTERED)
def test_a_registered_task_trains_resumes_and_is_evaluated(tmp_path, name):
    task = lookup.create(name, [], package="models")
    choices = {"task": name, "steps": 3, "evaluate_every_steps": 3}
    straight = tmp_path / "straight"
    assert tasks.train(straight, task, **choices).inexact == ()
    run_dir = tasks.cut_back(straight, tmp_path / "run", 2)
    tasks.train(run_dir, task, **choices)
    tasks.assert_same_run(straight, run_dir)
    chosen = config.Config(
        **{**tasks.CHOICES, **choices, "run_dir": str(run_dir), "best": task.best}
    )
    metrics = evaluation.evaluate(chosen, task, catalog.select(run_dir, "latest", ()))
    assert metrics == tasks.manifest(run_dir / "recent/ckpt-3")["metrics"]
    assert metrics
