"""A checkpoint becomes something that others load, and is loaded back to prove it.

    done = export.export(choices, task, entry, package="models")
    done.path                    # runs/a/exports/saved_model/1200

Written aside, loaded in a fresh process, compared on real examples, then renamed: an
export that is there is whole and says the same as the networks that it came from.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pathlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import tensorflow as tf
from absl import logging

from trainer import data
from trainer.checkpoint import catalog
from trainer.compat.networks import layers_of
from trainer.config import options, values
from trainer.errors import KeepstepError
from trainer.exporting import roundtrip
from trainer.inference import loaded
from trainer.model import ema, prediction
from trainer.storage.files import (
    delete,
    make_directory,
    replace,
    sync,
    write_atomically,
)
from trainer.task import Task, network_items
from trainer.training import run

SUFFIX = {"keras": ".keras", "h5": ".h5", "weights": ".weights.h5"}
CARD = "model_card.json"
_LOADING = {
    "saved_model": 'load  tf.saved_model.load("{}").signatures["serving_default"]',
    "keras": 'load  keras.models.load_model("{}")',
    "h5": 'load  keras.models.load_model("{}")',
    "weights": 'load  model.load_weights("{}")',
}
_EXAMPLES = 64


class ExportError(KeepstepError, RuntimeError):
    """A network can't be exported; nothing was left behind."""


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
    choices: options.Config, task: Task, entry: catalog.Entry, *, package: str
) -> Export:
    """Writes the networks of a checkpoint in `choices.format`.

    Raises:
      ExportError: something is there already, or the networks can't be written.
      roundtrip.ReloadError: it can't be loaded back, or says something else when it is.
      options.ConfigError: `--output` has fields that are not known.
      store.DamagedCheckpointError: the files are not what was committed.
      compatibility.IncompatibleCheckpointError: the networks are not those of the task.
    """
    kind = choices.format if choices.format in options.EXPORTS else options.EXPORTS[0]
    found = loaded.load(choices, task, entry)
    networks = network_items(found.state.networks)
    target = _target(choices, kind, entry, found)
    as_file = target.name.endswith(SUFFIX.get(kind, "/"))
    if as_file and len(networks) > 1:
        raise ExportError(
            f"--output={choices.output} is one file, and the task has the networks "
            f"{', '.join(networks)}. Give a directory."
        )
    card = target.with_name(f"{target.name}.json") if as_file else target / CARD
    for path in (target, card):
        if path.exists():
            raise ExportError(
                f"{path} is there already, and an export is never overwritten. Delete "
                "it, or give another --output."
            )
    make_directory(target.parent)
    staging = target.with_name(f".{target.name}.tmp")
    delete(staging)  # of an export that was interrupted
    make_directory(staging)
    try:
        predictor = prediction.Predictor(task, found.state.networks, found.spec())
        files = _write(kind, staging, networks, predictor)
        inputs, expected = _sample(found, predictor)
        plan = roundtrip.Plan(
            kind=kind,
            files={name: str(path) for name, path in files.items()},
            task=choices.task,
            settings=choices.set,
            package=package,
        )
        difference = roundtrip.compare(plan, inputs, expected)
        examples = len(next(iter(expected.values())))
        about = _card(choices, entry, found, predictor, kind)
        about |= {"max_difference": difference, "compared_examples": examples}
        text = json.dumps(about, indent=1) + "\n"
        if as_file:
            write_atomically(card, text)
            sync(files["model"])
            replace(files["model"], target)
        else:
            write_atomically(staging / CARD, text)
            for path in staging.rglob("*"):
                sync(path)
            replace(staging, target)
    finally:
        delete(staging)
    placed = {
        name: target if as_file else target / path.relative_to(staging)
        for name, path in files.items()
    }
    usage = tuple(_LOADING[kind].format(path) for path in placed.values())
    return Export(target, placed, difference, examples, usage)


