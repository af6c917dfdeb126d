"""All that is printed: lines on stderr, answers on stdout, no noise of libraries.

What a person sees passes through `plain_text.plain`: names from files don't move the
cursor, and a line that can't be encoded is still shown.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import pathlib
import shutil
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TextIO

from absl import logging as absl_logging

from trainer.commands import tables
from trainer.config.fields import ConfigError
from trainer.reporting.plain_text import plain

# Exit codes: done; failed; the command line is wrong; another process holds the run;
# stopped, run the same again; interrupted by Ctrl-C.
DONE, FAILED, WRONG, LOCKED, STOPPED, INTERRUPTED = 0, 1, 2, 73, 75, 130
_LEAST_WIDTH, _WIDTH = 40, 80


class _Session:
    """How this program was called, and where its answers go."""

    program = "python run.py"
    launcher: tuple[str, ...] = ("run.py",)
    answers: TextIO | None = None


def begin(path: str) -> None:
    """Notes the path by which this program was called; logs as people read it."""
    place = pathlib.PurePath(path)
    if place.name == "__main__.py":
        _Session.program = f"python -m {place.parent.name}"
        _Session.launcher = ("-m", place.parent.name)
    else:
        script = place.suffix == ".py"
        _Session.program = f"python {place.name}" if script else place.name
        _Session.launcher = (path,)
    _log_plainly()


def program() -> str:
    """The words before a command, such as `python run.py`."""
    return _Session.program


def launcher() -> tuple[str, ...]:
    """The arguments with which Python runs this program again, before its own."""
    return _Session.launcher


def say(text: str, *, error: bool = False) -> None:
    """One answer on stdout, or one message on stderr."""
    stream = sys.stderr if error else sys.stdout
    encoding = getattr(stream, "encoding", None) or "utf-8"
    safe = plain(text).encode(encoding, "backslashreplace").decode(encoding)
    print(safe, file=stream, flush=True)


def say_error(error: Exception, *, debug: bool) -> None:
    """One message on stderr, below the traceback where that is asked for."""
    if debug:
        say("".join(traceback.format_exception(error)).rstrip(), error=True)
    say(f"{type(error).__name__}: {error}", error=True)


def print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows with the same keys, as a table; wide where a program reads it."""
    for line in tables.render(rows, width=width() if is_terminal() else None):
        say(line)


def is_terminal() -> bool:
    """Whether a person reads stdout."""
    return sys.stdout.isatty()


def width() -> int:
    """Of the terminal, or `COLUMNS`, in cells."""
    return max(shutil.get_terminal_size((_WIDTH, 24)).columns, _LEAST_WIDTH)


@contextlib.contextmanager
def one_document() -> Iterator[None]:
    """Meanwhile `answer` alone writes to stdout; what else would, goes to stderr."""
    before = _Session.answers
    _Session.answers = sys.stdout
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        _Session.answers = before


def answer(document: Any) -> None:
    """One JSON document on stdout; what JSON can't hold, such as NaN, is null in it."""
    text = json.dumps(_finite(document), indent=1, allow_nan=False)
    print(text, file=_Session.answers or sys.stdout, flush=True)


def answer_error(kind: str, message: str, code: int) -> None:
    """The document of a command that failed."""
    answer({"error": {"type": kind, "message": message}, "exit_code": code})


def give_up_stdout() -> None:
    """The reader, such as `head`, has seen enough; nor may the exit flush anything."""
    stream = _Session.answers or sys.stdout
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@contextlib.contextmanager
def quiet_import(debug: bool, *, threads: int = 0) -> Iterator[None]:
    """Imports TensorFlow without the lines that its libraries write to stderr.

    They come from C++, before any log level is obeyed. If the import fails they are
    shown after all.

    Args:
      debug: whether they are shown in any case.
      threads: that TensorFlow uses for one op; 0: as many as there are cores.
    """
    if debug:
        _begin_tensorflow(threads)
        yield
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    check_temporary()
    sys.stderr.flush()
    real = os.dup(2)
    with tempfile.TemporaryFile() as hidden:
        os.dup2(hidden.fileno(), 2)
        try:
            _begin_tensorflow(threads)
            yield
        except BaseException:
            hidden.seek(0)
            os.write(real, hidden.read())
            raise
        finally:
            os.dup2(real, 2)
            os.close(real)


def check_temporary() -> None:
    """Makes sure that TensorFlow can write the files that it needs for a moment.

    Raises:
      ConfigError: there is no directory for them.
    """
    try:
        tempfile.gettempdir()
    except FileNotFoundError as error:
        raise ConfigError(
            f"there is no directory for temporary files ({error.strerror}). Set TMPDIR "
            "to one that can be written to."
        ) from error


def _begin_tensorflow(threads: int) -> None:
    import tensorflow as tf

    from trainer.checkpoint import environment

    if threads:
        environment.use_threads(threads)
    tf.config.list_logical_devices()  # the drivers speak up here


class _Lines(logging.Handler):
    """Plain lines on whatever stderr is now, so that they pass above a progress bar.

    What TensorFlow's Python says below a warning is its own affair.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        own_affair = f"{os.sep}tensorflow{os.sep}" in record.pathname
        return record.levelno >= logging.WARNING or not own_affair

    def emit(self, record: logging.LogRecord) -> None:
        say(self.format(record), error=True)


def _log_plainly() -> None:
    logger = absl_logging.get_absl_logger()
    handler = _Lines()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logger.handlers[:] = [handler]
    logger.propagate = False
    logger.setLevel(logging.INFO)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
