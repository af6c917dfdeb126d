"""A checkpoint becomes something that others load, and is loaded back to prove it.

Written aside, loaded in a fresh process, compared on real examples, then renamed: an
export that is there is whole and says the same as the networks that it came from.
`trainer.export` shows one.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from trainer.checkpoint import catalog, prepared_file
from trainer.checkpoint.layout import RunDirectory
from trainer.checkpoint.prepared_file import Prepared
from trainer.config import options
from trainer.data import specs
from trainer.exporting import formats, model_card, roundtrip
from trainer.inference import loaded
from trainer.model import prediction
from trainer.model.contract import network_items
from trainer.storage.files import (
    delete,
    make_directory,
    replace,
    sync,
    write_atomically,
)
from trainer.task import Task

_EXAMPLES = 64
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


def export(
    choices: options.RunOptions,
    task: Task,
    entry: catalog.Entry,
    *,
    kind: str,
    package: str,
    output: str = "",
) -> Export:
    """Writes the networks of a checkpoint.

    Args:
      choices: of the run.
      task: of the run.
      entry: the checkpoint.
      kind: the format, one of `options.EXPORTS`.
      package: of the registered tasks.
      output: the file or directory, with fields such as `{step}`; "" for a directory
        below the run's own.

    Raises:
      formats.ExportError: something is there already, or the networks can't be written.
      roundtrip.ReloadError: it can't be loaded back, or says something else when it is.
      options.ConfigError: `output` has fields that are not known.
      selection.DamagedCheckpointError: the files are not what was committed.
      layout.OutsideError: a link leads out of the run directory that it belongs in.
      compatibility.IncompatibleCheckpointError: the networks are not those of the task.
    """
    if not output:
        RunDirectory(choices.directory()).check_links()
    found = loaded.load(choices, task, entry, reads="if_there")
    place = _Place.of(_target(choices, kind, output, entry, found), kind)
    place.check(network_items(found.state.networks))
    make_directory(place.target.parent)
    delete(place.staging)  # of an export that was interrupted
    make_directory(place.staging)
    try:
        networks = network_items(found.state.networks)
        predictor = prediction.Predictor(found.task, found.state.networks, found.spec())
        files = formats.write(kind, place.staging, networks, predictor)
        plan = roundtrip.Plan(
            kind=kind,
            files={name: str(path) for name, path in files.items()},
            task=choices.task,
            settings=choices.set,
            package=package,
            **place.prepared(found.known.prepared),
        )
        inputs, expected = _sample(found, predictor)
        difference = roundtrip.compare(plan, inputs, expected)
        examples = len(next(iter(expected.values())))
        about = model_card.describe(choices.task, entry, found, predictor, kind=kind)
        about |= {"max_difference": difference, "compared_examples": examples}
        place.fill(files, about)
    finally:
        delete(place.staging)
    placed = {name: place.of_file(path) for name, path in files.items()}
    usage = formats.usage(kind, placed.values())
    return Export(place.target, placed, difference, examples, usage)


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where an export belongs: a directory, or one file with its card beside it."""

    target: pathlib.Path
    card: pathlib.Path
    as_file: bool

    @classmethod
    def of(cls, target: pathlib.Path, kind: str) -> _Place:
        """As the name says: one that ends like a file of this format is a file."""
        if target.name.endswith(formats.SUFFIX.get(kind, "/")):
            return cls(target, target.with_name(f"{target.name}.json"), True)
        return cls(target, target / model_card.NAME, False)

    @property
    def staging(self) -> pathlib.Path:
        """The directory in which everything is made."""
        return self.target.with_name(f".{self.target.name}.tmp")

    def check(self, networks: Mapping[str, Any]) -> None:
        """Refuses to overwrite, and to put several networks into one file."""
        if self.as_file and len(networks) > 1:
            raise formats.ExportError(
                f"--output={self.target} is one file, and the task has the networks "
                f"{', '.join(networks)}. Give a directory."
            )
        for path in (self.target, self.card):
            if path.exists():
                raise formats.ExportError(
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

    def of_file(self, path: pathlib.Path) -> pathlib.Path:
        """The place of a staged file."""
        if self.as_file:
            return self.target
        return self.target / path.relative_to(self.staging)

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


def _target(
    choices: options.RunOptions,
    kind: str,
    output: str,
    entry: catalog.Entry,
    found: loaded.Restored,
) -> pathlib.Path:
    """Where the export belongs, with the fields of `--output` filled in."""
    if not output:
        return RunDirectory(choices.directory()).export(kind, entry.step)
    metrics = entry.manifest.metrics if entry.manifest else {}
    fields: dict[str, Any] = {"step": entry.step, **metrics}
    fields |= {f"val_{name}": value for name, value in metrics.items()}
    if length := found.lengths.get("train"):
        fields["epoch"] = entry.step * choices.batch_size // length
    try:
        return pathlib.Path(output.format(**fields))
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise options.ConfigError(
            f"--output={output} can't be filled in ({error}): this checkpoint "
            f"has {', '.join(f'{{{name}}}' for name in fields)}."
        ) from error


def _sample(
    found: loaded.Restored, predictor: prediction.Predictor
) -> tuple[prediction.Arrays, prediction.Arrays]:
    """Some real examples, and what the networks say of them here.

    Where the data could not be read, they are made up.
    """
    if not found.sources:
        examples = specs.made_up(predictor.spec, _EXAMPLES)
        return examples, predictor.predict(examples)
    split = "valid" if "valid" in found.sources else "train"
    batches = found.examples(_EXAMPLES, split=split)
    examples, predicted = next(predictor.run(batches))
    return {name: examples[name] for name in predictor.inputs}, predicted
