"""The table of commands; exceptions become one clear message and an exit code.

Exit codes: 0 done; 1 failed; 2 the command line or the configuration is wrong;
75 stopped on request with everything saved (run the same command again).
"""

from __future__ import annotations

import dataclasses
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence

from absl import flags

from trainer.checkpoint import selection
from trainer.commands import answers, console, inference, training
from trainer.config import options, run_record

_COMMANDS: Mapping[str, Callable[[options.Config, str], int]] = {
    "train": training.train,
    "evaluate": inference.evaluate,
    "predict": inference.predict,
    "export": inference.export,
    "average": inference.average,
    "list": answers.list_checkpoints,
    "show": answers.show,
    "diff": answers.diff,
    "verify": answers.verify,
    "prove": training.prove,
    "prune": answers.prune,
    "tasks": training.tasks,
}


def main(argv: Sequence[str], *, package: str) -> int:
    """Runs one command.

    Args:
      argv: `[program, COMMAND, --flag=value, ...]`, the command anywhere.
      package: where the registered tasks are.

    Returns:
      The exit code.
    """
    debug = "--debug" in argv
    console.log_plainly()
    try:
        values = flags.FlagValues()  # type: ignore[no-untyped-call]
        options.define_flags(values)
        flags.DEFINE_boolean("help", False, "Show this.", flag_values=values)
        words = values(list(argv))[1:]
        if values["help"].value:
            console.say(_usage(values))
            return console.DONE
        if len(words) > 1:
            raise options.ConfigError(
                f"one command at a time, not {' and '.join(words)}."
            )
        command = words[0] if words else "train"
        if command not in _COMMANDS:
            raise options.ConfigError(
                f"there is no command {command!r}.{options.suggest(command, _COMMANDS)}"
            )
        given = {name for name in values if values[name].present}
        choices = run_record.complete(options.from_flags(values), given)
        debug = choices.debug
        if choices.format in options.EXPORTS and command != "export":
            raise options.ConfigError(
                f"--format={choices.format} is for export: expected table or json."
            )
        return _COMMANDS[command](choices, package)
    except (options.ConfigError, selection.NoCheckpointError, flags.Error) as error:
        return _tell(error, debug, console.WRONG)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader, such as `head`, has seen enough; nor may the exit flush anything.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return console.FAILED
    except Exception as error:
        return _tell(error, debug, console.FAILED)


def _usage(values: flags.FlagValues) -> str:
    lines = [
        "python run.py [COMMAND] [--flagfile=FILE] [--flag=value ...]",
        "",
        "commands",
    ]
    lines += [f"  {k:<12}{v.__doc__}" for k, v in _COMMANDS.items()]
    lines += ["", "flags (default)"]
    for field in dataclasses.fields(options.Config):
        default = values[field.name].default
        shown = f" ({default})" if default not in ("", None, [], 0, False) else ""
        lines.append(f"  --{field.name:<22}{field.metadata['help']}{shown}")
    return "\n".join(lines)


def _tell(error: Exception, debug: bool, code: int) -> int:
    """One message on stderr; the traceback only where it is asked for."""
    if debug:
        traceback.print_exception(error, file=sys.stderr)
    console.say(f"{type(error).__name__}: {error}", error=True)
    return code
