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
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainer.base.errors import KeepstepError
from trainer.config import tasks
from trainer.exporting import strangers
from trainer.model import prediction, preparation
from trainer.model.contract import network_items

_KERAS = (
    strangers.ALONE
    + """
from trainer.exporting import roundtrip
roundtrip.child(sys.argv[1])
"""
)
_LARGEST_DIFFERENCE = 1e-5
# Another runtime computes in another order. Its rounding grows with the numbers.
_OF_OTHERS = 1e-4
_OF_LAYERS = (
    "A layer of your own needs above its class "
    "@keras.saving.register_keras_serializable(), and a get_config with every argument "
    "of __init__."
)
_OF_KERAS = (
    "Look for a layer that does not save all that it computes with. What predictions() "
    "takes from elsewhere, such as a variable of the task's own, is in no network: "
    "export as saved_model, which holds that, too."
)
_ADVICE = {
    "saved_model": "Look for random numbers, and for what predictions() changes.",
    "tflite": "TensorFlow Lite computes something else: export as saved_model.",
    "onnx": "ONNX Runtime computes something else: export as saved_model.",
}
Arrays = prediction.Arrays


class ReloadError(KeepstepError, RuntimeError):
    """An export, loaded in a fresh process, is not what was exported."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What a fresh process is to load, and how.

    Attributes:
      kind: the format.
      files: by network, as `formats.Written` has them.
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


def compare(plan: Plan, inputs: Arrays, expected: Arrays) -> tuple[float, int]:
    """How far a fresh process's predictions are off, at most, and in how many examples.

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
    differences = {n: _distance(outputs[n], one) for n, one in expected.items()}
    allowed = {name: _allowed(plan.kind, one) for name, one in expected.items()}
    name = max(expected, key=lambda name: differences[name] / allowed[name])
    if not differences[name] <= allowed[name]:
        raise ReloadError(
            f"loaded back, the export differs by {differences[name]:g} from what the "
            f"checkpoint predicts as {name!r}; expected {allowed[name]:g} at most. "
            f"Nothing was left behind. {_ADVICE.get(plan.kind, _OF_KERAS)}"
        )
    return max(differences.values()), len(expected[name])


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
            network.built = True  # of some, only parts are ever called
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


def fresh(
    code: str, argument: str, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Runs code in a fresh process of this interpreter.

    Args:
      code: of the process.
      argument: its one argument.
      environment: all of it.
    """
    return subprocess.run(
        [sys.executable, "-c", code, argument],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def _run(plan: Plan) -> Arrays:
    """What a fresh process predicts with the export."""
    script = strangers.SCRIPTS.get(plan.kind, _KERAS)
    path = os.pathsep.join(str(pathlib.Path(entry).absolute()) for entry in sys.path)
    environment = {**os.environ, "PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "2"}
    done = fresh(script, json.dumps(dataclasses.asdict(plan)), environment)
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        # Where Keras has a cause to tell, that is the line that names the layer.
        causes = [line for line in said if line.startswith("Exception encountered: ")]
        errors = [line for line in said if "Error" in line]
        line = (causes or errors or said)[-1].strip()
        advice = f" {_OF_LAYERS}" if script is _KERAS else ""
        raise ReloadError(
            f"a fresh process could not load the export: {line}"
            f"\nNothing was left behind.{advice}"
        )
    with np.load(plan.outputs) as file:
        return dict(file)


def _write(path: str, arrays: Arrays) -> None:
    named: Any = arrays
    with pathlib.Path(path).open("wb") as raw:
        np.savez(raw, **named)


def _allowed(kind: str, expected: np.ndarray) -> float:
    """The largest difference that rounding explains."""
    if kind not in ("tflite", "onnx") or expected.dtype.kind != "f":
        return _LARGEST_DIFFERENCE
    finite = np.abs(expected[np.isfinite(expected)].astype(np.float64))
    return _OF_OTHERS * max(1.0, float(np.max(finite, initial=0.0)))


def _distance(one: np.ndarray, other: np.ndarray) -> float:
    """The largest absolute difference; infinite where they can't be compared."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return math.inf
    if one.dtype.kind not in "biuf":
        return 0.0 if np.array_equal(one, other) else math.inf
    same = (one == other) | ((one != one) & (other != other))  # NaN is NaN
    far = np.abs(one.astype(np.float64) - other.astype(np.float64))
    return float(np.max(np.where(same, 0.0, far), initial=0.0))
