"""Kills and resumes a run, and compares it bit for bit with an uninterrupted one.

The user's own command is run in child processes: once straight through, then again and
again under SIGKILL, at seeded random instants and at the moments that matter, until it
is complete. Then everything that a run leaves behind is compared.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
import pathlib
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from absl import logging

from trainer.base.errors import KeepstepError
from trainer.checkpoint import catalog, layout
from trainer.checkpoint.layout import RunDirectory
from trainer.compat import events
from trainer.inspection import diff
from trainer.storage import failpoints

# At which of its turns a point kills: chosen at random up to this.
_POINTS = {
    "start-up": 1,
    "training": 12,
    "evaluation": 6,
    "save": 6,
    "storage": 90,
    "promotion": 4,
}
_ANY = "any instant"
Start = Callable[..., Any]
# Scalars that tell of the clock, not of the training.
_CLOCK = ("speed/", "checkpoint/")


class ProofError(KeepstepError, RuntimeError):
    """A run failed by itself, so nothing is proven."""


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What was compared and what differed.

    Attributes:
      kills: survived, by the phase that they hit.
      compared: how many things of each kind were compared.
      differences: the earliest step first; empty if all is equal.
    """

    kills: dict[str, int]
    compared: dict[str, int]
    differences: tuple[str, ...]


def prove(
    command: Sequence[str],
    directory: pathlib.Path,
    *,
    kills: int,
    seed: int,
    start: Start = subprocess.Popen,
) -> Verdict:
    """Runs `command` straight and under kills, below `directory`.

    Args:
      command: trains; `--run_dir` is added.
      directory: new and empty.
      kills: how many processes to kill; a run that is complete before is begun anew.
      seed: of the instants.
      start: starts a process as `subprocess.Popen` does.

    Raises:
      ProofError: a run failed by itself.
    """
    run = functools.partial(_run, start, command)
    straight = directory / "straight"
    began = time.monotonic()
    if run(straight, log=directory / "straight.log"):
        raise ProofError("the uninterrupted run was killed from outside.")
    duration = time.monotonic() - began
    logging.info("the uninterrupted run took %.0f s", duration)
    chance = random.Random(seed)
    survived: Counter[str] = Counter()
    compared: Counter[str] = Counter()
    differences: list[tuple[int, str]] = []
    phases = itertools.cycle([*_POINTS, _ANY])
    number = 0
    while survived.total() < kills:
        number += 1
        run_dir = directory / f"killed-{number}"
        left = kills - survived.total()
        for phase in _run_under_kills(run, run_dir, left, duration, phases, chance):
            survived[phase] += 1
            logging.info("kill %d of %d: %s", survived.total(), kills, phase)
        differences += _differences(straight, run_dir, compared)
    texts = tuple(f"step {step}: {what}" for step, what in sorted(differences))
    return Verdict(dict(survived), dict(compared), texts)


def _run_under_kills(
    run: Callable[..., bool],
    run_dir: pathlib.Path,
    kills: int,
    duration: float,
    phases: Iterator[str],
    chance: random.Random,
) -> Iterator[str]:
    """Starts a run until it is complete, with so many kills at most; gives each phase.

    Where the moment of a phase never came, the run is complete, and was not killed.
    """
    log = run_dir.with_suffix(".log")
    for phase in itertools.islice(phases, kills):
        if phase == _ANY:
            died = run(run_dir, log=log, secs=chance.uniform(0.3, duration))
        else:
            point = f"{phase}@{chance.randint(1, _POINTS[phase])}"
            died = run(run_dir, log=log, point=point)
        if not died:
            return
        yield phase
    run(run_dir, log=log)


def _run(
    start: Start,
    command: Sequence[str],
    run_dir: pathlib.Path,
    *,
    log: pathlib.Path,
    point: str = "",
    secs: float | None = None,
) -> bool:
    """One process: to its end, to `point`, or killed after `secs`; says if it died."""
    environment = {**os.environ, failpoints.VARIABLE: point}
    with log.open("ab") as output:
        process = start(
            [*command, f"--run_dir={run_dir}", "--progress=lines"],
            stdout=output,
            stderr=output,
            env=environment,
        )
        try:
            process.wait(timeout=secs)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    code: int = process.returncode
    if code in (0, -signal.SIGKILL):
        return code != 0
    last = log.read_text(errors="replace").strip().rpartition("\n")[2]
    raise ProofError(f"training ended with exit code {code}: {last} (all of it: {log})")


def _differences(
    straight: pathlib.Path, killed: pathlib.Path, compared: Counter[str]
) -> Iterator[tuple[int, str]]:
    """What differs, with the step at which it does; counts what was compared."""
    here, there = _checkpoints(straight), _checkpoints(killed)
    # Which recent ones there are may hang on the clock; not the last, nor the best.
    needed = {f"{layout.RECENT}/ckpt-{max(e.step for e in here.values())}"}
    needed |= {name for name in here | there if name.startswith(layout.BEST)}
    for name in sorted((here.keys() & there.keys()) | needed):
        compared["checkpoints"] += 1
        if name not in here or name not in there:
            run = killed if name in here else straight
            yield _step_of(name), f"{run.name} has no checkpoint {name}"
            continue
        one, other = here[name], there[name]
        if one.manifest is None or other.manifest is None:
            problem = one.problem or other.problem
            yield one.step, f"{name} of {killed.name} can't be compared: {problem}"
            continue
        for field in ("metrics", "records", "variables", "config_digest"):
            compared["manifest entries"] += 1
            if getattr(one.manifest, field) != getattr(other.manifest, field):
                yield one.step, f"{name}: the {field} of {killed.name} differ"
        for row in diff.compare(one, other):
            compared["variables"] += 1
            if not row["equal"]:
                yield one.step, f"{name}: {row['variable']} of {killed.name} differs"
    for kind in ("train", "eval"):
        for step, what in _compare_scalars(straight, killed, kind, compared):
            yield step, f"{kind}: {what} of {killed.name} differs"


def _checkpoints(run_dir: pathlib.Path) -> dict[str, catalog.Entry]:
    return {
        entry.prefix.relative_to(run_dir).as_posix(): entry
        for entry in catalog.scan(RunDirectory(run_dir)).entries
    }


def _step_of(name: str) -> int:
    return int(name.rpartition("-")[2])


def _compare_scalars(
    straight: pathlib.Path, killed: pathlib.Path, kind: str, compared: Counter[str]
) -> Iterator[tuple[int, str]]:
    here, there = (_scalars(run / "summaries" / kind) for run in (straight, killed))
    for tag in sorted(here.keys() | there.keys()):
        one, other = here.get(tag, []), there.get(tag, [])
        compared["scalars"] += max(len(one), len(other))
        if one != other:
            pairs = zip([*one, (0, b"")], [*other, (0, b"")], strict=False)
            step = next((a[0] for a, b in pairs if a != b), 0)
            yield step, f"the scalar {tag}"


def _scalars(directory: pathlib.Path) -> dict[str, list[tuple[int, bytes]]]:
    """By tag, the step and the bits of each value, in the order of the files."""
    if not directory.is_dir():
        return {}
    accumulator = events.EventAccumulator(
        str(directory), size_guidance={events.TENSORS: 0}
    )
    accumulator.Reload()
    return {
        tag: [
            (event.step, event.tensor_proto.SerializeToString(deterministic=True))
            for event in accumulator.Tensors(tag)
        ]
        for tag in accumulator.Tags()["tensors"]
        if not tag.startswith(_CLOCK) and tag != "flags/text_summary"
    }
