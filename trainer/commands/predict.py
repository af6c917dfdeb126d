"""Predict with a checkpoint on a split or on a file of your own.

Without --output the predictions go to stdout: one JSON object per example and
line, or with --format=json one list.

    python run.py predict --run_dir=runs/digits --data=mine.npz --output=mine.csv
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Iterable
from typing import Any

from trainer.commands import console
from trainer.commands.asked import (
    BUILDING,
    AnswerOptions,
    Asked,
    ExampleOptions,
    SelectOptions,
)
from trainer.config import flags, options
from trainer.config.fields import COMMAND, Checked, option
from trainer.storage import files


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictOptions(Checked):
    """Where the predictions go."""

    output: str = option(
        "",
        COMMAND,
        "FILE",
        "File to write: .npz, .csv or .parquet, else one JSON object per line.",
        absent="stdout",
    )


OPTIONS = (
    flags.some(options.RunOptions, *BUILDING, "eval_batch_size"),
    flags.every(SelectOptions),
    flags.every(ExampleOptions),
    flags.every(PredictOptions),
    flags.every(AnswerOptions),
)


def run(asked: Asked, package: str) -> int:
    """Writes one prediction per example."""
    entry = asked.selected(asked.make(SelectOptions).checkpoint, default="best")
    examples, path = asked.make(ExampleOptions), asked.make(PredictOptions).output
    with asked.tensorflow():
        from trainer.config import tasks
        from trainer.inference.predict import predict_examples
        from trainer.model import prediction
    task = tasks.of(asked.run, package=package)
    predicted = predict_examples(
        asked.run, task, entry, split=examples.split, examples=examples.data
    )
    if not path:
        _print(prediction.as_lines(predicted), asked.json)
        return console.DONE
    output = pathlib.Path(path)
    count = _write(output, predicted)
    if asked.json:
        answer = {"step": entry.step, "path": str(entry.prefix)}
        answer |= {"split": examples.data or examples.split}
        console.answer({**answer, "count": count, "output": str(output)})
    else:
        console.say(f"{count} predictions of {entry.prefix} are in {output}")
    return console.DONE


def _write(output: pathlib.Path, predicted: Iterable[Any]) -> int:
    """Writes all predictions; gives their number."""
    from trainer.model import prediction_files

    files.make_directory(output.parent)
    with files.replacing(output) as temporary:
        return prediction_files.write(temporary, output.name, predicted)


def _print(lines: Iterable[str], as_document: bool) -> None:
    if as_document:
        console.answer([json.loads(line) for line in lines])
        return
    for line in lines:
        console.say(line)
