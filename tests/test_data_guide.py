"""Each snippet of docs/data.md trains."""

import pathlib
import re
import textwrap

import guides
import keras
import numpy as np
import pytest
import tasks
import tensorflow as tf

from trainer import data, task

SNIPPETS = guides.snippets("data.md")


class Base(task.Task):
    """Takes whatever comes first in a batch as input and what comes last as answer."""

    def networks(self):
        return keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(1)])

    def optimizers(self):
        return keras.optimizers.SGD(1e-6)

    def values(self, networks, batch, training):
        first, *_, last = [tf.cast(one, tf.float32) for one in batch.values()]
        rows = tf.shape(first)[0]
        answers = networks(tf.reshape(first, [rows, -1]))[:, 0]
        return {"loss": (answers - tf.reshape(last, [rows, -1])[:, 0]) ** 2}


def write(root):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=[20, 2]).astype("f"), rng.normal(size=20).astype("f")
    np.savez(root / "train.npz", x=x, y=y)
    np.save(root / "x.npy", x)
    np.save(root / "y.npy", y)
    np.save(root / "series.npy", rng.normal(size=200).astype("f"))
    for place in ("train/a", "train/b", "valid/a", "valid/b"):
        folder = root / "photos" / place
        folder.mkdir(parents=True)
        for n in range(3):
            pixels = tf.cast(rng.integers(0, 256, [80, 90, 3]), tf.uint8)
            (folder / f"{n}.jpg").write_bytes(tf.io.encode_jpeg(pixels).numpy())
    with tf.io.TFRecordWriter(str(root / "a.tfrecord")) as file:
        for row, value in zip(x, y, strict=True):
            lists = {"x": row, "y": [value]}
            features = {
                name: tf.train.Feature(float_list=tf.train.FloatList(value=one))
                for name, one in lists.items()
            }
            example = tf.train.Example(features=tf.train.Features(feature=features))
            file.write(example.SerializeToString())
    rows = [f"{n},{n}.5,{'bern' if n % 2 else 'oslo'}" for n in range(20)]
    (root / "train.csv").write_text("\n".join(["age,price,city", *rows]))
    lines = [f"{a:.3f},{b:.3f},{c:.3f}\n" for (a, b), c in zip(x, y, strict=True)]
    (root / "numbers.txt").write_text("".join(lines))
    return x, y


@pytest.mark.parametrize("name", SNIPPETS)
def test_a_snippet_of_the_guide_trains(name, tmp_path, monkeypatch):
    if name == "table":
        pytest.importorskip("pyarrow", reason="the extra `data` has it")
    monkeypatch.chdir(tmp_path)
    x, y = write(tmp_path)
    names = {"data": data, "np": np, "tf": tf, "pathlib": pathlib, "X": x, "Y": y}
    names["keras"] = keras
    begin = re.search("^(pad|def sources)", SNIPPETS[name], re.M).start()
    exec(SNIPPETS[name][:begin], names)
    methods = textwrap.indent(SNIPPETS[name][begin:], "    ")
    exec("class Snippet(Base):\n" + methods, names | {"Base": Base}, found := {})
    outcome = tasks.train(tmp_path / "run", found["Snippet"](), steps=4)
    assert outcome.step == 4


def test_every_kind_has_a_snippet():
    assert set(SNIPPETS) == {
        *("arrays", "class", "images", "tfrecords", "memmap", "table", "windows"),
        *("lines", "prepare", "several", "utility", "padded", "grouped", "weights"),
    }
