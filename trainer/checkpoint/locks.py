"""One writer for one directory.

    >>> import pathlib
    >>> from trainer.checkpoint import locks
    >>> run = pathlib.Path("runs/line")
    >>> with locks.lock(run, run / "run.lock"):        # nobody else gets in here
    ...     with locks.lock(run, run / "run.lock"):
    ...         pass
    Traceback (most recent call last):
    trainer.checkpoint.locks.LockedError: runs/line is being written by process ...

The kernel holds the lock on the directory itself, which nobody can delete from under
the holder and which needs no room on the disk, and lets go of it when the process dies.
The lock file says who the holder is. Where a file system has no locks on directories
(NFS), the file is locked in its place.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import pathlib
import socket
from collections.abc import Iterator

from trainer.base.errors import KeepstepError

_NO_LOCKS = (errno.EBADF, errno.ENOLCK, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS)


class LockedError(KeepstepError, RuntimeError):
    """Another process writes to this run directory."""


@contextlib.contextmanager
def lock(directory: pathlib.Path, file: pathlib.Path) -> Iterator[None]:
    """Holds the lock of a directory.

    Args:
      directory: that only the holder writes to.
      file: in it; says who holds the lock. It is also locked, as releases up to 0.1.0
        lock nothing else.

    Raises:
      LockedError: another process holds it; says which.
      OSError: the file system has no locks at all.
    """
    with contextlib.ExitStack() as held:
        locked = _take(held, directory, os.O_RDONLY, directory, file)
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
            locked |= _take(held, file, flags, directory, file)
            holder = {"host": socket.gethostname(), "pid": os.getpid()}
            file.write_text(json.dumps(holder) + "\n", encoding="utf-8")
        except OSError:
            # No room for it, or not ours to write: the lock of the directory will do.
            if not locked:
                raise
        if not locked:
            raise OSError(
                errno.ENOLCK,
                f"{directory} is on a file system without locks, so two runs could "
                "write to it. Give a --run_dir on another one.",
            )
        yield


def _take(
    held: contextlib.ExitStack,
    path: pathlib.Path,
    flags: int,
    directory: pathlib.Path,
    file: pathlib.Path,
) -> bool:
    """Locks one path until `held` closes; False where it can't be locked at all."""
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o666)
    held.callback(os.close, descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise LockedError(
            f"{directory} is being written by {_read_holder(file)}. One run "
            "directory has one writer: wait for that run, stop it, or give "
            "another --run_dir."
        ) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return False
    return True


def _read_holder(file: pathlib.Path) -> str:
    try:
        holder = json.loads(file.read_text(encoding="utf-8"))
        return f"process {int(holder['pid'])} on {str(holder['host'])[:255]}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
