"""The commands that use a checkpoint: `evaluate`, `predict`, `export`, `average`.

TensorFlow is imported inside them, so that the others answer without it.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterable

from trainer.checkpoint import catalog
from trainer.commands import console
from trainer.config import options
from trainer.storage import files


def evaluate(choices: options.Config, package: str) -> int:
    """Evaluates --checkpoint on --split or --data and prints the metrics"""
    entry = _selected(choices)
    with console.quiet_import(choices.debug):
        from trainer.config import tasks
        from trainer.inference import evaluate as evaluation
    task = tasks.of(choices, package=package)
    metrics = evaluation.evaluate(choices, task, entry)
    row = {"step": entry.step, "path": str(entry.prefix)}
    row["split"] = choices.data or choices.split
    if choices.format == "json":
        console.say(json.dumps({**row, "metrics": metrics}))
    else:
        console.print_table([{**row, **{k: f"{v:.6g}" for k, v in metrics.items()}}])
    return console.DONE


def predict(choices: options.Config, package: str) -> int:
    """Runs --checkpoint over --split or --data; JSON lines, or --output=FILE.npz"""
    entry = _selected(choices)
    with console.quiet_import(choices.debug):
        from trainer.config import tasks
        from trainer.inference import loaded
        from trainer.model import prediction
    task = tasks.of(choices, package=package)
    found = loaded.load(choices, task, entry)
    predictor = prediction.Predictor(task, found.state.networks, found.spec())
    batches = found.examples(choices, predictor.inputs)
    predicted = (one for _, one in predictor.run(batches))
    output = pathlib.Path(choices.output)
    if not choices.output:
        for line in prediction.as_lines(predicted):
            console.say(line)
        return console.DONE
    files.make_directory(output.parent)
    with files.replacing(output) as temporary:
        if output.suffix == ".npz":
            count = prediction.write_npz(temporary, predicted)
        else:
            count = _write_lines(temporary, prediction.as_lines(predicted))
    console.say(f"{count} predictions of {entry.prefix} are in {output}")
    return console.DONE


def export(choices: options.Config, package: str) -> int:
    """Writes --checkpoint as --format, reloads it and compares predictions"""
    if choices.format == "json":
        raise options.ConfigError(
            f"--format=json is no format of an export: expected "
            f"{', '.join(options.EXPORTS)}."
        )
    entry = _selected(choices)
    with console.quiet_import(choices.debug):
        from trainer.config import tasks
        from trainer.exporting import exporter
    task = tasks.of(choices, package=package)
    done = exporter.export(choices, task, entry, package=package)
    console.say(
        f"exported {entry.prefix} to {done.path}: loaded back in a fresh process, "
        f"{done.examples} predictions differ by {done.max_difference:.2g} at most."
    )
    for line in done.usage:
        console.say(line)
    return console.DONE


def average(choices: options.Config, package: str) -> int:
    """Averages the best by --best=METRIC into a new checkpoint and evaluates it"""
    run_dir, rules = choices.directory(), choices.rules()
    if not rules:
        raise catalog.NoCheckpointError(f"{run_dir} keeps no best checkpoints.")
    rule = rules[0]
    entries = catalog.ranked(run_dir / catalog.BEST / rule.metric, rule)
    if len(entries) < 2:
        raise catalog.NoCheckpointError(
            f"{run_dir} has {len(entries)} best by {rule.metric}: nothing to average. "
            f"Train with --best={rule.metric}:{rule.mode}:5 to keep five."
        )
    with console.quiet_import(choices.debug):
        from trainer.config import tasks
        from trainer.inference.average import average
    task = tasks.of(choices, package=package)
    made = average(choices, task, entries, rule)
    rows = [(str(e.prefix), e.manifest.metrics) for e in entries if e.manifest]
    rows.append((str(made.prefix), made.metrics))
    console.print_table(
        [{"path": p, **{k: f"{v:.6g}" for k, v in m.items()}} for p, m in rows]
    )
    verdict = "beats" if made.beats else "does not beat"
    console.say(
        f"the average of {len(entries)} {verdict} the best of them by {rule.metric}."
    )
    return console.DONE


def _selected(choices: options.Config) -> catalog.Entry:
    """The checkpoint that is asked for; the best, if none is."""
    wanted = choices.checkpoint or catalog.BEST
    return catalog.select(choices.directory(), wanted, choices.rules())


def _write_lines(path: pathlib.Path, lines: Iterable[str]) -> int:
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for line in lines:
            file.write(line + "\n")
            count += 1
    return count
