"""Tasks that try to lose state: each is resumed exactly, or refused before it starts.

There is no third outcome. What is refused names what would be lost and what to do.
"""

import dataclasses
import re
import shutil

import keras
import numpy as np
import pytest
import tasks
import tensorflow as tf

from trainer.checkpoint import compatibility, selection
from trainer.checkpoint.layout import RunDirectory
from trainer.config import options
from trainer.config.lookup import all_tasks
from trainer.config.tasks import create
from trainer.inference import evaluate
from trainer.model import audit
from trainer.task import Task

layers = keras.layers
STEPS, KILLED_AT = 5, 3
CHOICES = {"steps": STEPS, "evaluate_every_steps": 2, "eval_batch_size": 8}


def dense(*more, width=4):
    """A small network with more layers in it."""
    return keras.Sequential(
        [layers.Input([tasks.FEATURES]), layers.Dense(width), *more, layers.Dense(1)]
    )


def extended(make=dense, **methods):
    """A task with another network or other methods than `Plain`."""
    methods = {"networks": lambda self: make(), **methods}
    return type("Extended", (tasks.Plain,), methods)(learning_rate=0.01)


def error_of(networks, batch, training):
    return (networks(batch["x"], training=training)[:, 0] - batch["y"]) ** 2


# Resumed exactly.


class Counting(layers.Layer):
    """Keeps a variable where it is more or less easy to see."""

    def __init__(self, kind):
        super().__init__(name=f"in_{kind}")
        self.kind = kind

    def build(self, shape):
        weight = self.add_weight(shape=(), initializer="zeros", trainable=False)
        kinds = {"list": [weight], "tuple": (weight,), "dict": {"n": weight}}
        self.calls = kinds.get(self.kind, weight)

    def call(self, x):
        calls = self.calls
        if self.kind != "attribute":
            (calls,) = calls.values() if self.kind == "dict" else calls
        calls.assign_add(1.0)
        return x * (1 + 0.01 * tf.sin(calls))


class Drawing(layers.Layer):
    """Draws random numbers from a generator that it keeps in a list."""

    def __init__(self):
        super().__init__()
        self.generators = [keras.random.SeedGenerator(3)]

    def call(self, x, training=False):
        if not training:
            return x
        return x + keras.random.normal(tf.shape(x), seed=self.generators[0])


def hiding():
    kinds = ("attribute", "list", "tuple", "dict")
    return dense(*map(Counting, kinds), Drawing())


class Giving(tasks.Plain):
    """State that no network knows of, which the task gives."""

    def networks(self):
        own = {
            "average": tf.Variable(0.0),
            "metric": keras.metrics.Mean(),
            "generator": tf.random.Generator.from_seed(5, alg="philox"),
            "several": [tf.Variable(0.0), (keras.Variable(0.0),)],
        }
        object.__setattr__(self, "_own", own)
        return super().networks()

    def state(self, networks):
        return self._own

    def values(self, networks, batch, training):
        own = self._own
        noise = 0.1 * own["generator"].normal([tasks.FEATURES])
        loss = error_of(networks, {**batch, "x": batch["x"] + noise}, training)
        if training:
            own["average"].assign(0.9 * own["average"] + 0.1 * tf.reduce_mean(loss))
            own["metric"].update_state(loss)
            own["several"][0].assign_add(1.0)
            own["several"][1][0].assign_add(0.5)
        seen = own["average"] + own["metric"].result()
        seen += own["several"][0] + own["several"][1][0]
        return {"loss": loss * (1 + 0.1 * tf.sin(seen))}


class Table(tasks.Plain):
    """A table that training writes to: how often it saw a label."""

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


class GivenTable(Table):
    def state(self, networks):
        return {"table": self._table}


class Translating(tasks.Plain):
    """A table that is only read is made again by the task."""

    def networks(self):
        keys, values = tf.constant([0, 1], tf.int64), tf.constant([0.5, 2.0])
        initial = tf.lookup.KeyValueTensorInitializer(keys, values)
        object.__setattr__(self, "_table", tf.lookup.StaticHashTable(initial, 0.0))
        return super().networks()

    def values(self, networks, batch, training):
        weight = self._table.lookup(batch["label"])
        return {"loss": error_of(networks, batch, training) * weight}


