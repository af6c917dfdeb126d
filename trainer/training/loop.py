"""The story of a run. Read this file first.

    outcome = loop.train(choices, task, stop)

Put the parts together, restore the newest good checkpoint, then: train to the next
border, report, evaluate, save; until the run is complete or asked to stop. A border is
a step where something is due. All of that is absolute in the step, and what was done at
a border is part of the state, so a resumed run does exactly what is left.
"""

from __future__ import annotations

import dataclasses
import functools
import time

import tensorflow as tf
from absl import logging

from trainer.checkpoint import manifest, store
from trainer.config import options
from trainer.model import steps
from trainer.reporting import event_rollback
from trainer.storage import failpoints, files
from trainer.task import Task
from trainer.training import preemption, resume
from trainer.training.progress import count_stale, judge
from trainer.training.run import Run, assemble, versions

# A stop request waits for one chunk of steps.
_CHUNK_SECS = 0.5
_HIGH_OVERHEAD_PERCENT = 3.0


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


def train(choices: options.Config, task: Task, stop: preemption.Request) -> Outcome:
    """Trains to the end, or goes on to it from the newest good checkpoint.

    Raises:
      options.ConfigError: the choices don't fit the run directory or the task.
      files.LockedError: another process trains there.
      audit.IncompleteStateError: no checkpoint would hold all that training changes.
      store.NoUsableCheckpointError: there are checkpoints, all damaged.
      store.SaveError: a checkpoint could not be written.
      compatibility.IncompatibleCheckpointError: the checkpoint is of another state.
      steps.NonFiniteError: a loss became NaN or infinite.
      preemption.Interrupted: asked to stop before there was anything to save.
    """
    directory = choices.directory()
    files.make_directory(directory)
    with files.lock(directory / "run.lock"):
        with stop.interrupting():
            if choices.deterministic:
                tf.config.experimental.enable_op_determinism()
            run = assemble(choices, task, stop)
            run = resume.begin(run, task)
        with run.reporter, run.saver:
            return _train(run)


def _train(run: Run) -> Outcome:
    first = step = int(run.state.step.numpy())
    unsaved = False
    chunk = 1  # the first one shows how long a step takes
    run.saver.begin(step)
    run.reporter.begin(step)
    while True:
        unsaved |= _report(run, step)
        unsaved |= _evaluate(run, step)
        again = _look_after_save(run)
        if again or (unsaved and (run.stop() or _save_is_due(run, step))):
            # The state moves only in `_advance` below, so a save here and a save at
            # the top of the next step describe the same position.
            _save(run, step)
            unsaved = False
        if run.stop() or _is_complete(run, step):
            _finish_saving(run, step)
            return Outcome(
                step=step,
                total_steps=run.schedule.total,
                trained_steps=max(0, step - first),
                stopped_by=run.stop.signal,
                stopped_early=_is_complete(run, step) and step < run.schedule.total,
                inexact=run.inexact,
            )
        count = min(chunk, run.schedule.next_border(step) - step)
        began = time.monotonic()
        step, unsaved = _advance(run, count), True
        chunk = _adapted(chunk, count, time.monotonic() - began)
        if step == first + 1:
            run.reporter.restart_clock(step)


def _advance(run: Run, count: int) -> int:
    """Trains `count` steps; from a bad one it rewinds, where that is wanted."""
    failpoints.point("training")
    try:
        run.train_loop.run(count)
    except steps.NonFiniteError as error:
        rewinds = run.state.progress.get("rewinds", 0)
        if run.choices.on_nonfinite == "halt":
            raise
        if rewinds >= run.choices.max_rewinds:
            raise steps.NonFiniteError(
                f"{error} It was rewound {rewinds} times already (--max_rewinds)."
            ) from None
        _rewind(run, error)
    step = int(run.state.step.numpy())
    run.reporter.advance(step)
    return step


def _rewind(run: Run, error: steps.NonFiniteError) -> None:
    """Goes back to the newest scheduled checkpoint, and past the data in between.

    All of it follows from the state: a run that is killed here does it again, and one
    that was stopped on the way, which makes a checkpoint more, goes back no less far.
    """
    bad = int(run.state.step.numpy())
    skipped = int(run.state.skipped.numpy())
    rewinds = run.state.progress.get("rewinds", 0) + 1
    try:
        run.saver.wait()
    except store.SaveError as failed:
        _note_failure(run, failed)
    found = resume.restore(run, scheduled=True)
    if found is None:
        raise error
    # The checkpoint knows nothing of the rewinds since it was made.
    past = skipped + bad - found.step
    run.inputs.skip(past - int(run.state.skipped.numpy()))
    run.state.skipped.assign(past)
    run.state.progress["rewinds"] = rewinds
    logging.warning(
        "rewound to step %d, past the data of %d steps (rewind %d of %d): %s",
        found.step,
        bad - found.step,
        rewinds,
        run.choices.max_rewinds,
        error,
    )


def _report(run: Run, step: int) -> bool:
    """Writes the training scalars if they are due; says whether it did."""
    due = run.schedule.due(step, run.schedule.report)
    if not due or run.state.progress.get("reported") == step:
        return False
    means = run.train_loop.take_means()
    run.reporter.train(step, means, run.state.current_learning_rates())
    run.state.progress["reported"] = step
    return True


