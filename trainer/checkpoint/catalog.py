"""Which committed checkpoints a run directory holds, read from manifests alone.

    catalog.scan(run_dir)             # all of them
    catalog.select(run_dir, "best")   # one of them

No TensorFlow, and nothing is changed: safe beside a running `train`.
"""

from __future__ import annotations

import dataclasses
import pathlib
import re
from collections.abc import Iterator, Sequence

from trainer.checkpoint import retention
from trainer.checkpoint.manifest import PREFIX, Manifest, ManifestError, read, steps
from trainer.errors import KeepstepError

RECENT, BEST = "recent", "best"
_STEP = re.compile(r"step:(\d{1,18})")


class NoCheckpointError(KeepstepError, LookupError):
    """The checkpoint that was asked for is not there."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """A committed checkpoint in one directory.

    Attributes:
      directory: that holds its files.
      step: of the checkpoint.
      manifest: what it says, or None if it can't be read.
      problem: why it can't be read.
    """

    directory: pathlib.Path
    step: int
    manifest: Manifest | None
    problem: str | None = None

    @property
    def prefix(self) -> pathlib.Path:
        """The path that `tf.train.Checkpoint.read` takes."""
        return self.directory / f"{PREFIX}-{self.step}"


def best_directories(run_dir: pathlib.Path) -> list[pathlib.Path]:
    """The directories of the best checkpoints, one a metric."""
    root = run_dir / BEST
    return sorted(p for p in root.iterdir() if p.is_dir()) if root.is_dir() else []


def scan(run_dir: pathlib.Path) -> list[Entry]:
    """Every committed checkpoint: newest first, and of one step `recent` first."""
    return list(newest_first(run_dir))


def newest_first(run_dir: pathlib.Path) -> Iterator[Entry]:
    """As `scan`, but no manifest is read before its turn."""
    directories = [run_dir / RECENT, *best_directories(run_dir)]
    found = [(one, step) for one in directories for step in steps(one)]
    for directory, step in sorted(found, key=lambda place: -place[1]):
        yield from _entry(directory, step)


def ranked(directory: pathlib.Path, rule: retention.Best) -> list[Entry]:
    """The readable checkpoints of one `best/<metric>`, best first."""
    entries = {
        step: entry
        for step in steps(directory)
        for entry in _entry(directory, step)
        if entry.manifest is not None
    }
    values = {
        step: e.manifest.metrics[rule.metric]
        for step, e in entries.items()
        if e.manifest is not None and rule.metric in e.manifest.metrics
    }
    return [
        entries[step] for step in dataclasses.replace(rule, count=1 << 30).top(values)
    ]


def select(run_dir: pathlib.Path, text: str, rules: Sequence[retention.Best]) -> Entry:
    """The checkpoint that a user names.

    Args:
      run_dir: of the run; not used for a path.
      text: `latest`, `best`, `best:metric`, `step:N` or a path such as
        `runs/a/recent/ckpt-1200`.
      rules: the run's own, the one that counts first.

    Raises:
      NoCheckpointError: there is none; says which there are.
    """
    entries = [entry for entry in scan(run_dir) if entry.manifest is not None]
    have = ", ".join(str(s) for s in sorted({e.step for e in entries})) or "none"
    have = f"{run_dir} has checkpoints at the steps: {have}."
    if text == "latest":
        if entries:
            return entries[0]
        raise NoCheckpointError(f"there is no checkpoint yet. {have}")
    if text == "best" or text.startswith("best:"):
        wanted = text.partition(":")[2]
        for rule in rules:
            if wanted in ("", rule.metric):
                if best := ranked(run_dir / BEST / rule.metric, rule):
                    return best[0]
                break
        names = ", ".join(rule.metric for rule in rules) or "no metric"
        raise NoCheckpointError(
            f"there is no checkpoint {text!r}; this run keeps the best by {names}. "
            f"{have}"
        )
    if match := _STEP.fullmatch(text):
        for entry in entries:
            if entry.step == int(match[1]):
                return entry
        raise NoCheckpointError(f"there is no checkpoint of step {match[1]}. {have}")
    path = pathlib.Path(text)
    step = path.name.removesuffix(".json").removesuffix(".index")
    number = step.removeprefix(f"{PREFIX}-")
    for found in steps(path.parent):
        if number == str(found):
            return Entry(path.parent, found, read(path.parent, found))
    raise NoCheckpointError(
        f"there is no checkpoint {text!r}. Expected latest, best, best:metric, step:N "
        f"or the path of a committed one, such as {run_dir}/recent/ckpt-1200. {have}"
    )


def _entry(directory: pathlib.Path, step: int) -> Iterator[Entry]:
    """One, or none if a running `train` has pruned it since."""
    try:
        yield Entry(directory, step, read(directory, step))
    except FileNotFoundError:
        return
    except ManifestError as error:
        yield Entry(directory, step, None, str(error))