def _target(
    choices: options.Config,
    kind: str,
    entry: catalog.Entry,
    found: loaded.Restored,
) -> pathlib.Path:
    """Where the export belongs, with the fields of `--output` filled in."""
    if not choices.output:
        return choices.directory() / "exports" / kind / str(entry.step)
    metrics = entry.manifest.metrics if entry.manifest else {}
    fields: dict[str, Any] = {"step": entry.step, **metrics}
    fields |= {f"val_{name}": value for name, value in metrics.items()}
    train = found.sources.get("train")
    if not isinstance(train, tf.data.Dataset):
        length = len(data.split(found.sources, "train"))
        fields["epoch"] = entry.step * choices.batch_size // length
    try:
        return pathlib.Path(choices.output.format(**fields))
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise options.ConfigError(
            f"--output={choices.output} can't be filled in ({error}): this checkpoint "
            f"has {', '.join(f'{{{name}}}' for name in fields)}."
        ) from error


def _write(
    kind: str,
    directory: pathlib.Path,
    networks: Mapping[str, keras.Model],
    predictor: prediction.Predictor,
) -> dict[str, pathlib.Path]:
    """Writes the files of an export; by network, where they are."""
    if kind == "saved_model":
        module = tf.Module()
        module.networks = dict(networks)
        # Where TensorFlow loads it into a session, as `saved_model_cli run` does, it
        # restores only what it finds as a variable, and Keras wraps its own.
        module.weights = [v.value for one in networks.values() for v in one.variables]
        tf.saved_model.save(module, str(directory), signatures=predictor.traced)
        return {"saved_model": directory}
    files = {name: directory / f"{name}{SUFFIX[kind]}" for name in networks}
    for name, network in networks.items():
        if kind == "weights":
            network.save_weights(files[name])
            continue
        _check_layers(network)
        try:
            with _quiet():
                network.save(files[name])
        except (NotImplementedError, TypeError, ValueError) as error:
            raise ExportError(
                f"Keras can't write the network {name!r} as {kind}: {error} Export it "
                "as saved_model or weights, which need no configuration of layers."
            ) from error
    return files


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without Keras' advice against HDF5: whoever asks for it knows why."""
    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _check_layers(network: keras.Model) -> None:
    """Asks each layer for the configuration from which it is made again.

    The inner ones come first: one that holds others asks them for theirs.
    """
    for layer in reversed(layers_of(network)):
        try:
            layer.get_config()
        except NotImplementedError as error:
            name = type(layer).__name__
            raise ExportError(
                f"the layer {layer.name!r} ({name}) does not say how it was made, so "
                f"no file can hold it. Add to the class {name}: def get_config(self): "
                "return {**super().get_config(), ...every argument of __init__...}, "
                "and above it @keras.saving.register_keras_serializable(). Or export "
                "as saved_model or weights."
            ) from error


def _sample(
    found: loaded.Restored, predictor: prediction.Predictor
) -> tuple[prediction.Arrays, prediction.Arrays]:
    """Some real examples, and what the networks say of them here."""
    split = "valid" if "valid" in found.sources else "train"
    choices = options.Config(split=split, eval_batch_size=_EXAMPLES)
    examples, predicted = next(predictor.run(found.examples(choices)))
    return {name: examples[name] for name in predictor.inputs}, predicted


def _card(
    choices: options.Config,
    entry: catalog.Entry,
    found: loaded.Restored,
    predictor: prediction.Predictor,
    kind: str,
) -> dict[str, Any]:
    """What a user of the export should know."""
    task = found.task
    outputs = predictor.traced.structured_outputs
    networks = network_items(found.state.networks)
    return {
        "task": choices.task,
        "about": (type(task).__doc__ or "").strip().partition("\n")[0],
        "hyperparameters": {
            name: values.plain(values.encoded(one))
            for name, one in task.hyperparameters().items()
        },
        "format": kind,
        "step": entry.step,
        "metrics": dict(entry.manifest.metrics) if entry.manifest else {},
        "averaged_weights": any(
            one.path.startswith(f"{ema.NAME}/")
            for one in (entry.manifest.variables if entry.manifest else ())
        ),
        "inputs": {name: _outline(spec) for name, spec in predictor.spec.items()},
        "outputs": {name: _outline(one) for name, one in outputs.items()},
        "parameters": {name: one.count_params() for name, one in networks.items()},
        "data": {
            name: f"{len(data.split(found.sources, name))} examples"
            for name, source in found.sources.items()
            if not isinstance(source, tf.data.Dataset)
        },
        "versions": run.versions(),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _outline(spec: tf.TensorSpec) -> dict[str, Any]:
    return {"dtype": spec.dtype.name, "shape": spec.shape.as_list()}
