"""What a save costs: ours, TensorFlow's own, and the disk's bare minimum.

    python benchmarks/saves.py
    python benchmarks/saves.py --run     # and what a whole run pays

For a state of 256 MiB (a network of 64 in 16 layers, Adam's two moments, moving
averages) and one of 2,000 small variables, round by round:

stall        what the train loop waits for: the draft and the snapshot, `Saver.save`
ours         until the checkpoint is committed: written, synced, read back and
             checksummed, its manifest renamed into place
plain save   `tf.train.CheckpointManager.save`, which syncs and checks nothing
raw          as many bytes written to a file and synced
delete       that file; no way to save deletes an older checkpoint here

and a restore that verifies every byte beside one that doesn't, with a warm page cache.
Before each the disk is idle and Python's garbage collected, which takes half a second
and would hit any of them. Times are medians and min-max; ratios are medians over the
rounds of the ratio in a round. Memory is the peak of a process that trains on while it
saves our way, above that of one that trains as much and saves the plain way, and counts
what TensorFlow's pool on the host holds without using it. A value that is not what is
owed has a `!`.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import gc
import importlib.util
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from rich import console
from rich import table as tables
from tensorboard.backend.event_processing import event_accumulator

from trainer import data, task
from trainer.checkpoint import environment
from trainer.checkpoint.layout import RunDirectory
from trainer.checkpoint.manifest import Draft
from trainer.checkpoint.retention import Rules
from trainer.checkpoint.saver import Saver
from trainer.checkpoint.store import Store
from trainer.model import building, steps

ROOT = pathlib.Path(__file__).resolve().parents[1]
_MANY = 1 << 20
_DEFAULT, _NEVER = (), ("--keep_recent=1", "--save_every_secs=86400")

layers = keras.layers


class Large(task.Task):
    """64 MiB of weights; with all that belongs to them 256 MiB, in 64 variables."""

    EMA = 0.99
    WIDTH = 1024

    def sources(self) -> dict[str, Any]:
        return {"train": {"x": np.ones([4, self.WIDTH], np.float32)}}

    def networks(self) -> keras.Model:
        wide = [layers.Dense(self.WIDTH, use_bias=False) for _ in range(16)]
        return keras.Sequential([layers.Input([self.WIDTH]), *wide])

    def optimizers(self) -> keras.optimizers.Optimizer:
        return keras.optimizers.Adam()

    def values(self, networks: Any, batch: Any, training: bool) -> dict[str, Any]:
        return {"loss": tf.reduce_mean(networks(batch["x"]) ** 2, axis=1)}


class Side(layers.Layer):  # type: ignore[misc]
    """Many small layers side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = [layers.Dense(1) for _ in range(1000)]

    def build(self, shape: Any) -> None:
        for one in self.parts:
            one.build(shape)

    def call(self, x: Any) -> Any:
        kernels = tf.add_n([one.kernel.value for one in self.parts])
        return x @ kernels + tf.add_n([one.bias.value for one in self.parts])


class Small(Large):
    """2,000 variables of one number each."""

    EMA = 0.0
    WIDTH = 1

    def networks(self) -> keras.Model:
        return keras.Sequential([layers.Input([1]), Side()])

    def optimizers(self) -> keras.optimizers.Optimizer:
        return keras.optimizers.SGD()


STATES = {"256 MiB": Large, "2,000 variables": Small}


