"""Whole numbers against floats: the error names the data that were meant."""

import re

import keras
import pytest
import tensorflow as tf
from test_task import Parts

from trainer import task
from trainer.model.values import checked_values

PIXELS = tf.zeros([2, 8, 8, 1], tf.uint8)
LABELS = tf.zeros([2], tf.int64)


def traced(values, batch):
    given = Parts(given=values)
    net = keras.Sequential([keras.layers.Conv2D(2, 3)])
    spec = {k: tf.TensorSpec(v.shape, v.dtype) for k, v in batch.items()}
    return tf.function(
        lambda batch: checked_values(given, net, batch, training=True),
        autograph=False,
    ).get_concrete_function(spec)


@pytest.mark.parametrize(
    "values",
    [
        lambda net, batch, training: {"loss": tf.zeros([2]) - batch["y"]},
        lambda net, batch, training: {"loss": batch["y"] - tf.zeros([2])},
        lambda net, batch, training: {"loss": batch["y"] * 0.5},
        lambda net, batch, training: {"loss": batch["y"] / tf.ones([2])},
        lambda net, batch, training: {
            "loss": tf.nn.sigmoid_cross_entropy_with_logits(batch["y"], tf.zeros([2]))
        },
    ],
)
@pytest.mark.parametrize("dtype", [tf.uint8, tf.int64])
def test_whole_numbers_against_floats_are_named(values, dtype):
    text = (
        r"^Parts\.values\(\) computes with numbers of two kinds: .*"
        rf"{dtype.name}.* In the batch are y {dtype.name}; expected floats wherever a "
        r"network or a loss computes\. Cast them first: "
        + re.escape('tf.cast(batch["y"], tf.float32).')
    )
    with pytest.raises(task.TaskError, match=text):
        traced(values, {"x": tf.zeros([2]), "y": tf.cast(LABELS, dtype)})


def test_images_of_bytes_in_a_convolution_are_named():
    layer = keras.layers.Conv2D(2, 3)  # a model would have cast them by itself
    layer.build([None, 8, 8, 1])

    def values(net, batch, training):
        return {"loss": tf.reduce_mean(layer(batch["image"]), axis=[1, 2, 3])}

    text = re.escape('tf.cast(batch["image"], tf.float32)')
    with pytest.raises(task.TaskError, match=text):
        traced(values, {"image": PIXELS, "label": LABELS})


@pytest.mark.parametrize(
    "wrong",
    [
        lambda batch: tf.zeros([2]) - tf.zeros([2], tf.float64),
        lambda batch: tf.one_hot(batch["y"], 10.0),  # no cast of y would mend that
        lambda batch: tf.gather(batch["x"], batch["y"] + tf.zeros([2], tf.int32)),
        lambda batch: tf.reduce_sum(batch["x"], axis=0.5),
    ],
)
def test_another_error_stays_as_it_is(wrong):
    def values(net, batch, training):
        return {"loss": wrong(batch)}

    batch = {"x": tf.zeros([2]), "y": LABELS}
    with pytest.raises((TypeError, ValueError, tf.errors.OpError)) as raised:
        traced(values, batch)
    assert not isinstance(raised.value, task.TaskError)
