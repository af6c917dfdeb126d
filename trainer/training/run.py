"""The parts of a run, put together from its choices and its task.

`loop` tells what they do with each other. The choices are taken apart here, once: each
part gets what concerns it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from trainer import data
from trainer.checkpoint.layout import RunDirectory
from trainer.checkpoint.retention import Best
from trainer.checkpoint.saver import Saver
from trainer.checkpoint.store import Store
from trainer.config import options, run_record
from trainer.config.options import ConfigError, RunOptions
from trainer.config.start import StartOptions
from trainer.data import several
from trainer.data.adapt import settled_batch_size, steps_per_epoch
from trainer.data.inputs import Input
from trainer.model import drawing, measures, parts
from trainer.model.state import State
from trainer.model.steps import EvaluationLoop, TrainLoop
from trainer.reporting.reporter import Reporter
from trainer.task import Task
from trainer.training import facts, preemption, saving
from trainer.training.early_stop import EarlyStop
from trainer.training.listeners import Listeners
from trainer.training.plateau import Plateau
from trainer.training.schedule import Schedule


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """One run, ready to go."""

    directory: RunDirectory
    record: run_record.Record
    schedule: Schedule
    best: tuple[Best, ...]
    early_stop: EarlyStop
    plateau: Plateau
    state: State
    store: Store
    saver: Saver
    inputs: Input
    train_loop: TrainLoop
    evaluation: EvaluationLoop | None
    figures: drawing.Figures
    reporter: Reporter
    listeners: Listeners
    stop: preemption.Request
    inexact: tuple[str, ...] = ()

    @property
    def max_rewinds(self) -> int | None:
        """How often it may go back from a bad loss; None: a bad loss ends it."""
        choices = self.record.choices
        rewinds: int = choices["max_rewinds"]
        return rewinds if choices["on_nonfinite"] == "rewind" else None

    def evaluates(self, step: int) -> bool:
        """Whether an evaluation is due."""
        return self.evaluation is not None and self.schedule.evaluates(step)

    def is_complete(self, step: int) -> bool:
        """Whether everything is done, or nothing got better for long enough."""
        progress = self.state.progress
        if self.evaluates(step) and progress.evaluated != step:
            return False
        return step >= self.schedule.total or self.early_stop.is_due(progress)

    def saves(self, step: int) -> bool:
        """Whether a checkpoint is due: by step, as one of the best, or by the clock."""
        metrics = self.state.progress.metrics_at(step)
        if self.schedule.saves(step) or (metrics and self.saver.is_best(step, metrics)):
            return True
        choices = self.record.choices
        every_secs = choices["save_every_secs"]
        if self.schedule.save and not every_secs:
            return False
        overhead = choices["save_overhead"]
        return self.saver.is_due(every_secs=every_secs, overhead_percent=overhead)


def assemble(
    choices: RunOptions,
    task: Task,
    stop: preemption.Request,
    start: StartOptions,
    progress: str,
    listeners: Listeners,
) -> Run:
    """Builds the data, the state and what works on them.

    What the task prepares is the one thing that is written on the way.

    Raises:
      options.ConfigError: the choices don't fit the run directory or the task.
      data.DataError: the task's data is not what it should be.
      prepared_file.PreparedError: what the task had prepared is lost.
      stream.StreamError: it is a dataset whose position can't be saved.
      task.TaskError: the task doesn't keep its side of the contract.
    """
    directory = RunDirectory(choices.directory())
    sources = parts.seeded_sources(task, choices.seed)
    choices, examples = _sized(choices, sources)
    record = _settled(choices, task, sources, start)
    schedule = _schedule(choices, examples)
    task, record = facts.with_prepared(record, task, sources.given, directory)
    inputs, state, spec = _built(choices, task, sources)
    record = facts.with_stream(record, inputs, allowed=bool(start.allow_change))
    valid = data.split(sources, "valid") if "valid" in sources else None
    evaluation = _evaluation(choices, task, valid, state)
    record = facts.with_batches(record, spec, valid or examples, task)
    best = choices.rules() if evaluation else ()
    reporter = _reporter(choices, directory, schedule, progress, examples)
    store, saver = saving.begun(choices, directory, state, reporter, listeners)
    return Run(
        directory=directory,
        record=record,
        schedule=schedule,
        best=best,
        early_stop=EarlyStop.of(choices, best),
        plateau=Plateau.of(choices, best, state, schedule.evaluate),
        state=state,
        store=store,
        saver=saver,
        inputs=inputs,
        train_loop=TrainLoop(task, state, inputs),
        evaluation=evaluation,
        figures=drawing.of(task, valid, state.networks, choices.eval_batch_size),
        reporter=reporter,
        listeners=listeners,
        stop=stop,
    )


def _sized(choices: RunOptions, sources: Mapping[str, Any]) -> tuple[RunOptions, Any]:
    examples = data.split(sources, "train")
    size = settled_batch_size(examples, choices.batch_size, RunOptions.batch_size)
    return dataclasses.replace(choices, batch_size=size), examples


def _settled(
    choices: RunOptions, task: Task, sources: parts.Sources, start: StartOptions
) -> run_record.Record:
    examples = data.split(sources, "train")
    known = facts.of_data(sources, examples)
    record = run_record.settle(
        choices, task.hyperparameters(), known, allowed=start.allow_change
    )
    return facts.with_recipe(record, sources.given)


def _built(
    choices: RunOptions, task: Task, sources: Mapping[str, Any]
) -> tuple[Input, State, Any]:
    return parts.build(
        task,
        sources,
        batch_size=choices.batch_size,
        seed=choices.seed,
        ema=choices.ema,
    )


def _reporter(
    choices: RunOptions,
    directory: RunDirectory,
    schedule: Schedule,
    progress: str,
    examples: Any,
) -> Reporter:
    return Reporter(
        directory.summaries,
        progress=progress,
        total_steps=schedule.total,
        batch_size=several.rows(examples, choices.batch_size),
    )


def _schedule(choices: RunOptions, examples: Any) -> Schedule:
    if not choices.steps and not choices.epochs:
        raise ConfigError(
            "nothing says how long to train: give --steps=N or --epochs=N."
        )
    epoch = steps_per_epoch(examples, choices.batch_size)
    if epoch is None:
        total, evaluate = choices.steps, choices.evaluate_every_steps
        if not total or not evaluate:
            raise ConfigError(examples.no_epochs)
    else:
        # 2.2 epochs of 25 steps are 55, not the 56 of 55.00000000000001.
        total = choices.steps or math.ceil(round(choices.epochs * epoch, 6))
        evaluate = choices.evaluate_every_steps or math.ceil(epoch)
    report, save = choices.report_every_steps, choices.save_every_steps
    return Schedule(total=total, report=report, evaluate=evaluate, save=save)


def _evaluation(
    choices: RunOptions, task: Task, valid: Any, state: State
) -> EvaluationLoop | None:
    """The evaluation of `valid`, if the task has it; checks the metrics of `--best`."""
    if valid is None:
        return None
    evaluation = EvaluationLoop(
        task,
        state.networks,
        data.ordered(valid, choices.eval_batch_size, task),
        step=state.step,
        metrics=state.metrics,
        allow_inexact=choices.allow_inexact,
    )
    for rule in choices.rules():
        # What `scores` gives is known after an evaluation only.
        if rule.metric not in evaluation.names and not measures.scores(task):
            raise ConfigError(
                f"--best={rule}: the task has no metric {rule.metric!r}."
                f"{options.suggest(rule.metric, evaluation.names)}"
            )
    return evaluation
