"""The story of a run. Read this file first.

    >>> from line import Line
    >>> from trainer.config import options
    >>> from trainer.training import loop, preemption
    >>> choices = options.RunOptions(task="line:Line", run_dir="runs/mine", steps=5)
    >>> loop.train(choices, Line(), preemption.Request(), progress="none").step
    5

Put the parts together, restore the newest good checkpoint, then: train to the next
border, report, evaluate, save; until the run is complete or asked to stop. A border is
a step where something is due. All of that is absolute in the step, and what was done at
a border is part of the state, so a resumed run does exactly what is left.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from trainer.checkpoint import environment, locks
from trainer.checkpoint.best import records_after
from trainer.checkpoint.layout import RunDirectory
from trainer.checkpoint.manifest import Draft
from trainer.config.options import RunOptions
from trainer.config.start import StartOptions
from trainer.model.steps import NonFiniteError
from trainer.reporting import event_rollback
from trainer.storage import failpoints, files
from trainer.task import Task
from trainer.training import preemption, resume
from trainer.training.listeners import Listeners
from trainer.training.run import Run, assemble
from trainer.training.schedule import Pace


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
      step: where it is now.
      total_steps: where it ends.
      trained_steps: by this very call.
      stopped_by: the signal that stopped it, or None if it is complete.
      stopped_early: whether it is complete because nothing got better any more.
      inexact: why it could not be resumed exactly, if that was allowed.
    """

    step: int
    total_steps: int
    trained_steps: int
    stopped_by: str | None
    stopped_early: bool
    inexact: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """For the process: 0 if complete; 75 if the same command is to be run again."""
        return 75 if self.stopped_by else 0


def train(
    choices: RunOptions,
    task: Task,
    stop: preemption.Request,
    *,
    start: StartOptions = StartOptions(),  # noqa: B008  it is frozen
    progress: str = "auto",
    hooks: Sequence[Any] = (),
) -> Outcome:
    """Trains to the end, or goes on to it from the newest good checkpoint.

    Args:
      choices: of the run.
      task: that is learned.
      stop: asks it to stop.
      start: how it begins, if it is not new.
      progress: `bar`, `lines`, `none`; `auto`: a bar on a terminal, else lines.
      hooks: listen to it, see `reporting.hook`.

    Raises:
      options.ConfigError: the choices don't fit the run directory or the task.
      locks.LockedError: another process trains there.
      audit.IncompleteStateError: no checkpoint would hold all that training changes.
      store.NoUsableCheckpointError: there are checkpoints, all damaged.
      store.SaveError: a checkpoint could not be written.
      compatibility.IncompatibleCheckpointError: the checkpoint is of another state.
      steps.NonFiniteError: a loss became NaN or infinite.
      preemption.Interrupted: asked to stop before there was anything to save.
    """
    directory = RunDirectory(choices.directory())
    files.make_directory(directory.root)
    with locks.lock(directory.root, directory.lock):
        with stop.interrupting():
            if choices.deterministic:
                tf.config.experimental.enable_op_determinism()
            told = Listeners(hooks, directory.root)
            ready = assemble(choices, task, stop, start, progress, told)
            ready = resume.begin(ready, task, start)
        outcome = None
        try:
            with contextlib.closing(ready.inputs), ready.reporter, ready.saver:
                outcome = _train(ready)
        finally:
            told.end(outcome)
        return outcome


def _train(run: Run) -> Outcome:
    first = step = int(run.state.step.numpy())
    pace, unsaved = Pace(), False
    run.saver.begin(step)
    run.reporter.begin(step)
    run.listeners.begin(step, run.store.upkeep.catalog)
    while True:
        stopping = run.stop()  # read once a turn: what follows agrees on it
        if run.schedule.reports(step) and run.state.progress.reported != step:
            _report(run, step)
            unsaved = True
        if run.evaluates(step) and run.state.progress.evaluated != step:
            if not stopping and _evaluate(run, step):
                unsaved = True
            else:
                stopping = True  # asked to stop: the next start evaluates here
        complete = run.is_complete(step)
        if cost := run.saver.collect():
            run.reporter.saved(cost.step, cost.scalars())
        run.listeners.commits()
        ending = stopping or complete
        if run.saver.failed or (unsaved and (ending or run.saves(step))):
            # The state moves only in `_advance` below, so a save here and a save at
            # the top of the next step describe the same position.
            run.saver.save(_draft(run, step))
            unsaved = False
        if ending:
            _finish(run, step)
            return _outcome(run, first, step, stopped=not complete)
        count = pace.count(run.schedule.next_border(step) - step)
        began = time.monotonic()
        step, unsaved = _advance(run, count), True
        pace.took(count, time.monotonic() - began)
        if step == first + 1:
            run.reporter.restart_clock(step)


def _report(run: Run, step: int) -> None:
    """Writes the means of the training values since the last report."""
    means = run.train_loop.take_means()
    now = run.state.current_learning_rates() | run.train_loop.take_norms()
    run.listeners.report(step, run.reporter.train(step, means, now))
    run.state.progress = run.state.progress.reported_at(step)


def _evaluate(run: Run, step: int) -> bool:
    """Evaluates and ranks; False, with nothing changed, if asked to stop meanwhile."""
    if run.evaluation is None:
        return True
    with run.state.averages.applied():
        metrics = run.evaluation.run(run.stop)
        if metrics is None:
            return False
        found, pending = run.store.upkeep.catalog, run.saver.pending
        records = records_after(found, run.best, step, metrics, pending)
        if run.figures.due(any(one["step"] == step for one in records.values())):
            run.reporter.figures(step, run.figures.of(metrics))
    progress = run.state.progress.evaluated_at(step, metrics, records)
    run.state.progress = run.early_stop.count(progress, step)
    run.plateau.count(run.state, step)
    run.reporter.evaluation(step, metrics, records)
    run.listeners.evaluation(step, metrics)
    return True


def _advance(run: Run, count: int) -> int:
    """Trains `count` steps; from a bad one it rewinds, where that is wanted."""
    failpoints.point("training")
    try:
        run.train_loop.run(count)
    except NonFiniteError as error:
        resume.rewind(run, error)
    step = int(run.state.step.numpy())
    run.reporter.advance(step)
    return step


def _finish(run: Run, step: int) -> None:
    """Waits for the last save; the run has not ended well without it."""
    if cost := run.saver.finish(lambda: _draft(run, step)):
        run.reporter.saved(cost.step, cost.scalars())


def _draft(run: Run, step: int) -> Draft:
    """What the manifest of this step says besides the files."""
    lineages = run.record.lineages
    return Draft(
        step=step,
        metrics=run.state.progress.metrics_at(step),
        variables=run.state.describe(),
        records=run.state.progress.records,
        config_digest=run.record.digest,
        versions=environment.versions(),
        machine=environment.machine(),
        events=event_rollback.sizes(run.directory.summaries),
        lineage=len(lineages),
        parent=lineages[-1]["step"] if lineages else None,
        inexact=run.inexact,
    )


def _outcome(run: Run, first: int, step: int, *, stopped: bool) -> Outcome:
    return Outcome(
        step=step,
        total_steps=run.schedule.total,
        trained_steps=max(0, step - first),
        stopped_by=run.stop.signal if stopped else None,
        stopped_early=not stopped and step < run.schedule.total,
        inexact=run.inexact,
    )
