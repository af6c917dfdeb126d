"""A source that minds threads is found out every time, and no other is suspected."""

import threading
import weakref

import numpy as np
import pytest
import tasks
import tensorflow as tf

from trainer import data

ROWS = 64


def opened(owner, path):
    """A file that is closed when its owner is gone."""
    file = path.open("rb")
    weakref.finalize(owner, file.close)
    return file


class Source:
    def __init__(self, path):
        self.path = path
        self.file = opened(self, path)
        self.lock = threading.RLock()
        self.local = threading.local()
        self.at = self.chunk = None

    def __len__(self):
        return ROWS

    def row(self, raw):
        return {"x": np.frombuffer(raw, np.float32)}


class Moves(Source):
    def __getitem__(self, index):
        self.file.seek(16 * index)
        return self.row(self.file.read(16))


class MovesInOneLine(Source):
    def __getitem__(self, index):
        return self.row((self.file.seek(16 * index), self.file.read(16))[1])


class MovesFarInside(Source):
    def __getitem__(self, index):
        return self.outer(index)

    def outer(self, index):
        return self.row(self.inner(index))

    def inner(self, index):
        self.file.seek(16 * index)
        return self.file.read(16)


class Remembers(Source):
    def __getitem__(self, index):
        self.at = index
        return self.row(self.path.read_bytes()[16 * self.at :][:16])


class KeepsAChunk(Source):
    def __getitem__(self, index):
        if self.at != index // 8:
            self.chunk = self.path.read_bytes()[128 * (index // 8) :][:128]
            self.at = index // 8
        return self.row(self.chunk[16 * (index % 8) :][:16])


class ManyAtOnce(Source):
    def __getitem__(self, index):
        return self.__getitems__([index])[0]

    def __getitems__(self, indices):
        rows = []
        for index in indices:
            self.file.seek(16 * index)
            rows.append(self.row(self.file.read(16)))
        return rows


class Refuses(Source):
    """Another thread is an error, in the midst of one's own reading."""

    def __getitem__(self, index):
        if self.at is not None:
            raise RuntimeError("busy")
        self.at = index
        try:
            return self.row(self.path.read_bytes()[16 * index :][:16])
        finally:
            self.at = None


class Locks(Source):
    def __getitem__(self, index):
        with self.lock:
            self.file.seek(16 * index)
            return self.row(self.file.read(16))


class OneFileEach(Source):
    def __getitem__(self, index):
        if not hasattr(self.local, "file"):
            self.local.file = opened(self, self.path)
        self.local.file.seek(16 * index)
        return self.row(self.local.file.read(16))


class OpensEachTime(Source):
    def __getitem__(self, index):
        return self.row(self.path.read_bytes()[16 * index :][:16])


MINDS = [
    Moves,
    MovesInOneLine,
    MovesFarInside,
    Remembers,
    KeepsAChunk,
    ManyAtOnce,
    Refuses,
]


@pytest.fixture
def readers(tmp_path):
    path = tmp_path / "rows.bin"
    np.arange(4 * ROWS, dtype=np.float32).tofile(path)

    class Given(tasks.Light):
        def __init__(self, cls):
            self.cls = cls

        def sources(self):
            return {"train": self.cls(path)}

    return lambda cls: data.split(Given(cls).sources(), "train").outline.readers


@pytest.mark.parametrize("cls", MINDS)
def test_a_source_that_minds_threads_is_found_every_time(readers, cls):
    assert [readers(cls) for _ in range(20)] == [1] * 20


def test_splits_that_share_what_minds_threads_are_read_by_one(tmp_path):
    path = tmp_path / "rows.bin"
    np.arange(4 * ROWS, dtype=np.float32).tofile(path)
    asked = set()

    class Shared(Moves):
        def __getitem__(self, index):
            asked.add(threading.get_ident())
            return super().__getitem__(index)

    first, second = Shared(path), Shared(path)
    second.file = first.file
    sources = {"train": first, "test": second}
    both = [data.split(sources, name) for name in sources]
    assert [one.outline.readers for one in both] == [1, 1]
    asked.clear()
    for one in both:
        one.read(tf.constant([3, 5]))
    assert len(asked) == 1


@pytest.mark.parametrize("cls", [Locks, OneFileEach, OpensEachTime])
def test_a_source_that_minds_no_threads_is_read_by_many(readers, cls):
    assert [readers(cls) for _ in range(3)] == [16] * 3
