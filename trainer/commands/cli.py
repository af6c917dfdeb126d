"""Runs one command; exceptions become one clear message and an exit code.

Exit codes: 0 done; 1 failed; 2 the command line or the configuration is wrong;
73 another process holds the run; 75 stopped on request with everything saved (run the
same command again); 130 interrupted.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from trainer.base import version
from trainer.checkpoint import locks, selection
from trainer.commands import command_line, console, help
from trainer.config import flagfiles, options, shipped


def main(argv: Sequence[str], *, package: str = "") -> int:
    """Runs one command.

    Args:
      argv: `[program, COMMAND, --flag=value, ...]`, the command anywhere.
      package: where the registered tasks are; that of the shipped ones, if not given.

    Returns:
      The exit code.
    """
    console.begin(argv[0])
    unread: options.ConfigError | None = None
    words = flagfiles.Words(tuple(argv[1:]), tuple(argv[1:]))
    try:
        package = package or shipped.tasks_package()
        words = flagfiles.opened(shipped.with_flagfiles(argv, package)[1:])
    except options.ConfigError as error:
        unread = error
    as_json = command_line.wants_json(words.every)
    with console.one_document() if as_json else contextlib.nullcontext():
        return _guarded(words, unread, package=package, as_json=as_json)


def _guarded(
    words: flagfiles.Words,
    unread: options.ConfigError | None,
    *,
    package: str,
    as_json: bool,
) -> int:
    """The exit code of a command; whatever it raises is told."""
    debug = "--debug" in words.every or "-debug" in words.every
    try:
        if unread is not None:
            raise unread
        line = command_line.read(words)
        if line.help or line.version:
            return _inform(line, package, as_json=as_json, debug=debug)
        asked = command_line.asked(line, package=package, as_json=as_json, debug=debug)
        return command_line.load(line.command).run(asked, package)
    except (options.ConfigError, selection.NoCheckpointError) as error:
        return _tell(error, console.WRONG, as_json=as_json, debug=debug)
    except locks.LockedError as error:
        return _tell(error, console.LOCKED, as_json=as_json, debug=debug)
    except KeyboardInterrupt:
        if as_json:
            console.answer_error("KeyboardInterrupt", "", console.INTERRUPTED)
        return console.INTERRUPTED
    except BrokenPipeError:
        console.give_up_stdout()
        return console.FAILED
    except Exception as error:
        return _tell(error, console.FAILED, as_json=as_json, debug=debug)


def _inform(
    line: command_line.Line, package: str, *, as_json: bool, debug: bool
) -> int:
    """Answers `--version`, `--help` and `COMMAND --help`."""
    if line.version:
        what, text = "version", version.__version__
        shown = f"keepstep {text}"
    elif not line.explicit:
        what, text = "help", help.overview(width=console.width())
        shown = text
    else:
        named = "task" in line.every.given and line.command in ("train", "prove")
        found = command_line.hyperparameters(line, package, debug) if named else {}
        text = help.of_command(
            line.command,
            width=console.width(),
            task=command_line.named_task(line) if named else "",
            hyperparameters=list(found.values()),
        )
        what, shown = "help", text
    if as_json:
        console.answer({what: text})
    else:
        console.say(shown)
    return console.DONE


def _tell(error: Exception, code: int, *, as_json: bool, debug: bool) -> int:
    """One message on stderr; on stdout the same as a document, if one is owed."""
    console.say_error(error, debug=debug)
    if as_json:
        console.answer_error(type(error).__name__, str(error), code)
    return code