class Bench:
    """One state, and every way to save it.

    Attributes:
      bytes: of the state.
      raw: where `write` writes.
    """

    def __init__(self, given: Large, directory: pathlib.Path) -> None:
        source = data.split(given.sources(), "train")
        inputs = data.Shuffled(task=given, source=source, batch_size=2, seed=0)
        self.current = building.build(given, inputs.batch, seed=0, ema=given.EMA)
        self.train = steps.TrainLoop(given, self.current, inputs).run
        ours = RunDirectory(directory / "ours")
        self.store = Store(ours, Rules(keep_recent=_MANY))
        self.store.prepare()
        self.saver = Saver(self.store, self.current)
        self.saver.begin(0)
        self.plain = tf.train.CheckpointManager(
            self.current.tree, str(directory / "plain"), max_to_keep=None
        )
        self.raw = directory / "raw"
        self.bytes = sum(
            v.shape.num_elements() * v.dtype.size
            for v in self.current.variables().values()
            if v.dtype != tf.string
        )

    def begin(self) -> None:
        """Our way, as the train loop has it done."""
        draft = Draft(
            step=int(self.current.step.numpy()),
            metrics={},
            variables=self.current.describe(),
            versions=environment.versions(),
            machine=environment.machine(),
        )
        self.saver.save(draft)

    def save_plainly(self) -> None:
        self.plain.save(checkpoint_number=int(self.current.step.numpy()))

    def restore_plainly(self) -> None:
        self.current.restore(self.plain.latest_checkpoint)

    def others(self) -> dict[str, Callable[[], object]]:
        """Other libraries that are installed, saving the same values, each its way."""
        values = {
            name: variable.numpy()
            for name, variable in self.current.variables().items()
            if variable.dtype != tf.string
        }
        found: dict[str, Callable[[], object]] = {}
        if importlib.util.find_spec("orbax"):
            import orbax.checkpoint

            saver = orbax.checkpoint.PyTreeCheckpointer()
            place = self.raw.with_name("orbax").absolute()
            found["orbax"] = lambda: saver.save(place, values, force=True)
        if importlib.util.find_spec("torch"):
            import torch

            tensors = {name: torch.tensor(value) for name, value in values.items()}
            path = self.raw.with_name("torch")
            found["torch"] = lambda: torch.save(tensors, path)
        return found

    def write(self, content: bytes) -> None:
        with open(self.raw, "wb", buffering=0) as file:
            file.write(content)
            os.fsync(file.fileno())


def timed(action: Callable[[], object]) -> float:
    """Milliseconds of `action()`, begun on an idle disk and without garbage."""
    os.sync()
    gc.collect()
    began = time.perf_counter()
    action()
    return 1e3 * (time.perf_counter() - began)


