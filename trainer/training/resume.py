"""Where a run begins: at the newest good checkpoint, further back, or at step 0.

    run = resume.begin(run, task)

Afterwards the state, the checkpoints and the event files all speak of the same step.
"""

from __future__ import annotations

import dataclasses

from absl import logging

from trainer.checkpoint import catalog, manifest, store
from trainer.config import options, run_record
from trainer.data import stream
from trainer.model import audit
from trainer.reporting import event_rollback, reporter
from trainer.storage import failpoints
from trainer.task import Task
from trainer.training.run import Run


def begin(run: Run, task: Task) -> Run:
    """Audits the state, then restores it or leaves it as it was built.

    Raises:
      audit.IncompleteStateError: no checkpoint would hold all that training changes.
      options.ConfigError: the choices don't fit what is there.
      store.NoUsableCheckpointError: there are checkpoints, all damaged.
      compatibility.IncompatibleCheckpointError: the checkpoint is of another state.
    """
    failpoints.point("start-up")
    run = dataclasses.replace(run, inexact=_audit(run))
    run.keeper.upkeep.prepare()
    run = _go_back(run)
    _resume(run, task)
    return run


def _audit(run: Run) -> tuple[str, ...]:
    """Refuses a task that could not be resumed exactly, unless that is allowed."""
    findings = audit.examine(run.train_loop.traced, run.state.tree)
    if isinstance(run.inputs, stream.Stream):
        findings += audit.examine_stream(run.inputs.dataset)
    if run.evaluation is not None:
        findings += audit.examine_evaluated(run.evaluation.batches)
        known = {finding.subject for finding in findings}
        more = audit.examine(
            run.evaluation.traced, run.state.tree, place="the evaluation"
        )
        findings += [finding for finding in more if finding.subject not in known]
    if findings and not run.choices.allow_inexact:
        raise audit.IncompleteStateError(audit.describe(findings))
    for finding in findings:
        logging.warning("a resumed run will not be exact: %s", finding.what)
    return tuple(finding.what for finding in findings)


def _go_back(run: Run) -> Run:
    """Begins a new lineage at the checkpoint that the user names, if one is named.

    The same command once more doesn't go back again: it resumes.
    """
    asked, lineages = run.choices.checkpoint, run.record.lineages
    if not asked or (lineages and lineages[-1]["asked"] == asked):
        return run
    directory, number = run.choices.directory(), len(lineages) + 1
    entry = catalog.select(directory, asked, run.best)
    event_rollback.copy(directory / "summaries", directory / "abandoned" / str(number))
    run.keeper.go_back(entry, run.state, number)
    noted = run.record.gone_back(asked, entry.step)
    run_record.write(directory, noted)
    logging.info(
        "gone back to %s; what came later is in %s/abandoned/%d",
        entry.prefix,
        directory,
        number,
    )
    return dataclasses.replace(run, record=noted)


def _resume(run: Run, task: Task) -> None:
    """Restores the newest good checkpoint, or begins at step 0."""
    directory, resume = run.choices.directory(), run.choices.resume
    exists = bool(catalog.scan(directory))
    if resume == "never" and exists:
        raise options.ConfigError(
            f"{directory} has checkpoints already, and --resume=never says not to go "
            "on from them. Give another --run_dir."
        )
    if resume == "require" and not exists:
        raise options.ConfigError(
            f"{directory} has no checkpoint to go on from, and --resume=require asks "
            "for one. Check --run_dir, or leave --resume out to begin."
        )
    if exists and not (directory / "config.json").exists():
        _check_digest(run)
    found = restore(run)
    run_record.write(directory, run.record)
    total = run.schedule.total
    if found is None:
        if run.choices.init_from:
            _take_weights(run)
        run.reporter.describe(
            task.hyperparameters(),
            run_record.as_flags(run.record),
            kind=reporter.EVAL if run.evaluation else reporter.TRAIN,
        )
        logging.info("training %s from scratch to step %d", directory, total)
        return
    logging.info("resumed %s at step %d of %d", directory, found.step, total)


def _check_digest(run: Run) -> None:
    """Without `config.json`, a manifest says at least whether the choices are right."""
    directory = run.choices.directory()
    digests = {e.manifest.config_digest for e in catalog.scan(directory) if e.manifest}
    if digests and run.record.digest not in digests:
        raise options.ConfigError(
            f"{directory} has checkpoints that were made with other choices, and its "
            "config.json, which says with which, is missing. Bring it back, start with "
            "the same choices, or give another --run_dir."
        )


def _take_weights(run: Run) -> None:
    """Begins with the weights of another checkpoint, and says which fit."""
    directory, asked = run.choices.directory(), run.choices.init_from
    match = store.load_weights(catalog.select(directory, asked, ()), run.state)
    if not match.taken:
        raise options.ConfigError(
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


def restore(run: Run, *, scheduled: bool = False) -> manifest.Manifest | None:
    """Brings the state and the event files back to the newest good checkpoint.

    Args:
      run: where.
      scheduled: only to one that the schedule made; if there is none, nothing changes.
    """
    found = run.keeper.restore(run.state, scheduled=scheduled)
    if scheduled and found is None:
        return None
    run.reporter.close()
    summaries = run.choices.directory() / "summaries"
    event_rollback.cut(summaries, found.events if found else {})
    if found is None:
        return None
    _recover_records(run)
    for name, (old, new) in run.state.apply_learning_rates().items():
        logging.warning(
            "the learning rate of %s was %g and is now %g, as the configuration says",
            name,
            old,
            new,
        )
    return found


def _recover_records(run: Run) -> None:
    """Takes from the directories the records that have no checkpoint there.

    So it is for metrics that are ranked anew, and after going back.
    """
    progress = run.state.progress
    kept = progress.get("records", {})
    records = dict(kept)
    for rule in run.best:
        directory = run.choices.directory() / catalog.BEST / rule.metric
        ranked = catalog.ranked(directory, rule)
        record = records.get(rule.metric, {})
        steps = [entry.step for entry in ranked]
        if record.get("mode") == rule.mode and record["step"] in steps:
            continue
        records.pop(rule.metric, None)
        if ranked and ranked[0].manifest:
            value = ranked[0].manifest.metrics[rule.metric]
            records[rule.metric] = {"step": steps[0], "value": value, "mode": rule.mode}
    if records != kept:
        progress["records"] = records
