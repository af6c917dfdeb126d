"""The options of a run: validated, frozen.

    >>> from trainer.config import options
    >>> options.RunOptions(task="digits", epochs=3).directory()
    PosixPath('runs/digits')

Every field is one flag, see `flags`. What only a command is told stands beside the
command.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib

from trainer.checkpoint import retention
from trainer.checkpoint.layout import PlaceError, check_name
from trainer.config.fields import (
    COMMAND,
    RUN,
    TRAJECTORY,
    Checked,
    ConfigError,
    option,
    suggest,
)
from trainer.config.plateau_rule import PlateauRule

__all__ = ["EXPORTS", "ConfigError", "RunOptions", "suggest"]

EXPORTS = ("saved_model", "keras", "h5", "weights", "tflite", "onnx")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunOptions(Checked):
    """The choices that a run records, and where it is.

    Raises:
      ConfigError: a value is out of range, or two choices contradict each other.
    """

    # fmt: off
    task: str = option(
        "", TRAJECTORY, "NAME",
        "Registered name of the task, package.module:Class or path/to/file.py:Class."
    )
    set: tuple[str, ...] = option(
        (), TRAJECTORY, "NAME=VALUE", "Hyperparameter of the task. Repeatable."
    )
    run_dir: str = option(
        "", COMMAND, "DIRECTORY", "Directory of the run.", absent="runs/<task>"
    )
    init_from: str = option(
        "", RUN, "PATH",
        "Checkpoint whose weights a new run starts with, where path and shape match."
    )
    steps: int = option(
        0, RUN, "STEPS", "Last step, counted from the very start of the run.",
        zero="--epochs decides", minimum=0
    )
    epochs: float = option(
        0.0, RUN, "EPOCHS", "Length of the whole run in epochs, instead of --steps.",
        zero="--steps decides", minimum=0
    )
    batch_size: int = option(
        64, TRAJECTORY, "EXAMPLES", "Examples per training step.", minimum=1
    )
    eval_batch_size: int = option(
        256, RUN, "EXAMPLES", "Examples per batch of an evaluation; changes no metric.",
        minimum=1
    )
    seed: int = option(
        0, TRAJECTORY, "N", "Seed of weights, order, augmentation and dropout.",
        minimum=0, maximum=2**31 - 1
    )
    threads: int = option(
        0, TRAJECTORY, "N",
        "Threads that TensorFlow uses for one op. The bits depend on it, so a run "
        "keeps its number on every machine.",
        zero="the cores of the machine at the first start", minimum=0
    )
    deterministic: bool = option(
        True, TRAJECTORY, "", "Use only ops that give the same bits every time."
    )
    ema: float = option(
        0.0, TRAJECTORY, "DECAY",
        "Decay of an exponential moving average of the weights, such as 0.999. The "
        "average is what is evaluated, ranked and exported.", zero="no average",
        minimum=0, maximum=1 - 1e-9
    )
    plateau: str = option(
        "", TRAJECTORY, "FACTOR:PATIENCE[:MIN]",
        "Multiply the learning rates by FACTOR after PATIENCE evaluations in a row "
        "without a better value of the first --best, down to MIN."
    )
    report_every_steps: int = option(
        50, RUN, "STEPS", "Steps between two reports of the training values.", minimum=1
    )
    evaluate_every_steps: int = option(
        0, RUN, "STEPS", "Steps between two evaluations.", zero="once per epoch",
        minimum=0
    )
    save_every_steps: int = option(
        0, RUN, "STEPS", "Steps between two saves.",
        zero="--save_every_secs or --save_overhead decides", minimum=0
    )
    save_every_secs: float = option(
        0.0, RUN, "SECONDS",
        "Seconds after which to save, in addition to --save_every_steps.", zero="never",
        minimum=0
    )
    save_overhead: float = option(
        1.0, RUN, "PERCENT",
        "Share of the time that saving may take if neither interval above is given; "
        "saves are at most 10 minutes apart.", minimum=0.001, maximum=100
    )
    on_save_error: str = option(
        "stop", RUN, "",
        "Reaction to two failed saves in a row: end the run, or train on and save "
        "when it is due again.", choices=("stop", "continue")
    )
    keep_recent: int = option(
        3, RUN, "N", "Number of recent checkpoints to keep.", minimum=1
    )
    keep_every_steps: int = option(
        0, RUN, "STEPS", "Keep the checkpoints at multiples of this step for good.",
        zero="none", minimum=0
    )
    best: tuple[str, ...] = option(
        (), RUN, "METRIC:min|max[:COUNT]",
        "Keep the best COUNT checkpoints (1) by this metric. Repeatable; the first "
        "one is the one that --checkpoint=best means.", absent="the choice of the task"
    )
    best_min_delta: float = option(
        0.0, RUN, "DELTA",
        "Minimum improvement for a checkpoint to replace a best one.", minimum=0
    )
    early_stop_patience: int = option(
        0, RUN, "EVALUATIONS",
        "Stop after this many evaluations in a row without improvement.", zero="never",
        minimum=0
    )
    early_stop_min_delta: float = option(
        0.0, RUN, "DELTA", "Minimum improvement that counts.", minimum=0
    )
    early_stop_metric: str = option(
        "", RUN, "METRIC", "Metric that must improve; one of those given by --best.",
        absent="the first of --best"
    )
    on_nonfinite: str = option(
        "halt", RUN, "",
        "Reaction to a loss that is NaN or infinite: end the run, or go back to the "
        "newest scheduled or best checkpoint and skip the data since.",
        choices=("halt", "rewind")
    )
    max_rewinds: int = option(
        3, RUN, "N", "Maximum number of rewinds in the whole run.", minimum=0
    )
    allow_inexact: bool = option(
        False, RUN, "", "Also train a task that cannot be resumed exactly."
    )
    trust: bool = option(
        False, COMMAND, "",
        "Import the code that the run directory names as its task, although this "
        "command does not name it."
    )
    # fmt: on

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps and self.epochs:
            raise ConfigError(
                f"--steps={self.steps} and --epochs={self.epochs:g} both say how long "
                "to train: give one of them (on the command line, --steps=0 or "
                "--epochs=0 takes back what a flagfile says)."
            )
        if self.plateau:
            PlateauRule.parse(self.plateau)
        if self.on_nonfinite == "rewind" and not self.save_every_steps:
            raise ConfigError(
                "--on_nonfinite=rewind goes back to where --save_every_steps saved, so "
                "that what follows does not hang on the clock: give both."
            )
        try:
            check_name(self.run_dir)
        except PlaceError as error:
            raise ConfigError(f"--run_dir: {error}") from None
        self._check_best()

    def _check_best(self) -> None:
        metrics = [text.partition(":")[0] for text in self.best]
        for metric in metrics:
            if metrics.count(metric) > 1:
                raise ConfigError(
                    f"--best: {metric} is given twice, and one directory holds the "
                    "best by a metric. Say it once, as name:min|max[:count]."
                )
        if self.best and self.early_stop_metric not in ("", *metrics):
            raise ConfigError(
                f"--early_stop_metric={self.early_stop_metric}: --best does not say "
                "whether less or more of it is better. Give it as a --best, too, such "
                f"as --best={self.early_stop_metric}:min."
            )
        if any(":" in text for text in self.best):
            self.rules()

    def rules(self) -> tuple[retention.Best, ...]:
        """The rules of `--best`, the one that counts first.

        Raises:
          ConfigError: `--best` does not say it. (A bare name will do where the run has
            said it already, see `completion.complete`.)
        """
        try:
            parsed = [retention.Best.parse(text) for text in self.best]
        except ValueError as error:
            raise ConfigError(f"--best: {error}") from None
        return tuple(
            dataclasses.replace(rule, min_delta=self.best_min_delta) for rule in parsed
        )

    def thread_count(self) -> int:
        """Threads per op: the given number, or that of the cores."""
        return self.threads or len(os.sched_getaffinity(0))

    def retention(self) -> retention.Rules:
        """Which checkpoints are kept."""
        return retention.Rules(
            keep_recent=self.keep_recent,
            keep_every_steps=self.keep_every_steps,
            save_every_steps=self.save_every_steps,
            best=self.rules(),
        )

    def directory(self) -> pathlib.Path:
        """The run directory: the given one, or `runs/<task>`.

        Raises:
          ConfigError: neither is known.
        """
        name = self.task.rpartition(":")[2]
        if not self.run_dir and not name:
            raise ConfigError(
                "nothing says what to train or which run to look at: give --task=NAME, "
                "--flagfile=FILE or --run_dir=DIRECTORY (`tasks` lists the tasks)."
            )
        return pathlib.Path(self.run_dir or pathlib.Path("runs", name))
