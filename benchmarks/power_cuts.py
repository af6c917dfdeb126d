"""The campaign of power cuts: a run loses power anywhere, then goes on to its end.

    python benchmarks/power_cuts.py --count=1000 --seed=0

Five acts of a small run are recorded, operation by operation: saving, promoting to the
best, pruning, going back to an earlier checkpoint, and adopting a step that was saved a
second time. `disk.py` says what a power cut may leave of an unfinished one: names and
bytes that were not synced are dropped, zeroed, torn, or there in any combination. All
ways to cut are tried after each operation. Each different disk is one crash: it is made
on disk, the same command is given once more, and it trains to its last step. Then all
the run directory says is compared with that of the act that nothing interrupted:
weights, optimizer, metrics, records, choices, curves, the best, what was abandoned. All
of it is in one process, which builds the graphs of an act once (`--fresh`: each time).

newest    it went on from the newest step of which the save had begun
older     from the one before: that save had not returned
refused   it did not start, or ended with an error
LOST      a checkpoint that was there before and after the operation is not there,
          or it went on from an older step than one of which the save had returned
WRONG     the end differs from that of the act that nothing interrupted
set aside whatever came of it, files were left that the start took for damaged or for
          nobody's, and renamed: an unfinished act must leave none

Prints one table; exits with 1 if there is anything in the last four columns. Allow a
quarter of a second of a core per crash.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import gc
import os
import pathlib
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import disk
import keras
import numpy as np
from absl import logging
from rich import console
from rich import table as tables

from trainer import data, task
from trainer.checkpoint import layout, manifest, saver
from trainer.checkpoint.layout import RunDirectory
from trainer.checkpoint.store import Store
from trainer.compat import events
from trainer.config import options, run_record, start
from trainer.model import parts
from trainer.model.progress import Progress
from trainer.reporting import reporter
from trainer.storage import failpoints, files
from trainer.training import facts, listeners, loop, preemption, run

OUTCOMES = ("newest", "older", "refused", "LOST", "WRONG")
FAILURES = (*OUTCOMES[2:], "set aside")
_COLUMNS = ("operations", "cuts", "crashes", *OUTCOMES, "set aside")
_WIDTH = 100
_ROUNDS = 50
_TOLD_EVERY = 100
# Scalars that tell of the clock, not of the training.
_CLOCK = ("speed/", "checkpoint/")
_SETTINGS: dict[str, Any] = {
    "batch_size": 4,
    "report_every_steps": 2,
    "evaluate_every_steps": 2,
    "eval_batch_size": 4,
    "save_every_steps": 2,
}

Held = frozenset[tuple[str, str]]
Picture = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Line(task.Task):
    """A line fitted to a few points."""

    def sources(self) -> dict[str, Any]:
        x = np.random.default_rng(0).normal(size=[24, 4]).astype("float32")
        every = {"x": x, "y": x @ np.float32([1, -2, 3, 0.5])}
        return {
            "train": {name: array[:16] for name, array in every.items()},
            "valid": {name: array[16:] for name, array in every.items()},
        }

    def networks(self) -> keras.Model:
        return keras.Sequential([keras.layers.Input([4]), keras.layers.Dense(1)])

    def optimizers(self) -> keras.optimizers.Optimizer:
        return keras.optimizers.SGD(0.05, momentum=0.9)

    def values(self, networks: Any, batch: Any, training: bool) -> dict[str, Any]:
        answers = networks(batch["x"], training=training)[:, 0]
        return {"loss": (answers - batch["y"]) ** 2}


@dataclasses.dataclass(frozen=True)
class Scenario:
    """One act of a run.

    Attributes:
      rules: what is kept.
      before: the last step of what was trained before it.
      steps: the last step of the act.
      checkpoint: what it goes back to, and the step of that.
      stopped: whether what was before was stopped there, so that it is saved again.
    """

    rules: dict[str, Any]
    before: int = 0
    steps: int = 8
    checkpoint: tuple[str, int] | None = None
    stopped: bool = False

    @property
    def base(self) -> int:
        """The step from which the act goes on."""
        return self.checkpoint[1] if self.checkpoint else self.before

    def prepare(self, run_dir: pathlib.Path) -> None:
        """Trains what was before."""
        if self.before:
            steps = self.steps if self.stopped else self.before
            train(run_dir, stop=self.before * self.stopped, steps=steps, **self.rules)

    def act(self, run_dir: pathlib.Path) -> loop.Outcome:
        """Also what is done after a crash."""
        asked = self.checkpoint[0] if self.checkpoint else ""
        return train(run_dir, asked, steps=self.steps, **self.rules)


SCENARIOS = {
    "save": Scenario({"keep_recent": 4}, steps=6),
    "promotion": Scenario({"keep_recent": 4, "best": ("loss:min:4",)}, before=4),
    "pruning": Scenario({"keep_recent": 1, "best": ("loss:min:1",)}, before=4),
    "going back": Scenario(
        {"keep_recent": 3, "best": ("loss:min:2",)}, before=8, checkpoint=("step:4", 4)
    ),
    "adopting": Scenario(
        {"keep_recent": 2, "best": ("loss:min:1",)}, before=4, steps=6, stopped=True
    ),
}


def train(
    run_dir: pathlib.Path, checkpoint: str = "", *, stop: int = 0, **rules: Any
) -> loop.Outcome:
    """As `run.py train`, in this process; a signal comes as `stop` is evaluated."""
    choices = options.RunOptions(
        run_dir=str(run_dir), task="line", **_SETTINGS, **rules
    )
    request = preemption.Request()
    real, batches = failpoints.point, 0

    def point(name: str) -> None:
        nonlocal batches
        batches += name == "evaluation"
        if batches == stop - 1:  # the first of two batches; a point every two steps
            request.hear(signal.SIGTERM)

    failpoints.point = point
    try:
        given = start.StartOptions(checkpoint=checkpoint)
        return loop.train(choices, Line(), request, start=given, progress="none")
    finally:
        failpoints.point = real


class Assembled:
    """Assembles a run as `training/run.py` does, its graphs once.

    What a start takes from the run directory is taken anew each time. What it builds
    from code and data alone, the state and the loops, is put back to how it was built:
    the audit says that training changes nothing besides.
    """

    def __init__(self) -> None:
        self._first: run.Run | None = None
        self._values: dict[str, Any] = {}
        self._facts: dict[str, Any] = {}

    def __call__(
        self,
        choices: options.RunOptions,
        given: task.Task,
        stop: preemption.Request,
        started: start.StartOptions,
        progress: str,
        told: listeners.Listeners,
    ) -> run.Run:
        if self._first is None:
            self._first = run.assemble(choices, given, stop, started, progress, told)
            variables = self._first.state.variables()
            self._values = {name: one.numpy() for name, one in variables.items()}
            sources = parts.seeded_sources(given, choices.seed)
            self._facts = facts.of_data(sources, data.split(sources, "train"))
            return self._first
        current, directory = self._first.state, RunDirectory(choices.directory())
        for name, variable in current.variables().items():
            variable.assign(self._values[name])
        current.progress = Progress()
        reported = reporter.Reporter(
            directory.summaries,
            progress=progress,
            total_steps=choices.steps,
            batch_size=choices.batch_size,
        )
        noting = run_record.note_commits(directory)
        house = Store(directory, choices.retention(), on_commit=noting)
        return dataclasses.replace(
            self._first,
            listeners=told,
            directory=directory,
            record=run_record.settle(choices, given.hyperparameters(), self._facts),
            store=house,
            saver=saver.Saver(house, current, before=reported.flush),
            reporter=reported,
            stop=stop,
        )


@contextlib.contextmanager
def assembling(assemble: Any) -> Iterator[None]:
    """Inside, runs are assembled by this."""
    real = loop.assemble
    loop.assemble = assemble
    try:
        yield
    finally:
        loop.assemble = real


# What a run directory says.


def held(run_dir: pathlib.Path) -> Held:
    """Every checkpoint, wherever it is, whose every byte is right; by its bytes."""
    return frozenset(
        (path.stem, str(sorted(mark.files.items()))) for path, mark in _sound(run_dir)
    )


def picture(run_dir: pathlib.Path) -> Picture:
    """All that must be the same in the end, by what it is."""
    found: Picture = {}
    for path, mark in _sound(run_dir):
        place = str(path.relative_to(run_dir))
        if place.startswith(layout.ABANDONED):
            # Going back once more takes another number.
            place = "/".join([layout.ABANDONED, *place.split("/")[2:]])
        found[place] = {
            **dataclasses.asdict(mark),
            "created": 0,
            "events": len(mark.events) > 0,
        }
    for path in (run_dir / "recent", *(run_dir / "best").glob("*")):
        if (path / layout.LIST).exists():
            found[f"{path.name}/{layout.LIST}"] = (path / layout.LIST).read_text()
    record = run_record.read(run_dir / "config.json")
    found["choices"] = record.choices, record.committed
    found["lineages"] = [(one["asked"], one["step"]) for one in record.lineages]
    found["flags"] = (run_dir / "run.flags").read_text()
    for kind in ("train", "eval"):
        found |= _curves(run_dir, kind)
    return found


def _sound(run_dir: pathlib.Path) -> Iterator[tuple[pathlib.Path, manifest.Manifest]]:
    for path in sorted(run_dir.rglob("ckpt-*.json")):
        step = int(path.stem.partition("-")[2])
        with contextlib.suppress(manifest.ManifestError, OSError):
            mark = manifest.read(path.parent, step)
            if manifest.damage(path.parent, mark) is None:
                yield path, mark


def _curves(run_dir: pathlib.Path, kind: str) -> Picture:
    """Of each scalar, the step and the bits of each value in the order of the files."""
    directory = run_dir / "summaries" / kind
    if not directory.is_dir():
        return {}
    curves = events.EventAccumulator(
        str(directory), size_guidance={events.TENSORS: 0}
    ).Reload()
    return {
        f"{kind}: {tag}": [
            (one.step, one.tensor_proto.SerializeToString(deterministic=True))
            for one in curves.Tensors(tag)
        ]
        for tag in curves.Tags()["tensors"]
        if not tag.startswith(_CLOCK) and tag != "flags/text_summary"
    }


# The campaign.


@dataclasses.dataclass(frozen=True)
class Note:
    """What is known at a moment of an act.

    Attributes:
      begun: the newest step of which the save has begun.
      told: the newest step of which it has returned.
      held: the checkpoints when it returned.
    """

    begun: int
    told: int
    held: Held


@dataclasses.dataclass
class Crash:
    """One disk that a power cut may leave, and all cuts that leave just this.

    Attributes:
      found: the disk.
      cuts: how many.
      first: the first of them, for people.
      begun: the newest step of which a save had begun at any of them.
      told: the newest step of which one had returned at any of them.
      needed: the checkpoints that must be there.
    """

    found: disk.Found
    cuts: int
    first: str
    begun: int
    told: int
    needed: Held


class Campaign:
    """One act, recorded, and what comes of it after a crash.

    Attributes:
      operations: how many moments there are at which the power may fail.
      crashes: that differ in what they leave.
    """

    def __init__(
        self, directory: pathlib.Path, scenario: Scenario, *, least: int, seed: int
    ) -> None:
        self._scenario = scenario
        self._place = directory / "crashed"
        straight = directory / "straight"
        straight.mkdir(parents=True)
        scenario.prepare(straight / "run")
        moments = _record(straight, scenario)
        self._picture = picture(straight / "run")
        self.operations = len(moments)
        crashes = _crashes(moments, least, random.Random(seed))
        self.crashes = list(crashes.values())
        self._assembled = Assembled()

    def begin_anew(self) -> None:
        """The next start builds everything."""
        self._assembled = Assembled()

    def trial(self, crash: Crash) -> tuple[str, bool, str]:
        """Starts again after a crash.

        Returns:
          The outcome, whether anything was set aside, and more about it.
        """
        shutil.rmtree(self._place, ignore_errors=True)
        crash.found.restore(self._place)
        run_dir = self._place / "run"
        missing = crash.needed - held(run_dir)
        try:
            with assembling(self._assembled):
                outcome = self._scenario.act(run_dir)
        except Exception as error:
            word = "LOST" if missing else "refused"
            return word, False, f"{type(error).__name__}: {error}"
        aside = any(
            path.name.endswith((layout.DAMAGED, layout.UNCLAIMED))
            for path in files.beneath(run_dir)
        )
        began = outcome.step - outcome.trained_steps
        if missing or began < crash.told:
            names = sorted(name for name, _ in missing)
            return "LOST", aside, f"went on from {began}, {crash.told} told: {names}"
        here = picture(run_dir)
        different = [
            name
            for name in sorted(here.keys() | self._picture.keys())
            if here.get(name) != self._picture.get(name)
        ]
        if different or began > crash.begun:
            return "WRONG", aside, f"went on from {began}: {', '.join(different)}"
        return "newest" if began == crash.begun else "older", aside, ""


def _record(
    root: pathlib.Path, scenario: Scenario
) -> list[tuple[disk.Disk, Note, Held]]:
    """Each moment of an act with what was noted, and what may not be lost in it.

    Those are the checkpoints that were there when the save before returned, and are
    there still when the next one has.
    """
    note = Note(scenario.base, scenario.base, held(root / "run"))
    recorder = disk.Recorder(root)
    real = Store.save

    def save(self: Store, tree: Any, draft: Any) -> Any:
        nonlocal note
        note = dataclasses.replace(note, begun=draft.step)
        recorder.note(note)
        mark = real(self, tree, draft)
        note = Note(draft.step, draft.step, held(root / "run"))
        recorder.note(note)
        return mark

    Store.save = save
    try:
        recorder.note(note)
        with recorder.watching():
            scenario.act(root / "run")
    finally:
        Store.save = real
    needed = []
    later = held(root / "run")
    told = note.told
    for _, noted in reversed(recorder.moments):
        if noted.told != told or noted.held != note.held:
            # It is the one before that save: what is there after it, too, stays.
            later, told, note = note.held, noted.told, noted
        needed.append(noted.held & later)
    return [
        (moment, noted, kept)
        for (moment, noted), kept in zip(
            recorder.moments, reversed(needed), strict=True
        )
    ]


def _crashes(
    moments: list[tuple[disk.Disk, Note, Held]], least: int, chance: random.Random
) -> dict[str, Crash]:
    """Every way to cut after every operation, until so many differ."""
    crashes: dict[str, Crash] = {}
    for _ in range(_ROUNDS):
        for number, (moment, note, needed) in enumerate(moments):
            for kind in disk.CUTS:
                found = moment.cut(kind, chance)
                key = found.digest
                if key not in crashes:
                    first = f"after operation {number}, {kind}"
                    crashes[key] = Crash(found, 0, first, 0, 0, frozenset())
                crash = crashes[key]
                crash.cuts += 1
                crash.begun = max(crash.begun, note.begun)
                crash.told = max(crash.told, note.told)
                crash.needed |= needed
        if len(crashes) >= least:
            break
    return crashes


def sample(crashes: list[Crash], count: int, chance: random.Random) -> list[Crash]:
    """So many, from the whole of the act."""
    places = sorted(chance.sample(range(len(crashes)), min(count, len(crashes))))
    return [crashes[place] for place in places]


def main() -> int:
    """Records each act, then crashes it, so many times."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=1000, help="crashes over all acts")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--scenario", action="append", choices=SCENARIOS, help="only this; repeatable"
    )
    parser.add_argument(
        "--fresh", action="store_true", help="build the graphs anew at each start"
    )
    choices = parser.parse_args()
    logging.set_verbosity(logging.FATAL)
    names = choices.scenario or list(SCENARIOS)
    share = -(-choices.count // len(names))
    table = tables.Table("act", box=None, pad_edge=False)
    for heading in _COLUMNS:
        table.add_column(heading, justify="right")
    total: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory() as directory:
        for name in names:
            place, act = pathlib.Path(directory, name), SCENARIOS[name]
            campaign = Campaign(place, act, least=share, seed=choices.seed)
            counts = _run(campaign, name, choices, share)
            counts["operations"] = campaign.operations
            table.add_row(name, *(str(counts[one] or "") for one in _COLUMNS))
            total += counts
    table.add_row("all", *(str(total[one]) for one in _COLUMNS))
    console.Console(width=_WIDTH).print(table)
    return int(any(total[one] for one in FAILURES))


def _run(
    campaign: Campaign, name: str, choices: argparse.Namespace, share: int
) -> collections.Counter[str]:
    """The outcomes of so many crashes; says at once what must not be."""
    counts: collections.Counter[str] = collections.Counter()
    gc.freeze()  # Keras collects garbage at each start
    for crash in sample(campaign.crashes, share, random.Random(choices.seed)):
        if choices.fresh:
            campaign.begin_anew()
        word, aside, more = campaign.trial(crash)
        counts.update({word: 1, "crashes": 1, "cuts": crash.cuts, "set aside": aside})
        if more:
            print(f"{name}, {crash.first}: {word}: {more}", file=sys.stderr, flush=True)
        if counts["crashes"] % _TOLD_EVERY == 0:
            print(f"{name}: {dict(counts)}", file=sys.stderr, flush=True)
    return counts


if __name__ == "__main__":
    sys.exit(main())