class Random(tasks.Plain):
    """Random numbers from all that may give them, others in evaluations."""

    def augment(self, batch, seeds):
        noise = tf.map_fn(
            lambda seed: tf.random.stateless_normal([tasks.FEATURES], seed),
            seeds,
            fn_output_signature=tf.float32,
        )
        return {**batch, "x": batch["x"] + 0.1 * noise}

    def values(self, networks, batch, training):
        noise = keras.random.normal([1, tasks.FEATURES])
        if training:
            noise += tf.random.get_global_generator().normal([1, tasks.FEATURES])
        batch = {**batch, "x": batch["x"] + 0.1 * noise}
        return {"loss": error_of(networks, batch, training)}


@dataclasses.dataclass(frozen=True)
class Gan(Task):
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
        both = tf.math.softplus(of_fake) + tf.math.softplus(-of_real)
        return {
            "generator_loss": tf.math.softplus(-of_fake),
            "discriminator_loss": both,
        }


class Recurrent(tasks.Plain):
    """A stateful LSTM: each batch goes on where the one before ended."""

    def sources(self):
        return {
            name: {"x": one["x"][:, :, None], "y": one["y"]}
            for name, one in tasks.examples(train=48, valid=16).items()
        }

    def networks(self):
        return keras.Sequential(
            [
                layers.Input(batch_shape=[8, tasks.FEATURES, 1]),
                layers.LSTM(3, stateful=True),
                layers.Dense(1),
            ]
        )


OPTIMIZERS = {
    "nadam": lambda: keras.optimizers.Nadam(0.01),
    "amsgrad": lambda: keras.optimizers.Adam(0.01, amsgrad=True),
    "lion": lambda: keras.optimizers.Lion(0.01),
    "average": lambda: keras.optimizers.SGD(0.01, use_ema=True),
    "accumulated": lambda: keras.optimizers.SGD(0.01, gradient_accumulation_steps=3),
    "scaled": lambda: keras.optimizers.LossScaleOptimizer(
        keras.optimizers.SGD(0.01), initial_scale=4.0, dynamic_growth_steps=2
    ),
    "scheduled": lambda: keras.optimizers.SGD(
        keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5), nesterov=True
    ),
}


@dataclasses.dataclass(frozen=True)
class Optimizing(Task):
    """A network for each of many optimizers."""

    best = ("lion_loss:min",)

    def sources(self):
        return tasks.examples()

    def networks(self):
        return {
            name: keras.Sequential([layers.Input([tasks.FEATURES]), layers.Dense(1)])
            for name in OPTIMIZERS
        }

    def optimizers(self):
        return {name: make() for name, make in OPTIMIZERS.items()}

    def values(self, networks, batch, training):
        return {
            f"{name}_loss": error_of(network, batch, training)
            for name, network in networks.items()
        }


def branching():
    """Layers that augment, sparse gradients, a norm that moves, a layer used twice."""
    inputs = keras.Input([tasks.FEATURES])
    image = layers.Reshape([2, 2, 1])(inputs)
    image = layers.RandomFlip("horizontal_and_vertical")(image)
    image = layers.Flatten()(layers.RandomRotation(0.2)(image))
    rows = layers.Lambda(lambda x: tf.cast(tf.abs(x) * 3, tf.int32) % 10)(inputs)
    rows = layers.Flatten()(layers.Embedding(10, 2)(rows))
    inner = keras.Sequential([layers.Input([4]), layers.Dense(4), layers.Dropout(0.1)])
    twice = inner(inputs) + inner(layers.GaussianNoise(0.1)(inputs))
    joined = layers.Concatenate()([image, rows, twice])
    joined = layers.SpectralNormalization(layers.Dense(4))(joined)
    return keras.Model(inputs, layers.Dense(1)(layers.BatchNormalization()(joined)))


def penalised():
    """Losses of the network itself, and a layer that is not trained."""
    network = dense(
        layers.BatchNormalization(),
        layers.Dense(
            4, kernel_regularizer="l2", activity_regularizer="l1", activation="relu"
        ),
    )
    network.layers[0].trainable = False
    return network


def many_values(self, networks, batch, training):
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


