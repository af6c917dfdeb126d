"""Read-only answers about a run directory, as plain rows.

No TensorFlow: they are there in a moment, also while the run is training.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

from trainer.checkpoint import catalog, layout, manifest, retention
from trainer.checkpoint.catalog import Catalog, Entry
from trainer.checkpoint.layout import RunDirectory
from trainer.storage import files


def list_checkpoints(
    directory: RunDirectory, rules: Sequence[retention.Best] = ()
) -> list[dict[str, Any]]:
    """One row a checkpoint file set, newest step first.

    Args:
      directory: of the run.
      rules: what is best, for the ranks.

    Returns:
      `{"step", "path", "kind": "recent"|"best", "best_of": [...], "ranks": {...},
      "latest": bool, "metrics": {...}, "bytes", "created", "lineage", "status":
      "ok"|"damaged"|"incomplete"}`. The ranks count from 1, by metric. The lineage
      counts how often the run had gone back.
      The status looks at sizes only; `verify` reads every byte. `created` is seconds
      since the epoch. Bytes are counted for each row, though a best one shares its
      bytes with a recent one of the same step.

    Raises:
      FileNotFoundError: there is no such directory.
    """
    found = _scan(directory)
    # As `selection.select` has it: the first that can be read.
    latest = next((entry for entry, _ in found.readable), None)
    best_of: dict[int, list[str]] = {}
    for home in directory.bests():
        for step in sorted(found.home(home)):
            best_of.setdefault(step, []).append(home.name)
    ranks: dict[int, dict[str, int]] = {}
    for rule in rules:
        best = found.ranked(directory.best(rule.metric), rule)
        for rank, entry in enumerate(best, start=1):
            ranks.setdefault(entry.step, {})[rule.metric] = rank
    return [
        {
            **_row(
                entry,
                status,
                latest=entry is latest,
                recent=entry.directory == directory.recent,
            ),
            "best_of": best_of.get(entry.step, []),
            "ranks": ranks.get(entry.step, {}),
        }
        for entry in found.entries
        if (status := _status(entry)) == "ok" or not _is_gone(entry)
    ]


def show_checkpoint(entry: Entry) -> dict[str, Any]:
    """What the manifest of one checkpoint says.

    Raises:
      manifest.ManifestError: it can't be read.
    """
    if entry.manifest is None:
        raise manifest.ManifestError(entry.problem)
    shown = {"path": str(entry.prefix), **dataclasses.asdict(entry.manifest)}
    shown["created"] = time.strftime(
        "%Y-%m-%d %H:%M:%S", time.localtime(entry.manifest.created)
    )
    shown["files"] = [
        {"file": name, "bytes": file.bytes, "xxh3_128": file.xxh3_128}
        for name, file in entry.manifest.files.items()
    ]
    shown["variables"] = [
        {"variable": v.path, "shape": str(v.shape), "dtype": v.dtype}
        for v in entry.manifest.variables
    ]
    return shown


def verify(directory: RunDirectory) -> list[dict[str, Any]]:
    """Reads every byte of every checkpoint. Changes nothing.

    Those that a running `train` deletes or replaces meanwhile are passed over.

    Returns:
      `{"path", "bytes", "problem": None or what is wrong}`, newest first, then what was
      set aside as damaged before.
    """
    rows = []
    for entry in _scan(directory).entries:
        problem = entry.problem
        if entry.manifest is not None:
            try:
                problem = manifest.damage(entry.directory, entry.manifest)
            except OSError as error:
                problem = f"cannot be read: {error}"
        if problem and _is_gone(entry):
            continue
        size = entry.manifest.bytes if entry.manifest else 0
        rows.append({"path": str(entry.prefix), "bytes": size, "problem": problem})
    for path in sorted(files.beneath(directory.root)):
        if path.name.endswith(f".json{layout.DAMAGED}"):
            rows.append(
                {"path": str(path), "bytes": 0, "problem": "was set aside before"}
            )
    return rows


def _scan(directory: RunDirectory) -> Catalog:
    if not directory.root.is_dir():
        raise FileNotFoundError(
            f"there is no run directory {directory.root}. Check --run_dir, or train "
            "first."
        )
    return catalog.scan(directory)


def _is_gone(entry: Entry) -> bool:
    """Whether a running `train` has deleted or replaced it since it was read."""
    if entry.manifest is not None:
        return not manifest.is_current(entry.directory, entry.manifest)
    return not layout.manifest_path(entry.directory, entry.step).exists()


def _row(entry: Entry, status: str, *, latest: bool, recent: bool) -> dict[str, Any]:
    mark = entry.manifest
    return {
        "step": entry.step,
        "path": str(entry.prefix),
        "kind": "recent" if recent else "best",
        "latest": latest,
        "metrics": dict(mark.metrics) if mark else {},
        "bytes": mark.bytes if mark else 0,
        "created": mark.created if mark else None,
        "lineage": mark.lineage if mark else None,
        "status": status,
    }


def _status(entry: Entry) -> str:
    if entry.manifest is None:
        return "damaged"
    for name, file in entry.manifest.files.items():
        try:
            if (entry.directory / name).stat().st_size != file.bytes:
                return "damaged"
        except FileNotFoundError:
            return "incomplete"
        except OSError:
            return "damaged"
    return "ok"
