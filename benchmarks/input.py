"""Input that is prepared beside training: against tf.data by hand, and Grain.

    python benchmarks/input.py

decode     JPEG 224x224 in files, batch 32, nothing but input: examples per second, of
           `data.images` with `decode`, of a tuned `tf.data` pipeline, and of Grain if
           it is installed, with the decoder of TensorFlow and with PIL
device     the same beside a device that is busy for 40 ms a step: milliseconds per
           step, and that as a ratio to 40
far        seconds to the first batch at step 10,000,000
ragged     rows of unequal lengths by index, batch 32, padded: milliseconds per batch
several    two such sources of rows of one length, 32 of each: milliseconds per batch
memmap     resident memory of a process that trains on 20 GB (a sparse file), in MB
index      seconds to index a TFRecord file of 1,000,000 records, and to open it again

The ways take turns in one process, and each begins anew in its turn: otherwise what one
prepares while the other has its turn would count for it. Compare ratios: they are
medians over the rounds of the ratio within a round.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import io
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from trainer import data, task
from trainer.data.prepared import Prepared

_FILES = 512
_BATCH = 32
_SIZE = 224
_STEPS = 40
_ROUNDS = 5
_DEVICE_SECS = 0.04
_FAR = 10_000_000
_ROW = 1_000_000  # bytes
_ROWS = 20_000
_RECORDS = 1_000_000

Batches = Iterator[Any]


@dataclasses.dataclass(frozen=True)
class Photos(task.Task):
    """A folder of images, decoded to pixels."""

    root: str

    def sources(self) -> dict[str, Any]:
        return {"train": data.images(self.root)}

    def decode(self, example: Any, seed: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"image": pixels(example["image"]), "label": example["label"]}

    def networks(self) -> Any:
        raise NotImplementedError

    def optimizers(self) -> Any:
        raise NotImplementedError

    def values(self, networks: Any, batch: Any, training: bool) -> Any:
        raise NotImplementedError


def pixels(content: tf.Tensor) -> tf.Tensor:
    """The same decoder in every way."""
    image = tf.io.decode_jpeg(content, 3)
    return tf.cast(tf.ensure_shape(image, [_SIZE, _SIZE, 3]), tf.float32) / 255


def make_images(root: pathlib.Path) -> None:
    """Smooth noise, so that a JPEG has something to do."""
    rng = np.random.default_rng(0)
    for n in range(_FILES):
        small = rng.integers(0, 256, [28, 28, 3], np.uint8)
        image = Image.fromarray(small).resize((_SIZE, _SIZE), Image.Resampling.BICUBIC)
        folder = root / "ab"[n % 2]
        folder.mkdir(parents=True, exist_ok=True)
        image.save(folder / f"{n}.jpg", quality=90)


def ours(root: pathlib.Path, first: int = 0) -> Batches:
    """`Prepared`, as training takes it: by a traced function."""
    one = Photos(str(root))
    source = data.split(one.sources(), "train")
    inputs = Prepared(task=one, source=source, batch_size=_BATCH, seed=0)
    traced = tf.function(inputs.batch)
    try:
        with inputs.reading(first, -1):
            for step in range(first, sys.maxsize):
                yield traced(tf.constant(step, tf.int64))
    finally:
        inputs.close()


def by_hand(root: pathlib.Path) -> Batches:
    """As one writes it who knows tf.data well."""
    paths = sorted(map(str, root.rglob("*.jpg")))
    labels = [int(pathlib.Path(path).parent.name == "b") for path in paths]

    def read(path: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return pixels(tf.io.read_file(path)), label

    dataset = (
        tf.data.Dataset.from_tensor_slices((paths, labels))
        .shuffle(len(paths), seed=0)
        .repeat()
        .map(read, tf.data.AUTOTUNE)
        .batch(_BATCH, drop_remainder=True, num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(tf.data.AUTOTUNE)
    )
    return iter(dataset)


def grain_way(root: pathlib.Path, decode: Callable[[bytes], Any]) -> Batches:
    """Grain's threads, on the decoder that is given."""
    grain = importlib.import_module("grain")
    source = data.images(root)

    def read(example: Any) -> Any:
        return {"image": decode(example["image"]), "label": example["label"]}

    dataset = (
        grain.MapDataset.source(source)
        .shuffle(seed=0)
        .repeat()
        .map(read)
        .to_iter_dataset(grain.ReadOptions(num_threads=4, prefetch_buffer_size=64))
        .batch(_BATCH)
    )
    return iter(dataset)


def by_pillow(content: bytes) -> np.ndarray:
    """What Grain's own examples decode with."""
    return np.asarray(Image.open(io.BytesIO(content)), np.float32) / 255


def by_tensorflow(content: bytes) -> np.ndarray:
    """TensorFlow's decoder, called from Python."""
    result: np.ndarray = pixels(tf.constant(content)).numpy()
    return result


def seconds(batches: Batches, busy_secs: float) -> float:
    """Of some steps, each with a device that is busy for so long; it takes no core."""
    began = time.perf_counter()
    for _ in range(_STEPS):
        next(batches)
        time.sleep(busy_secs)
    return time.perf_counter() - began


