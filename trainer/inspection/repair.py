"""Manifests written anew, for checkpoints that lost theirs and are whole all the same.

    >>> import pathlib
    >>> from trainer.checkpoint import layout
    >>> from trainer.inspection import repair
    >>> pathlib.Path("runs/line/recent/ckpt-20.json").unlink()
    >>> repair.repair(layout.RunDirectory(pathlib.Path("runs/line")))
    [{'path': 'runs/line/recent/ckpt-20', 'repaired': True, 'problem': None}]

A manifest is the only file that says what was committed, so without it nothing is used.
Whether the data are whole can still be told: TensorFlow reads every tensor of them and
compares the checksums in the file. Only the holder of the run's lock may use this.
"""

from __future__ import annotations

import json
import pathlib
import re
import time
from collections.abc import Iterator
from typing import Any

from trainer.checkpoint import catalog, filing, layout, manifest
from trainer.checkpoint.catalog import Catalog
from trainer.checkpoint.layout import RunDirectory
from trainer.checkpoint.manifest import Draft
from trainer.checkpoint.reader import Reader, is_whole
from trainer.reporting import event_positions
from trainer.storage import files

_UNCLAIMED = re.compile(
    r"(ckpt-(\d{1,18})\.(index|data-\d{5}-of-\d{5}))(\.\d+)?\.unclaimed", re.ASCII
)


def repair(directory: RunDirectory) -> list[dict[str, Any]]:
    """Writes the manifests that are missing.

    Data that were set aside as unclaimed get their names back first.

    Returns:
      `{"path", "repaired": bool, "problem": None or why not}` for each checkpoint
      without a manifest.

    Raises:
      OSError: they can't be written.
    """
    directory.check_links()
    rows = []
    for home in directory.homes():
        _reclaim(home)
        for step in _without_manifest(home):
            known = catalog.scan(directory)
            problem = _write(directory, known, home, step)
            rows.append(
                {
                    "path": str(layout.prefix(home, step)),
                    "repaired": problem is None,
                    "problem": problem,
                }
            )
        filing.write_list(home, layout.steps(home))
    return rows


def _reclaim(home: pathlib.Path) -> None:
    """Gives data that were set aside their names back, where these are free."""
    for name in sorted(files.names(home)):
        if match := _UNCLAIMED.fullmatch(name):
            free = not layout.manifest_path(home, int(match[2])).exists()
            if free and not (home / match[1]).exists():
                files.replace(home / name, home / match[1])


def _without_manifest(home: pathlib.Path) -> Iterator[int]:
    found = (layout.DATA.fullmatch(name) for name in files.names(home))
    steps = {int(match[1]) for match in found if match}
    yield from sorted(steps - set(layout.steps(home)))


def _write(
    directory: RunDirectory, known: Catalog, home: pathlib.Path, step: int
) -> str | None:
    """Writes one manifest; says why not."""
    prefix = str(layout.prefix(home, step))
    if not is_whole(prefix):
        return "TensorFlow can't read all of it"
    reader = Reader(prefix)
    if reader.has("step") and reader.single("step") != step:
        return f"it is of step {reader.single('step')}, not of {step}"
    progress = json.loads(reader.single("progress")) if reader.has("progress") else {}
    evaluated = progress.get("evaluated") == step
    like = next((mark for _, mark in known.readable), None)
    draft = Draft(
        step=step,
        metrics=progress["metrics"] if evaluated else {},
        variables=like.variables if like else (),
        records=progress.get("records", {}),
        config_digest=like.config_digest if like else "",
        versions=like.versions if like else {},
        machine=like.machine if like else {},
        events=event_positions.sizes_at(directory.summaries, step),
        lineage=like.lineage if like else 0,
        parent=like.parent if like else None,
        inexact=like.inexact if like else (),
    )
    written = manifest.measure(home, step, _synced)
    manifest.write(home, draft.committed(written, time.time()))
    return None


def _synced(path: pathlib.Path) -> str:
    """The checksum of a file that somebody may have brought back just now."""
    files.sync(path)
    return files.checksum(path)
