"""The text of `--help`: grouped, wrapped, with defaults, units and examples.

    >>> from trainer.commands import help
    >>> "--batch_size=" in help.of_command("train", width=80)
    True

What a command is for, and its examples, are the docstring of its module.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from trainer.commands import command_line, console
from trainer.commands.tasks import as_text

_GROUPS = {
    "Task and run": "task set trust run_dir",
    "Checkpoint": "checkpoint against resume init_from",
    "Examples": "split data",
    "Length of training": "steps epochs",
    "Training": "batch_size seed threads deterministic ema plateau",
    "Reports and evaluations": (
        "report_every_steps evaluate_every_steps eval_batch_size"
    ),
    "Saving": "save_every_steps save_every_secs save_overhead on_save_error",
    "Checkpoints to keep": "keep_recent keep_every_steps best best_min_delta",
    "Early stopping": "early_stop_patience early_stop_min_delta early_stop_metric",
    "Faults and exactness": (
        "on_nonfinite max_rewinds allow_inexact allow_change require_same_machine"
    ),
    "Listeners": "hook",
    "Proof": "kills",
    "Output": "dry_run repair output progress format debug",
}
_COMMON = (
    ("--task=NAME", "Registered name of the task, or package.module:Class."),
    ("--run_dir=DIRECTORY", "Directory of the run (default: runs/<task>)."),
    ("--set=NAME=VALUE", "Hyperparameter of the task. Repeatable."),
    ("--format=table|json", "Format of the answer: a table or one JSON document."),
)
_EVERYWHERE = (
    ("--flagfile=FILE", "File with options, one per line; # begins a comment."),
    ("-h, --help", "Show help for the command."),
)
_LEFT = 30  # cells of the left column


def overview(*, width: int) -> str:
    """All commands, a line each, and the options that most of them take."""
    program = console.program()
    commands = [(name, _summary(name)) for name in command_line.NAMES]
    version = ("--version", "Print the version.")
    return "\n".join(
        [
            *_wrapped("Train TensorFlow 2 models and resume them exactly.", width),
            "",
            f"usage: {program} [COMMAND] [--option=value ...]",
            "",
            "Commands (train if none is given)",
            *_columns(commands, width, left=12),
            "",
            "Common options",
            *_columns([*_COMMON, *_EVERYWHERE, version], width, left=_LEFT),
            "",
            f"{program} COMMAND --help lists all options of a command.",
        ]
    )


def of_command(
    name: str,
    *,
    width: int,
    task: str = "",
    hyperparameters: Sequence[Mapping[str, Any]] = (),
) -> str:
    """One command: its options in groups, and the hyperparameters of a task.

    Args:
      name: of the command.
      width: of the terminal.
      task: whose hyperparameters are shown.
      hyperparameters: `{"name", "type", "default"}` of each.
    """
    paragraphs, examples = _parts(name)
    lines = [f"usage: {console.program()} {name} [--option=value ...]"]
    for paragraph in paragraphs:
        lines += ["", *_wrapped(paragraph, width)]
    lines += ["", "Example" if len(examples) == 1 else "Examples"]
    for example in examples:
        lines += _folded_command(example, width)
    taken = command_line.fields_of(name)
    for heading, rows in _groups(taken).items():
        lines += ["", heading, *_columns(rows, width, left=_LEFT)]
    if hyperparameters:
        rows = [(one["name"], _default_of(one)) for one in hyperparameters]
        title = f"Hyperparameters of the task {task} (--set=NAME=VALUE)"
        lines += ["", title, *_columns(rows, width, left=_LEFT)]
    elif "set" in taken and not task:
        more = f"{console.program()} {name} --task=NAME --help also lists the "
        lines += ["", *_wrapped(f"{more}hyperparameters of a task.", width)]
    elif task and "set" in taken:
        lines += ["", f"The task {task!r} has no hyperparameters, or is not found."]
    return "\n".join(lines)


def _groups(taken: Mapping[str, Any]) -> dict[str, list[tuple[str, str]]]:
    """By heading the options that a command takes, each with its text."""
    found = {
        heading: [
            (_flag(taken[one]), _described(taken[one]))
            for one in names.split()
            if one in taken
        ]
        for heading, names in _GROUPS.items()
    }
    found["Output"] += _EVERYWHERE
    return {heading: rows for heading, rows in found.items() if rows}


def _parts(name: str) -> tuple[list[str], list[str]]:
    """The paragraphs and the examples of a command's docstring."""
    paragraphs: list[str] = []
    examples: list[str] = []
    for part in (command_line.load(name).__doc__ or "").strip().split("\n\n"):
        lines = part.splitlines()
        if part.startswith("    "):
            found = [line.strip() for line in lines]
            examples += [x.replace("python run.py", console.program()) for x in found]
        else:
            paragraphs.append(" ".join(lines))
    return paragraphs, examples


def _summary(name: str) -> str:
    return _parts(name)[0][0]


def _flag(field: Any) -> str:
    """The option with its value, as it is typed."""
    if isinstance(field.default, bool):
        return f"--[no]{field.name}" if field.default else f"--{field.name}"
    choices = field.metadata["choices"]
    return f"--{field.name}={'|'.join(choices) if choices else field.metadata['unit']}"


def _described(field: Any) -> str:
    """The sentence, the default, and the meaning of 0."""
    default, zero = field.default, field.metadata["zero"]
    if isinstance(default, bool):
        shown = "on" if default else "off"
    elif absent := field.metadata["absent"]:
        shown = absent
    elif default in ("", ()):
        return str(field.metadata["help"])
    else:
        shown = f"{default:g}" if isinstance(default, float) else str(default)
    if zero:
        shown += f", meaning {zero}" if not default else f"; 0 means {zero}"
    return f"{field.metadata['help']} (default: {shown})"


def _default_of(one: Mapping[str, Any]) -> str:
    if "default" not in one:
        return f"{one['type']}, must be given"
    return f"{one['type']} (default: {as_text(one['default'])})"


def _columns(rows: Sequence[tuple[str, str]], width: int, *, left: int) -> list[str]:
    """Two columns; a long left side has a line of its own."""
    lines = []
    for name, text in rows:
        first = f"  {name}".ljust(left)
        folded = _wrapped(text, max(width - left, 24))
        if len(first) > left - 1 and len(name) + 2 > left - 2:
            lines.append(f"  {name}")
            first = " " * left
        lines.append(f"{first}{folded[0]}".rstrip())
        lines += [" " * left + line for line in folded[1:]]
    return lines


def _folded_command(line: str, width: int) -> list[str]:
    """A command that can be typed, on as many lines as it needs."""
    first, *more = _wrapped(line, width - 6)
    lines = [f"  {first}", *(f"    {one}" for one in more)]
    return [*(f"{one} \\" for one in lines[:-1]), lines[-1]]


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(
        text, width, break_long_words=False, break_on_hyphens=False
    ) or [""]