EXACT = [
    (
        "hidden in layers",
        extended(hiding),
        ["attribute", "in_list", "in_tuple", "in_dict", "seed_generator"],
    ),
    (
        "given by the task",
        Giving(),
        ["task/average", "task/metric/0", "task/generator", "task/several/1/0"],
    ),
    ("a table that is written", GivenTable(), []),
    ("a table that is read", Translating(), []),
    ("random numbers", Random(), ["keras_random"]),
    (
        "two networks",
        Gan(),
        ["generator_optimizer/", "discriminator_optimizer/", "discriminator/"],
    ),
    ("a stateful LSTM", Recurrent(), ["lstm"]),
    (
        "many optimizers",
        Optimizing(),
        [
            "nadam_optimizer/variable",
            "velocity_hat",
            "_average",
            "_accumulator",
            "scaled_optimizer/dynamic_scale",
        ],
    ),
    ("a network of many layers", extended(branching), ["seed_gen", "vector_u"]),
    ("values of many kinds", extended(penalised, values=many_values), []),
]


@pytest.mark.parametrize(
    ("task", "parts"), [row[1:] for row in EXACT], ids=[row[0] for row in EXACT]
)
def test_it_is_resumed_exactly(tmp_path, task, parts):
    straight = tmp_path / "straight"
    outcome = tasks.train(straight, task, **CHOICES)
    assert (outcome.step, outcome.inexact) == (STEPS, ())
    names = " ".join(
        one["path"] for one in tasks.manifest(straight / "recent/ckpt-1")["variables"]
    )
    assert [part for part in parts if part not in names] == [], names
    run_dir = tasks.cut_back(straight, tmp_path / "killed", KILLED_AT)
    outcome = tasks.train(run_dir, task, **CHOICES)
    assert outcome.trained_steps == STEPS - KILLED_AT
    tasks.assert_same_run(straight, run_dir)


# Refused.


class Averaging(tasks.Plain):
    """An average of the loss in a variable that nothing gives."""

    def networks(self):
        object.__setattr__(self, "_average", tf.Variable(0.0, name="average"))
        return super().networks()

    def values(self, networks, batch, training):
        loss = error_of(networks, batch, training)
        if training:
            mean = tf.reduce_mean(loss)
            self._average.assign(0.9 * self._average + 0.1 * mean)
        return {"loss": loss * (1 + 0.1 * tf.tanh(self._average))}


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


class MeasuringOnTheModel(Measuring):
    """The variables of a model do not include those of its metrics."""

    def networks(self):
        networks = super().networks()
        networks.own_metrics = self._metrics
        return networks


class Drawn(tasks.Plain):
    """A random generator of the task itself."""

    def networks(self):
        generator = tf.random.Generator.from_seed(5, alg="philox")
        object.__setattr__(self, "_generator", generator)
        return super().networks()

    def values(self, networks, batch, training):
        x = batch["x"] + self._generator.normal([tasks.FEATURES])
        return {"loss": error_of(networks, {**batch, "x": x}, training)}


class Evaluating(Averaging):
    """What is lost is in the evaluations only."""

    def values(self, networks, batch, training):
        loss = error_of(networks, batch, training)
        if training:
            return {"loss": loss}
        return {"loss": loss + self._average.assign_add(1.0)}


def random_evaluation(self, networks, batch, training):
    """Such as the sampling of an autoencoder, where it is evaluated."""
    loss = error_of(networks, batch, training)
    return {"loss": loss if training else loss + tf.random.uniform([1])}


def random_augment(self, batch, seeds):
    return {**batch, "x": batch["x"] + tf.random.normal([tasks.FEATURES])}


def nested_augment(self, batch, seeds):
    def one(x):
        return tf.cond(x[0] > 0, lambda: x + tf.random.uniform([4]), lambda: x)

    return {**batch, "x": tf.map_fn(one, batch["x"])}


def python_augment(self, batch, seeds):
    x = tf.py_function(lambda x: x * 2, [batch["x"]], tf.float32)
    return {**batch, "x": tf.ensure_shape(x, batch["x"].shape)}


def numpy_augment(self, batch, seeds):
    x = tf.numpy_function(lambda x: x * 2, [batch["x"]], tf.float32)
    return {**batch, "x": tf.ensure_shape(x, batch["x"].shape)}


def hidden(op):
    return rf"the op {op}, which has a hidden state of its own, '\S+' in \S+"


