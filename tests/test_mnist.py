"""MNIST: splits, files that are not it, a download that fails, custom layers."""

import json
import re
import shutil

import keras
import numpy as np
import processes
import pytest
import tasks
from processes import run

from models import mnist
from trainer import data

FLAGS = f"--flagfile={processes.PROJECT / 'models' / 'mnist.flags'}"
REMEDY = (
    "\nFetch https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz (11 "
    "MB) and give it with --set=data=PATH, or leave --set=data out for the sample of "
    "5,000 images that ships."
)


def arrays(*, train=24, test=6, **changes):
    """A small MNIST: every pixel of an image is its number."""
    found = {}
    for part, count, first in (("train", train, 0), ("test", test, 100)):
        numbers = np.arange(first, first + count, dtype=np.uint8)
        found[f"x_{part}"] = np.tile(numbers[:, None, None], [1, 28, 28])
        found[f"y_{part}"] = numbers % 10
    found.update(changes)
    return {name: array for name, array in found.items() if array is not None}


def refused(where):
    with pytest.raises(data.DataError) as caught:
        mnist.Mnist(data=str(where)).sources()
    return str(caught.value)


# Data.


def test_the_sample_is_split_into_parts_that_have_no_image_in_common():
    splits = mnist.Mnist().sources()
    sizes = {name: len(split["image"]) for name, split in splits.items()}
    assert sizes == {"train": 3334, "valid": 666, "test": 1000}
    images = [image.tobytes() for split in splits.values() for image in split["image"]]
    assert len(set(images)) == len(images) == 5000
    for name, split in splits.items():
        assert split["image"].dtype == split["label"].dtype == np.uint8
        assert split["image"].shape[1:] == (28, 28)
        assert split["image"].max() == 255
        counts = np.bincount(split["label"], minlength=10)
        assert counts.max() - counts.min() <= 1, name


def test_the_splits_are_the_same_each_time():
    once, again = mnist.Mnist().sources(), mnist.Mnist(hidden=8).sources()
    for name, split in once.items():
        for key, array in split.items():
            np.testing.assert_array_equal(array, again[name][key])


@pytest.mark.parametrize("dtype", ["uint8", "int64"])
def test_a_file_of_ones_own_is_split_in_its_order(tmp_path, monkeypatch, dtype):
    given = arrays()
    given["y_train"] = given["y_train"].astype(dtype)
    np.savez(tmp_path / "mine.npz", **given)
    monkeypatch.setenv("HOME", str(tmp_path))
    for where in (str(tmp_path / "mine.npz"), "~/mine.npz"):
        splits = mnist.Mnist(data=where).sources()
        numbers = {k: split["image"][:, 3, 5].tolist() for k, split in splits.items()}
        assert numbers == {
            "train": list(range(20)),
            "valid": list(range(20, 24)),
            "test": list(range(100, 106)),
        }
        for name, split in splits.items():
            assert split["label"].tolist() == [n % 10 for n in numbers[name]]


def test_a_missing_file_is_refused(tmp_path):
    assert refused(tmp_path / "none.npz") == (
        f"there is no file {tmp_path}/none.npz. Expected an .npz with the arrays "
        f"x_train, y_train, x_test, y_test.{REMEDY}"
    )


def test_a_file_that_is_no_npz_is_refused(tmp_path):
    (tmp_path / "half.npz").write_bytes(b"PK\x03\x04 and no more")
    text = refused(tmp_path / "half.npz")
    assert text.startswith(f"{tmp_path}/half.npz cannot be read as an .npz with the ")
    assert text.endswith(REMEDY)


IMAGES = "expected at least 6 images, uint8 (N, 28, 28)."
UNFIT = {
    "no test images": (
        {"x_test": None},
        " has no array 'x_test'; it has x_train, y_test, y_train. Expected x_train, ",
    ),
    "flat images": (
        {"x_train": np.zeros([24, 784], np.uint8)},
        f": 'x_train' is uint8 (24, 784); {IMAGES}",
    ),
    "scaled images": (
        {"x_test": np.zeros([6, 28, 28], np.float32)},
        f": 'x_test' is float32 (6, 28, 28); {IMAGES}",
    ),
    "a single number": (
        {"x_train": np.uint8(7)},
        f": 'x_train' is uint8 (); {IMAGES}",
    ),
    "too few images": (
        {"x_train": np.zeros([5, 28, 28], np.uint8)},
        f": 'x_train' is uint8 (5, 28, 28); {IMAGES}",
    ),
    "too few labels": (
        {"y_train": np.zeros(23, np.uint8)},
        ": 'y_train' is uint8 (23,); expected whole numbers, uint8 (24,), as there ",
    ),
    "one-hot labels": (
        {"y_test": np.eye(10, dtype=np.uint8)[:6]},
        ": 'y_test' is uint8 (6, 10); expected whole numbers, uint8 (6,), as there ",
    ),
    "labels that are no whole numbers": (
        {"y_train": np.zeros(24)},
        ": 'y_train' is float64 (24,); expected whole numbers, uint8 (24,), as ",
    ),
    "labels from 1 to 10": (
        {"y_test": np.arange(5, 11)},
        ": 'y_test' has labels from 5 to 10; expected 0 to 9.",
    ),
}


