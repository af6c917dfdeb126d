"""A task for each kind of data, over files that `make` writes once.

A copy of this file is a task module of its own (`--task=kinds:Folder`).
"""

import dataclasses
import functools
import pathlib
import threading
import weakref

import keras
import numpy as np
import tensorflow as tf

from trainer import data, task

ROWS = 37


def make(root):
    """Writes the files of every kind below `root`."""
    rng = np.random.default_rng(0)
    for split, rows in (("train", ROWS), ("valid", 11)):
        home = root / split
        home.mkdir(parents=True)
        x = rng.normal(size=[rows, 4]).astype("float32")
        y = x @ np.float32([1, -2, 3, 0.5])
        np.save(home / "x.npy", x)
        np.save(home / "y.npy", y)
        np.save(home / "series.npy", rng.normal(size=[rows + 9, 4]).astype("float32"))
        for n in range(rows):
            folder = home / "images" / ("cat" if n % 2 else "dog")
            folder.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 256, [9 + n % 3, 8, 3], np.uint8)
            (folder / f"{n}.png").write_bytes(tf.io.encode_png(pixels).numpy())
        with tf.io.TFRecordWriter(str(home / "a.tfrecord")) as file:
            for row, value in zip(x, y, strict=True):
                file.write(example(row, value))
        lines = [
            f"{v:.6f},{'rome' if v > 0 else 'bern'},{a[0]:.6f}"
            for v, a in zip(y, x, strict=True)
        ]
        (home / "a.csv").write_text("\n".join(["y,city,first", *lines]))
        (home / "a.txt").write_text("\n".join(f"{v:.6f}" for v in y))
        texts = [" ".join(map(str, range(1, 2 + 5 * n % 13))) for n in range(rows)]
        (home / "a.tokens").write_text("\n".join(texts))


def example(row, value):
    def floats(values):
        return tf.train.Feature(float_list=tf.train.FloatList(value=values))

    features = tf.train.Features(feature={"x": floats(row), "y": floats([value])})
    return tf.train.Example(features=features).SerializeToString()


@dataclasses.dataclass(frozen=True)
class Kind(task.Task):
    """A dense layer with dropout; noise on each example and on each batch."""

    root: str = "."

    def source(self, home):
        raise NotImplementedError

    def sources(self):
        home = pathlib.Path(self.root)
        return {split: self.source(home / split) for split in ("train", "valid")}

    def networks(self):
        return keras.Sequential([keras.layers.Dropout(0.2), keras.layers.Dense(1)])

    def optimizers(self):
        return keras.optimizers.SGD(0.01, momentum=0.9)

    def augment(self, batch, seeds):
        return {**batch, "x": batch["x"] + 0.1 * data.uniform(seeds, [4])}

    def values(self, networks, batch, training):
        answers = networks(batch["x"], training=training)[:, 0]
        return {"loss": (answers - tf.cast(batch["y"], tf.float32)) ** 2}

    def predictions(self, networks, batch):
        return {"y": networks(batch["x"])[:, 0]}


def noisy(x, seed):
    return x + tf.random.stateless_uniform([4], seed)


class Folder(Kind):
    def source(self, home):
        return data.images(home / "images")

    def decode(self, example, seed):
        pixels = data.decode_image(example["image"], (4, 4))
        x = tf.reduce_mean(tf.cast(pixels, tf.float32), [1, 2]) / 255
        return {"x": noisy(x, seed), "y": example["label"]}


class Utility(Kind):
    """A dataset of batches of tuples, shuffled in each epoch, as Keras makes it."""

    def source(self, home):
        return keras.utils.image_dataset_from_directory(
            home / "images",
            image_size=(4, 4),
            batch_size=5,
            seed=1,
            shuffle=home.name == "train",
            verbose=0,
        )

    def decode(self, example, seed):
        x = tf.reduce_mean(tf.reshape(example["x"], [4, 12]), 1) / 255
        return {"x": noisy(x, seed), "y": example["y"]}


class Records(Kind):
    def source(self, home):
        return data.tfrecords(home / "a.tfrecord")

    def decode(self, example, seed):
        features = {
            "x": tf.io.FixedLenFeature([4], tf.float32),
            "y": tf.io.FixedLenFeature([], tf.float32),
        }
        found = tf.io.parse_single_example(example["record"], features)
        return {"x": noisy(found["x"], seed), "y": found["y"]}


class OnDisk(Kind):
    def source(self, home):
        return data.memmap({"x": home / "x.npy", "y": home / "y.npy"})


class Series(Kind):
    def source(self, home):
        return data.windows(home / "series.npy", 5, stride=2, horizon=1)

    def decode(self, example, seed):
        return {"x": example["x"][-1], "y": example["y"][0, 0]}


