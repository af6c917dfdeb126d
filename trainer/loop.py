"""The story of a run. Read this file first.

    outcome = loop.train(choices, task)

Build the state, restore the newest good checkpoint, then: train to the next border,
report, evaluate, save; until the run is complete or asked to stop. A border is a step
where something is due. All of that is absolute in the step, and what was done at a
border is part of the state, so a resumed run does exactly what is left.
"""

from __future__ import annotations

import dataclasses
import time

import tensorflow as tf
from absl import logging

from trainer import (
    catalog,
    checkpoints,
    config,
    data,
    events,
    preemption,
    record,
    reporting,
    retention,
    state,
    steps,
    storage,
)
from trainer import task as contract

# A stop request waits for one chunk of steps.
_CHUNK_SECS = 0.5


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
      step: where it is now.
      total_steps: where it ends.
      stopped_by: the signal that stopped it, or None if it is complete.
      trained_steps: by this very call.
    """

    step: int
    total_steps: int
    stopped_by: str | None
    trained_steps: int


@dataclasses.dataclass(frozen=True)
class _Run:
    """The parts of a run, for the functions below."""

    choices: config.Config
    record: record.Record
    best: tuple[retention.Best, ...]
    total_steps: int
    evaluate_every: int
    save_every: int
    state: state.State
    keeper: checkpoints.Keeper
    train_loop: steps.TrainLoop
    evaluation: steps.EvaluationLoop | None
    reporter: reporting.Reporter
    stop: preemption.Request


def train(choices: config.Config, task: contract.Task) -> Outcome:
    """Trains to the end, or goes on to it from the newest good checkpoint.

    Raises:
      config.ConfigError: the choices don't fit the run directory or the task.
      storage.LockedError: another process trains there.
      checkpoints.NoUsableCheckpointError: there are checkpoints, all damaged.
      state.IncompatibleCheckpointError: the checkpoint is of another state.
      steps.NonFiniteError: a loss became NaN or infinite.
    """
    directory = choices.directory()
    storage.make_directory(directory)
    with storage.lock(directory / "run.lock"), preemption.listening() as stop:
        noted = record.settle(choices, task.hyperparameters())
        if choices.deterministic:
            tf.config.experimental.enable_op_determinism()
        run = _assemble(choices, task, noted, stop)
        with run.reporter:
            _resume(run, task)
            return _train(run)


def _assemble(
    choices: config.Config,
    task: contract.Task,
    noted: record.Record,
    stop: preemption.Request,
) -> _Run:
    sources = task.sources()
    inputs = data.Shuffled(
        task=task,
        source=data.split(sources, "train"),
        batch_size=choices.batch_size,
        seed=choices.seed,
    )
    total_steps = choices.steps or inputs.steps(choices.epochs)
    if not total_steps:
        raise config.ConfigError(
            "nothing says how long to train: give --steps=N or --epochs=N."
        )
    evaluate_every = choices.evaluate_every_steps or inputs.steps(epochs=1)
    current = state.build(task, inputs.batch, seed=choices.seed)
    evaluation = None
    best: tuple[retention.Best, ...] = ()
    if "valid" in sources:
        valid = data.Ordered(
            source=data.split(sources, "valid"), batch_size=choices.eval_batch_size
        )
        evaluation = steps.EvaluationLoop(task, current.networks, valid)
        best = tuple(map(retention.Best.parse, choices.best))
        for rule in best:
            if rule.metric not in evaluation.names:
                raise config.ConfigError(
                    f"--best={rule}: the task has no metric {rule.metric!r}."
                    f"{config.suggest(rule.metric, evaluation.names)}"
                )
    directory = choices.directory()
    return _Run(
        choices=choices,
        record=noted,
        best=best,
        total_steps=total_steps,
        evaluate_every=evaluate_every,
        save_every=choices.save_every_steps or evaluate_every,
        state=current,
        keeper=checkpoints.Keeper(
            directory, keep_recent=choices.keep_recent, best=best
        ),
        train_loop=steps.TrainLoop(task, current, inputs),
        evaluation=evaluation,
        reporter=reporting.Reporter(
            directory / "summaries",
            progress=choices.progress,
            total_steps=total_steps,
            batch_size=choices.batch_size,
        ),
        stop=stop,
    )


def _resume(run: _Run, task: contract.Task) -> None:
    """Restores the newest good checkpoint, or begins at step 0."""
    directory, resume = run.choices.directory(), run.choices.resume
    exists = bool(catalog.scan(directory))
    if resume == "never" and exists:
        raise config.ConfigError(
            f"{directory} has checkpoints already, and --resume=never says not to go "
            "on from them. Give another --run_dir."
        )
    if resume == "require" and not exists:
        raise config.ConfigError(
            f"{directory} has no checkpoint to go on from, and --resume=require asks "
            "for one. Check --run_dir, or leave --resume out to begin."
        )
    run.keeper.prepare()
    found = run.keeper.restore(run.state)
    events.cut(directory / "summaries", found.events if found else {})
    record.write(directory, run.record)
    if found is None:
        run.reporter.describe(task.hyperparameters(), record.as_flags(run.record))
        logging.info("training %s from scratch to step %d", directory, run.total_steps)
        return
    logging.info("resumed %s at step %d of %d", directory, found.step, run.total_steps)
    for name, (old, new) in run.state.apply_learning_rates().items():
        logging.warning(
            "the learning rate of %s was %g and is now %g, as the configuration says",
            name,
            old,
            new,
        )


def _train(run: _Run) -> Outcome:
    first = step = int(run.state.step.numpy())
    unsaved = False
    # The first chunk is one step, which traces the graph.
    saved_at, chunk = time.monotonic(), 1
    run.reporter.begin(step)
    while True:
        unsaved |= _report(run, step)
        unsaved |= _evaluate(run, step)
        if unsaved and (run.stop() or _save_is_due(run, step, saved_at)):
            # The state moves only in `run` below, so a save here and a save at the top
            # of the next step describe the same position.
            _save(run, step)
            saved_at, unsaved = time.monotonic(), False
        if run.stop() or step >= run.total_steps:
            return Outcome(step, run.total_steps, run.stop.signal, step - first)
        count = min(chunk, _next_border(run, step) - step)
        began = time.monotonic()
        run.train_loop.run(count)
        chunk = _adapted(chunk, count, time.monotonic() - began)
        step, unsaved = step + count, True
        if step == first + 1:
            run.reporter.restart_clock(step)
        run.reporter.advance(step)


def _report(run: _Run, step: int) -> bool:
    """Writes the training scalars if they are due; says whether it did."""
    due = _due(step, run.choices.report_every_steps, run.total_steps)
    if not due or run.state.progress.get("reported") == step:
        return False
    means = run.train_loop.take_means()
    run.reporter.train(step, means, run.state.current_learning_rates())
    run.state.progress["reported"] = step
    return True


def _evaluate(run: _Run, step: int) -> bool:
    """Evaluates if it is due; says whether it did, in full."""
    due = _due(step, run.evaluate_every, run.total_steps)
    progress = run.state.progress
    if run.evaluation is None or not due or progress.get("evaluated") == step:
        return False
    metrics = run.evaluation.run(run.stop)
    if metrics is None:
        return False  # asked to stop: the next start evaluates here
    records = dict(progress.get("records", {}))
    for rule in run.best:
        value, record = metrics[rule.metric], records.get(rule.metric)
        if rule.improves(value, record and record["value"]):
            records[rule.metric] = {"step": step, "value": value}
    progress.update(evaluated=step, metrics=metrics, records=records)
    run.reporter.evaluation(step, metrics, records)
    return True


def _save_is_due(run: _Run, step: int, saved_at: float) -> bool:
    """By the schedule, by the clock, or because this is one of the best."""
    secs = run.choices.save_every_secs
    return (
        _due(step, run.save_every, run.total_steps)
        or run.keeper.is_best(step, _metrics_at(run, step))
        or bool(secs and time.monotonic() - saved_at >= secs)
    )


def _save(run: _Run, step: int) -> None:
    run.reporter.flush()
    run.keeper.save(
        run.state,
        metrics=_metrics_at(run, step),
        config_digest=run.record.digest,
        events=events.sizes(run.choices.directory() / "summaries"),
    )
    run.reporter.restart_clock(step)


def _metrics_at(run: _Run, step: int) -> dict[str, float]:
    """Of the evaluation at this very step, if there was one."""
    progress = run.state.progress
    evaluated = progress.get("evaluated") == step
    return dict(progress["metrics"]) if evaluated else {}


def _due(step: int, every: int, total_steps: int) -> bool:
    return step > 0 and (step % every == 0 or step >= total_steps)


def _next_border(run: _Run, step: int) -> int:
    """The next step at which something is due."""
    everies = (run.choices.report_every_steps, run.evaluate_every, run.save_every)
    return min(run.total_steps, *((step // every + 1) * every for every in everies))


def _adapted(chunk: int, count: int, secs: float) -> int:
    """The next chunk: about half a second, found by doubling."""
    if secs > _CHUNK_SECS:
        return max(1, count // 2)
    return chunk * 2 if secs < _CHUNK_SECS / 2 and count == chunk else chunk
