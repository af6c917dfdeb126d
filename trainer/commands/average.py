"""Average the weights of the best checkpoints and evaluate the result.

Needs a run that keeps several, such as one with --best=accuracy:max:5. --best=METRIC
chooses by which of its metrics.

    python run.py average --run_dir=runs/digits --best=accuracy
"""

from __future__ import annotations

from typing import Any

from trainer.checkpoint import catalog, selection
from trainer.commands import console
from trainer.commands.asked import BUILDING, AnswerOptions, Asked
from trainer.config import flags, options

OPTIONS = (
    flags.some(options.RunOptions, *BUILDING, "eval_batch_size"),
    flags.every(AnswerOptions),
)


def run(asked: Asked, package: str) -> int:
    """Prints the metrics of the average beside those of its parents."""
    directory, rules = asked.directory(), asked.run.rules()
    if not rules:
        raise selection.NoCheckpointError(
            f"{directory.root} keeps no best checkpoints."
        )
    rule = rules[0]
    entries = catalog.scan(directory).ranked(directory.best(rule.metric), rule)
    if len(entries) < 2:
        raise selection.NoCheckpointError(
            f"{directory.root} has {len(entries)} best by {rule.metric}: nothing to "
            f"average. Train with --best={rule.metric}:{rule.mode}:5 to keep five."
        )
    with asked.tensorflow():
        from trainer.config import tasks
        from trainer.inference.average import average
    task = tasks.of(asked.run, package=package)
    made = average(asked.run, task, entries, rule)
    parents: list[dict[str, Any]] = [
        {"path": str(one.prefix), "metrics": dict(one.manifest.metrics)}
        for one in entries
        if one.manifest
    ]
    child = {"path": str(made.prefix), "metrics": made.metrics}
    if asked.json:
        beats = {"metric": rule.metric, "beats": made.beats}
        console.answer({**child, **beats, "averaged": parents})
        return console.DONE
    console.print_table([_cells(one) for one in (*parents, child)])
    verdict = "beats" if made.beats else "does not beat"
    console.say(
        f"the average of {len(entries)} {verdict} the best of them by {rule.metric}."
    )
    return console.DONE


def _cells(row: dict[str, Any]) -> dict[str, str]:
    metrics = {name: f"{value:.6g}" for name, value in row["metrics"].items()}
    return {"path": row["path"], **metrics}
