"""Programs that load an export and predict with it, with nothing of ours.

>>> from trainer.exporting import strangers
>>> sorted(strangers.SCRIPTS)
['onnx', 'saved_model', 'tflite']
>>> "trainer" in "".join(strangers.SCRIPTS.values())
False
"""

from __future__ import annotations

ALONE = """
import sys
if sys.path[0] == "":
    del sys.path[0]  # no file of the current directory takes the place of a library
"""
# What needs nothing of ours. Each way to load `file` defines `predict`, from arrays by
# name to arrays by name; texts are bytes in them.
_LOADS = {
    "saved_model": """
import tensorflow as tf
serve = tf.saved_model.load(file).signatures["serving_default"]
def predict(inputs):
    outputs = serve(**{name: tf.constant(one) for name, one in inputs.items()})
    return {name: one.numpy() for name, one in outputs.items()}
""",
    "tflite": """
import tensorflow as tf
runner = tf.lite.Interpreter(file).get_signature_runner()
def predict(inputs):
    return runner(**inputs)
""",
    "onnx": """
import onnxruntime
session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
names = [one.name for one in session.get_outputs()]
def given(one):
    return np.char.decode(one).astype(object) if one.dtype.kind == "S" else one
def predict(inputs):
    inputs = {name: given(one) for name, one in inputs.items()}
    return dict(zip(names, session.run(None, inputs)))
""",
}
_STRANGER = (
    ALONE
    + """
import json
import numpy as np
plan = json.loads(sys.argv[1])
(file,) = plan["files"].values()
def encoded(one):
    if one.dtype != object:
        return one
    texts = [text.encode() if isinstance(text, str) else text for text in one.flat]
    return np.array(texts, "S").reshape(one.shape)
"""
)
_ANSWER = """
with np.load(plan["inputs"]) as inputs:
    outputs = predict(dict(inputs))
np.savez(plan["outputs"], **{name: encoded(one) for name, one in outputs.items()})
"""
SCRIPTS = {kind: _STRANGER + load + _ANSWER for kind, load in _LOADS.items()}
