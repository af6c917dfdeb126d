"""What a command left unsaid, taken from the run that it is about.

>>> from trainer.config import completion, options
>>> choices = options.RunOptions(run_dir="runs/line", batch_size=8)
>>> choices = completion.complete(choices, given={"run_dir", "batch_size"})
>>> choices.task, choices.steps, choices.batch_size
('line:Line', 30, 8)
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Collection

from trainer.checkpoint.layout import RunDirectory
from trainer.config import options, run_record, settings, task_name
from trainer.config.comparison import FIELDS

_LENGTH = {"steps", "epochs"}  # two ways to say one thing


def complete(
    config: options.RunOptions, given: Collection[str], *, checkpoint: str = ""
) -> options.RunOptions:
    """Fills what a command left unsaid with the run's own choices, if there is a run.

    A task that the command names is trusted: its code may be imported.

    Args:
      config: of the command.
      given: the names of the flags that it was given.
      checkpoint: that the command names: where neither a run nor a task is named, its
        path says which run.

    Raises:
      options.ConfigError: the directory holds a run of another task.
    """
    if "task" in given:
        name = task_name.absolute(config.task)
        config = dataclasses.replace(config, task=name, trust=True)
    if not config.run_dir and not config.task:
        run_dir = _run_of(checkpoint)
        if run_dir is None:
            return config
        config = dataclasses.replace(config, run_dir=str(run_dir))
    path = RunDirectory(config.directory()).config
    if not path.exists():
        return config
    choices = run_record.read(path).choices
    if "task" in given and not task_name.same(config.task, choices["task"]):
        raise options.ConfigError(
            f"{config.directory()} holds a run of the task {choices['task']!r}, not "
            f"{config.task!r}. Give another --run_dir."
        )
    unsaid = {name for name in choices if name in FIELDS and name not in given}
    if _LENGTH & set(given):
        unsaid -= _LENGTH
    own = {name: choices[name] for name in unsaid}
    own |= {name: tuple(v) for name, v in own.items() if isinstance(v, list)}
    if "best" in given:
        rules = {text.partition(":")[0]: text for text in choices["best"]}
        own["best"] = tuple(rules.get(text, text) for text in config.best)
    texts = [settings.written(*one) for one in choices["set"].items()]
    own["set"] = (*texts, *(config.set if "set" in given else ()))
    try:
        return dataclasses.replace(config, run_dir=str(config.directory()), **own)
    except TypeError as error:
        raise run_record.unreadable(path, error) from error


def _run_of(checkpoint: str) -> pathlib.Path | None:
    """The run directory that a checkpoint's path leads through."""
    for parent in pathlib.Path(checkpoint).parents:
        if RunDirectory(parent).config.is_file() and parent != pathlib.Path():
            return parent
    return None
