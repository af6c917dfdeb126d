"""Where a run begins: at the newest good checkpoint, further back, or at step 0.

Afterwards the state, the checkpoints and the event files all speak of the same step.
"""

from __future__ import annotations

import dataclasses

from absl import logging

from trainer.checkpoint import compatibility, environment, selection
from trainer.checkpoint.manifest import Manifest
from trainer.checkpoint.store import NoUsableCheckpointError
from trainer.config import comparison, run_record
from trainer.config.options import ConfigError
from trainer.config.start import StartOptions
from trainer.data import prepared, stream
from trainer.model import audit, loading
from trainer.model.steps import NonFiniteError
from trainer.reporting import event_rollback, reporter
from trainer.storage import failpoints
from trainer.task import Task
from trainer.training import facts
from trainer.training.run import Run


def begin(run: Run, task: Task, start: StartOptions) -> Run:
    """Audits the state, then restores it or leaves it as it was built.

    Raises:
      audit.IncompleteStateError: no checkpoint would hold all that training changes.
      options.ConfigError: the choices don't fit what is there.
      store.NoUsableCheckpointError: there are checkpoints, all damaged.
      compatibility.IncompatibleCheckpointError: the checkpoint is of another state.
    """
    failpoints.point("start-up")
    run = dataclasses.replace(run, inexact=_audit(run))
    run.store.prepare()
    if not start.checkpoint:
        for entry, _ in run.store.upkeep.catalog.readable[:1]:
            compatibility.check_entry(
                entry, run.state
            )  # it says more than `_with_code`
    run = _with_code(run, start)
    run = _go_back(run, start.checkpoint)
    _check_start(run, start.resume)
    newest = next((mark for _, mark in run.store.upkeep.catalog.readable), None)
    required = start.require_same_machine
    record = facts.check_machine(run.record, newest, required=required)
    found = _restore(run)
    if found is not None and record.committed is None:
        record = dataclasses.replace(record, committed=found.step)
    run = dataclasses.replace(run, record=record)
    run_record.write(run.directory, record)
    total = run.schedule.total
    if found is not None:
        logging.info(
            "resumed %s at step %d of %d", run.directory.root, found.step, total
        )
        return run
    if init_from := run.record.choices["init_from"]:
        _take_weights(run, init_from)
    run.reporter.describe(
        comparison.columns(record.choices),
        run_record.as_flags(record),
        kind=reporter.EVAL if run.evaluation else reporter.TRAIN,
    )
    logging.info("training %s from scratch to step %d", run.directory.root, total)
    return run


def rewind(run: Run, error: NonFiniteError) -> None:
    """Goes back to the newest scheduled checkpoint, and past the data in between.

    All of it follows from the state: a run that is killed here does it again, and one
    that was stopped on the way, which makes a checkpoint more, goes back no less far.

    Raises:
      steps.NonFiniteError: a bad loss ends this run, or there is nothing to go back to.
    """
    rewinds = run.state.progress.rewinds
    if run.max_rewinds is None:
        raise error
    if rewinds >= run.max_rewinds:
        raise NonFiniteError(
            f"{error} It was rewound {rewinds} times already (--max_rewinds)."
        ) from None
    bad = int(run.state.step.numpy())
    skipped = int(run.state.skipped.numpy())
    run.saver.wait()
    run.listeners.commits()
    found = _restore(run, scheduled=True)
    if found is None:
        raise error
    # The checkpoint knows nothing of the rewinds since it was made.
    past = skipped + bad - found.step
    run.inputs.skip(past - int(run.state.skipped.numpy()))
    run.state.skipped.assign(past)
    run.state.progress = run.state.progress.rewound(rewinds + 1)
    run.listeners.begin(found.step, None)
    logging.warning(
        "rewound to step %d, past the data of %d steps (rewind %d of %d): %s",
        found.step,
        bad - found.step,
        rewinds + 1,
        run.max_rewinds,
        error,
    )


def _audit(run: Run) -> tuple[str, ...]:
    """Refuses a task that could not be resumed exactly, unless that is allowed."""
    traced = run.train_loop.traced
    findings = audit.examine(traced, run.state.tree, fresh=run.inputs.rebuilt)
    if isinstance(run.inputs, stream.Stream):
        findings += audit.examine_stream(run.inputs.dataset)
    if isinstance(run.inputs, prepared.Prepared):
        findings += audit.examine_prepared(run.inputs.dataset, traced)
    if run.evaluation is not None:
        findings += audit.examine_evaluated(run.evaluation.batches)
        known = {finding.subject for finding in findings}
        more = audit.examine_evaluation(
            run.evaluation.traced, run.state.tree, metrics=run.evaluation.fresh
        )
        findings += [finding for finding in more if finding.subject not in known]
    if findings and not run.record.choices["allow_inexact"]:
        raise audit.IncompleteStateError(audit.describe(findings))
    for finding in findings:
        logging.warning("a resumed run will not be exact: %s", finding.what)
    return tuple(finding.what for finding in findings)


