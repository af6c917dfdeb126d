"""The campaign of damage: a run directory is harmed at random, then restored.

    python benchmarks/corruption.py --count=2000 --seed=0

Each time, a copy of a run directory is damaged: flipped bits, a file cut short, deleted
or exchanged with another, a block of zeros; in any kind of file, once or more often. A
checkpoint among the best shares its bytes with the recent one, so a damage is done to
the bytes, as a disk would, or to one name of them. Then the run is restored as `train`
does it, and every variable compared with what was committed at the step that came back.

unharmed      the newest checkpoint was restored, and nothing was found damaged
repaired      what was damaged was noticed, and a sound checkpoint restored
clear error   nothing was restored, and a message says why
unclear       an error that is none of ours
SILENT        something came back that was never committed

Prints one table; exits with 1 if there is anything in the last two columns.
"""

from __future__ import annotations

import argparse
import collections
import os
import pathlib
import random
import shutil
import sys
import tempfile
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from absl import logging
from rich import console
from rich import table as tables

from trainer import data, task
from trainer.checkpoint import (
    catalog,
    compatibility,
    layout,
    manifest,
    retention,
    selection,
    store,
)
from trainer.checkpoint.layout import RunDirectory
from trainer.checkpoint.manifest import Draft
from trainer.checkpoint.store import Store
from trainer.config import options, run_record
from trainer.model import building
from trainer.model.progress import Progress

CLEAR = (
    store.NoUsableCheckpointError,
    selection.DamagedCheckpointError,
    compatibility.IncompatibleCheckpointError,
    options.ConfigError,
)
OUTCOMES = ("unharmed", "repaired", "clear error", "unclear", "SILENT")
_ACCURACY = {1: 0.25, 2: 0.75, 3: 0.5, 4: 0.5, 5: 1.0, 6: 0.0}  # by step
_RULE = retention.Best("accuracy", "max", 2)
_BLOCK = 512

Values = dict[str, Any]


class Points(task.Task):
    """A dense layer with some hundred weights."""

    def sources(self) -> dict[str, Any]:
        x = np.zeros([8, 16], np.float32)
        return {"train": {"x": x}, "valid": {"x": x}}

    def networks(self) -> keras.Model:
        return keras.Sequential([keras.layers.Input([16]), keras.layers.Dense(24)])

    def optimizers(self) -> keras.optimizers.Optimizer:
        return keras.optimizers.SGD(0.1, momentum=0.9)

    def values(self, networks: Any, batch: Any, training: bool) -> dict[str, Any]:
        return {"loss": networks(batch["x"], training=training)[:, 0]}


# Damages. Each takes the chance and the files to choose from.


def flip(chance: random.Random, path: pathlib.Path) -> None:
    """Mostly one bit."""
    content = bytearray(path.read_bytes())
    for _ in range(chance.choice([1, 1, 1, 2, 8]) if content else 0):
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def truncate(chance: random.Random, path: pathlib.Path) -> None:
    os.truncate(path, chance.randrange(path.stat().st_size + 1))


def zero(chance: random.Random, path: pathlib.Path) -> None:
    """A block that was never written."""
    content = bytearray(path.read_bytes())
    start = chance.randrange(0, len(content) + 1, _BLOCK)
    length = len(content[start : start + _BLOCK])
    content[start : start + length] = bytes(length)
    path.write_bytes(content)


def delete(chance: random.Random, path: pathlib.Path) -> None:
    del chance
    path.unlink()


def exchange(chance: random.Random, path: pathlib.Path) -> None:
    """With any other file of the run."""
    root = next(p for p in path.parents if p.name == "run")
    other = chance.choice(files(root))
    one, another = path.read_bytes(), other.read_bytes()
    path.write_bytes(another)
    other.write_bytes(one)


DAMAGES: dict[str, Callable[[random.Random, pathlib.Path], None]] = {
    "flipped bits": flip,
    "cut short": truncate,
    "zeroed block": zero,
    "deleted": delete,
    "exchanged": exchange,
}


def files(run_dir: pathlib.Path) -> list[pathlib.Path]:
    """Every file there is, in a fixed order."""
    return sorted(path for path in run_dir.rglob("*") if path.is_file())


def kind(path: pathlib.Path) -> str:
    """Where a file is, and what: `recent .index`, `best checkpoint`, `config.json`."""
    home = next((h for h in ("recent", "best") if h in path.parts), "")
    suffix = "".join(path.suffixes[:1]).partition("-")[0]
    what = suffix if path.name.startswith(layout.PREFIX) else path.name
    return f"{home} {what}".strip()


def copy(source: pathlib.Path, target: pathlib.Path) -> None:
    """Copies a directory; what shared its bytes there does so here."""
    known: dict[int, pathlib.Path] = {}
    for path in files(source):
        place = target / path.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        if first := known.get(path.stat().st_ino):
            os.link(first, place)
        else:
            known[path.stat().st_ino] = place
            shutil.copyfile(path, place)


def unlinked(path: pathlib.Path) -> None:
    """Gives this name bytes of its own."""
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)