class People(Kind):
    def source(self, home):
        return data.table(
            home / "a.csv",
            numbers=["y", "first"],
            categories={"city": ["bern", "rome"]},
        )

    def augment(self, batch, seeds):
        city = tf.one_hot(batch["city"], 3)
        x = tf.concat([city, batch["first"][:, None]], 1)
        return super().augment({"x": x, "y": batch["y"]}, seeds)

    def values(self, networks, batch, training):
        if "x" not in batch:
            batch = self.augment(batch, tf.zeros([batch["y"].shape[0], 2], tf.int32))
        return super().values(networks, batch, training)


class Lines(Kind):
    def source(self, home):
        return data.lines(home / "a.txt")

    def decode(self, example, seed):
        y = tf.strings.to_number(example["line"])
        return {"x": noisy(tf.fill([4], y), seed), "y": y}


class Torchlike(Kind):
    """A class of one's own, which gives tuples."""

    class Rows:
        def __init__(self, home):
            self.x, self.y = np.load(home / "x.npy"), np.load(home / "y.npy")

        def __len__(self):
            return len(self.x)

        def __getitem__(self, index):
            return self.x[index], self.y[index]

    def source(self, home):
        return self.Rows(home)


class Learning(Kind):
    """Learns a normalisation, a vocabulary and a scale from its data."""

    class Rows(Torchlike.Rows):
        def __getitem__(self, index):
            x, y = super().__getitem__(index)
            return {"x": x, "y": y, "word": "up" if y > 0 else "down"}

    def source(self, home):
        return self.Rows(home)

    def prepare(self, sources):
        rows = list(map(sources["train"].__getitem__, range(ROWS)))
        scaled, words = keras.layers.Normalization(), keras.layers.StringLookup()
        scaled.adapt(np.stack([row["x"] for row in rows]))
        words.adapt([row["word"] for row in rows])
        scale = np.std([row["y"] for row in rows])
        return {"scaled": scaled, "words": words, "scale": scale, "names": ["a", "b"]}

    def networks(self):
        inner = super().networks()
        return keras.Sequential([self.prepared["scaled"], *inner.layers])

    def decode(self, example, seed):
        word = tf.cast(self.prepared["words"](example["word"]), tf.float32)
        return {"x": noisy(example["x"], seed) + word, "y": example["y"]}

    def augment(self, batch, seeds):
        scale = tf.cast(self.prepared["scale"], tf.float32)
        return super().augment({**batch, "y": batch["y"] / scale}, seeds)


class Moving(Kind):
    """Prepares from a dataset whose shuffle moves with each reading."""

    def source(self, home):
        return {name: np.load(home / f"{name}.npy") for name in ("x", "y")}

    def sources(self):
        given = super().sources()
        rows = tf.data.Dataset.from_tensor_slices(given["train"])
        return {**given, "train": rows.shuffle(ROWS)}

    def prepare(self, sources):
        read = sources["train"].take(20).as_numpy_iterator()
        return {"mean": np.mean([one["x"] for one in read], 0)}

    def augment(self, batch, seeds):
        return super().augment(
            {**batch, "x": batch["x"] - self.prepared["mean"]}, seeds
        )


class Both(Kind):
    """Two sources in one batch, of batch sizes of their own."""

    def sources(self):
        home = pathlib.Path(self.root)
        few = data.memmap({"x": home / "valid/x.npy", "y": home / "valid/y.npy"})
        pair = {"few": few, "many": {"x": np.load(home / "train/x.npy")}}
        return {"train": data.Several(pair, batch_sizes={"many": 9}), "valid": few}

    def decode(self, example, seed):
        return {**example, "x": noisy(example["x"], seed)}

    def augment(self, batch, seeds):
        many = super().augment(batch["many"], seeds["many"])
        return {"few": batch["few"], "many": many}

    def values(self, networks, batch, training):
        if not training:
            return super().values(networks, batch, training)
        far = networks(batch["many"]["x"], training=training)[:, 0] ** 2
        found = super().values(networks, batch["few"], training)
        return {"loss": found["loss"] + tf.reduce_mean(far), "far": far}


class SharedFile(Kind):
    """Opens its file once and moves in it: threads would mix that up."""

    class Rows:
        def __init__(self, path):
            self.file = path.open("rb")
            weakref.finalize(self, self.file.close)
            self.asked = set()

        def __len__(self):
            return ROWS

        def __getitem__(self, index):
            self.asked.add(threading.current_thread().name)
            self.file.seek(128 + 16 * index)
            x = np.frombuffer(self.file.read(16), np.float32)
            return {"x": x, "y": x[0]}

    def sources(self):
        return {"train": self.Rows(pathlib.Path(self.root, "train", "x.npy"))}


