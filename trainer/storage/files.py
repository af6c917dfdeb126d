"""The only place that syncs, renames, links, deletes and locks files.

What must survive a power cut goes through here, so the order of the operations that
make a file durable is written once. Nothing here knows what the bytes mean.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import pathlib
import shutil
from collections.abc import Iterator

import xxhash

from trainer.storage import failpoints

_CHUNK_BYTES = 1 << 20
# The answers of a file system that has no hard links, or none between these two.
_NO_LINKS = (errno.EPERM, errno.EXDEV, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS)


def same(one: pathlib.Path, other: pathlib.Path) -> bool:
    """Whether two paths lead to one file or directory, however they are spelled."""
    try:
        return one.samefile(other)
    except OSError:
        return False


def names(directory: pathlib.Path) -> list[str]:
    """What a directory holds; nothing, if there is none."""
    try:
        with os.scandir(directory) as entries:
            return [entry.name for entry in entries]
    except (FileNotFoundError, NotADirectoryError):
        return []


def beneath(directory: pathlib.Path) -> Iterator[pathlib.Path]:
    """Every file and directory below it; links are named and not followed.

    What a running `train` deletes meanwhile is passed over, while `rglob` raises.
    """
    for folder, inner, names in os.walk(directory):
        yield from (pathlib.Path(folder, name) for name in (*inner, *names))


def make_directory(path: pathlib.Path) -> None:
    """Creates `path` and its parents, durably, with the user's umask.

    Raises:
      OSError: it cannot be created or written to; says what to do.
    """
    try:
        missing = [one for one in (path, *path.parents) if not one.exists()]
        path.mkdir(parents=True, exist_ok=True)
        for one in reversed(missing):
            sync(one.parent)
        if not os.access(path, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise OSError(
            f"cannot write to the directory {path}: {error.strerror}. "
            "Give another one with --run_dir, or make this one writable."
        ) from error


def touch(path: pathlib.Path) -> None:
    """Creates an empty file, durably; one that is there already is fine."""
    failpoints.point("storage.touch")
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    sync(path.parent)


def write_atomically(path: pathlib.Path, content: str) -> None:
    """Replaces `path` by `content` so that a reader, or a crash, meets old or new."""
    with replacing(path) as temporary:
        failpoints.point("storage.write")
        temporary.write_text(content, encoding="utf-8")


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Gives a name to write to; what is there in the end takes the place of `path`."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        # A link under this name would lead the writer elsewhere.
        temporary.unlink(missing_ok=True)
        yield temporary
        sync(temporary)
        replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            delete(temporary)
        raise


def replace(source: pathlib.Path, target: pathlib.Path) -> None:
    """Renames the synced file `source` over `target`, durably."""
    failpoints.point("storage.replace")
    source.replace(target)
    sync(target.parent)


def sync(path: pathlib.Path) -> None:
    """Makes the bytes of a file, or the entries of a directory, durable."""
    failpoints.point("storage.sync")
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def link(source: pathlib.Path, target: pathlib.Path) -> None:
    """Gives the bytes of `source` a second name; copies where links are refused.

    Where both are one file already, nothing happens.
    """
    if same(source, target) and not target.is_symlink():
        return
    target.unlink(missing_ok=True)
    failpoints.point("storage.link")
    try:
        os.link(source, target, follow_symlinks=True)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        copy(source, target)


def copy(source: pathlib.Path, target: pathlib.Path) -> None:
    """Copies the bytes of a file so that `target` is whole whenever it is there.

    Raises:
      OSError: it can't be written, or does not read back as it was.
    """
    if same(source, target):
        return
    with replacing(target) as temporary:
        failpoints.point("storage.copy")
        shutil.copyfile(source, temporary)
        sync(temporary)
        if checksum(source) != checksum(temporary):
            raise OSError(
                errno.EIO, "the copy does not read back as it was", str(target)
            )


def delete(path: pathlib.Path) -> None:
    """Deletes a file or a whole directory; what is already gone is fine."""
    failpoints.point("storage.delete")
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def free_bytes(directory: pathlib.Path) -> int:
    """What this user may still write to the file system of `directory`."""
    return shutil.disk_usage(directory).free


def checksum(path: pathlib.Path) -> str:
    """The xxh3 128-bit digest of a file's bytes, in hexadecimal.

    XXH3 (https://xxhash.com) finds accidental damage; it does not stop a forger.
    """
    with open(path, "rb", buffering=0) as file:
        return _digest(file)


def secure(file: io.FileIO) -> str:
    """Makes the bytes of an open file durable; gives the `checksum` that reads back."""
    failpoints.point("storage.sync")
    os.fsync(file.fileno())
    return _digest(file)


def _digest(file: io.FileIO) -> str:
    digest = xxhash.xxh3_128()
    buffer = memoryview(bytearray(_CHUNK_BYTES))
    while count := file.readinto(buffer):
        digest.update(buffer[:count])
    return digest.hexdigest()