class Campaign:
    """One run, and what restoring a damaged copy of it brings.

    Attributes:
      run_dir: the sound run; its name is `run`.
    """

    def __init__(self, directory: pathlib.Path) -> None:
        self.run_dir = directory / "sound" / "run"
        self._copy = directory / "copy" / "run"
        given = Points()
        source = data.split(given.sources(), "train")
        inputs = data.Shuffled(task=given, source=source, batch_size=2, seed=0)
        self._state = building.build(given, inputs.batch, seed=0)
        self._committed: dict[int, tuple[manifest.Manifest, Values]] = {}
        house = self._store(self.run_dir)
        choices = options.RunOptions(run_dir=str(self.run_dir), task="points", steps=6)
        self._record = run_record.settle(choices, {"width": 24, "rate": 0.125}, {})
        run_record.write(RunDirectory(self.run_dir), self._record)
        for step in _ACCURACY:
            self._commit(house, step)

    def trial(self, chance: random.Random) -> tuple[str, str, str]:
        """Damages a fresh copy and restores it.

        Returns:
          The kind of the file that was damaged, how, and the outcome; a second word
          after `unclear` or `SILENT` says more.
        """
        shutil.rmtree(self._copy.parent, ignore_errors=True)
        copy(self.run_dir, self._copy)
        kinds = sorted({kind(path) for path in files(self._copy)})
        which, how = chance.choice(kinds), chance.choice(sorted(DAMAGES))
        # Seldom more of the same kind, till none is left.
        for _ in range(chance.choice([1, 1, 1, 2, 9])):
            paths = [path for path in files(self._copy) if kind(path) == which]
            if paths:
                path = chance.choice(paths)
                if chance.random() < 0.5:
                    unlinked(path)
                DAMAGES[how](chance, path)
        return which, how, self._outcome()

    def _outcome(self) -> str:
        """Restores as `train` does."""
        for variable in self._state.variables().values():
            variable.assign(tf.zeros_like(variable))
        try:
            path = self._copy / "config.json"
            # Without one, the run is what the command line says.
            if path.exists() and run_record.read(path) != self._record:
                return "SILENT: another configuration"
            found = self._store(self._copy).restore(self._state)
            if found is None:
                left = catalog.scan(RunDirectory(self._copy)).entries
                return "SILENT: none" if left else "clear error"
            for entry in catalog.scan(RunDirectory(self._copy)).entries:
                sound = entry.manifest and not manifest.damage(
                    entry.directory, entry.manifest
                )
                if sound and entry.manifest != self._committed[entry.step][0]:
                    return f"SILENT: a manifest of step {entry.step}"
        except CLEAR:
            return "clear error"
        except Exception as error:
            return f"unclear: {type(error).__name__}: {error}"
        mark, values = self._committed[found.step]
        if found != mark or _different(self._values(), values):
            return f"SILENT: values of step {found.step}"
        set_aside = any(self._copy.rglob(f"*{layout.DAMAGED}"))
        newest = max(self._committed)
        return "repaired" if set_aside or found.step < newest else "unharmed"

    def _commit(self, house: Store, step: int) -> None:
        chance = np.random.default_rng(step)
        for variable in self._state.networks.variables:
            variable.assign(chance.normal(size=variable.shape))
        self._state.step.assign(step)
        metrics = {"accuracy": _ACCURACY[step]}
        self._state.progress = Progress(evaluated=step, metrics=metrics)
        self._state.pack()
        draft = Draft(
            step=step,
            metrics=metrics,
            variables=self._state.describe(),
            config_digest=self._record.digest,
        )
        mark = house.save(self._state.tree, draft)
        self._committed[step] = (mark, self._values())

    def _values(self) -> Values:
        return {k: v.numpy() for k, v in self._state.variables().items()}

    @staticmethod
    def _store(run_dir: pathlib.Path) -> Store:
        house = Store(RunDirectory(run_dir), retention.Rules(best=(_RULE,)))
        house.prepare()
        return house


def _different(here: Values, there: Values) -> bool:
    return here.keys() != there.keys() or any(
        np.asarray(here[k]).tobytes() != np.asarray(there[k]).tobytes() for k in here
    )


def main() -> int:
    """Damages and restores, so many times."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    choices = parser.parse_args()
    logging.set_verbosity(logging.FATAL)
    chance = random.Random(choices.seed)
    counts: dict[tuple[str, str], collections.Counter[str]] = {}
    with tempfile.TemporaryDirectory() as name:
        campaign = Campaign(pathlib.Path(name))
        for number in range(choices.count):
            which, how, outcome = campaign.trial(chance)
            word, _, more = outcome.partition(": ")
            counts.setdefault((which, how), collections.Counter())[word] += 1
            if more:
                print(f"{number}: {which} {how}: {outcome}", file=sys.stderr)
    table = tables.Table("file", "damage", box=None, pad_edge=False)
    for heading in OUTCOMES:
        table.add_column(heading, justify="right")
    total = sum(counts.values(), collections.Counter[str]())
    for (which, how), found in sorted(counts.items()):
        table.add_row(which, how, *(str(found[one] or "") for one in OUTCOMES))
    table.add_row("all", "", *(str(total[one]) for one in OUTCOMES))
    console.Console().print(table)
    return int(bool(total["unclear"] or total["SILENT"]))


if __name__ == "__main__":
    sys.exit(main())
