"""Evaluate a checkpoint on a split or on a file of your own.

Each metric is the mean over all examples.

    python run.py evaluate --run_dir=runs/digits --split=test
    python run.py evaluate --run_dir=runs/digits --checkpoint=step:1178 --data=mine.npz
"""

from __future__ import annotations

from trainer.commands import console
from trainer.commands.asked import (
    BUILDING,
    AnswerOptions,
    Asked,
    ExampleOptions,
    SelectOptions,
)
from trainer.config import flags, options

OPTIONS = (
    flags.some(options.RunOptions, *BUILDING, "eval_batch_size"),
    flags.every(SelectOptions),
    flags.every(ExampleOptions),
    flags.every(AnswerOptions),
)


def run(asked: Asked, package: str) -> int:
    """Prints the metrics."""
    entry = asked.selected(asked.make(SelectOptions).checkpoint, default="best")
    examples = asked.make(ExampleOptions)
    with asked.tensorflow():
        from trainer.config import tasks
        from trainer.inference import evaluate
    task = tasks.of(asked.run, package=package)
    metrics = evaluate.evaluate_checkpoint(
        asked.run, task, entry, split=examples.split, examples=examples.data
    )
    row = {"step": entry.step, "path": str(entry.prefix)}
    row["split"] = examples.data or examples.split
    if asked.json:
        console.answer({**row, "metrics": metrics})
    else:
        shown = {name: f"{value:.6g}" for name, value in metrics.items()}
        console.print_table([{**row, **shown}])
    return console.DONE
