"""What a command is asked: the options that several commands share, and their values.

    >>> from trainer.commands import asked
    >>> from trainer.config import flags, options
    >>> given = flags.parsed(["--split=test"], [asked.ExampleOptions])
    >>> run = options.RunOptions(run_dir="runs/line", best=("loss:min",))
    >>> one = asked.Asked("evaluate", run, given, json=False, debug=False)
    >>> one.selected("", default="best").step, one.make(asked.ExampleOptions).split
    (30, 'test')

What only one command takes stands in the file of that command.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import TypeVar

from trainer.checkpoint import selection
from trainer.checkpoint.catalog import Entry
from trainer.checkpoint.layout import RunDirectory
from trainer.commands import console
from trainer.config import fields, flags, options
from trainer.config.fields import COMMAND, Checked, option

_Made = TypeVar("_Made", bound=fields.Checked)
# Options of a run that decide which task is built, and how, when a checkpoint is used.
BUILDING = ("task", "set", "trust", "run_dir", "best", "seed", "deterministic")
FORMATS = ("table", "json")
_FORMAT_HELP = "Format of the answer: a table for people or one JSON document."


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnswerOptions(Checked):
    """How a command answers."""

    format: str = option("table", COMMAND, "", _FORMAT_HELP, choices=FORMATS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DebugOptions(Checked):
    """How much a command says when it fails. Every command has these."""

    debug: bool = option(False, COMMAND, "", "Show tracebacks and TensorFlow's log.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SelectOptions(Checked):
    """Which checkpoint is used: the best one, if nothing is said."""

    checkpoint: str = option(
        "",
        COMMAND,
        "CHECKPOINT",
        "Checkpoint to use: best, best:METRIC, latest, step:N or a path.",
        absent="best",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExampleOptions(Checked):
    """Which examples are looked at."""

    split: str = option("valid", COMMAND, "NAME", "Split of the task's data to use.")
    data: str = option(
        "",
        COMMAND,
        "PATH",
        "Examples to use instead of --split: an .npz, .csv, .jsonl or .parquet with "
        "what the networks take, or a folder of images.",
    )


@dataclasses.dataclass(frozen=True)
class Asked:
    """One command line, read.

    Attributes:
      command: its name.
      run: the choices of the run; what was left unsaid is what the run recorded.
      given: all other options.
      json: whether the answer is to be one JSON document.
      debug: whether tracebacks and TensorFlow's own log are wanted.
    """

    command: str
    run: options.RunOptions
    given: flags.Given
    json: bool
    debug: bool

    def make(self, kind: type[_Made]) -> _Made:
        """The options of one dataclass.

        Raises:
          options.ConfigError: a value is not allowed.
        """
        return self.given.make(kind)

    @contextlib.contextmanager
    def tensorflow(self) -> Iterator[None]:
        """Imports TensorFlow quietly, with the threads of the run.

        Raises:
          environment.ThreadsError: this process has begun with others.
        """
        with console.quiet_import(self.debug, threads=self.run.thread_count()):
            yield

    def selected(self, text: str, *, default: str) -> Entry:
        """The checkpoint that `text` names, or the default one.

        Raises:
          selection.NoCheckpointError: there is none.
        """
        rules = self.run.rules()
        return selection.select(self.directory(), text or default, rules)

    def directory(self) -> RunDirectory:
        """The run directory.

        Raises:
          options.ConfigError: nothing says which.
        """
        return RunDirectory(self.run.directory())
