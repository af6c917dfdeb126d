"""Every choice of a run: validated, frozen, one flag a field.

    values = flags.FlagValues()
    config.define_flags(values)
    values(sys.argv)
    choices = config.from_flags(values)        # raises ConfigError

No TensorFlow here: a mistyped flag is answered at once.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import pathlib
import re
from collections.abc import Iterable, Sequence
from typing import Any

from absl import flags

from trainer.checkpoint import retention
from trainer.errors import KeepstepError

# What a choice touches: the numbers that come out (`TRAJECTORY`), only the course of
# the run (`RUN`), or nothing but this one command (`COMMAND`, never written down).
TRAJECTORY, RUN, COMMAND = "trajectory", "run", "command"
EXPORTS = ("saved_model", "keras", "h5", "weights")
_FORBIDDEN = re.compile(r"[\[\]*?]")


class ConfigError(KeepstepError, ValueError):
    """The command line or the configuration is wrong."""


def _option(
    default: Any,
    touches: str,
    help: str,
    *,
    minimum: float | None = None,
    maximum: float = math.inf,
    choices: Sequence[str] | None = None,
) -> Any:
    metadata = {
        "touches": touches,
        "help": help,
        "minimum": minimum,
        "maximum": maximum,
        "choices": choices,
    }
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunOptions:
    """The choices that a run records, and where it is. Each is a flag.

    Raises:
      ConfigError: a value is out of range, or two choices contradict each other.
    """

    task: str = _option(
        "",
        TRAJECTORY,
        "A registered task, package.module:Class or path/to/file.py:Class.",
    )
    set: tuple[str, ...] = _option(
        (), TRAJECTORY, "name=value: a hyperparameter of the task; repeatable."
    )
    run_dir: str = _option("", COMMAND, "Directory of the run (runs/<task>).")
    steps: int = _option(0, RUN, "Train to this step, counted in total.", minimum=0)
    epochs: float = _option(
        0.0, RUN, "Instead of --steps: train to this many epochs in total.", minimum=0
    )
    batch_size: int = _option(64, TRAJECTORY, "Examples a step.", minimum=1)
    eval_batch_size: int = _option(
        256, RUN, "Examples a batch of an evaluation.", minimum=1
    )
    seed: int = _option(
        0,
        TRAJECTORY,
        "Of weights, order, augmentation and dropout.",
        minimum=0,
        maximum=2**31 - 1,
    )
    deterministic: bool = _option(
        True, TRAJECTORY, "Only ops that give the same bits every time."
    )
    report_every_steps: int = _option(
        50, RUN, "Write training scalars at multiples of this.", minimum=1
    )
    evaluate_every_steps: int = _option(
        0, RUN, "Evaluate at multiples of this; 0: once an epoch.", minimum=0
    )
    save_every_steps: int = _option(
        0, RUN, "Save at multiples of this; 0: see --save_overhead.", minimum=0
    )
    save_every_secs: float = _option(
        0.0, RUN, "Also save when this many seconds went by; 0: don't.", minimum=0
    )
    save_overhead: float = _option(
        1.0,
        RUN,
        "Where neither of the two above is given: save as often as costs this "
        "percentage of the time, but every 10 minutes at least.",
        minimum=0.001,
        maximum=100,
    )
    on_save_error: str = _option(
        "stop",
        RUN,
        "When a save failed twice in a row: stop, or continue and save when it is due "
        "again.",
        choices=("stop", "continue"),
    )
    keep_recent: int = _option(3, RUN, "Recent checkpoints to keep.", minimum=1)
    keep_every_steps: int = _option(
        0, RUN, "Keep those at multiples of this for good; 0: none.", minimum=0
    )
    best: tuple[str, ...] = _option(
        (),
        RUN,
        "name:min|max[:count]: keep the best by this metric; repeatable "
        "(the task's own choice).",
    )
    best_min_delta: float = _option(
        0.0,
        RUN,
        "What takes the place of a best one must be better by more than this.",
        minimum=0,
    )
    ema: float = _option(
        0.0,
        TRAJECTORY,
        "Evaluate, rank and export an exponential moving average of the weights with "
        "this decay, such as 0.999; 0: the weights themselves.",
        minimum=0,
        maximum=1 - 1e-9,
    )
    early_stop_patience: int = _option(
        0,
        RUN,
        "Stop after so many evaluations in a row that were no better; 0: don't.",
        minimum=0,
    )
    early_stop_min_delta: float = _option(
        0.0, RUN, "What is better must be so by more than this.", minimum=0
    )
    early_stop_metric: str = _option(
        "", RUN, "Which of the --best metrics must get better (the first)."
    )
    on_nonfinite: str = _option(
        "halt",
        RUN,
        "When a loss is NaN or infinite: halt; or rewind to the newest checkpoint that "
        "--save_every_steps or a best metric made, and skip the data since.",
        choices=("halt", "rewind"),
    )
    max_rewinds: int = _option(3, RUN, "How often it may rewind, in total.", minimum=0)
    allow_inexact: bool = _option(
        False, RUN, "Train also what could not be resumed exactly."
    )
    init_from: str = _option(
        "", RUN, "A checkpoint whose weights a new run begins with, where they fit."
    )

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value, choices = getattr(self, field.name), field.metadata["choices"]
            self._check_type(field.name, value, type(field.default))
            if choices and value not in choices:
                raise ConfigError(
                    f"--{field.name}={value}: expected {', '.join(choices)}."
                    f"{suggest(value, choices)}"
                )
            minimum, maximum = field.metadata["minimum"], field.metadata["maximum"]
            if minimum is None or (minimum <= value <= maximum and value < math.inf):
                continue
            more = "or more, finite" if type(field.default) is float else "or more"
            upper = more if maximum == math.inf else f"to {maximum}"
            raise ConfigError(
                f"--{field.name}={value} is out of range: expected {minimum} {upper}."
            )
        if self.steps and self.epochs:
            raise ConfigError(
                f"--steps={self.steps} and --epochs={self.epochs:g} both say how long "
                "to train: give one of them (on the command line, --steps=0 or "
                "--epochs=0 takes back what a flagfile says)."
            )
        if self.on_nonfinite == "rewind" and not self.save_every_steps:
            raise ConfigError(
                "--on_nonfinite=rewind goes back to where --save_every_steps saved, so "
                "that what follows does not hang on the clock: give both."
            )
        if match := _FORBIDDEN.search(self.run_dir):
            raise ConfigError(
                f"--run_dir={self.run_dir} has a {match[0]!r} in it: TensorFlow takes "
                "that for a pattern and could not read its checkpoints back. Choose a "
                "name without [ ] * ?."
            )
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
        """What is best, the one that counts first.

        Raises:
          ConfigError: `--best` does not say it. (A bare name will do where the run has
            said it already, see `record.complete`.)
        """
        try:
            parsed = [retention.Best.parse(text) for text in self.best]
        except ValueError as error:
            raise ConfigError(f"--best: {error}") from None
        return tuple(
            dataclasses.replace(rule, min_delta=self.best_min_delta) for rule in parsed
        )

    @staticmethod
    def _check_type(name: str, value: Any, kind: type) -> None:
        """Values from absl are right by themselves; those from a file may not be."""
        fits = type(value) is kind or (kind is float and type(value) is int)
        if kind is tuple and fits:
            fits = all(isinstance(one, str) for one in value)
        if not fits:
            raise ConfigError(f"--{name}={value!r}: expected {kind.__name__}.")

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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(RunOptions):
    """All choices of one command."""

    resume: str = _option(
        "auto",
        COMMAND,
        "auto: go on from the newest good checkpoint, if any; never: refuse if there "
        "is one; require: refuse if there is none.",
        choices=("auto", "never", "require"),
    )
    allow_change: tuple[str, ...] = _option(
        (), COMMAND, "A choice that may differ from the run's own; repeatable."
    )
    checkpoint: str = _option(
        "",
        COMMAND,
        "best, best:metric, latest, step:N or a path. train: go back to it, and move "
        "aside what came later (the newest); evaluate, predict, export: use it (best).",
    )
    kills: int = _option(20, COMMAND, "prove: how many processes to kill.", minimum=0)
    data: str = _option(
        "", COMMAND, "evaluate, predict: an .npz with the examples, instead of --split."
    )
    output: str = _option(
        "",
        COMMAND,
        "predict: a .npz, or any other file for JSON lines (stdout). export: the file "
        "or directory; {step}, {epoch:02d} and {val_loss:.4f} (any metric) are filled "
        "in (exports/<format>/<step> in the run directory).",
    )
    against: str = _option("", COMMAND, "diff: the other checkpoint.")
    dry_run: bool = _option(False, COMMAND, "prune: only say what would go.")
    split: str = _option("valid", COMMAND, "evaluate, predict: which examples.")
    progress: str = _option(
        "auto",
        COMMAND,
        "bar, lines, none; auto: a bar on a terminal, else lines.",
        choices=("auto", "bar", "lines", "none"),
    )
    format: str = _option(
        "table",
        COMMAND,
        "Of what is printed: table or json. export: saved_model (also if nothing is "
        "said), keras, h5 or weights.",
        choices=("table", "json", *EXPORTS),
    )
    trust: bool = _option(
        False,
        COMMAND,
        "Import the code that the run directory names as its task, though this command "
        "does not.",
    )
    debug: bool = _option(False, COMMAND, "Show tracebacks and TensorFlow's own log.")


def define_flags(values: flags.FlagValues) -> None:
    """Defines one absl flag a field in `values`."""
    for field in dataclasses.fields(Config):
        default: Any = field.default
        name, help = field.name, field.metadata["help"]
        if field.metadata["choices"]:
            choices = list(field.metadata["choices"])
            flags.DEFINE_enum(name, default, choices, help, flag_values=values)
        elif isinstance(default, bool):
            flags.DEFINE_boolean(name, default, help, flag_values=values)
        elif isinstance(default, int):
            flags.DEFINE_integer(name, default, help, flag_values=values)
        elif isinstance(default, float):
            flags.DEFINE_float(name, default, help, flag_values=values)
        elif isinstance(default, tuple):
            flags.DEFINE_multi_string(name, list(default), help, flag_values=values)
        else:
            flags.DEFINE_string(name, default, help, flag_values=values)


def from_flags(values: flags.FlagValues) -> Config:
    """The `Config` of the parsed flags."""
    chosen: dict[str, Any] = {
        field.name: values[field.name].value for field in dataclasses.fields(Config)
    }
    chosen |= {k: tuple(v) for k, v in chosen.items() if isinstance(v, list)}
    return Config(**chosen)


def as_arguments(choices: Config) -> list[str]:
    """The flags of what a run records and differs from the defaults."""
    arguments = []
    for field in dataclasses.fields(choices):
        value = getattr(choices, field.name)
        if field.metadata["touches"] == COMMAND or value == field.default:
            continue
        values = value if isinstance(value, tuple) else [value]
        arguments += [f"--{field.name}={one}" for one in values]
    return arguments


def suggest(word: str, known: Iterable[str]) -> str:
    """` Did you mean 'x'?` for the closest of the known words, or the known words."""
    known = sorted(known)
    if close := difflib.get_close_matches(word, known, n=1):
        return f" Did you mean {close[0]!r}?"
    return f" Known: {', '.join(known)}." if known else ""
