"""Where an export belongs: made aside, and given its name once it is whole.

    >>> import pathlib
    >>> from trainer.exporting.place import Place
    >>> Place.of(pathlib.Path("best/a.keras"), "keras").card
    PosixPath('best/a.keras.json')

It is a directory, or one file with its card beside it.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from trainer.checkpoint import prepared_file
from trainer.checkpoint.layout import RunDirectory
from trainer.checkpoint.prepared_file import Prepared
from trainer.exporting import formats, model_card, versions
from trainer.exporting.saved_model import ExportError
from trainer.storage.files import replace, sync, write_atomically

_PREPARED = "prepared.npz"  # what the task has prepared, beside the model


@dataclasses.dataclass(frozen=True)
class Export:
    """What was written.

    Attributes:
      path: the directory, or the file that was asked for.
      files: by network; for a SavedModel the directory, as `saved_model`.
      max_difference: from the predictions of the networks in this process.
      examples: on how many.
      usage: how to load it, a line each.
    """

    path: pathlib.Path
    files: Mapping[str, pathlib.Path]
    max_difference: float
    examples: int
    usage: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Place:
    """Where an export belongs: a directory, or one file with its card beside it."""

    target: pathlib.Path
    card: pathlib.Path
    staging: pathlib.Path  # the directory in which everything is made
    as_file: bool

    @classmethod
    def of(cls, target: pathlib.Path, kind: str) -> Place:
        """As the name says: one that ends like a file of this format is a file."""
        staging = target.with_name(f".{target.name}.tmp")
        if target.name.endswith(formats.SUFFIX.get(kind, "/")):
            card = target.with_name(f"{target.name}.json")
            return cls(target, card, staging, as_file=True)
        return cls(target, target / model_card.NAME, staging, as_file=False)

    def served_by(self, run: RunDirectory) -> Place:
        """The same in the next version of the run's SavedModel."""
        target = versions.place(run, versions.take(run))
        return dataclasses.replace(self, target=target, card=target / model_card.NAME)

    def check(self, networks: Sequence[str]) -> None:
        """Refuses to overwrite, and to put several networks into one file."""
        if self.as_file and len(networks) > 1:
            raise ExportError(
                f"--output={self.target} is one file, and the task has the networks "
                f"{', '.join(networks)}. Give a directory."
            )
        for path in (self.target, self.card):
            if path.exists():
                raise ExportError(
                    f"{path} is there already, and an export is never overwritten. "
                    "Delete it, or give another --output."
                )

    def prepared(self, given: Prepared | None) -> dict[str, str]:
        """Writes what the task has prepared to where it is staged; for a `Plan`."""
        if given is None:
            return {}
        path = self.staging / _PREPARED
        prepared_file.write(path, given)
        return {"prepared": str(path), "prepared_digest": given.digest}

    def export(
        self,
        kind: str,
        files: Mapping[str, pathlib.Path],
        difference: float,
        examples: int,
    ) -> Export:
        """What was written, once it is here."""
        placed = {
            name: self.target
            if self.as_file
            else self.target / path.relative_to(self.staging)
            for name, path in files.items()
        }
        usage = formats.usage(kind, placed.values())
        return Export(self.target, placed, difference, examples, usage)

    def fill(self, files: Mapping[str, pathlib.Path], about: Mapping[str, Any]) -> None:
        """Gives what was staged its name: from here on the export is there."""
        text = json.dumps(about, indent=1) + "\n"
        if self.as_file:
            write_atomically(self.card, text)
            staged = self.staging / _PREPARED
            if staged.exists():
                sync(staged)
                replace(
                    staged, self.target.with_name(f"{self.target.name}.{_PREPARED}")
                )
            sync(files["model"])
            replace(files["model"], self.target)
            return
        write_atomically(self.staging / model_card.NAME, text)
        for path in self.staging.rglob("*"):
            sync(path)
        replace(self.staging, self.target)
