"""What a person sees: lines on stderr, answers on stdout, and no noise of libraries."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import rich.console
import rich.table
from absl import logging as absl_logging

# Exit codes: done; failed; the command line is wrong; stopped, run the same again.
DONE, FAILED, WRONG, STOPPED = 0, 1, 2, 75


def say(text: str, *, error: bool = False) -> None:
    """One answer on stdout, or one message on stderr."""
    print(text, file=sys.stderr if error else sys.stdout, flush=True)


def print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows with the same keys, as a table; wide where a program reads it."""
    if not rows:
        print("none")
        return
    table = rich.table.Table(box=None, pad_edge=False, header_style="bold")
    for name in rows[0]:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*map(str, row.values()))
    console = rich.console.Console()
    if not console.is_terminal:
        console.width = 1000  # what a program reads is not folded
    console.print(table)


class _Lines(logging.Handler):
    """Plain lines on whatever stderr is now, so that they pass above a progress bar.

    What TensorFlow's Python says below a warning is its own affair.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        own_affair = f"{os.sep}tensorflow{os.sep}" in record.pathname
        return record.levelno >= logging.WARNING or not own_affair

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr, flush=True)


def log_plainly() -> None:
    logger = absl_logging.get_absl_logger()
    handler = _Lines()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logger.handlers[:] = [handler]
    logger.propagate = False
    logger.setLevel(logging.INFO)


@contextlib.contextmanager
def quiet_import(debug: bool) -> Iterator[None]:
    """Imports TensorFlow without the lines that its libraries write to stderr.

    They come from C++, before any log level is obeyed. If the import fails they are
    shown after all.
    """
    if debug:
        yield
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.stderr.flush()
    real = os.dup(2)
    with tempfile.TemporaryFile() as hidden:
        os.dup2(hidden.fileno(), 2)
        try:
            import tensorflow as tf

            tf.config.list_logical_devices()  # the drivers speak up here
            yield
        except BaseException:
            hidden.seek(0)
            os.write(real, hidden.read())
            raise
        finally:
            os.dup2(real, 2)
            os.close(real)