def times(bench: Bench, rounds: int) -> dict[str, Any]:
    """Of each way, round by round; the first stall by itself."""
    found: dict[str, list[float]] = {}
    on_disk = 0
    for number in range(rounds + 1):
        bench.train(1)
        one = {"stall": timed(bench.begin)}
        began = time.perf_counter()
        cost = bench.saver.wait()
        one["ours"] = one["stall"] + 1e3 * (time.perf_counter() - began)
        on_disk = cost.bytes if cost else 0
        one["plain save"] = timed(bench.save_plainly)
        content = (os.urandom(1 << 20) * (on_disk // (1 << 20) + 1))[:on_disk]
        one["raw"] = timed(functools.partial(bench.write, content))
        one["delete"] = timed(bench.raw.unlink)
        for way, save in bench.others().items():
            one[way] = timed(save)
        restores = {
            "restore": functools.partial(bench.store.restore, bench.current),
            "plain restore": bench.restore_plainly,
        }
        for way in sorted(restores, reverse=number % 2 == 0):  # first by turns
            one[way] = timed(restores[way])
        for way, milliseconds in one.items():
            if number:  # the first round is the warm-up
                found.setdefault(way, []).append(milliseconds)
            elif way == "stall":
                found["first stall"] = [milliseconds]
    return {"times": found, "bytes": bench.bytes, "on_disk": on_disk}


def peak(bench: Bench, plain: bool) -> dict[str, Any]:
    """The most memory that this process had while it trained and saved, in bytes."""
    with contextlib.suppress(OSError):
        # What building the state took is no part of it.
        pathlib.Path("/proc/self/clear_refs").write_text("5")
    for _ in range(4):
        bench.train(1)
        if plain:
            bench.save_plainly()
        else:
            bench.begin()
        bench.train(2)
        bench.saver.wait()
    kibibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"peak": kibibytes << 10}


def child(part: str, name: str, rounds: int) -> dict[str, Any]:
    """What one part finds, in a process of its own."""
    command = [sys.executable, __file__, f"--part={part}", f"--state={name}"]
    done = subprocess.run(
        [*command, f"--rounds={rounds}"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@dataclasses.dataclass(frozen=True)
class Rows:
    """The table of one state."""

    table: tables.Table
    name: str

    def time(self, way: str, found: list[float]) -> None:
        self._add(way, "ms", found, None)

    def ratio(
        self, what: str, over: list[float], under: list[float], owed: float | None
    ) -> None:
        self._add(what, "", [a / b for a, b in zip(over, under, strict=True)], owed)

    def limit(self, what: str, found: list[float], owed: float) -> None:
        self._add(what, "ms", found, owed)

    def value(self, what: str, found: float, owed: float) -> None:
        self._add(what, "", [found], owed)

    def share(self, what: str, found: list[float], owed: float) -> None:
        self._add(what, "%", [100 * one for one in found], 100 * owed)

    def _add(
        self, what: str, unit: str, found: list[float], owed: float | None
    ) -> None:
        middle = statistics.median(found)
        self.table.add_row(
            self.name,
            what,
            f"{middle:.3g} {unit}",
            f"{min(found):.3g}-{max(found):.3g}" if len(found) > 1 else "",
            "" if owed is None else f"{owed:.3g}",
            "!" if owed is not None and middle > owed else "",
        )


def add_rows(table: tables.Table, name: str, rounds: int) -> None:
    """Everything about one state."""
    found = child("times", name, rounds)
    ways: dict[str, list[float]] = found["times"]
    rows = Rows(table, name)
    for way, each in ways.items():
        rows.time(way, each)
    rows.ratio("stall / plain save", ways["stall"], ways["plain save"], 1 / 20)
    rows.ratio("ours / plain save", ways["ours"], ways["plain save"], None)
    rows.ratio("restore / plain", ways["restore"], ways["plain restore"], 1.15)
    if name == "256 MiB":
        rows.limit("stall", ways["stall"], 5)
        rows.ratio("ours / raw", ways["ours"], ways["raw"], 1.25)
        rows.value("on disk / state", found["on_disk"] / found["bytes"], 1.01)
        peaks = [child(part, name, rounds)["peak"] for part in ("ours", "plain")]
        rows.value("memory / state", (peaks[0] - peaks[1]) / found["bytes"], 1.0)
    table.add_section()


def trained_secs(directory: pathlib.Path, arguments: tuple[str, ...]) -> float:
    """How long one run on digits trained, from its first report to its last."""
    command = [sys.executable, ROOT / "run.py", "--task=digits", "--steps=600"]
    subprocess.run(
        [*command, f"--run_dir={directory}", "--progress=none", *arguments],
        check=True,
        capture_output=True,
    )
    times = [event.wall_time for event in events(directory, "loss")]
    return times[-1] - times[0]


def events(directory: pathlib.Path, tag: str) -> list[Any]:
    """What TensorBoard shows of the training."""
    found = event_accumulator.EventAccumulator(
        str(directory / "summaries" / "train"),
        size_guidance={event_accumulator.TENSORS: 0},
    )
    found.Reload()
    shown: list[Any] = found.Tensors(tag)
    return shown


def add_run(table: tables.Table, rounds: int) -> None:
    """What a whole run pays: by its own account, and by the clock."""
    waited, slower = [], []
    for number in range(rounds):
        with tempfile.TemporaryDirectory() as name:
            secs = {}
            # By turns which one comes first.
            for way in (_DEFAULT, _NEVER)[:: 1 if number % 2 else -1]:
                secs[way] = trained_secs(pathlib.Path(name, f"run{len(way)}"), way)
            paid = sum(
                tf.make_ndarray(event.tensor_proto).item()
                for part in ("stall_ms", "wait_ms")
                for event in events(pathlib.Path(name, "run0"), f"checkpoint/{part}")
            )
            waited.append(paid / 1e3 / secs[_DEFAULT])
            slower.append(secs[_DEFAULT] / secs[_NEVER] - 1)
    rows = Rows(table, "digits, whole run")
    rows.share("training waited", waited, 0.01)
    rows.share("slower than without", slower, 0.01)


def main() -> None:
    """The table; or one part of it, in a process that this one started."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--run", action="store_true", help="also whole runs")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--state", default="256 MiB", help=argparse.SUPPRESS)
    choices = parser.parse_args()
    if choices.part:
        with tempfile.TemporaryDirectory(dir=".") as name:
            bench = Bench(STATES[choices.state](), pathlib.Path(name))
            if choices.part == "times":
                found = times(bench, choices.rounds)
            else:
                found = peak(bench, choices.part == "plain")
        print(json.dumps(found))
        return
    table = tables.Table("state", "what", box=None, pad_edge=False)
    for heading in ("median", "min-max", "owed", ""):
        table.add_column(heading, justify="right")
    for name in STATES:
        add_rows(table, name, choices.rounds)
    if choices.run:
        add_run(table, choices.rounds)
    console.Console().print(table)
    missing = [
        name for name in ("orbax", "torch") if not importlib.util.find_spec(name)
    ]
    if missing:
        print(f"not installed, so not compared: {', '.join(missing)}")


if __name__ == "__main__":
    main()
