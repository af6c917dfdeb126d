"""Tiny runs, deaths at a chosen storage operation, and pictures of directories."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

import processes
import tensorflow as tf

from trainer.checkpoint import manifest, retention
from trainer.checkpoint.layout import RunDirectory
from trainer.checkpoint.manifest import Draft, Manifest
from trainer.checkpoint.store import Store
from trainer.checkpoint.tree import Tree
from trainer.storage import failpoints

MINE = '''
"""A line fitted to a few points, with a random input."""

import dataclasses

import keras
import numpy as np

from trainer import data, task


@dataclasses.dataclass(frozen=True)
class Mine(task.Task):
    best = ("loss:min:3",)

    def sources(self):
        x = np.random.default_rng(0).normal(size=[40, 4]).astype("float32")
        every = {"x": x, "y": x @ np.float32([1, -2, 3, 0.5])}
        return {
            "train": {name: array[:30] for name, array in every.items()},
            "valid": {name: array[30:] for name, array in every.items()},
        }

    def networks(self):
        return keras.Sequential([keras.layers.Input([4]), keras.layers.Dense(1)])

    def optimizers(self):
        return keras.optimizers.SGD(0.05, momentum=0.9)

    def augment(self, batch, seeds):
        return {**batch, "x": batch["x"] + 0.1 * data.uniform(seeds, [4])}

    def values(self, networks, batch, training):
        answers = networks(batch["x"], training=training)[:, 0]
        return {"loss": (answers - batch["y"]) ** 2}
'''
STEPS = 12
CHOICES = (
    "--batch_size=8",
    "--report_every_steps=2",
    "--evaluate_every_steps=4",
    "--save_every_steps=2",
    "--keep_recent=4",
    "--progress=none",
)


# Runs of the program.


def arguments(mine: pathlib.Path, run_dir: object, *more: str) -> list[str]:
    """Trains the task of that file."""
    given = [f"--task={mine}:Mine", f"--run_dir={run_dir}", *CHOICES]
    return ["train", *given, *(more or [f"--steps={STEPS}"])]


def make_run(directory: pathlib.Path) -> pathlib.Path:
    """A finished run below `directory`, with `mine.py` beside it."""
    (directory / "mine.py").write_text(MINE)
    done = processes.call(*arguments(directory / "mine.py", directory / "run"))
    assert done.code == 0, done.stderr
    return directory / "run"


def train(run: pathlib.Path, *more: str, of: pathlib.Path) -> processes.Result:
    """The command of `make_run` once more, on a copy of the run `of`."""
    given = more if any("--steps" in one for one in more) else (*more, "--steps=12")
    return processes.call(*arguments(of.parent / "mine.py", run, *given))


# Directories.


def steps(directory: pathlib.Path) -> list[int]:
    """The steps that have a manifest there."""
    names = (path.stem for path in directory.glob("ckpt-*.json"))
    return sorted(int(name.removeprefix("ckpt-")) for name in names)


def picture(directory: pathlib.Path) -> dict[str, tuple[Any, ...]]:
    """Everything below a directory: kind, content, number of links, time of change."""
    found: dict[str, tuple[Any, ...]] = {}
    for path in [directory, *sorted(directory.rglob("*"))]:
        status = path.lstat()
        name = str(path.relative_to(directory))
        if path.is_symlink():
            found[name] = ("link", str(path.readlink()))
        elif path.is_dir():
            found[name] = ("directory", status.st_mtime_ns)
        else:
            links, time = status.st_nlink, status.st_mtime_ns
            found[name] = ("file", path.read_bytes(), links, time)
    return found


def contents(directory: pathlib.Path) -> dict[str, bytes]:
    """The bytes of every regular file below a directory, by name."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


def digest(path: pathlib.Path) -> str:
    """The digest of one file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def digests(directory: pathlib.Path) -> set[str]:
    """The digest of every file of a checkpoint's data below a directory."""
    return {digest(path) for path in directory.rglob("ckpt-*.data-*") if path.is_file()}


def copy(run: pathlib.Path, target: pathlib.Path) -> pathlib.Path:
    """A copy of a run directory with its symbolic links."""
    shutil.copytree(run, target, symlinks=True)
    return target


# Checkpoints without a run.


def tree(value: float = 0.0) -> Tree:
    """As little as a checkpoint can hold."""
    return Tree(tf.train.Checkpoint(value=tf.Variable([value] * 3)))


def store(run_dir: pathlib.Path, *best: str, **rules: Any) -> Store:
    """The store of a directory; it is not yet prepared."""
    parsed = tuple(map(retention.Best.parse, best))
    return Store(RunDirectory(run_dir), retention.Rules(best=parsed, **rules))


def save(
    house: Store, held: Tree, step: int, metrics: Mapping[str, float] | None = None
) -> Manifest:
    """Saves a tree whose value is its step."""
    held.tree.value.assign([float(step)] * 3)
    held.step = step
    held.pack()
    variables = held.describe()
    return house.save(
        held.tree, Draft(step=step, metrics=dict(metrics or {}), variables=variables)
    )


def sound(directory: pathlib.Path) -> dict[int, Manifest]:
    """The checkpoints of one directory whose every byte is right, by step."""
    found = {}
    for step in steps(directory):
        with contextlib.suppress(manifest.ManifestError, OSError):
            mark = manifest.read(directory, step)
            if manifest.damage(directory, mark) is None:
                found[step] = mark
    return found


# Deaths.


class Killed(BaseException):
    """Nothing is done after this, as after a SIGKILL."""


class Death:
    """Counts the storage operations; from one of them on there are no more."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.count = 0

    @property
    def came(self) -> bool:
        return self.count >= self.at

    def point(self, name: str) -> None:
        self.count += name.startswith(("storage.", "promotion", "save"))
        if self.came:
            raise Killed(name)


@contextlib.contextmanager
def death(at: int = 1 << 30) -> Iterator[Death]:
    """What is done inside ends at its storage operation number `at`."""
    real, dying = failpoints.point, Death(at)
    failpoints.point = dying.point
    try:
        yield dying
    except Killed:
        pass
    finally:
        failpoints.point = real


def flip(path: pathlib.Path, offset: int) -> None:
    """Changes one bit of one byte."""
    size = path.stat().st_size
    content = bytearray(path.read_bytes())
    content[offset % size] ^= 1 << (offset % 8)
    with open(path, "r+b") as file:
        file.write(content)
        os.fsync(file.fileno())
