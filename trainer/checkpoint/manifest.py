"""The commit mark of a checkpoint: what is in it, and how to tell that it is whole.

`ckpt-1200.json` beside `ckpt-1200.index` and `ckpt-1200.data-*`, written last. A
checkpoint without a manifest was never committed. Only JSON is ever parsed, within
strict limits, so a directory from a stranger is safe to read.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
import re
import stat
from collections.abc import Callable, Mapping
from typing import Any

from trainer.errors import KeepstepError
from trainer.storage import checked_json
from trainer.storage.files import checksum

FORMAT = 1
PREFIX = "ckpt"
_NAME = re.compile(r"ckpt-(0|[1-9]\d{0,17})\.json", re.ASCII)
_FILE_NAME = re.compile(r"ckpt-\d{1,18}\.(index|data-\d{5}-of-\d{5})", re.ASCII)
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
class Manifest:
    """What is known of one committed checkpoint.

    Attributes:
      step: training steps done, and the number in the file names.
      metrics: of the evaluation at this very step; empty if there was none.
      files: by name, in the manifest's own directory.
      variables: in the order in which the state names them.
      records: by metric, the best `{"step", "value"}` up to this step.
      config_digest: of the choices that the numbers depend on.
      created: seconds since the epoch.
      versions: of keepstep, tensorflow, keras and python.
      events: sizes in bytes of the event files when this was saved, by name.
      lineage: how often the run had gone back before this was saved.
      parent: the step that it went back to last.
      inexact: what training changes and this does not hold; empty but for runs with
        `--allow_inexact`.
    """

    step: int
    metrics: Mapping[str, float]
    files: Mapping[str, File]
    variables: tuple[Variable, ...]
    records: Mapping[str, Mapping[str, float]]
    config_digest: str
    created: float
    versions: Mapping[str, str]
    events: Mapping[str, int] = dataclasses.field(default_factory=dict)
    lineage: int = 0
    parent: int | None = None
    inexact: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        """Of all files together."""
        return sum(file.bytes for file in self.files.values())


def path_of(directory: pathlib.Path, step: int) -> pathlib.Path:
    """Where the manifest of `step` is."""
    return directory / f"{PREFIX}-{step}.json"


def measure(
    directory: pathlib.Path,
    step: int,
    digest: Callable[[pathlib.Path], str] = checksum,
) -> dict[str, File]:
    """Sizes and digests of the files of a checkpoint, as they read back from disk."""
    return {
        path.name: File(path.stat().st_size, digest(path))
        for path in sorted(directory.glob(f"{PREFIX}-{step}.*"))
        if _FILE_NAME.fullmatch(path.name)
    }


def write(directory: pathlib.Path, manifest: Manifest) -> None:
    """Commits a checkpoint: from here on it exists."""
    body = {"format": FORMAT, **dataclasses.asdict(manifest)}
    body["metrics"] = {k: _from_float(v) for k, v in manifest.metrics.items()}
    checked_json.write(path_of(directory, manifest.step), body)


def steps(directory: pathlib.Path) -> list[int]:
    """The steps that have a manifest, in rising order."""
    if not directory.is_dir():
        return []
    found = (_NAME.fullmatch(path.name) for path in directory.iterdir())
    return sorted(int(match[1]) for match in found if match)


def read(directory: pathlib.Path, step: int) -> Manifest:
    """The manifest of one step.

    Raises:
      ManifestError: it isn't a manifest, or breaks a limit.
      OSError: it can't be read.
    """
    path = path_of(directory, step)
    try:
        body = checked_json.read(path, max_bytes=_MAX_BYTES)
        manifest = _parse(body, step)
        checked_json.opened(body)
        return manifest
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


def damage(directory: pathlib.Path, manifest: Manifest) -> str | None:
    """What is wrong with the files of a checkpoint; None if every byte is right.

    Raises:
      OSError: a file is there and can't be read, which says nothing about its bytes.
    """
    for name, expected in manifest.files.items():
        path = directory / name
        try:
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):
                return f"{name} is not a regular file"
            size = status.st_size
            if size != expected.bytes:
                return f"{name} has {size} bytes, the manifest says {expected.bytes}"
            if checksum(path) != expected.xxh3_128:
                return f"{name} does not have the checksum that the manifest says"
        except FileNotFoundError:
            return f"{name} is missing"
    return None


def _parse(body: Any, step: int) -> Manifest:
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
            bool(_FILE_NAME.fullmatch(name)) and name.startswith(f"{PREFIX}-{step}."),
            f"{name!r} is not a file of this checkpoint",
        )
    files = {
        name: File(_count(entry["bytes"]), str(entry["xxh3_128"]))
        for name, entry in body["files"].items()
    }
    _check(f"{PREFIX}-{step}.index" in files, "it names no index file")
    return Manifest(
        step=step,
        metrics={str(k): float(v) for k, v in body["metrics"].items()},
        files=files,
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
        created=created,
        versions={str(k): str(v) for k, v in body["versions"].items()},
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
