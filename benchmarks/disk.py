"""A disk as a power cut may leave it, and a recorder that watches a real directory.

    disk = Disk()
    disk.write("ckpt.tmp", b"new")
    disk.sync("ckpt.tmp")                   # its bytes, not its name
    disk.rename("ckpt.tmp", "ckpt")
    disk.sync("")                           # the names in the root
    disk.cut("subset", random.Random(0))    # what may be found after a power cut

POSIX promises no more than this, and a journaling file system keeps more:

- fsync of a file makes its bytes durable; of a directory, the names in it as they are.
- Any subset of the names that were made, renamed, linked or deleted since then may be
  there. A rename is one change: all of it or nothing. A directory that has no name is
  lost with everything in it, whatever was synced.
- Bytes that were not synced may be missing, zeros where the file grew, or there up to
  some block.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import hashlib
import os
import pathlib
import random
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

BLOCK = 512
# Which names are there, and what became of bytes that were not synced:
CUTS = (
    "lost",  # no name; none
    "empty",  # every name; none
    "zeroed",  # every name; zeros, in files as long as they were written
    "torn",  # every name; each file up to some block
    "in order",  # the names up to some moment; by chance
    "subset",  # any names; by chance
)
_BYTES = ("whole", "empty", "zeroed", "torn")
_MUTATIONS = frozenset(
    f"os.{name}" for name in ("rename", "link", "remove", "mkdir", "rmdir", "truncate")
)
_WRITES = os.O_WRONLY | os.O_RDWR


@dataclasses.dataclass(eq=False)
class File:
    """Its bytes, as they were synced last and as they read now."""

    number: int
    synced: bytes = b""
    written: bytes = b""


@dataclasses.dataclass(eq=False)
class Directory:
    """Its entries, as they were synced last and as they read now."""

    number: int
    synced: dict[str, Node] = dataclasses.field(default_factory=dict)
    written: dict[str, Node] = dataclasses.field(default_factory=dict)


Node = File | Directory
# Directory, name, and what it is from now on; None: there is none any more.
Part = tuple[Directory, str, Node | None]


@dataclasses.dataclass(frozen=True)
class Found:
    """What a power cut has left.

    Attributes:
      directories: paths, parents first.
      files: by path, the number of the file, which its hard links share, and its bytes.
    """

    directories: tuple[str, ...]
    files: dict[str, tuple[int, bytes]]

    @property
    def digest(self) -> str:
        """Equal for equal contents, links included."""
        first: dict[int, str] = {}
        digest = hashlib.sha256(repr(sorted(self.directories)).encode())
        for path, (number, content) in sorted(self.files.items()):
            place = first.setdefault(number, path)
            digest.update(repr((path, place, content)).encode())
        return digest.hexdigest()

    def restore(self, target: pathlib.Path) -> None:
        """Writes all of it below a new directory."""
        target.mkdir()
        for path in self.directories:
            (target / path).mkdir()
        first: dict[int, pathlib.Path] = {}
        for path, (number, content) in self.files.items():
            if number in first:
                os.link(first[number], target / path)
            else:
                first[number] = target / path
                first[number].write_bytes(content)


class Disk:
    """Files and names, each with what of it is durable.

    Paths are relative to the root, which is `""`.
    """

    def __init__(self) -> None:
        self._count = 0
        self.root = self.directory()
        # In the order in which they were made; each is as a whole there or not.
        self._pending: list[list[Part]] = []

    # As a program sees it.

    def write(self, path: str, content: bytes) -> None:
        """Makes a file, or gives one other bytes."""
        parent, name = self._split(path)
        file = parent.written.get(name)
        if not isinstance(file, File):
            file = self.file()
            self.change([(parent, name, file)])
        file.written = content

    def make_directory(self, path: str) -> None:
        self.change([(*self._split(path), self.directory())])

    def rename(self, source: str, target: str) -> None:
        """Takes the place of what is there."""
        node = self.find(source)
        self.change([(*self._split(target), node), (*self._split(source), None)])

    def link(self, source: str, target: str) -> None:
        self.change([(*self._split(target), self.find(source))])

    def unlink(self, path: str) -> None:
        self.change([(*self._split(path), None)])

    def sync(self, path: str) -> None:
        """As fsync of a file or of a directory."""
        self.make_durable(self.find(path))

    # As a recorder sees it, which knows files by what they are, not by their names.

    def file(self) -> File:
        """A new one without a name."""
        self._count += 1
        return File(self._count)

    def directory(self) -> Directory:
        """A new one without a name."""
        self._count += 1
        return Directory(self._count)

    def change(self, parts: list[Part]) -> None:
        """Names that change together."""
        _apply(parts, lambda directory: directory.written)
        self._pending.append(parts)

    def make_durable(self, node: Node) -> None:
        """The bytes of a file, or the names in a directory."""
        if isinstance(node, File):
            node.synced = node.written
            return
        left = []
        for parts in self._pending:
            # What goes from here to another directory is there before it is gone here.
            leaves = any(d is node and to is None for d, _, to in parts)
            done = [part for part in parts if leaves or part[0] is node]
            _apply(done, lambda directory: directory.synced)
            if rest := [part for part in parts if part not in done]:
                left.append(rest)
        self._pending = left

    def make_all_durable(self) -> None:
        """As when nothing was written for a long time."""
        for parts in self._pending:
            _apply(parts, lambda directory: directory.synced)
        self._pending = []
        for _, node in _walk(self.root, lambda directory: directory.written):
            if isinstance(node, File):
                node.synced = node.written

    # As it is found after a power cut.

    def cut(self, kind: str, chance: random.Random) -> Found:
        """What is left; `kind` is one of `CUTS`."""
        kept = self._pending if kind != "lost" else []
        if kind == "in order":
            kept = kept[: chance.randrange(len(kept) + 1)]
        elif kind == "subset":
            kept = [parts for parts in kept if chance.random() < 0.5]
        entries: dict[int, dict[str, Node]] = {}

        def names(directory: Directory) -> dict[str, Node]:
            return entries.setdefault(directory.number, dict(directory.synced))

        for parts in kept:
            _apply(parts, names)
        directories, files = [], {}
        contents: dict[int, bytes] = {}
        for path, node in _walk(self.root, names):
            if isinstance(node, Directory):
                directories.append(path)
                continue
            if node.number not in contents:
                how = {"lost": "empty", "in order": "", "subset": ""}.get(kind, kind)
                how = how or chance.choice(_BYTES)
                contents[node.number] = _left(node, how, chance)
            files[path] = node.number, contents[node.number]
        return Found(tuple(directories), files)

    def find(self, path: str) -> Node:
        """What has that name now."""
        if not path:
            return self.root
        parent, name = self._split(path)
        return parent.written[name]

    def _split(self, path: str) -> tuple[Directory, str]:
        parent, _, name = path.rpartition("/")
        directory = self.find(parent)
        if not isinstance(directory, Directory):
            raise NotADirectoryError(parent)
        return directory, name


def _apply(parts: list[Part], names: Callable[[Directory], dict[str, Node]]) -> None:
    for directory, name, node in parts:
        if node is None:
            names(directory).pop(name, None)
        else:
            names(directory)[name] = node


def _walk(
    directory: Directory, names: Callable[[Directory], dict[str, Node]], at: str = ""
) -> Iterator[tuple[str, Node]]:
    """Every node below a directory with its path, parents first."""
    for name, node in names(directory).items():
        yield at + name, node
        if isinstance(node, Directory):
            yield from _walk(node, names, f"{at}{name}/")


def _left(file: File, how: str, chance: random.Random) -> bytes:
    """What is left of the bytes of a file."""
    old, new = file.synced, file.written
    if how == "whole" or old == new:
        return new
    if how == "empty":
        return old
    if how == "zeroed":
        return old[: len(new)] + bytes(max(0, len(new) - len(old)))
    end = chance.choice(range(0, len(new), BLOCK) or [0])
    return new[:end] + old[end:]


class Recorder:
    """Watches a real directory and keeps a `Disk` for each moment of it.

    Before each operation by which Python changes names, and around each fsync, all
    there is below the directory is looked at. So what TensorFlow does by itself is
    seen, too, though several of its operations may count as one moment; it syncs
    nothing. What is there at the beginning counts as durable.

    Attributes:
      moments: the disk at each of them, with what was noted last.
    """

    def __init__(self, root: pathlib.Path) -> None:
        self._root = root
        self._lock = threading.RLock()
        self._disk = Disk()
        # An open file keeps its inode, so that no other one gets its number.
        self._known: dict[int, tuple[int, Node]] = {
            root.stat().st_ino: (os.open(root, os.O_RDONLY), self._disk.root)
        }
        self._noted: Any = None
        self.moments: list[tuple[Disk, Any]] = []
        self._look()
        self._disk.make_all_durable()

    @contextlib.contextmanager
    def watching(self) -> Iterator[Recorder]:
        """While this is open; one at a time."""
        real = os.fsync

        def fsync(descriptor: int) -> None:
            with self._lock:
                self.look()
                real(descriptor)
                known = self._known.get(os.fstat(descriptor).st_ino)
                if known is not None:
                    self._disk.make_durable(known[1])
                    self._keep()

        _listen()
        _Hook.heard, os.fsync = self.look, fsync
        try:
            self._keep()
            yield self
            self.look()
        finally:
            _Hook.heard, os.fsync = None, real
            for descriptor, _ in self._known.values():
                os.close(descriptor)

    def note(self, what: Any) -> None:
        """From here on, the moments carry this."""
        with self._lock:
            self.look()
            self._noted = what
            self._keep()

    def look(self) -> None:
        """A moment, if anything is other than at the last one."""
        with self._lock:
            if self._look():
                self._keep()

    def _keep(self) -> None:
        self.moments.append((copy.deepcopy(self._disk), self._noted))

    def _look(self) -> bool:
        """Brings the disk to what is there; whether that is anything new."""
        there = dict(self._entries(self._root, self._disk.root))
        before = {
            (directory.number, name): (directory, name, node)
            for directory in self._directories()
            for name, node in directory.written.items()
        }
        made = [
            part
            for key, part in there.items()
            if key not in before or before[key][2] is not part[2]
        ]
        gone = [part for key, part in before.items() if key not in there]
        changes: list[list[Part]] = []
        for part in made:
            source = next((one for one in gone if one[2] is part[2]), None)
            if source is not None:
                gone.remove(source)
            renamed = [(source[0], source[1], None)] if source else []
            changes.append([part, *renamed])
        changes += [[(directory, name, None)] for directory, name, _ in reversed(gone)]
        for parts in changes:
            self._disk.change(parts)
        written = [self._reread(*known) for known in [*self._known.values()]]
        return bool(changes) or any(written)

    def _directories(self) -> Iterator[Directory]:
        yield self._disk.root
        for _, node in _walk(self._disk.root, lambda directory: directory.written):
            if isinstance(node, Directory):
                yield node

    def _entries(
        self, path: pathlib.Path, directory: Directory
    ) -> Iterator[tuple[tuple[int, str], tuple[Directory, str, Node]]]:
        """Everything below a directory; what goes meanwhile is passed over."""
        try:
            inner = sorted(path.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return
        for one in inner:
            node = self._node(one)
            if node is None:
                continue
            yield (directory.number, one.name), (directory, one.name, node)
            if isinstance(node, Directory):
                yield from self._entries(one, node)

    def _node(self, path: pathlib.Path) -> Node | None:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None
        status = os.fstat(descriptor)
        if status.st_ino in self._known:
            os.close(descriptor)
        else:
            is_directory = stat.S_ISDIR(status.st_mode)
            node = self._disk.directory() if is_directory else self._disk.file()
            self._known[status.st_ino] = descriptor, node
        return self._known[status.st_ino][1]

    def _reread(self, descriptor: int, node: Node) -> bool:
        """Takes the bytes of a file; forgets one that has no name any more."""
        status = os.fstat(descriptor)
        if not status.st_nlink:
            del self._known[status.st_ino]
            os.close(descriptor)
            return False
        if isinstance(node, Directory):
            return False
        content = os.pread(descriptor, status.st_size, 0)
        changed = content != node.written
        node.written = content
        return changed


class _Hook:
    """An audit hook can't be taken back, so there is one, which asks who listens."""

    installed = False
    heard: Callable[[], None] | None = None


def _listen() -> None:
    if not _Hook.installed:
        sys.addaudithook(_hear)
        _Hook.installed = True


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if _Hook.heard is None:
        return
    if event in _MUTATIONS or (event == "open" and arguments[2] & _WRITES):
        _Hook.heard()