def _with_code(run: Run, start: StartOptions) -> Run:
    """Compares the code of the task with that of the start before.

    A choice that may differ, or another release of a library, may make it another one.
    """
    marks = [mark for _, mark in run.store.upkeep.catalog.readable]
    now = environment.versions()
    updated = any(
        mark.versions.get(name) != now[name] for mark in marks for name in now
    )
    allowed = bool(start.allow_change) or updated
    record = facts.with_code(
        run.record, run.train_loop, run.inputs, run.state, allowed=allowed
    )
    return dataclasses.replace(run, record=record)


def _go_back(run: Run, asked: str) -> Run:
    """Begins a new lineage at the checkpoint that the user names, if one is named.

    The same command once more doesn't go back again: it resumes.
    """
    lineages = run.record.lineages
    if not asked or (lineages and lineages[-1]["asked"] == asked):
        return run
    directory = run.directory
    entry = selection.select(directory, asked, run.best)
    number = directory.unused_number()
    event_rollback.copy(directory.summaries, directory.abandoned(number))
    run.store.go_back(entry, run.state, number)
    noted = run.record.gone_back(asked, entry.step)
    run_record.write(directory, noted)
    logging.info(
        "gone back to %s; what came later is in %s",
        entry.prefix,
        directory.abandoned(number),
    )
    return dataclasses.replace(run, record=noted)


def _check_start(run: Run, resume: str) -> None:
    """Compares what is there with what the user expects to be there."""
    root, entries = run.directory.root, run.store.upkeep.catalog.entries
    if not entries and run.record.committed is not None:
        raise NoUsableCheckpointError(
            f"{root} has had checkpoints, the first at step {run.record.committed} "
            f"({run.directory.config}), and there is none any more. It is not trained "
            "from scratch unasked: bring them back, name one with --checkpoint=PATH, "
            "delete the directory, or give another --run_dir."
        )
    if resume == "never" and entries:
        raise ConfigError(
            f"{root} has checkpoints already, and --resume=never says not to go "
            "on from them. Give another --run_dir."
        )
    if resume == "require" and not entries:
        raise ConfigError(
            f"{root} has no checkpoint to go on from, and --resume=require asks "
            "for one. Check --run_dir, or leave --resume out to begin."
        )
    if entries and not run.directory.config.exists():
        digests = {e.manifest.config_digest for e in entries if e.manifest}
        if digests and run.record.digest not in digests:
            raise ConfigError(
                f"{root} has checkpoints that were made with other choices, and its "
                "config.json, which says with which, is missing. Bring it back, start "
                "with the same choices, or give another --run_dir."
            )


def _take_weights(run: Run, asked: str) -> None:
    """Begins with the weights of another checkpoint, and says which fit."""
    entry = selection.select(run.directory, asked, ())
    match = loading.load_weights(entry, run.state)
    if not match.taken:
        raise ConfigError(
            f"--init_from={asked}: not one of its weights fits by path and shape. It "
            f"has {', '.join(match.unused[:4])}, ...; expected "
            f"{', '.join(match.fresh[:4])}, ..."
        )
    logging.info(
        "initial weights from %s: %d taken; fresh: %s; not used: %s",
        asked,
        len(match.taken),
        ", ".join(match.fresh) or "none",
        ", ".join(match.unused) or "none",
    )


def _restore(run: Run, *, scheduled: bool = False) -> Manifest | None:
    """Brings the state and the event files back to the newest good checkpoint.

    Args:
      run: where.
      scheduled: only to one that the schedule made; if there is none, nothing changes.
    """
    found = run.store.restore(run.state, scheduled=scheduled)
    if scheduled and found is None:
        return None
    run.reporter.close()
    kept = found.events if found else {}
    for problem in event_rollback.cut(run.directory.summaries, kept):
        logging.warning("a hole in the curves of TensorBoard: %s", problem)
    if found is None:
        return None
    for name, (old, new) in run.plateau.restore(run.state).items():
        logging.warning(
            "the learning rate of %s was %g and is now %g, as the configuration says",
            name,
            old,
            new,
        )
    return found