RANDOM = "Random numbers that resume come from the seeds that augment"
SAVED = "What is a variable, a layer or a table is saved if the task gives it"
PYTHON = "What Python keeps between steps is lost with the process"
VARIABLE = r"the variable average:0 \(\) float32, used by '\S+'"
METRIC = r"the variable mean/total:0 \(\) float32, used by '\S+'"
REFUSED = {
    "an average": (Averaging(), VARIABLE, SAVED),
    "an average of evaluations": (Evaluating(), VARIABLE, SAVED),
    "a metric": (Measuring(), METRIC, SAVED),
    "a metric of the model": (MeasuringOnTheModel(), METRIC, SAVED),
    "a generator": (Drawn(), r"the variable StateVar:0 \(3,\) int64, used by", SAVED),
    "a written table": (Table(), r"the resource .+, used by '\S+'", SAVED),
    "tf.random": (
        extended(augment=random_augment),
        hidden("RandomStandardNormal"),
        RANDOM,
    ),
    "tf.random deep inside": (
        extended(augment=nested_augment),
        hidden("RandomUniform"),
        RANDOM,
    ),
    "tf.random in evaluations": (
        extended(values=random_evaluation),
        hidden("RandomUniform"),
        RANDOM,
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
}


@pytest.mark.parametrize(("task", "what", "remedy"), REFUSED.values(), ids=REFUSED)
def test_it_is_refused_before_the_first_step(tmp_path, task, what, remedy):
    with pytest.raises(audit.IncompleteStateError) as refused:
        tasks.train(tmp_path / "run", task, **CHOICES)
    first, *lines, last = str(refused.value).splitlines()
    assert first == (
        "this task can't be resumed exactly: training changes what no checkpoint holds."
    )
    assert [line for line in lines if re.match(rf"  {what}", line)], lines
    assert [line for line in lines if line.startswith(remedy)], lines
    assert last == "Or give --allow_inexact to train all the same."
    assert {path.name for path in (tmp_path / "run").rglob("*")} <= {"run.lock"}


@pytest.mark.parametrize("name", ["an average", "tf.random"])
def test_it_is_trained_all_the_same_if_that_is_allowed(tmp_path, name):
    task, what, _ = REFUSED[name]
    with tasks.logged() as lines:
        outcome = tasks.train(tmp_path / "run", task, **CHOICES, allow_inexact=True)
    (found,) = outcome.inexact
    assert re.match(what, found)
    assert f"WARNING a resumed run will not be exact: {found}" in lines
    for step in range(1, STEPS + 1):
        assert tasks.manifest(tmp_path / f"run/recent/ckpt-{step}")["inexact"] == [
            found
        ]
    run_dir = tasks.cut_back(tmp_path / "run", tmp_path / "killed", KILLED_AT)
    outcome = tasks.train(run_dir, task, **CHOICES, allow_inexact=True)
    assert re.match(what, outcome.inexact[0])
    last = f"recent/ckpt-{STEPS}"
    moved = tasks.different(tmp_path / "run" / last, run_dir / last)
    assert [key for key in moved if key.startswith("variables/")], "nothing was lost"


@dataclasses.dataclass(frozen=True)
class Noting(tasks.Plain):
    """Notes in a table and in a metric what it has seen, in evaluations, too."""

    def networks(self):
        made = (
            tf.lookup.experimental.MutableHashTable(tf.int64, tf.float32, 0.0),
            keras.metrics.Mean(name="of_all"),
        )
        object.__setattr__(self, "_made", made)
        return super().networks()

    def state(self, networks):
        return dict(zip(("table", "metric"), self._made, strict=True))

    def values(self, networks, batch, training):
        table, metric = self._made
        found = super().values(networks, batch, training)
        keys = batch["label"] + tf.cast(batch["x"][:, 0] * 8, tf.int64)
        table.insert(keys, table.lookup(keys) + 1)
        metric.update_state(found["loss"])
        return {"loss": found["loss"] + 1e-3 * table.lookup(keys)}


def test_what_an_evaluation_notes_is_nothing_to_the_training(tmp_path):
    """Evaluated at each step, once, or begun again after a kill: the same bits."""
    for every in (1, STEPS):
        tasks.train(
            tmp_path / str(every),
            Noting(),
            **{**CHOICES, "evaluate_every_steps": every},
        )
    resumed = tasks.cut_back(tmp_path / "1", tmp_path / "resumed", KILLED_AT)
    tasks.train(resumed, Noting(), **{**CHOICES, "evaluate_every_steps": 1})
    tasks.assert_same_run(tmp_path / "1", resumed)
    for step in range(1, STEPS + 1):
        one, other = (tmp_path / f"{n}/recent/ckpt-{step}" for n in (1, STEPS))
        moved = tasks.different(one, other)
        assert [key for key in moved if not key.startswith("progress")] == []


# Code that changed between two starts.


def frozen():
    network = dense()
    network.layers[0].trainable = False
    return network


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    """Two steps of a task, and of the same with a frozen layer."""
    directory = tmp_path_factory.mktemp("before")
    for make in (dense, frozen):
        tasks.train(
            directory / make.__name__, extended(make), **{**CHOICES, "steps": 2}
        )
    return directory


def with_optimizer(make):
    return extended(optimizers=lambda self: make())


@pytest.mark.parametrize(
    ("name", "after", "lines"),
    [
        pytest.param(
            "dense",
            extended(frozen),
            [r"  optimizer/\S+kernel\S*: the checkpoint has it, the model does not"],
            id="frozen",
        ),
        pytest.param(
            "frozen",
            extended(dense),
            [r"  optimizer/\S+kernel\S*: the model has it, the checkpoint does not"],
            id="thawed",
        ),
        pytest.param(
            "dense",
            extended(lambda: dense(width=5)),
            [
                r"  model/\S+/kernel: the checkpoint has shape \(4, 4\), the model "
                r"\(4, 5\)",
                r"  and \d+ more differences",
            ],
            id="wider",
        ),
        pytest.param(
            "dense",
            extended(lambda: dense(layers.Dropout(0.5))),
            [r"  model/\S*seed\S*: the model has it, the checkpoint does not"],
            id="with dropout",
        ),
        pytest.param(
            "dense",
            with_optimizer(keras.optimizers.Adam),
            [r"  optimizer/\S+velocity: the model has it, the checkpoint does not"],
            id="with Adam",
        ),
        pytest.param(
            "dense",
            with_optimizer(lambda: keras.optimizers.SGD(0.01)),
            [r"  optimizer/\S+momentum: the checkpoint has it, the model does not"],
            id="without momentum",
        ),
    ],
)
def test_code_that_builds_another_state_is_refused(
    before, tmp_path, name, after, lines
):
    run_dir = shutil.copytree(before / name, tmp_path / "run")
    files = {p: p.read_bytes() for p in run_dir.rglob("ckpt-*")}
    with pytest.raises(compatibility.IncompatibleCheckpointError) as refused:
        tasks.train(run_dir, after, **CHOICES)
    text = str(refused.value)
    assert text.startswith(f"cannot restore {run_dir}/recent/ckpt-2.\n")
    for line in lines:
        assert re.search(rf"^{line}$", text, re.M), text
    assert "The task builds another state than the one that was saved" in text
    assert {p: p.read_bytes() for p in run_dir.rglob("ckpt-*")} == files


# The tasks of this project.

REGISTERED = [
    name
    for name, cls in all_tasks("models").items()
    if cls.__module__.startswith("models.")
]


@pytest.mark.parametrize("name", REGISTERED)
def test_a_registered_task_trains_resumes_and_is_evaluated(tmp_path, name):
    task = create(name, [], package="models")
    choices = {"task": name, "steps": 3, "evaluate_every_steps": 3}
    straight = tmp_path / "straight"
    assert tasks.train(straight, task, **choices).inexact == ()
    run_dir = tasks.cut_back(straight, tmp_path / "run", 2)
    tasks.train(run_dir, task, **choices)
    tasks.assert_same_run(straight, run_dir)
    chosen = {**tasks.CHOICES, **choices, "run_dir": str(run_dir), "best": task.best}
    entry = selection.select(RunDirectory(run_dir), "latest", ())
    metrics = evaluate.evaluate_checkpoint(options.RunOptions(**chosen), task, entry)
    assert metrics == tasks.manifest(run_dir / "recent/ckpt-3")["metrics"] != {}
