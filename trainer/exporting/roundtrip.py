"""An export loaded back in a fresh process, as a stranger would.

The process knows nothing but files: it loads, predicts and writes what it predicted.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainer.base.errors import KeepstepError
from trainer.config import tasks
from trainer.model import prediction, preparation
from trainer.model.contract import network_items

# A SavedModel needs TensorFlow and nothing of ours.
_SAVED_MODEL = """
import sys
if sys.path[0] == "":
    del sys.path[0]  # no file of the current directory takes the place of a library
import json
import numpy as np
import tensorflow as tf
plan = json.loads(sys.argv[1])
serve = tf.saved_model.load(plan["files"]["saved_model"]).signatures["serving_default"]
with np.load(plan["inputs"]) as inputs:
    outputs = serve(**{name: tf.constant(inputs[name]) for name in inputs})
arrays = {name: one.numpy() for name, one in outputs.items()}
texts = {name: one.astype("S") for name, one in arrays.items() if one.dtype == object}
np.savez(plan["outputs"], **{**arrays, **texts})
"""
_KERAS = """
import sys
if sys.path[0] == "":
    del sys.path[0]
from trainer.exporting import roundtrip
roundtrip.child(sys.argv[1])
"""

_LARGEST_DIFFERENCE = 1e-5
Arrays = prediction.Arrays


class ReloadError(KeepstepError, RuntimeError):
    """An export, loaded in a fresh process, is not what was exported."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What a fresh process is to load, and how.

    Attributes:
      kind: `saved_model`, `keras`, `h5` or `weights`.
      files: by network; for a SavedModel the directory, as `saved_model`.
      task: as `--task` names it.
      settings: as `--set` gives them.
      package: of the registered tasks.
      prepared: the file of what the task has prepared.
      prepared_digest: of that; empty: there is nothing.
      inputs: an `.npz` of arrays `[B, ...]`.
      outputs: the `.npz` that the process writes.
    """

    kind: str
    files: dict[str, str]
    task: str
    settings: tuple[str, ...]
    package: str
    prepared: str = ""
    prepared_digest: str = ""
    inputs: str = ""
    outputs: str = ""


def compare(plan: Plan, inputs: Arrays, expected: Arrays) -> float:
    """How far a fresh process's predictions are from the expected ones, at most.

    Args:
      plan: but for the files of inputs and outputs.
      inputs: arrays `[B, ...]` by name.
      expected: arrays `[B, ...]` by name.

    Raises:
      ReloadError: it can't load the export, or the predictions differ.
    """
    with tempfile.TemporaryDirectory() as directory:
        given, said = (f"{directory}/{name}.npz" for name in ("inputs", "outputs"))
        _write(given, inputs)
        outputs = _run(dataclasses.replace(plan, inputs=given, outputs=said))
    if outputs.keys() != expected.keys():
        raise ReloadError(
            f"loaded back, the export gives {', '.join(sorted(outputs))}; expected "
            f"{', '.join(sorted(expected))}. Nothing was left behind."
        )
    largest = max(_distance(outputs[name], expected[name]) for name in expected)
    if not largest <= _LARGEST_DIFFERENCE:
        raise ReloadError(
            f"loaded back, the export differs by {largest:g} from what the checkpoint "
            f"predicts; expected {_LARGEST_DIFFERENCE:g} at most. Nothing was left "
            "behind. Look for a layer that does not save all that it computes with."
        )
    return largest


def child(text: str) -> None:
    """The fresh process: loads networks that Keras wrote, and predicts."""
    plan = Plan(**json.loads(text))
    task = tasks.create(plan.task, plan.settings, package=plan.package, trust=True)
    path = pathlib.Path(plan.prepared)
    task = preparation.given(task, path, plan.prepared_digest)
    with np.load(plan.inputs) as file:
        inputs = {name: tf.constant(file[name]) for name in file}
    networks: Any
    if plan.kind == "weights":
        networks = task.networks()
        task.predictions(networks, inputs)  # builds what is built when it is called
        for name, network in network_items(networks).items():
            network.load_weights(plan.files[name])
    else:
        networks = {
            name: keras.models.load_model(path, compile=False)
            for name, path in plan.files.items()
        }
        if set(networks) == {"model"}:
            networks = networks["model"]
    predicted = task.predictions(networks, inputs)
    _write(
        plan.outputs, {name: prediction.array(one) for name, one in predicted.items()}
    )


def _run(plan: Plan) -> Arrays:
    """What a fresh process predicts with the export."""
    script = _SAVED_MODEL if plan.kind == "saved_model" else _KERAS
    path = os.pathsep.join(str(pathlib.Path(entry).absolute()) for entry in sys.path)
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(dataclasses.asdict(plan))],
        env={**os.environ, "PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "2"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        # Where Keras has a cause to tell, that is the line that names the layer.
        causes = [line for line in said if line.startswith("Exception encountered: ")]
        errors = [line for line in said if "Error" in line]
        line = (causes or errors or said)[-1].strip()
        raise ReloadError(
            f"a fresh process could not load the export: {line}"
            "\nNothing was left behind. A layer of your own needs above its class "
            "@keras.saving.register_keras_serializable(), and a get_config with every "
            "argument of __init__."
        )
    with np.load(plan.outputs) as file:
        return dict(file)


def _write(path: str, arrays: Arrays) -> None:
    named: Any = arrays
    with pathlib.Path(path).open("wb") as raw:
        np.savez(raw, **named)


def _distance(one: np.ndarray, other: np.ndarray) -> float:
    """The largest absolute difference; infinite where they can't be compared."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return math.inf
    if one.dtype.kind not in "biuf":
        return 0.0 if np.array_equal(one, other) else math.inf
    same = (one == other) | ((one != one) & (other != other))  # NaN is NaN
    far = np.abs(one.astype(np.float64) - other.astype(np.float64))
    return float(np.max(np.where(same, 0.0, far), initial=0.0))
