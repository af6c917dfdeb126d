"""A checkpoint becomes something that others load, and is loaded back to prove it.

Written aside, loaded in a fresh process, compared on real examples, then renamed: an
export that is there is whole and says the same as the networks that it came from.
`trainer.export` shows one.
"""

from __future__ import annotations

import pathlib
from typing import Any

from trainer.checkpoint import catalog
from trainer.checkpoint.layout import RunDirectory
from trainer.config import options
from trainer.data import specs
from trainer.exporting import formats, model_card, roundtrip, runtimes, saved_model
from trainer.exporting.place import Export, Place
from trainer.inference import loaded
from trainer.model import prediction
from trainer.model.contract import network_items
from trainer.storage.files import delete, make_directory
from trainer.task import Task

_EXAMPLES = 64


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
      saved_model.ExportError: something is there already, or can't be written.
      roundtrip.ReloadError: it can't be loaded back, or says something else when it is.
      options.ConfigError: `output` has fields that are not known.
      selection.DamagedCheckpointError: the files are not what was committed.
      layout.OutsideError: a link leads out of the run directory that it belongs in.
      compatibility.IncompatibleCheckpointError: the networks are not those of the task.
    """
    runtimes.check(kind)
    found = loaded.load(choices, task, entry, reads="if_there")
    networks = network_items(found.state.networks)
    place = Place.of(_target(choices, kind, output, entry, found), kind)
    served = kind == "saved_model" and not output
    if not served:
        place.check([] if kind in runtimes.KINDS else [*networks])
    make_directory(place.target.parent)
    delete(place.staging)  # of an export that was interrupted
    make_directory(place.staging)
    try:
        predictor, signatures = _traced(found)
        files = formats.write(kind, place.staging, networks, signatures)
        plan = roundtrip.Plan(
            kind=kind,
            files=dict(zip(files, map(str, files.values()), strict=True)),
            task=choices.task,
            settings=choices.set,
            package=package,
            **place.prepared(found.known.prepared),
        )
        difference, examples = roundtrip.compare(plan, *_sample(found, predictor))
        about = model_card.describe(choices.task, entry, found, signatures, kind=kind)
        about |= {"max_difference": difference, "compared_examples": examples}
        if served:
            place = place.served_by(RunDirectory(choices.directory()))
            about["serving_version"] = int(place.target.name)
        place.fill(files, about)
    finally:
        delete(place.staging)
    return place.export(kind, files, difference, examples)


def _target(
    choices: options.RunOptions,
    kind: str,
    output: str,
    entry: catalog.Entry,
    found: loaded.Restored,
) -> pathlib.Path:
    """Where the export belongs, with the fields of `--output` filled in."""
    if not output:
        run = RunDirectory(choices.directory())
        run.check_links()
        return run.export(kind, entry.step)
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


def _traced(
    found: loaded.Restored,
) -> tuple[prediction.Predictor, saved_model.Signatures]:
    """What the networks predict, and the functions that an export may hold."""
    with saved_model.noting(network_items(found.state.networks)) as noted:
        made = prediction.Predictor(found.task, found.state.networks, found.spec())
    return made, saved_model.signatures(made, noted)


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
