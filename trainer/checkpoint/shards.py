"""A large state in several files, each made durable while the next one is written.

    >>> import pathlib, tensorflow as tf
    >>> from trainer.checkpoint import shards
    >>> tree = tf.train.Checkpoint(weight=tf.Variable(0.0))
    >>> with shards.Durable(pathlib.Path("ckpt-5")) as durable:
    ...     options = tf.train.CheckpointOptions(experimental_sharding_callback=durable)
    ...     _ = tree.write("ckpt-5", options)
    ...     digest = durable.secure(pathlib.Path("ckpt-5.index"))
    >>> len(digest)
    32

TensorFlow writes to memory and computes a checksum of all it writes; the disk would
have nothing to do until it is asked for everything at the end. A small state is one
file, as ever, and no tensor is cut in two: either kind is read as fast.
"""

from __future__ import annotations

import concurrent.futures
import io
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, final

import tensorflow as tf

from trainer.storage import files

_SHARDS = 16  # what is left to sync in the end is one of these
_LEAST_BYTES = 16 << 20


@final
class Durable(tf.train.experimental.ShardingCallback):  # type: ignore[misc]
    """The files of one checkpoint. Use it for one save, as a context manager."""

    def __init__(self, prefix: pathlib.Path) -> None:
        self._temporary = prefix.with_name(f"{prefix.name}_temp")  # of TensorFlow
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "sync")
        self._files: list[io.FileIO] = []
        # By inode, for the files are given other names; an open one keeps its inode.
        self._early: dict[int, concurrent.futures.Future[str]] = {}

    def __enter__(self) -> Durable:
        return self

    def __exit__(self, *error: object) -> None:
        self._thread.shutdown()
        for file in self._files:
            file.close()

    @property
    def description(self) -> str:
        """For TensorFlow's own statistics."""
        return f"{_SHARDS} shards, none below {_LEAST_BYTES} bytes, of whole tensors."

    def __call__(
        self, tensors: Sequence[tf.train.experimental.ShardableTensor]
    ) -> Sequence[dict[str, Any]]:
        """Shares the tensors out; called by TensorFlow."""
        sizes = [t.tensor.shape.num_elements() * t.tensor.dtype.size for t in tensors]
        full = max(sum(sizes) / _SHARDS, _LEAST_BYTES)
        shards: list[dict[str, Any]] = [{}]
        size = 0
        for tensor, more in zip(tensors, sizes, strict=True):
            if size >= full:
                shards.append({})
                size = 0
            slices = shards[-1].setdefault(tensor.checkpoint_key, {})
            slices[tensor.slice_spec] = tensor.tensor
            size += more
        return _Told(shards, self._written)

    def secure(self, path: pathlib.Path) -> str:
        """Makes one file durable, unless it is; gives the digest of what reads back.

        Raises:
          OSError: the disk did not take all of it.
        """
        if early := self._early.get(path.stat().st_ino):
            return early.result()
        synced = self._thread.submit(files.sync, path)
        digest = files.checksum(path)  # by the processor, while the disk is busy
        synced.result()
        return digest

    def _written(self, number: int, count: int) -> None:
        name = f"part-{number:05d}-of-{count:05d}.data-00000-of-00001"
        file = open(self._temporary / name, "rb", buffering=0)  # noqa: SIM115
        self._files.append(file)
        inode = os.fstat(file.fileno()).st_ino
        self._early[inode] = self._thread.submit(files.secure, file)


class _Told(list[dict[str, Any]]):
    """Shards; asked for the next one, it tells that TensorFlow has written the last."""

    def __init__(
        self, shards: list[dict[str, Any]], written: Callable[[int, int], None]
    ) -> None:
        super().__init__(shards)
        self._told = written

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for number, shard in enumerate(super().__iter__()):
            if number:
                self._told(number - 1, len(self))
            yield shard
