"""Tasks whose predictions take something from everywhere that a task can keep it."""

import dataclasses
import functools
import types

import keras
import numpy as np
import tensorflow as tf

from trainer import task

layers = keras.layers
COLOURS = ("red", "green", "blue", "grey")


def table_of(words):
    with tf.init_scope():
        values = tf.range(len(words), dtype=tf.int64)
        start = tf.lookup.KeyValueTensorInitializer(tf.constant(words), values)
        return tf.lookup.StaticHashTable(start, default_value=-1)


GLOBAL = table_of(COLOURS)


class InParts(keras.Model):
    """Nobody ever calls it as a whole."""

    def __init__(self):
        super().__init__()
        self.first = layers.Dense(4, activation="tanh")
        self.blocks = {"last": [layers.Dense(1)]}

    def call(self, x):
        raise AssertionError("only parts of it are called")


class OfTokens(keras.Model):
    """Takes whole numbers, where Keras assumes floats of a subclassed model."""

    def __init__(self):
        super().__init__()
        self.embedding = layers.Embedding(9, 4)
        self.head = layers.Dense(1)

    def call(self, tokens, mask=None, training=False):
        found = self.embedding(tokens)
        weight = tf.expand_dims(tf.cast(mask, tf.float32), 2)
        return self.head(tf.reduce_sum(found * weight, 1) / tf.reduce_sum(weight, 1))

    def compute_mask(self, inputs, previous_mask):
        return None


class OfWords(keras.Model):
    """Takes texts; one table is Keras', the other one in a closure and a list."""

    def __init__(self):
        super().__init__()
        self.lookup = layers.StringLookup(vocabulary=list(COLOURS))
        self.tables = (lambda found: lambda: found)([table_of(COLOURS[::-1])])
        self.head = layers.Dense(1)

    def call(self, words):
        numbers = [self.lookup(words), self.tables()[0].lookup(words)]
        return self.head(tf.cast(tf.stack(numbers, 1), tf.float32))


class Pair(keras.Model):
    """Several inputs by name, several outputs."""

    def __init__(self):
        super().__init__()
        self.one, self.other = layers.Dense(1), layers.Dense(2)

    def call(self, inputs, factor, training=None):
        one, other = self.one(inputs["x"]), self.other(inputs["z"])
        return {"one": one * factor, "others": [other]}


@dataclasses.dataclass(frozen=True)
class Parts(task.Task):
    """Points, colours, texts, and tokens of several lengths."""

    pad = types.MappingProxyType({"tokens": 0})

    def sources(self):
        rng = np.random.default_rng(0)
        given = {
            "x": rng.normal(size=[24, 3]).astype("float32"),
            "colour": np.array([*COLOURS, "pink", ""] * 4),
            "text": np.array(["a red fox", "a", "the green sea", "grey"] * 6),
            "tokens": [
                rng.integers(1, 9, 1 + n % 5, dtype=np.int32) for n in range(24)
            ],
            "y": rng.normal(size=[24, 1]).astype("float32"),
        }
        return {
            "train": {name: one[:16] for name, one in given.items()},
            "valid": {name: one[16:] for name, one in given.items()},
        }

    def networks(self):
        return InParts()

    def optimizers(self):
        return keras.optimizers.SGD(0.1)

    def answers(self, networks, batch):
        return {"part": networks.blocks["last"][0](networks.first(batch["x"]))}

    def values(self, networks, batch, training):
        answers = self.answers(networks, batch)
        return {"loss": (sum(answers.values()) - batch["y"])[:, 0] ** 2}

    def predictions(self, networks, batch):
        return self.answers(networks, batch)


class Recurrent(Parts):
    def networks(self):
        return keras.Sequential(
            [layers.Embedding(9, 4, mask_zero=True), layers.GRU(4), layers.Dense(1)]
        )

    def answers(self, networks, batch):
        return {"y": networks(batch["tokens"])}


class Portable(Parts):
    """What other runtimes know, too."""

    @functools.cached_property
    def table(self):
        return table_of(COLOURS[1:])

    @functools.cached_property
    def own(self):
        with tf.init_scope():
            module = tf.Module()
            module.scales = [tf.Variable([2.0], trainable=False, name="scale")]
            module.seen = tf.Variable(0.0, trainable=False, name="seen")
            return module

    def state(self, networks):
        return {"own": self.own}

    def networks(self):
        return {
            "parts": InParts(),
            "tokens": OfTokens(),
            "words": OfWords(),
            "pair": Pair(),
            "judge": keras.Sequential([layers.Input([2]), layers.Dense(1)]),
        }

    def answers(self, networks, batch):
        pair = networks["pair"]({"x": batch["x"], "z": -batch["x"]}, factor=2.0)
        found = [GLOBAL.lookup(batch["colour"]), self.table.lookup(batch["colour"])]
        return {
            **super().answers(networks["parts"], batch),
            "token": networks["tokens"](batch["tokens"], mask=batch["tokens_mask"]),
            "words": networks["words"](batch["colour"]),
            "pair": pair["one"] * self.own.scales[0] + self.own.seen,
            "others": tf.reduce_sum(pair["others"][0], 1, keepdims=True),
            "tables": tf.expand_dims(tf.cast(sum(found), tf.float32), 1),
        }

    def values(self, networks, batch, training):
        if training:
            self.own.seen.assign_add(1.0)
        judged = networks["judge"](tf.concat([batch["y"], batch["y"]], 1))
        found = super().values(networks, batch, training)
        return {"loss": found["loss"] + judged[:, 0] ** 2}


class Everything(Portable):
    """And what only TensorFlow has: texts in pieces, ragged rows, counts in a table."""

    @functools.cached_property
    def counts(self):
        with tf.init_scope():
            return tf.lookup.experimental.MutableHashTable(tf.string, tf.float32, 0.0)

    def state(self, networks):
        return {**super().state(networks), "counts": self.counts}

    def prepare(self, sources):
        texts = layers.TextVectorization(output_mode="multi_hot", max_tokens=8)
        texts.adapt(sources["train"]["text"])
        return {"texts": texts}

    def answers(self, networks, batch):
        rows = tf.RaggedTensor.from_tensor(batch["tokens"], padding=0)
        pieces = tf.cast(self.prepared["texts"](batch["text"]), tf.float32)
        return {
            **super().answers(networks, batch),
            "counts": tf.reshape(self.counts.lookup(batch["colour"]), [-1, 1]),
            "longest": tf.cast(rows.row_lengths()[:, None], tf.float32),
            "pieces": tf.reduce_sum(pieces, 1, keepdims=True),
        }

    def values(self, networks, batch, training):
        if training:
            word = batch["colour"]
            self.counts.insert(word, self.counts.lookup(word) + 1.0)
        return super().values(networks, batch, training)

    def predictions(self, networks, batch):
        found = super().predictions(networks, batch)
        names = tf.constant(["few", "many"])
        many = tf.cast(found["pieces"][:, 0] > 2, tf.int32)
        return {**found, "name": tf.gather(names, many)}