class Grain(Kind):
    def source(self, home):
        import grain

        x, y = np.load(home / "x.npy"), np.load(home / "y.npy")
        return grain.MapDataset.source(
            [{"x": a, "y": b} for a, b in zip(x, y, strict=True)]
        )


class Torch(Kind):
    def source(self, home):
        import torch

        arrays = np.load(home / "x.npy"), np.load(home / "y.npy")
        return torch.utils.data.TensorDataset(*map(torch.from_numpy, arrays))


class HuggingFace(Kind):
    def source(self, home):
        import datasets

        x, y = np.load(home / "x.npy"), np.load(home / "y.npy")
        return datasets.Dataset.from_dict({"x": x.tolist(), "y": y.tolist()})


class ArrayRecord(Kind):
    """Its examples are bytes without a name: they are called `x`."""

    def source(self, home):
        from array_record.python import array_record_data_source, array_record_module

        path = home / "a.array_record"
        if not path.exists():
            writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
            for row in np.load(home / "x.npy"):
                writer.write(row.tobytes())
            writer.close()
        return array_record_data_source.ArrayRecordDataSource(str(path))

    def decode(self, example, seed):
        x = tf.ensure_shape(tf.io.decode_raw(example["x"], tf.float32), [4])
        return {"x": noisy(x, seed), "y": x[0]}


class Texts(Kind):
    """Text of unequal lengths, read by index, in batches of similar lengths."""

    pad = {"tokens": 0}  # noqa: RUF012
    pad_to = 4

    def source(self, home):
        lines = (home / "a.tokens").read_text().splitlines()
        return [{"line": line, "y": n / 9} for n, line in enumerate(lines)]

    def sources(self):
        found = super().sources()
        lengths = [len(one["line"].split()) for one in found["train"]]
        return {**found, "train": data.group_by_length(found["train"], lengths)}

    def decode(self, example, seed):
        tokens = tf.strings.to_number(tf.strings.split(example["line"]), tf.int64)
        kept = tf.random.stateless_uniform(tf.shape(tokens), seed) < 0.8
        return {"tokens": tf.where(kept, tokens, 19), "y": example["y"]}

    def networks(self):
        layers = keras.layers
        return keras.Sequential(
            [layers.Embedding(20, 4), layers.Dropout(0.2), layers.Dense(1)]
        )

    def augment(self, batch, seeds):
        return {**batch, "y": batch["y"] + 0.1 * data.uniform(seeds)}

    def values(self, networks, batch, training):
        answers = networks(batch["tokens"], training=training)[..., 0]
        errors = (answers - tf.cast(batch["y"], tf.float32)[:, None]) ** 2
        return {"loss": (errors, batch["tokens_mask"])}

    def predictions(self, networks, batch):
        return {"score": networks(batch["tokens"])[..., 0], "of": batch["tokens_mask"]}


class TextsInMemory(Texts):
    """The same, all of it in memory, in the graph of training."""

    decode = task.Task.decode

    def source(self, home):
        lines = (home / "a.tokens").read_text().splitlines()
        tokens = [list(map(int, line.split())) for line in lines]
        return {"tokens": tokens, "y": np.arange(len(lines), dtype=np.float32) / 9}

    def sources(self):
        found = Kind.sources(self)
        return {**found, "train": data.group_by_length(found["train"], "tokens")}


@functools.cache
def points():
    """A data set of TFDS; its name may be registered once per process."""
    from tensorflow_datasets import core, features

    class Points(core.GeneratorBasedBuilder):
        VERSION = core.Version("1.0.0")
        name = "points"

        def _info(self):
            tensor = features.Tensor(shape=[4], dtype=np.float32)
            of_all = features.FeaturesDict({"x": tensor, "y": np.float32})
            return core.DatasetInfo(builder=self, features=of_all)

        def _split_generators(self, manager):
            return {"every": self._generate_examples()}

        def _generate_examples(self):
            home = pathlib.Path(self._data_dir_root).parent
            x, y = np.load(home / "x.npy"), np.load(home / "y.npy")
            for key, (row, value) in enumerate(zip(x, y, strict=True)):
                yield key, {"x": row, "y": value}

    return Points


class Tfds(Kind):
    """A data source of TFDS, over a data set that is written for the test."""

    def source(self, home):
        builder = points()(data_dir=str(home / "tfds"), file_format="array_record")
        builder.download_and_prepare()
        return builder.as_data_source("every")


READY = [
    *(Folder, Records, OnDisk, Series, Lines, Torchlike, Learning, Both),
    *(Texts, TextsInMemory),
]
PACKAGES = {
    "grain": Grain,
    "torch": Torch,
    "datasets": HuggingFace,
    "array_record": ArrayRecord,
    "tensorflow_datasets": Tfds,
}
