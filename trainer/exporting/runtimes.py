"""Files for runtimes without TensorFlow: TensorFlow Lite and ONNX.

    >>> import pathlib, tensorflow as tf
    >>> from trainer.exporting import runtimes
    >>> double = tf.function(lambda x: {"y": 2 * x})
    >>> traced = double.get_concrete_function(x=tf.TensorSpec([None], name="x"))
    >>> runtimes.write("tflite", pathlib.Path("double.tflite"), traced)

Each holds the predictions as they were traced, with the weights as constants. What
converts them runs in a process of its own: it says much, and where it meets an op that
it doesn't know, it may end the process.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import pathlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

from trainer.exporting import saved_model
from trainer.exporting.saved_model import PREDICTIONS, ExportError

_ALONE = """
import sys
if sys.path[0] == "":
    del sys.path[0]  # no file of the current directory takes the place of a library
"""
# With its own ops alone: those of TensorFlow ("select", or Flex) are in no interpreter
# of Python since TensorFlow 2.20, so nothing could prove such a file.
_TFLITE = f"""{_ALONE}
import pathlib
import tensorflow as tf
converter = tf.lite.TFLiteConverter.from_saved_model(
    sys.argv[1], signature_keys=["{PREDICTIONS}"]
)
pathlib.Path(sys.argv[2]).write_bytes(converter.convert())
"""
_ONNX = f"""{_ALONE}
import runpy
sys.argv = [
    "tf2onnx", "--saved-model", sys.argv[1], "--output", sys.argv[2], "--opset", "18",
    "--tag", "serve", "--signature_def", "{PREDICTIONS}",
]
runpy.run_module("tf2onnx.convert", run_name="__main__")
"""
_SCRIPTS = {"tflite": _TFLITE, "onnx": _ONNX}
_PACKAGES = {"tflite": ("tensorflow",), "onnx": ("tf2onnx", "onnx", "onnxruntime")}
_NAMES = {"tflite": "TensorFlow Lite", "onnx": "ONNX"}
_UNKNOWN = (
    r"'tf[.](\w+)' op (?:is neither|requires)",  # TensorFlow Lite
    r"Tensorflow op \[\S+: (\w+)\] is not supported",  # tf2onnx
    r"Failed to convert node .*\n'OP=(\w+)",
)
KINDS = tuple(_SCRIPTS)


def versions(kind: str) -> dict[str, str]:
    """Of the packages that make and load such a file, by name."""
    return {name: importlib.metadata.version(name) for name in _PACKAGES.get(kind, ())}


def check(kind: str) -> None:
    """Makes sure, before anything is read, that the packages of a format are there.

    Raises:
      ExportError: they are not; says how they are installed.
    """
    needed = _PACKAGES.get(kind, ())
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise ExportError(
            f"--format={kind} needs {', '.join(missing)}, which this Python does not "
            f"have. Expected the extra [{kind}]. pip install 'keepstep[{kind}]'"
        )


def write(kind: str, path: pathlib.Path, traced: Any) -> None:
    """Writes a traced function as a file of `tflite` or `onnx`.

    Raises:
      ExportError: it can't be converted; names the ops.
    """
    inputs, outputs = traced.structured_input_signature[1], traced.structured_outputs
    if kind == "onnx" and (both := [name for name in inputs if name in outputs]):
        raise ExportError(
            f"predictions() takes {both[0]!r} and gives {both[0]!r}; in an ONNX file "
            "expected a name to be that of one tensor. Give the prediction another "
            f'one: return {{"predicted_{both[0]}": ...}}'
        )
    with tempfile.TemporaryDirectory() as directory:
        saved_model.write(pathlib.Path(directory), {PREDICTIONS: traced})
        done = _python(_SCRIPTS[kind], (directory, str(path)))
    unknown = [name for one in _UNKNOWN for name in re.findall(one, done.stderr)]
    if done.returncode or not path.exists() or unknown:
        raise ExportError(
            f"the predictions can't be written for {_NAMES[kind]}: "
            f"{_reason(done, unknown)}. Expected ops that its converter knows. Leave "
            "them out of predictions(), or export as saved_model, which holds every op."
        )


def _python(script: str, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(str(pathlib.Path(entry).absolute()) for entry in sys.path)
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env={**os.environ, "PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "2"},
        capture_output=True,
        text=True,
        check=False,
    )


def _reason(done: subprocess.CompletedProcess[str], unknown: Sequence[str]) -> str:
    """What its converter stumbled over, in a line."""
    if unknown:
        return f"it has no {', '.join(sorted(set(unknown)))}"
    said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
    errors = [line for line in said if "Error" in line]
    return (errors or said)[-1].strip().rstrip(".")
