"""The parts of a run, put together from its choices and its task.

`loop` tells what they do with each other. Nothing here writes to the run directory.
"""

from __future__ import annotations

import dataclasses
import math
import platform
from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf

import trainer
from trainer import data
from trainer.checkpoint import retention, store, upkeep
from trainer.checkpoint.saver import Saver
from trainer.config import options, run_record
from trainer.data import stream
from trainer.model import prediction, steps
from trainer.model.state import State, build
from trainer.reporting.reporter import Reporter
from trainer.task import Task
from trainer.training import preemption


@dataclasses.dataclass(frozen=True)
class Schedule:
    """When what is due: at multiples of these, counted in steps from the very start.

    Attributes:
      total: the last step, where everything is due.
      report: for the training scalars.
      evaluate: for evaluations.
      save: for checkpoints; 0: the clock says when.
    """

    total: int
    report: int
    evaluate: int
    save: int

    def due(self, step: int, every: int) -> bool:
        """Whether what happens `every` so many steps happens at this one."""
        is_multiple = retention.is_multiple(step, every)
        return step > 0 and (step >= self.total or is_multiple)

    def next_border(self, step: int) -> int:
        """The next step at which anything is due."""
        everies = [every for every in (self.report, self.evaluate, self.save) if every]
        return min(self.total, *((step // every + 1) * every for every in everies))


@dataclasses.dataclass(frozen=True)
class Run:
    """One run, ready to go."""

    choices: options.Config
    record: run_record.Record
    schedule: Schedule
    best: tuple[retention.Best, ...]
    state: State
    keeper: store.Keeper
    saver: Saver
    inputs: data.Shuffled | stream.Stream
    train_loop: steps.TrainLoop
    evaluation: steps.EvaluationLoop | None
    figures: Callable[[], Mapping[str, Any]]
    reporter: Reporter
    stop: preemption.Request
    inexact: tuple[str, ...] = ()


def assemble(choices: options.Config, task: Task, stop: preemption.Request) -> Run:
    """Builds the data, the state and what works on them.

    Raises:
      options.ConfigError: the choices don't fit the run directory or the task.
      data.DataError: the task's data is not what it should be.
      stream.StreamError: it is a dataset whose position can't be saved.
      task.TaskError: the task doesn't keep its side of the contract.
    """
    sources = seeded_sources(choices, task)
    examples = data.split(sources, "train")
    noted = run_record.settle(choices, task.hyperparameters(), _facts(examples))
    schedule = _schedule(choices, examples)
    inputs, current = training(choices, task, sources)
    if isinstance(inputs, stream.Stream):
        inputs.check()
    evaluation = _evaluation(choices, task, sources, current)
    best = choices.rules() if evaluation else ()
    if not best and (choices.early_stop_patience or choices.early_stop_metric):
        raise options.ConfigError(
            "early stopping needs a metric that gets better: give --best=name:min|max, "
            "and a split 'valid' to evaluate it on."
        )
    keeper = store.Keeper(upkeep.Upkeep.of(choices))
    return Run(
        choices=choices,
        record=noted,
        schedule=schedule,
        best=best,
        state=current,
        keeper=keeper,
        saver=Saver(keeper, current),
        inputs=inputs,
        train_loop=steps.TrainLoop(task, current, inputs),
        evaluation=evaluation,
        figures=_figures(choices, task, sources, current),
        reporter=Reporter(
            choices.directory() / "summaries",
            progress=choices.progress,
            total_steps=schedule.total,
            batch_size=choices.batch_size,
        ),
        stop=stop,
    )


def seeded_sources(choices: options.Config, task: Task) -> Mapping[str, Any]:
    """The task's data; what it draws at random without a seed hangs on `--seed`."""
    keras.utils.set_random_seed(choices.seed)
    return task.sources()


def training(
    choices: options.Config, task: Task, sources: Mapping[str, Any]
) -> tuple[data.Shuffled | stream.Stream, State]:
    """The batches that training sees, and the state that it moves.

    Raises:
      data.DataError: there is no split `train`.
    """
    examples = data.split(sources, "train")
    iterator = None
    inputs: data.Shuffled | stream.Stream
    if isinstance(examples, tf.data.Dataset):
        inputs = stream.Stream(
            task=task,
            dataset=examples,
            batch_size=choices.batch_size,
            seed=choices.seed,
        )
        iterator = inputs.iterator
    else:
        inputs = data.Shuffled(
            task=task,
            source=examples,
            batch_size=choices.batch_size,
            seed=choices.seed,
        )
    current = build(
        task, inputs.batch, seed=choices.seed, iterator=iterator, ema=choices.ema
    )
    return inputs, current


def _facts(examples: Any) -> dict[str, Any]:
    """What the numbers depend on besides the choices: the training data's outline."""
    if isinstance(examples, tf.data.Dataset):
        return {"train_data": stream.describe(examples)}
    return {"train_data": f"{len(examples)} examples"}


def _schedule(choices: options.Config, examples: Any) -> Schedule:
    if not choices.steps and not choices.epochs:
        raise options.ConfigError(
            "nothing says how long to train: give --steps=N or --epochs=N."
        )
    if isinstance(examples, tf.data.Dataset):
        if not choices.steps or not choices.evaluate_every_steps:
            raise options.ConfigError(
                "the training data is a stream, which has no epochs: give --steps=N "
                "and --evaluate_every_steps=N."
            )
        total, evaluate = choices.steps, choices.evaluate_every_steps
    else:
        epoch = len(examples) / choices.batch_size
        # 2.2 epochs of 25 steps are 55, not the 56 of 55.00000000000001.
        total = choices.steps or math.ceil(round(choices.epochs * epoch, 6))
        evaluate = choices.evaluate_every_steps or math.ceil(epoch)
    return Schedule(
        total=total,
        report=choices.report_every_steps,
        evaluate=evaluate,
        save=choices.save_every_steps,
    )


def _evaluation(
    choices: options.Config,
    task: Task,
    sources: Mapping[str, Any],
    current: State,
) -> steps.EvaluationLoop | None:
    """The evaluation of `valid`, if the task has it; checks the metrics of `--best`."""
    if "valid" not in sources:
        return None
    valid = data.ordered(data.split(sources, "valid"), choices.eval_batch_size)
    evaluation = steps.EvaluationLoop(task, current.networks, valid)
    for rule in choices.rules():
        if rule.metric not in evaluation.names:
            raise options.ConfigError(
                f"--best={rule}: the task has no metric {rule.metric!r}."
                f"{options.suggest(rule.metric, evaluation.names)}"
            )
    return evaluation


def _figures(
    choices: options.Config,
    task: Task,
    sources: Mapping[str, Any],
    current: State,
) -> Callable[[], Mapping[str, Any]]:
    """Draws the task's figures of the networks as they are, if it has any."""
    if "valid" not in sources or type(task).figures is Task.figures:
        return dict
    valid = data.ordered(data.split(sources, "valid"), choices.eval_batch_size)
    predictor = prediction.Predictor(task, current.networks, valid.element_spec[0])

    def draw() -> Mapping[str, Any]:
        examples, predicted = zip(*predictor.run(valid), strict=True)
        return task.figures(prediction.joined(examples), prediction.joined(predicted))

    return draw


def versions() -> dict[str, str]:
    """Of what makes the numbers."""
    return {
        "keepstep": trainer.__version__,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "python": platform.python_version(),
    }
