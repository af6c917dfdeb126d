"""What a user of an export should know, as one JSON document beside it.

    >>> import pathlib
    >>> from line import Line
    >>> from trainer.checkpoint import catalog
    >>> from trainer.config import options
    >>> from trainer.exporting import model_card
    >>> from trainer.exporting.saved_model import noting, signatures
    >>> from trainer.inference import loaded
    >>> from trainer.model.prediction import Predictor
    >>> (entry,) = catalog.read_entry(pathlib.Path("runs/line/recent"), 20)
    >>> found = loaded.load(options.RunOptions(batch_size=4), Line(), entry)
    >>> with noting({}) as noted:
    ...     predictor = Predictor(Line(), found.state.networks, found.spec())
    >>> traced = signatures(predictor, noted)
    >>> card = model_card.describe("line", entry, found, traced, kind="keras")
    >>> card["step"], card["inputs"]
    (20, {'x': {'dtype': 'float32', 'shape': [None, 1]}})

It names the checkpoint, what goes in, what comes out, and how good it was.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from typing import Any

import keras
import tensorflow as tf

from trainer.checkpoint import catalog, environment, prepared_file
from trainer.checkpoint.prepared_file import Prepared
from trainer.exporting import runtimes
from trainer.exporting.saved_model import PREDICTIONS, Signatures
from trainer.inference import loaded
from trainer.model import ema
from trainer.model.contract import network_items
from trainer.task import Task, TaskError

NAME = "model_card.json"


def describe(
    name: str,
    entry: catalog.Entry,
    found: loaded.Restored,
    signatures: Signatures,
    *,
    kind: str,
) -> dict[str, Any]:
    """The card of an export of the task `name` in the format `kind`."""
    mark, task = entry.manifest, found.task
    every = {name: _signature(traced) for name, traced in signatures.items()}
    networks = network_items(found.state.networks)
    return {
        "task": name,
        "about": (type(task).__doc__ or "").strip().partition("\n")[0],
        "hyperparameters": task.hyperparameters(),
        "format": kind,
        "step": entry.step,
        "metrics": dict(mark.metrics) if mark else {},
        "averaged_weights": any(
            one.path.startswith(f"{ema.NAME}/")
            for one in (mark.variables if mark else ())
        ),
        **every[PREDICTIONS],
        "labels": _labels(task, every[PREDICTIONS]),
        "units": _units(task, every[PREDICTIONS]),
        "signatures": every if kind == "saved_model" else {},
        "parameters": {name: _count(one) for name, one in networks.items()},
        "data": {name: f"{n} examples" for name, n in found.lengths.items()},
        "compared_on": "the data" if found.sources else "made-up examples",
        "prepared": _prepared(found.known.prepared),
        "versions": environment.versions() | runtimes.versions(kind),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _prepared(given: Prepared | None) -> Any:
    """What the task has learned from its data, such as the names of classes."""
    return prepared_file.plain(given.outline, given.arrays) if given else {}


def _labels(task: Task, known: Mapping[str, Any]) -> dict[str, list[str]]:
    """The names of what a prediction, or an input, counts: of classes."""
    found = {}
    for name, names in _said(task, "labels", '{"digit": ["zero", "one"]}', known):
        given = [] if isinstance(names, str | bytes) else list(names)
        if not given or not all(isinstance(one, str) for one in given):
            raise TaskError(
                f"{type(task).__name__}.labels has {names!r} for {name!r}; expected a "
                f'list of texts. Write: labels = {{"{name}": ["zero", "one"]}}'
            )
        found[name] = given
    return found


def _units(task: Task, known: Mapping[str, Any]) -> dict[str, str]:
    """What the numbers of a prediction, or of an input, are counted in."""
    return {n: str(one) for n, one in _said(task, "units", '{"level": "m"}', known)}


def _said(
    task: Task, what: str, sample: str, known: Mapping[str, Any]
) -> Iterable[tuple[str, Any]]:
    """What a task says of its inputs and predictions, if it does, by their names."""
    given = getattr(task, what, {})
    where = f"{type(task).__name__}.{what}"
    if not isinstance(given, Mapping):
        raise TaskError(
            f"{where} is {type(given).__name__}; expected a mapping by the names of "
            f"predictions and inputs. Write: {what} = {sample}"
        )
    names = {**known["outputs"], **known["inputs"]}
    if unknown := [name for name in given if name not in names]:
        raise TaskError(
            f"{where} names {unknown[0]!r}, which is neither a prediction nor an "
            f"input. Expected {', '.join(names)}. Rename it in {what}."
        )
    return given.items()


def _signature(traced: Any) -> dict[str, Any]:
    """What goes into a traced function, and what comes out."""
    inputs = traced.structured_input_signature[1]
    outputs = traced.structured_outputs
    return {
        "inputs": {name: _outline(spec) for name, spec in inputs.items()},
        "outputs": {name: _outline(spec) for name, spec in outputs.items()},
    }


def _count(network: keras.Model) -> int:
    """How many numbers its weights are, also where it was never called as a whole."""
    return sum(math.prod(one.shape) for one in network.weights)


def _outline(spec: tf.TensorSpec) -> dict[str, Any]:
    shape = spec.shape.as_list() if spec.shape.rank is not None else None
    return {"dtype": spec.dtype.name, "shape": shape}