def compare(root: pathlib.Path) -> None:
    """Compares with tf.data, and then with Grain."""
    turns({"ours": lambda: ours(root), "tf.data by hand": lambda: by_hand(root)})
    if importlib.util.find_spec("grain"):  # its threads go on while others have a turn
        turns(
            {
                "ours": lambda: ours(root),
                "grain, TensorFlow": lambda: grain_way(root, by_tensorflow),
                "grain, PIL": lambda: grain_way(root, by_pillow),
            }
        )


def turns(ways: dict[str, Callable[[], Batches]]) -> None:
    """Prints a row for each way, compared with the first and the last one."""
    first, *_, other = ways
    for title, busy in (("decode", 0.0), ("device", _DEVICE_SECS)):
        taken: dict[str, list[float]] = {way: [] for way in ways}
        for turn in range(_ROUNDS):
            for way in sorted(ways, reverse=turn % 2 == 0):
                batches = ways[way]()
                seconds(batches, 0)  # warms up, and tunes itself
                taken[way].append(seconds(batches, busy))
                del batches
        for way, own in taken.items():
            against = other if way == first else first
            pairs = zip(own, taken[against], strict=True)
            speed = statistics.median(b / a for a, b in pairs)
            each = statistics.median(own) / _STEPS
            beside = f"  {each / busy:.3f} of the device" if busy else ""
            print(
                f"{title:8}{way:18}{_BATCH / each:8.0f} examples/s  {each * 1e3:7.1f} "
                f"ms/step  {speed:5.2f} of {against}{beside}"
            )


def far(root: pathlib.Path) -> None:
    """Prints how long the first batch takes far away."""
    began = time.perf_counter()
    next(ours(root, _FAR))
    print(f"far     first batch at step {_FAR}: {time.perf_counter() - began:.2f} s")


class Rows:
    """Rows of a list by index."""

    def __init__(self, rows: list[np.ndarray]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return {"tokens": self.rows[index]}


def by_index() -> None:
    """Prints what batches cost of rows by index: of one length, unequal, of two."""
    rng = np.random.default_rng(0)
    even = [rng.integers(0, 9, 50) for _ in range(5000)]
    uneven = [rng.integers(0, 9, n) for n in rng.integers(1, 100, 5000)]
    plain = type("Plain", (Photos,), {"decode": task.Task.decode})
    padded = type("Padded", (plain,), {"pad": {"tokens": 0}})
    dense, ragged = plain(""), padded("")
    for title, given, sources in (
        ("dense", dense, Rows(even)),
        ("ragged", ragged, Rows(uneven)),
        ("several", dense, {"one": Rows(even), "other": Rows(even)}),
    ):
        source = data.split({"train": sources}, "train")
        inputs = Prepared(task=given, source=source, batch_size=_BATCH, seed=0)
        traced, spent = tf.function(inputs.batch), []
        with inputs.reading(0, -1):
            for step in range(_ROUNDS * _STEPS):
                began = time.perf_counter()
                traced(tf.constant(step, tf.int64))
                spent.append(time.perf_counter() - began)
        inputs.close()
        each = sum(spent[_STEPS:]) / len(spent[_STEPS:])
        print(f"{title:8}{each * 1e3:.2f} ms/batch of {_BATCH} by index")


_TRAINS = """
import pathlib, re, sys
import keras, numpy as np, tensorflow as tf
from trainer import data, task
from trainer.data.inputs import training
from trainer.model import building, steps

class Big(task.Task):
    def sources(self): return {"train": data.memmap({"x": sys.argv[1]})}
    def networks(self): return keras.Sequential([keras.layers.Dense(1)])
    def optimizers(self): return keras.optimizers.SGD()
    def values(self, networks, batch, training):
        x = tf.cast(batch["x"][:, :1000], tf.float32)
        return {"loss": networks(x)[:, 0]}

source = data.split(Big().sources(), "train")
inputs = training(Big(), source, batch_size=8, seed=0)
current = building.build(Big(), inputs.batch, seed=0)
steps.TrainLoop(Big(), current, inputs).run(500)
inputs.close()
# What getrusage says begins at the size of the process that started this one.
status = pathlib.Path("/proc/self/status").read_text()
print(round(int(re.search(r"VmHWM:\\s+(\\d+)", status)[1]) / 1000))
"""


def memory(root: pathlib.Path) -> None:
    """Prints the most memory of a process that trains on a large file."""
    path = root / "big.npy"
    array = np.lib.format.open_memmap(path, "w+", np.uint8, (_ROWS, _ROW))
    del array
    done = subprocess.run(
        [sys.executable, "-c", _TRAINS, str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    gigabytes = path.stat().st_size / 1e9
    print(f"memmap  {gigabytes:.0f} GB, 4 GB of it read: {done.stdout.strip()} MB")


def index(root: pathlib.Path) -> None:
    """Prints how long a TFRecord file takes to be indexed."""
    path = root / "a.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as file:
        for _ in range(_RECORDS):
            file.write(b"0123456789")
    for what in ("index", "again"):
        began = time.perf_counter()
        count = len(data.tfrecords(path))
        print(f"{what:8}{count} records: {time.perf_counter() - began:.2f} s")


def main() -> None:
    keras.utils.set_random_seed(0)
    with tempfile.TemporaryDirectory() as directory:
        root = pathlib.Path(directory)
        make_images(root / "images")
        far(root / "images")
        compare(root / "images")
        by_index()
        memory(root)
        index(root)


if __name__ == "__main__":
    main()
