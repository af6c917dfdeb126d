"""Small tasks as a user would write them, and what the tests ask of their runs.

Nothing is random but by the framework's seeds: the arrays are fixed. A copy of this
file is a task module of its own (`--task=mine:Plain`).
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import itertools
import json
import logging
import pathlib
import shutil
import signal
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import logging as absl_logging
from tensorboard.backend.event_processing import event_accumulator

from trainer import data, task
from trainer.checkpoint.layout import RunDirectory
from trainer.checkpoint.manifest import Draft
from trainer.checkpoint.retention import Best, Rules
from trainer.checkpoint.store import Store
from trainer.config import options
from trainer.config.start import StartOptions
from trainer.model import building, learned_values, preparation, state
from trainer.storage import checked_json
from trainer.training import loop, preemption

layers = keras.layers
FEATURES = 4


def examples(*, train: int = 30, valid: int = 10) -> dict[str, dict[str, np.ndarray]]:
    """Two splits of points, with a number and a class to each."""
    x = np.random.default_rng(0).normal(size=[train + valid, FEATURES])
    x = x.astype("float32")
    arrays = {"x": x, "y": x @ np.float32([1, -2, 3, 0.5]), "label": x[:, 0] > 0}
    arrays["label"] = arrays["label"].astype("int64")
    return {
        "train": {name: array[:train] for name, array in arrays.items()},
        "valid": {name: array[train:] for name, array in arrays.items()},
    }


# Tasks.


@dataclasses.dataclass(frozen=True)
class Plain(task.Task):
    """One dense layer, plain gradient descent with momentum."""

    learning_rate: float = 0.05
    width: int = 1

    def sources(self):
        return examples()

    def networks(self):
        return keras.Sequential([layers.Input([FEATURES]), layers.Dense(self.width)])

    def optimizers(self):
        return keras.optimizers.SGD(self.learning_rate, momentum=0.9)

    def values(self, networks, batch, training):
        answers = networks(batch["x"], training=training)[:, 0]
        return {"loss": (answers - batch["y"]) ** 2}


class Light(Plain):
    """Random numbers in the network and in the input, and not much else."""

    def networks(self):
        return keras.Sequential(
            [layers.Input([FEATURES]), layers.Dropout(0.2), layers.Dense(1)]
        )

    def augment(self, batch, seeds):
        return {**batch, "x": batch["x"] + 0.2 * data.uniform(seeds, [FEATURES])}


class Blocks(keras.Model):
    """A subclassed model that keeps its layers in a plain list."""

    def __init__(self, width):
        super().__init__()
        self.blocks = [
            layers.Dense(width, use_bias=False),
            layers.BatchNormalization(momentum=0.9),
            layers.Dropout(0.3),
        ]
        self.last = layers.Dense(2)

    def call(self, x, training=False):
        for block in self.blocks:
            x = block(x, training=training)
        return self.last(x)


@dataclasses.dataclass(frozen=True)
class Rich(task.Task):
    """As much state as one optimizer and one network can have."""

    width: int = 6
    learning_rate: float = 0.1

    best = ("accuracy:max", "loss:min:2")

    def sources(self):
        return examples()

    def networks(self):
        return Blocks(self.width)

    def optimizers(self):
        rate = keras.optimizers.schedules.CosineDecay(self.learning_rate, 20)
        return keras.optimizers.AdamW(
            rate, weight_decay=0.01, use_ema=True, ema_overwrite_frequency=5
        )

    def augment(self, batch, seeds):
        return {**batch, "x": batch["x"] + 0.2 * data.uniform(seeds, [FEATURES])}

    def values(self, networks, batch, training):
        logits = networks(batch["x"], training=training)
        return {
            "loss": keras.losses.sparse_categorical_crossentropy(
                batch["label"], logits, from_logits=True
            ),
            "accuracy": tf.argmax(logits, -1) == batch["label"],
        }


@dataclasses.dataclass(frozen=True)
class Poisoned(Plain):
    """The loss is NaN on the data of some steps, which are counted from 0."""

    first: int = 6
    last: int = 7
    batch_size: int = 8

    def augment(self, batch, seeds):
        step = seeds[:, 1] // self.batch_size
        bad = (step >= self.first) & (step <= self.last)
        return {**batch, "y": tf.where(bad, np.float32("nan"), batch["y"])}


@dataclasses.dataclass(frozen=True)
class Remembering(Plain):
    """Has a state in Python that no checkpoint can hold."""

    def values(self, networks, batch, training):
        values = super().values(networks, batch, training)
        if not training:
            return values
        (noise,) = tf.py_function(lambda: [next(self._numbers)], [], [tf.float32])
        return {"loss": values["loss"] * (1 + noise)}

    def networks(self):
        numbers = map(float, itertools.count())
        object.__setattr__(self, "_numbers", numbers)
        return super().networks()


def calling(cls: type[task.Task], hook: Callable[[int], None], **settings: Any) -> Any:
    """A task like `cls` that calls `hook(n)` inside its n-th training step, from 1.

    It is how a test makes something happen at one very step, as a signal would. Needs
    `allow_inexact`.
    """
    numbers = itertools.count(1)

    def call():
        hook(next(numbers))

    class Calling(cls):
        def values(self, networks, batch, training):
            if training:
                tf.py_function(call, [], [])
            return super().values(networks, batch, training)

    return Calling(**settings)


def stopping(cls: type[task.Task], at: int | None, **settings: Any) -> Any:
    """A task like `cls` and a request that is filled in its step number `at`."""
    stop = preemption.Request()

    def hear(number):
        if number == at:
            stop.hear(signal.SIGTERM)

    return calling(cls, hear, **settings), stop


# Runs.

CHOICES = {
    "task": "tasks:Any",
    "batch_size": 8,
    "report_every_steps": 2,
    "evaluate_every_steps": 3,
    "save_every_steps": 1,
    "keep_recent": 30,
}


def train(
    run_dir: pathlib.Path,
    given: task.Task,
    stop: preemption.Request | None = None,
    **choices: Any,
) -> loop.Outcome:
    """Trains in this process, as the command `train` does."""
    choices = {"best": type(given).best, **CHOICES, **choices}
    hooks = choices.pop("hooks", ())
    names = {field.name for field in dataclasses.fields(StartOptions)}
    start = {name: choices.pop(name) for name in names & choices.keys()}
    return loop.train(
        options.RunOptions(run_dir=str(run_dir), **choices),
        given,
        stop or preemption.Request(),
        start=StartOptions(**start),
        progress="none",
        hooks=hooks,
    )


@contextlib.contextmanager
def logged() -> Iterator[list[str]]:
    """The lines that are logged meanwhile, each with its level before it."""
    lines: list[str] = []

    class Lines(logging.Handler):
        def emit(self, record):
            lines.append(f"{record.levelname} {record.getMessage()}")

    logger, handler = absl_logging.get_absl_logger(), Lines()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def built(given: task.Task, *, seed: int = 0, batch_size: int = 8) -> state.State:
    """The state of a task, and nothing around it."""
    return building.build(given, inputs(given, seed, batch_size).batch, seed=seed)


def inputs(given: task.Task, seed: int = 0, batch_size: int = 8) -> data.Shuffled:
    source = data.split(given.sources(), "train")
    return data.Shuffled(task=given, source=source, batch_size=batch_size, seed=seed)


def draft(current: state.State, step: int, **changes: Any) -> Draft:
    """The state is at `step`; what a manifest says of it before it is saved."""
    current.step.assign(step)
    current.pack()
    fields = {
        "step": step,
        "metrics": {},
        "variables": current.describe(),
        "config_digest": "c0ffee",
        "versions": {"keepstep": "0.1.0"},
    }
    return Draft(**(fields | changes))


def store(run_dir: pathlib.Path, *best: str, **rules: Any) -> Store:
    """The store of a run directory that is made whole."""
    parsed = tuple(map(Best.parse, best))
    found = Store(RunDirectory(run_dir), Rules(best=parsed, **rules))
    found.prepare()
    return found


def ready(given: task.Task) -> task.Task:
    """The task with what it prepares, as a run gives it that."""
    if not preparation.prepares(given):
        return given
    packed = learned_values.packed(given.prepare(given.sources()), "Any")
    found = copy.copy(given)
    object.__setattr__(found, "prepared", learned_values.unpacked(packed))
    return found


# What a run leaves behind.


def manifest(prefix: pathlib.Path) -> dict[str, Any]:
    return json.loads(prefix.with_name(f"{prefix.name}.json").read_text())


def steps(directory: pathlib.Path) -> list[int]:
    """The steps that are committed in `recent`, or in one directory of `best`."""
    names = (path.stem for path in directory.glob("ckpt-*.json"))
    return sorted(int(name.removeprefix("ckpt-")) for name in names)


def tensors(prefix: pathlib.Path) -> dict[str, Any]:
    """Every tensor of a checkpoint as TensorFlow itself reads it."""
    reader = tf.train.load_checkpoint(str(prefix))
    return {
        key: np.asarray(reader.get_tensor(key))
        for key in reader.get_variable_to_shape_map()
    }


def different(one: pathlib.Path, other: pathlib.Path) -> list[str]:
    """The names of the tensors that are not the same, bit for bit, in both."""
    here, there = tensors(one), tensors(other)
    return sorted(
        key
        for key in here.keys() | there.keys()
        if key not in here or key not in there or _bits(here[key]) != _bits(there[key])
    )


def scalars(run_dir: pathlib.Path) -> dict[str, list[tuple[int, Any]]]:
    """What TensorBoard is given, by tag, but for what the clock decides."""
    found: dict[str, list[tuple[int, Any]]] = {}
    for kind in ("train", "eval"):
        events = event_accumulator.EventAccumulator(
            str(run_dir / "summaries" / kind),
            size_guidance={event_accumulator.TENSORS: 0},
            purge_orphaned_data=False,  # that would hide a step that is there twice
        )
        events.Reload()
        for tag in events.Tags()[event_accumulator.TENSORS]:
            if not tag.startswith(("speed/", "checkpoint/", "flags")):
                # Files of one second and one process are not in the order of time.
                found[f"{kind}/{tag}"] = sorted(
                    (event.step, tf.make_ndarray(event.tensor_proto).tolist())
                    for event in events.Tensors(tag)
                )
    return found


def only(directory: pathlib.Path) -> pathlib.Path:
    """The prefix of the one checkpoint there."""
    (step,) = steps(directory)
    return directory / f"ckpt-{step}"


def restored(given: task.Task, prefix: pathlib.Path) -> keras.Model:
    """The model of a checkpoint by TensorFlow and Keras alone."""
    model = given.networks()
    variables = [variable.value for variable in model.variables]
    tf.train.Checkpoint(variables=variables).read(str(prefix)).expect_partial()
    return model


def assert_each_step_once(run_dir: pathlib.Path) -> None:
    for tag, curve in scalars(run_dir).items():
        shown = [step for step, _ in curve]
        assert shown == sorted(set(shown)), tag


def assert_same_checkpoint(one: pathlib.Path, other: pathlib.Path) -> None:
    assert different(one, other) == [], (one, other)
    here, there = manifest(one), manifest(other)
    for entry in ("metrics", "records", "variables", "config_digest"):
        assert here[entry] == there[entry], (entry, one, other)


def assert_same_run(
    straight: pathlib.Path, resumed: pathlib.Path, *, every: bool = True
) -> None:
    """Both ended alike: checkpoints, the best ones, metrics, records and curves.

    Args:
      straight: a run that nothing happened to.
      resumed: a run that something happened to.
      every: compare every recent checkpoint; else the last one.
    """
    recent = steps(straight / "recent")
    if every:
        assert set(recent) <= set(steps(resumed / "recent"))
    for step in recent if every else recent[-1:]:
        name = f"recent/ckpt-{step}"
        assert_same_checkpoint(straight / name, resumed / name)
    homes = [path.name for path in (straight / "best").glob("*")]
    assert sorted(homes) == sorted(path.name for path in (resumed / "best").glob("*"))
    for home in homes:
        best = steps(straight / "best" / home)
        assert steps(resumed / "best" / home) == best
        for step in best:
            name = f"best/{home}/ckpt-{step}"
            assert_same_checkpoint(straight / name, resumed / name)
    assert_each_step_once(resumed)
    assert scalars(resumed) == scalars(straight)


def cut_back(straight: pathlib.Path, target: pathlib.Path, step: int) -> pathlib.Path:
    """What a run that is killed right after the checkpoint of `step` leaves behind.

    The event files are those of the whole run: they were written further.
    """
    shutil.copytree(straight, target)
    for directory in (target / "recent", *(target / "best").glob("*")):
        for later in steps(directory):
            if later > step:
                for path in directory.glob(f"ckpt-{later}.*"):
                    path.unlink()
    body = json.loads((target / "config.json").read_text())
    if body.pop("committed", step) > step:  # then there was none yet
        del body[checked_json.DIGEST]
        checked_json.write(target / "config.json", body)
    return target


def _bits(array: np.ndarray) -> tuple[Any, ...]:
    content = array.tolist() if array.dtype == object else array.tobytes()
    return array.dtype.str, array.shape, content