def _evaluate(run: Run, step: int) -> bool:
    """Evaluates if it is due; says whether it did, in full."""
    due = run.schedule.due(step, run.schedule.evaluate)
    progress = run.state.progress
    if run.evaluation is None or not due or progress.get("evaluated") == step:
        return False
    with run.state.averages.applied():
        metrics = run.evaluation.run(run.stop)
        if metrics is None:
            return False  # asked to stop: the next start evaluates here
        best = judge(progress.get("records", {}), run.best, step, metrics)
        if any(record["step"] == step for record in best.values()):
            run.reporter.figures(step, run.figures())
    progress.update(evaluated=step, metrics=metrics, records=best)
    _count_stale(run, step, metrics)
    run.reporter.evaluation(step, metrics, best)
    return True


def _count_stale(run: Run, step: int, metrics: dict[str, float]) -> None:
    """Counts on for early stopping, by the metric that is asked for."""
    wanted = run.choices.early_stop_metric
    rule = next((r for r in run.best if wanted in ("", r.metric)), None)
    if rule is None:
        return
    run.state.progress["patience"] = count_stale(
        run.state.progress.get("patience", {}),
        rule,
        step,
        metrics,
        min_delta=run.choices.early_stop_min_delta,
    )


def _is_complete(run: Run, step: int) -> bool:
    """At the last step, or when nothing got better for long enough."""
    patience = run.choices.early_stop_patience
    stale = run.state.progress.get("patience", {}).get("stale", 0)
    return step >= run.schedule.total or (0 < patience <= stale)


def _save_is_due(run: Run, step: int) -> bool:
    """By the schedule, by the clock, or because this is one of the best."""
    metrics, choices = _metrics_at(run, step), run.choices
    if run.schedule.due(step, run.schedule.save) or _is_complete(run, step):
        return True
    if metrics and run.saver.is_best(step, metrics):
        return True
    if choices.save_every_steps and not choices.save_every_secs:
        return False
    return run.saver.is_due(
        every_secs=choices.save_every_secs, overhead_percent=choices.save_overhead
    )


def _save(run: Run, step: int) -> None:
    """Has the state saved; waits for the save before, if that is still going on."""
    try:
        run.reporter.flush()
        begin = functools.partial(run.saver.save, _draft(run, step))
    except OSError as error:
        problem = f"the scalars up to step {step} could not be written: {error}."
        begin = functools.partial(run.saver.fail, store.SaveError(problem))
    try:
        begin()
    except store.SaveError as error:  # of the save before; nothing was begun
        _note_failure(run, error)
        begin()


def _draft(run: Run, step: int) -> manifest.Manifest:
    """What the manifest of this step says, but for the files."""
    return manifest.Manifest(
        step=step,
        metrics=_metrics_at(run, step),
        files={},
        variables=run.state.describe(),
        records=run.state.progress.get("records", {}),
        config_digest=run.record.digest,
        events=event_rollback.sizes(run.choices.directory() / "summaries"),
        lineage=len(run.record.lineages),
        parent=run.record.lineages[-1]["step"] if run.record.lineages else None,
        inexact=run.inexact,
        created=round(time.time(), 3),
        versions=versions(),
    )


def _look_after_save(run: Run, *, wait: bool = False) -> bool:
    """Tells what the last save cost, once it is done, or that it failed.

    Returns:
      Whether to save once more at once: after a first failure.

    Raises:
      store.SaveError: it failed twice in a row, and that is to stop the run.
    """
    try:
        if wait:
            run.saver.wait()
        cost = run.saver.finished()
    except store.SaveError as error:
        return _note_failure(run, error)
    if cost is not None:
        run.reporter.saved(cost.step, cost.scalars())
        if run.saver.overhead_percent > _HIGH_OVERHEAD_PERCENT:
            logging.log_first_n(
                logging.WARNING,
                "saving takes %.1f %% of the time: save less often, or leave it to "
                "--save_overhead (--save_every_steps=0 --save_every_secs=0)",
                1,
                run.saver.overhead_percent,
            )
    return False


def _note_failure(run: Run, error: store.SaveError) -> bool:
    """Raises if this is the end of the run; says whether to try again at once."""
    first = run.saver.failures == 1
    if not first and run.choices.on_save_error == "stop":
        raise error
    what = "Trying again." if first else "Training goes on (--on_save_error)."
    logging.error("%s %s", error, what)
    return first


def _finish_saving(run: Run, step: int) -> None:
    """Waits for the last save; the run has not ended well without it."""
    while _look_after_save(run, wait=True):
        _save(run, step)
    if run.saver.failures:
        raise store.SaveError(
            f"the state of step {step} could not be saved. Every earlier checkpoint is "
            "as it was: make room, and run the same command again."
        )


def _metrics_at(run: Run, step: int) -> dict[str, float]:
    """Of the evaluation at this very step, if there was one."""
    progress = run.state.progress
    return dict(progress["metrics"]) if progress.get("evaluated") == step else {}


def _adapted(chunk: int, count: int, secs: float) -> int:
    """The next chunk: about half a second, found by doubling."""
    if secs > _CHUNK_SECS:
        return max(1, count // 2)
    return chunk * 2 if secs < _CHUNK_SECS / 2 and count == chunk else chunk
