"""The commit mark of a checkpoint: what is in it, and how to tell that it is whole.

`ckpt-1200.json` beside `ckpt-1200.index` and `ckpt-1200.data-*`, written last. A
checkpoint without a manifest was never committed. Only JSON is ever parsed, within
strict limits, so a directory from a stranger is safe to read.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
import stat
from collections.abc import Callable, Mapping
from typing import Any

from trainer.base.errors import KeepstepError
from trainer.checkpoint import layout
from trainer.storage import checked_json, files

FORMAT = 1
_MAX_BYTES = 64 << 20
_MAX_DEPTH = 16
_LATEST_SECS = 253_402_300_800.0  # the year 10000, where calendars end


class ManifestError(KeepstepError, ValueError):
    """A manifest is not what this version of Keepstep writes."""


@dataclasses.dataclass(frozen=True)
class File:
    """Size and digest of one file of a checkpoint."""

    bytes: int
    xxh3_128: str


@dataclasses.dataclass(frozen=True)
class Variable:
    """One saved variable, under the name that people know it by."""

    path: str
    shape: tuple[int, ...]
    dtype: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Draft:
    """What is known of a checkpoint before its files are written.

    Attributes:
      step: training steps done, and the number in the file names.
      metrics: of the evaluation at this very step; empty if there was none.
      variables: in the order in which the state names them; empty if unknown.
      records: by metric, the best `{"step", "value"}` up to this step.
      config_digest: of the choices that the numbers depend on.
      versions: of keepstep, tensorflow, keras and python.
      machine: what else decides the bits, such as the CPU model and `threads`.
      events: sizes in bytes of the event files when this was saved, by name.
      lineage: how often the run had gone back before this was saved.
      parent: the step that it went back to last.
      inexact: what training changes and this does not hold; empty without
        `--allow_inexact`.
    """

    step: int
    metrics: Mapping[str, float]
    variables: tuple[Variable, ...]
    records: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)
    config_digest: str = ""
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    machine: Mapping[str, str] = dataclasses.field(default_factory=dict)
    events: Mapping[str, int] = dataclasses.field(default_factory=dict)
    lineage: int = 0
    parent: int | None = None
    inexact: tuple[str, ...] = ()

    def committed(self, written: Mapping[str, File], created: float) -> Manifest:
        """The manifest of the checkpoint that was written from this."""
        known = {f.name: getattr(self, f.name) for f in dataclasses.fields(Draft)}
        return Manifest(**known, files=written, created=round(created, 3))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest(Draft):
    """What is known of one committed checkpoint.

    Attributes:
      files: by name, in the manifest's own directory.
      created: seconds since the epoch.
    """

    files: Mapping[str, File]
    created: float

    @property
    def bytes(self) -> int:
        """Of all files together."""
        return sum(file.bytes for file in self.files.values())


def measure(
    directory: pathlib.Path,
    step: int,
    digest: Callable[[pathlib.Path], str] = files.checksum,
) -> dict[str, File]:
    """Sizes and digests of the files of a checkpoint, as they read back from disk."""
    return {
        path.name: File(path.stat().st_size, digest(path))
        for path in layout.data_files(directory, step)
    }


def write(directory: pathlib.Path, mark: Manifest) -> None:
    """Commits a checkpoint whose files are synced: from here on it exists."""
    files.sync(directory)  # or a power cut could keep its name, and not theirs
    body = {"format": FORMAT, **dataclasses.asdict(mark)}
    body["metrics"] = {k: _from_float(v) for k, v in mark.metrics.items()}
    checked_json.write(layout.manifest_path(directory, mark.step), body)


def read(directory: pathlib.Path, step: int) -> Manifest:
    """The manifest of one step.

    Raises:
      ManifestError: it isn't a manifest, or breaks a limit.
      OSError: it can't be read.
    """
    path = layout.manifest_path(directory, step)
    try:
        body = checked_json.read(path, max_bytes=_MAX_BYTES)
        mark = _parse(body, step)
        checked_json.opened(body)
        return mark
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise ManifestError(
            f"{path} is not a manifest of format {FORMAT}: {reason or 'too deep'}"
        ) from error


def is_current(directory: pathlib.Path, mark: Manifest) -> bool:
    """Whether the manifest on disk still says this: no writer has touched it since."""
    try:
        now = read(directory, mark.step)
        return (now.files, now.created) == (mark.files, mark.created)
    except (ManifestError, OSError):
        return False


def damage(directory: pathlib.Path, mark: Manifest) -> str | None:
    """What is wrong with the files of a checkpoint; None if every byte is right.

    Raises:
      OSError: a file is there and can't be read, which says nothing about its bytes.
    """
    for name, expected in mark.files.items():
        path = directory / name
        try:
            status = path.lstat()
            if not stat.S_ISREG(status.st_mode):
                return f"{name} is not a regular file"
            if (size := status.st_size) != expected.bytes:
                return f"{name} has {size} bytes, the manifest says {expected.bytes}"
            if files.checksum(path) != expected.xxh3_128:
                return f"{name} does not have the checksum that the manifest says"
        except FileNotFoundError:
            return f"{name} is missing"
    return None


def _check_body(body: Any, step: int) -> None:
    _check(isinstance(body, dict), "it is not a JSON object")
    _check(_depth(body) <= _MAX_DEPTH, f"it nests deeper than {_MAX_DEPTH}")
    for name, expected in (("format", FORMAT), ("step", step)):
        right = type(body[name]) is int and body[name] == expected
        _check(right, f"its {name} is {body[name]!r}")
    _check(isinstance(body["inexact"], list), "its inexact is no list")
    created = float(body["created"])
    _check(0 <= created < _LATEST_SECS, f"it was created at {created}")
    for name in body["files"]:
        # Also keeps a hostile manifest from naming a file elsewhere.
        _check(
            bool(layout.DATA.fullmatch(name))
            and name.startswith(f"{layout.PREFIX}-{step}."),
            f"{name!r} is not a file of this checkpoint",
        )
    _check(f"{layout.PREFIX}-{step}.index" in body["files"], "it names no index file")


def _parse(body: Any, step: int) -> Manifest:
    _check_body(body, step)
    return Manifest(
        step=step,
        metrics={str(k): float(v) for k, v in body["metrics"].items()},
        files={
            name: File(_count(entry["bytes"]), str(entry["xxh3_128"]))
            for name, entry in body["files"].items()
        },
        variables=tuple(
            Variable(
                str(v["path"]), tuple(_count(n) for n in v["shape"]), str(v["dtype"])
            )
            for v in body["variables"]
        ),
        records={
            str(metric): {"step": _count(r["step"]), "value": float(r["value"])}
            for metric, r in body["records"].items()
        },
        config_digest=str(body["config_digest"]),
        events={str(name): _count(size) for name, size in body["events"].items()},
        lineage=_count(body["lineage"]),
        parent=None if body["parent"] is None else _count(body["parent"]),
        inexact=tuple(str(what) for what in body["inexact"]),
        created=float(body["created"]),
        versions={str(k): str(v) for k, v in body["versions"].items()},
        machine={str(k): str(v) for k, v in body.get("machine", {}).items()},
    )


def _from_float(value: float) -> float | str:
    """JSON has no NaN or infinities; `float()` reads their names back."""
    return value if math.isfinite(value) else str(value)


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise ManifestError(f"{value!r} is not a count")
    return value


def _check(condition: bool, problem: str) -> None:
    if not condition:
        raise ManifestError(problem)


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(_depth, value), default=0)
    return 0
