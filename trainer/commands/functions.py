"""The commands as functions: train, evaluate, predict, export, restore weights.

They do what the commands do, in this process, on the same directories: either goes on
where the other stopped. The caller's Keras names, seeds, generators and other models
are as they were afterwards. TensorFlow's number of threads is the exception: it is
fixed when TensorFlow begins, so `train` refuses a run that needs another.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from trainer.checkpoint import environment, selection
from trainer.checkpoint.catalog import Entry
from trainer.checkpoint.layout import RunDirectory
from trainer.compat import session
from trainer.config import chosen_hooks, completion, shipped, tasks
from trainer.config.fields import ConfigError, by_name, suggest
from trainer.config.options import RunOptions
from trainer.config.start import StartOptions
from trainer.exporting import exporter
from trainer.exporting.place import Export
from trainer.inference.evaluate import evaluate_checkpoint
from trainer.inference.predict import predict_examples
from trainer.model import prediction
from trainer.task import Task, registered
from trainer.training import loop, preemption

Path = str | os.PathLike[str]
# The task says these itself, and is trusted, for it is here.
_ELSEWHERE = {"task", "set", "run_dir", "trust"}


def train(
    task: Task,
    run_dir: Path,
    *,
    progress: str = "auto",
    hooks: Sequence[Any] = (),
    **options: Any,
) -> loop.Outcome:
    """Trains to the end, or goes on to it from the newest good checkpoint.

        >>> import trainer
        >>> from line import Line
        >>> trainer.train(Line(), "runs/mine", steps=10, progress="none").trained_steps
        10
        >>> trainer.train(Line(), "runs/mine", steps=12, progress="none").trained_steps
        2

    Args:
      task: that is learned. What it ranks as best is used unless `best` is given.
      run_dir: of the run; made if it is not there.
      progress: `bar`, `lines`, `none`; `auto`: a bar on a terminal, else lines.
      hooks: listen to the run, see `trainer.Hook`.
      **options: those of the command `train`, by name, such as `epochs=5`,
        `batch_size=32`, `best=("loss:min",)`, `resume="never"`. What is left out is
        what the run recorded at its first start.

    Returns:
      How it ended: `step`, `total_steps`, `stopped_by`, `exit_code`, ...
      Ctrl-C and SIGTERM save everything and return; a second one acts as usual.

    Raises:
      KeepstepError: whatever the command would refuse, with the same message.
      KeyboardInterrupt: asked to stop before there was anything to save.
    """
    runs, starts = by_name(RunOptions), by_name(StartOptions)
    runs = {name: one for name, one in runs.items() if name not in _ELSEWHERE}
    for name in options:
        if name not in runs and name not in starts:
            raise ConfigError(
                f"train() has no option {name!r}.{suggest(name, {**runs, **starts})}"
            )
    of_run = {name: value for name, value in options.items() if name in runs}
    of_start = {name: value for name, value in options.items() if name in starts}
    tasks.check(task)
    start = StartOptions(**_tuples(of_start))
    listening = chosen_hooks.made(start.hook, hooks)
    choices = _choices(run_dir, task, of_run)
    if not choices.best:
        choices = dataclasses.replace(choices, best=type(task).best)
    environment.use_threads(choices.thread_count())
    with session.borrowed(), preemption.listening() as stop:
        try:
            return loop.train(
                choices,
                task,
                stop,
                start=start,
                progress=progress,
                hooks=listening,
            )
        except preemption.Interrupted:
            raise KeyboardInterrupt(stop.signal) from None


def evaluate(
    run_dir: Path,
    checkpoint: str = "best",
    *,
    task: Task | None = None,
    split: str = "valid",
    data: str | Mapping[str, Any] = "",
    trust: bool = False,
) -> dict[str, float]:
    """The metrics of a checkpoint: means over every example.

        >>> import trainer
        >>> from line import Line
        >>> trainer.evaluate("runs/line", "step:20", task=Line())
        {'loss': ...}

    Args:
      run_dir: of the run.
      checkpoint: `best`, `best:metric`, `latest`, `step:N` or a path.
      task: of the run; made of what the run recorded, if None.
      split: of the task's data.
      data: a file (.npz, .csv, .parquet, .jsonl) or a folder of images, or arrays
        `[N, ...]` by name, to use instead of a split.
      trust: import the code that the run directory names as its task.

    Raises:
      KeepstepError: whatever the command would refuse, with the same message.
    """
    choices, made, entry = _selected(run_dir, checkpoint, task, trust)
    with session.borrowed():
        return evaluate_checkpoint(choices, made, entry, split=split, examples=data)


def predict(
    run_dir: Path,
    checkpoint: str = "best",
    *,
    task: Task | None = None,
    split: str = "valid",
    data: str | Mapping[str, Any] = "",
    trust: bool = False,
) -> dict[str, Any]:
    """The predictions for every example, arrays `[N, ...]` by name.

        >>> import numpy as np, trainer
        >>> from line import Line
        >>> x = np.float32([[0.0], [0.5], [1.0]])
        >>> trainer.predict("runs/line", task=Line(), data={"x": x})["y"].shape
        (3, 1)

    The arguments are those of `evaluate`.

    Raises:
      KeepstepError: whatever the command would refuse, with the same message.
    """
    choices, made, entry = _selected(run_dir, checkpoint, task, trust)
    with session.borrowed():
        found = predict_examples(choices, made, entry, split=split, examples=data)
        return prediction.joined(found)


def export(
    run_dir: Path,
    format: str = "saved_model",
    checkpoint: str = "best",
    *,
    task: Task | None = None,
    output: Path = "",
    trust: bool = False,
) -> Export:
    """Exports a checkpoint, loads it back in a fresh process and compares.

        >>> import keras, trainer
        >>> from line import Line
        >>> done = trainer.export("runs/line", "keras", task=Line())
        >>> keras.models.load_model(done.files["model"]).count_params()
        2

    Args:
      run_dir: of the run.
      format: `saved_model`, `keras`, `h5`, `weights`, `tflite` or `onnx`.
      checkpoint: `best`, `best:metric`, `latest`, `step:N` or a path.
      task: of the run; made of what the run recorded, if None.
      output: the file or directory; if not given, `exports/<format>/<step>` of the run,
        of a SavedModel `exports/saved_model/<version>`, which rises with each.
      trust: import the code that the run directory names as its task.

    Raises:
      KeepstepError: whatever the command would refuse, with the same message.
    """
    choices, made, entry = _selected(run_dir, checkpoint, task, trust)
    with session.borrowed():
        return exporter.export(
            choices,
            made,
            entry,
            kind=format,
            output=os.fspath(output),
            package=shipped.tasks_package(),
        )


def _selected(
    run_dir: Path, checkpoint: str, task: Task | None, trust: bool
) -> tuple[RunOptions, Task, Entry]:
    choices = _choices(run_dir, task, {})
    if task is None:
        choices = dataclasses.replace(choices, trust=trust)
        task = tasks.of(choices, package=shipped.tasks_package())
    directory = RunDirectory(choices.directory())
    entry = selection.select(directory, checkpoint, choices.rules())
    environment.use_threads(choices.thread_count())
    return choices, task, entry


def _choices(run_dir: Path, task: Task | None, given: Mapping[str, Any]) -> RunOptions:
    """The options of a run: what is given, else recorded, else the default."""
    named: dict[str, Any] = {"run_dir": os.fspath(run_dir)}
    if task is not None:
        named["task"] = name_of(type(task))
    options = RunOptions(**{**_tuples(given), **named})
    return completion.complete(options, {*given, *named})


def name_of(cls: type[Task]) -> str:
    """How the commands call a task: registered, `module:Class` or `file.py:Class`."""
    for name, one in registered().items():
        if one is cls and cls.__module__.partition(".")[0] == shipped.tasks_package():
            return name
    module = sys.modules[cls.__module__]
    file = getattr(module, "__file__", None)
    if cls.__module__ == "__main__" and file:
        return f"{pathlib.Path(file).absolute()}:{cls.__qualname__}"
    return f"{cls.__module__}:{cls.__qualname__}"


def _tuples(given: Mapping[str, Any]) -> dict[str, Any]:
    """Options that may be given several times are tuples; a list or a text will do."""
    kinds = {**by_name(RunOptions), **by_name(StartOptions)}
    return {
        name: _as_tuple(value) if isinstance(kinds[name].default, tuple) else value
        for name, value in given.items()
    }


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return (value,) if isinstance(value, str) else tuple(value)