@pytest.mark.parametrize(("changes", "text"), UNFIT.values(), ids=UNFIT)
def test_a_file_that_is_not_mnist_is_refused(tmp_path, changes, text):
    path = tmp_path / "other.npz"
    np.savez(path, **arrays(**changes))
    found = refused(path)
    assert found.startswith(f"{path}{text}")
    assert found.endswith(REMEDY)


@pytest.mark.parametrize("cached", [None, b"half a file"])
def test_a_download_that_fails_is_one_message_and_leaves_no_file(
    tmp_path, monkeypatch, cached
):
    """A proxy that nobody listens at; the cache is empty, or a kill cut it short."""
    cache = tmp_path / "home" / "datasets"
    cache.mkdir(parents=True)
    if cached:
        (cache / "mnist.npz").write_bytes(cached)
    monkeypatch.setenv("KERAS_HOME", str(cache.parent))
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    failed = run(FLAGS, "--set=data=keras", "--run_dir=run", cwd=tmp_path)
    assert failed.code == 1
    assert failed.stdout == ""
    (message,) = re.findall(r"^\w+Error: .*", failed.stderr, re.M | re.S)
    assert message.startswith(
        "DataError: Keras cannot download MNIST: URL fetch failure on https://"
    )
    assert message.endswith(f"refused{REMEDY}\n")
    assert list(cache.iterdir()) == []
    assert not list((tmp_path / "run").rglob("ckpt-*"))


def test_what_keras_has_in_its_cache_is_used(monkeypatch):
    given = arrays()
    loaded = tuple(
        (given[f"x_{part}"], given[f"y_{part}"]) for part in ("train", "test")
    )
    monkeypatch.setattr(keras.datasets.mnist, "load_data", lambda: loaded)
    splits = mnist.Mnist(data="keras").sources()
    assert {name: len(split["image"]) for name, split in splits.items()} == {
        "train": 20,
        "valid": 4,
        "test": 6,
    }


# The network.


def test_a_training_image_is_moved_and_not_changed():
    task = mnist.Mnist(max_shift=2)
    image = np.zeros([200, 28, 28], np.uint8)
    image[:, 10:12, 20] = [1, 2]
    seeds = np.stack([np.zeros(200), np.arange(200)], 1).astype(np.int32)
    batch = {"image": image, "label": np.zeros(200)}
    moved = task.augment(batch, seeds)["image"].numpy()
    assert moved.dtype == np.uint8
    assert (moved.sum(axis=(1, 2)) == 3).all()
    number, row, column = np.nonzero(moved == 1)
    assert number.tolist() == list(range(200))
    assert (moved[number, row + 1, column] == 2).all()
    moves = set(zip(row - 10, column - 20, strict=True))
    assert moves == {(y, x) for y in range(-2, 3) for x in range(-2, 3)}
    still = mnist.Mnist(max_shift=0).augment(batch, seeds)["image"]
    np.testing.assert_array_equal(still, image)


READ = """
import sys

import keras
import numpy as np

from models import mnist

model = keras.models.load_model("model.keras")
kinds = [type(layer) for layer in model.layers]
assert kinds.count(mnist.Scale) == 1 and kinds.count(mnist.Linear) == 2
np.save("answers.npy", model(np.load("images.npy"), training=False))
"""


@pytest.mark.filterwarnings("ignore:__array__ impl:DeprecationWarning")  # in Keras
def test_a_saved_model_needs_only_the_import_of_its_layers(tmp_path):
    model = mnist.Mnist(hidden=8).networks()
    random = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(random.normal(size=weight.shape))
    images = random.integers(0, 256, [5, 28, 28], np.uint8)
    np.save(tmp_path / "images.npy", images)
    model.save(tmp_path / "model.keras")
    given = {"PYTHONPATH": str(processes.PROJECT), "PATH": "", "HOME": str(tmp_path)}
    done = processes.script("-c", READ, cwd=tmp_path, **given)
    assert done.code == 0, done.stderr
    answers = np.load(tmp_path / "answers.npy")
    np.testing.assert_array_equal(answers, model(images, training=False))


@pytest.mark.parametrize("layer", [mnist.Scale(4), mnist.Linear(3, "relu")])
def test_a_layer_is_made_again_from_its_config(layer):
    again = type(layer).from_config(json.loads(json.dumps(layer.get_config())))
    assert again.get_config() == layer.get_config()
    x = np.float32([[1, -2, 3, 0]])
    assert again(x).shape == layer(x).shape
    names = [weight.path for weight in layer.weights]
    assert [weight.path for weight in again.weights] == names


# A run.


def test_it_learns_from_a_given_file_and_a_killed_run_ends_alike(tmp_path):
    shutil.copy(processes.PROJECT / "models/data/mnist_sample.npz", tmp_path)
    arguments = (
        FLAGS,
        "--set=data=mnist_sample.npz",
        "--steps=150",
        "--report_every_steps=25",
        "--evaluate_every_steps=50",
        "--save_every_steps=50",
    )
    straight, resumed = tmp_path / "a", tmp_path / "b"
    trained = run(*arguments, "--run_dir=a", cwd=tmp_path)
    assert trained.code == 0, trained.stderr
    metrics = tasks.manifest(straight / "recent/ckpt-150")["metrics"]
    assert metrics["accuracy"] > 0.85
    tasks.cut_back(straight, resumed, 50)
    trained = run(*arguments, "--run_dir=b", cwd=tmp_path)
    assert trained.code == 0, trained.stderr
    assert "resumed b at step 50 of 150" in trained.stderr
    tasks.assert_same_run(straight, resumed)
