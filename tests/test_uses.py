"""The best, used: `evaluate`, `predict` and `average` as their users see them.

What is right is computed by plain Keras from the checkpoint's own variables.
"""

import itertools
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import processes
import pytest
import tasks
import tensorflow as tf

from models import digits, mnist
from trainer import data
from trainer.commands import cli
from trainer.config import options

MNIST = f"--flagfile={processes.PROJECT / 'models' / 'mnist.flags'}"


@pytest.fixture
def use():
    return processes.call


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """MNIST, a few steps."""
    run_dir = tmp_path_factory.mktemp("mnist") / "run"
    arguments = ["--steps=4", "--evaluate_every_steps=4", "--set=hidden=8"]
    arguments += [f"--run_dir={run_dir}"]
    assert cli.main(["run.py", MNIST, *arguments], package="models") == 0
    return run_dir


def split_of(task, name):
    arrays = dict(task.sources()[name])
    return arrays["image"], arrays["label"]


def expected(task, prefix, name):
    """The metrics of a split, and each probability."""
    image, label = split_of(task, name)
    logits = tasks.restored(task, prefix)(image, training=False).numpy()
    odds = tf.nn.log_softmax(logits).numpy()
    metrics = {
        "accuracy": float(np.mean(logits.argmax(1) == label)),
        "loss": float(-np.mean(odds[np.arange(len(label)), label])),
    }
    return metrics, np.exp(odds)


# Evaluate.


def metrics_of(result):
    assert result.code == 0, result.stderr
    row = json.loads(result.stdout)
    return row["metrics"]


@pytest.mark.parametrize("name", ["digits", "mnist"])
def test_a_split_is_evaluated_as_plain_keras_does(reference, small, use, name):
    """The last batch is not full."""
    run_dir = {"digits": reference.directory, "mnist": small}[name]
    task = {"digits": digits.Digits(), "mnist": mnist.Mnist(hidden=8)}[name]
    where = [f"--run_dir={run_dir}", "--eval_batch_size=70", "--format=json"]
    metrics = metrics_of(use("evaluate", *where, "--split=test"))
    right, _ = expected(task, tasks.only(run_dir / "best/accuracy"), "test")
    assert metrics["accuracy"] == right["accuracy"]
    assert metrics["loss"] == pytest.approx(right["loss"], rel=1e-5)


def test_a_file_of_ones_own_is_evaluated(reference, use, tmp_path):
    image, label = split_of(digits.Digits(), "test")
    where = [f"--run_dir={reference.directory}", "--format=json"]
    right = metrics_of(use("evaluate", *where, "--split=test"))
    for kind in ("uint8", "float64"):
        path = tmp_path / f"{kind}.npz"
        np.savez(path, image=image.astype(kind), label=label.astype("int64"), more=1)
        evaluated = use("evaluate", *where, f"--data={path}")
        assert metrics_of(evaluated) == right
        assert json.loads(evaluated.stdout)["split"] == str(path)
    part = tmp_path / "part.npz"
    np.savez(part, image=image[:5], label=label[:5])
    assert metrics_of(use("evaluate", *where, f"--data={part}")) != right


IMAGE, LABEL = np.zeros([4, 8, 8], np.uint8), np.zeros([4], np.uint8)
UNFIT = {
    "an array is missing": (
        {"image": IMAGE},
        " has no array 'label'; it has image. Expected image, label.",
    ),
    "another shape": (
        {"image": IMAGE[:, 1:], "label": LABEL},
        ": 'image' has shape (4, 7, 8); the task has (8, 8) an example, so expected "
        "(N, 8, 8).",
    ),
    "a single example": (
        {"image": IMAGE[0], "label": LABEL},
        ": 'image' has shape (8, 8); the task has (8, 8) an example, so expected "
        "(N, 8, 8).",
    ),
    "a number an example as a row": (
        {"image": IMAGE, "label": LABEL[:, None]},
        ": 'label' has shape (4, 1); the task has () an example, so expected (N,).",
    ),
    "numbers that do not fit": (
        {"image": IMAGE + 0.5, "label": LABEL},
        ": 'image' is float64; the task has uint8, which can't hold all of its "
        "values. Convert it as the task's own data was.",
    ),
    "no numbers": (
        {"image": IMAGE, "label": LABEL.astype(str)},
        ": 'label' is <U3; the task has uint8, which can't hold all of its values. ",
    ),
    "numbers that are too large": (
        {"image": IMAGE, "label": LABEL + np.int64(256)},
        ": 'label' is int64; the task has uint8, which can't hold all of its values. ",
    ),
}


@pytest.mark.parametrize(("arrays", "text"), UNFIT.values(), ids=UNFIT)
def test_a_file_that_does_not_fit_is_refused(reference, use, tmp_path, arrays, text):
    path = tmp_path / "mine.npz"
    np.savez(path, **arrays)
    where = [f"--run_dir={reference.directory}", f"--data={path}"]
    refused = use("evaluate", *where)
    assert (refused.code, refused.stdout) == (1, "")
    assert refused.stderr.startswith(f"DataError: {path}{text}")


def test_arrays_of_several_lengths_are_refused(reference, use, tmp_path):
    path = tmp_path / "mine.npz"
    np.savez(path, image=IMAGE, label=LABEL[1:])
    refused = use("evaluate", f"--run_dir={reference.directory}", f"--data={path}")
    assert refused.code == 1
    assert refused.stderr.startswith("DataError: the arrays of a source have the ")
    assert "{'image': 4, 'label': 3}" in refused.stderr


def test_a_file_that_is_not_there_is_refused(reference, use, tmp_path):
    where = [f"--run_dir={reference.directory}", f"--data={tmp_path}/none.npz"]
    refused = use("predict", *where)
    assert (refused.code, refused.stdout) == (1, "")
    assert refused.stderr == (
        f"DataError: there is no file {tmp_path}/none.npz. Expected an .npz with the "
        "arrays image.\n"
    )


def test_the_path_of_a_checkpoint_is_enough(reference, use):
    prefix = reference.directory / "recent/ckpt-80"
    evaluated = use("evaluate", f"--checkpoint={prefix}", "--format=json")
    mark = tasks.manifest(prefix)
    assert metrics_of(evaluated) == mark["metrics"]
    assert json.loads(evaluated.stdout)["path"] == str(prefix)


def test_a_checkpoint_of_another_run_is_evaluated_with_its_weights(
    reference, averaged, use
):
    prefix = averaged.run_dir / "recent/ckpt-20"
    where = [f"--run_dir={reference.directory}", f"--checkpoint={prefix}"]
    metrics = metrics_of(use("evaluate", *where, "--split=test", "--format=json"))
    right, _ = expected(digits.Digits(), prefix, "test")
    assert metrics["accuracy"] == right["accuracy"]
    assert metrics["loss"] == pytest.approx(right["loss"], rel=1e-5)


@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_a_checkpoint_of_another_network_is_refused(reference, small, use, command):
    prefix = tasks.only(small / "best/accuracy")
    where = [f"--run_dir={reference.directory}", f"--checkpoint={prefix}"]
    refused = use(command, *where)
    assert (refused.code, refused.stdout) == (1, "")
    assert refused.stderr.startswith(
        f"IncompatibleCheckpointError: cannot restore {prefix}.\n"
    )


# Predict.


@pytest.fixture(scope="module")
def predicted(reference):
    """What `predict` prints of the test split: 296 examples, 100 a batch."""
    done = processes.run(
        "predict",
        "--run_dir=run",
        "--split=test",
        "--eval_batch_size=100",
        cwd=reference.directory.parent,
    )
    assert (done.code, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_there_is_one_line_an_example(reference, predicted):
    rows = [json.loads(line) for line in predicted]
    assert [row["index"] for row in rows] == list(range(296))
    prefix = tasks.only(reference.directory / "best/accuracy")
    _, odds = expected(digits.Digits(), prefix, "test")
    assert [row["digit"] for row in rows] == odds.argmax(1).tolist()
    np.testing.assert_allclose([row["probability"] for row in rows], odds, atol=1e-6)
    assert {tuple(row) for row in rows} == {("index", "digit", "probability")}


def test_the_size_of_a_batch_changes_no_prediction(reference, predicted, use, tmp_path):
    where = [f"--run_dir={reference.directory}", "--split=test"]
    path = tmp_path / "new" / "said.jsonl"
    done = use("predict", *where, "--eval_batch_size=7", f"--output={path}")
    prefix = tasks.only(reference.directory / "best/accuracy")
    assert done.stdout == f"296 predictions of {prefix} are in {path}\n"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    before = [json.loads(line) for line in predicted]
    assert [row["index"] for row in rows] == [row["index"] for row in before]
    assert [row["digit"] for row in rows] == [row["digit"] for row in before]
    one, other = ([row["probability"] for row in which] for which in (rows, before))
    np.testing.assert_allclose(one, other, atol=1e-6)
    assert [p.name for p in path.parent.iterdir()] == ["said.jsonl"]


def test_predictions_go_into_an_npz(reference, predicted, use, tmp_path):
    where = [f"--run_dir={reference.directory}", "--split=test"]
    path = tmp_path / "said.npz"
    done = use("predict", *where, "--eval_batch_size=100", f"--output={path}")
    assert done.stdout.startswith("296 predictions of ")
    rows = [json.loads(line) for line in predicted]
    with np.load(path) as arrays:
        assert sorted(arrays) == ["digit", "probability"]
        assert arrays["digit"].dtype == np.int64
        assert arrays["probability"].dtype == np.float32
        assert arrays["digit"].tolist() == [row["digit"] for row in rows]
        shown = [row["probability"] for row in rows]
        np.testing.assert_array_equal(arrays["probability"], np.float32(shown))


def test_a_file_needs_only_what_the_predictions_look_at(small, use, tmp_path):
    task, path = mnist.Mnist(hidden=8), tmp_path / "mine.npz"
    image, _ = split_of(task, "test")
    np.savez(path, image=image[:5])
    done = use("predict", f"--run_dir={small}", f"--data={path}")
    assert done.code == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    _, odds = expected(task, tasks.only(small / "best/accuracy"), "test")
    np.testing.assert_allclose(
        [row["probability"] for row in rows], odds[:5], atol=1e-6
    )


def test_a_reader_that_has_seen_enough_is_no_failure_to_speak_of(reference):
    """More is written than a pipe holds."""
    command = [sys.executable, str(processes.PROJECT / "run.py"), "predict"]
    where = [f"--run_dir={reference.directory}", "--split=train"]
    with subprocess.Popen(
        [*command, *where], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert json.loads(process.stdout.readline())["index"] == 0
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


@pytest.mark.parametrize("command", ["evaluate", "predict", "list"])
@pytest.mark.parametrize("kind", options.EXPORTS)
def test_a_format_of_exports_is_for_exports(use, command, kind):
    refused = use(command, "--run_dir=none", f"--format={kind}")
    assert (refused.code, refused.stdout) == (2, "")
    assert refused.stderr == (f"ConfigError: --format={kind}: expected table, json.\n")


# Average.


class Averaged:
    """A run that keeps its three best, and the average of these."""

    def __init__(self, run_dir):
        self.run_dir = run_dir
        self.best = run_dir / "best/accuracy"
        self.result = None

    @property
    def prefix(self):
        return tasks.only(self.run_dir / "averaged/accuracy")


@pytest.fixture(scope="module")
def averaged(tmp_path_factory):
    cwd = tmp_path_factory.mktemp("averaged")
    found = Averaged(cwd / "run")
    arguments = ["--steps=80", "--evaluate_every_steps=20", "--save_every_steps=20"]
    arguments += ["--best=accuracy:max:3", f"--run_dir={found.run_dir}"]
    arguments += ["--keep_recent=9"]
    code = cli.main(["run.py", processes.DIGITS, *arguments], package="models")
    assert code == 0
    found.result = processes.run("average", "--run_dir=run", cwd=cwd)
    assert found.result.code == 0, found.result.stderr
    return found


def variables(prefix):
    """By place and name: the path has a name in it that counts networks up."""
    return by_path(tasks.restored(digits.Digits(), prefix))


def by_path(model):
    counts = itertools.count()
    return {f"{next(counts)} {one.name}": one.numpy() for one in model.variables}


def test_one_best_is_nothing_to_average(reference, use):
    refused = use("average", f"--run_dir={reference.directory}", "--best=accuracy")
    assert (refused.code, refused.stdout) == (2, "")
    assert refused.stderr == (
        f"NoCheckpointError: {reference.directory} has 1 best by accuracy: nothing to "
        "average. Train with --best=accuracy:max:5 to keep five.\n"
    )


def test_weights_are_the_means_of_the_best(averaged):
    steps = tasks.steps(averaged.best)
    assert len(steps) == 3
    every = [variables(averaged.best / f"ckpt-{step}") for step in steps]
    made = variables(averaged.prefix)
    weights = [path for path in made if "moving" not in path and "seed" not in path]
    assert len(weights) == 10, list(made)
    for path in weights:
        mean = np.mean([one[path] for one in every], axis=0, dtype=np.float64)
        np.testing.assert_array_max_ulp(made[path], mean.astype(np.float32), maxulp=1)
    kernel = next(path for path in weights if path.endswith("kernel"))
    assert all((made[kernel] != one[kernel]).any() for one in every)


def test_what_batch_normalisation_knows_is_measured_anew(averaged):
    """Means over the training batches of an epoch, by NumPy, layer by layer."""
    task = digits.Digits()
    model = tasks.restored(task, averaged.prefix)
    source = data.split(task.sources(), "train")
    inputs = data.Shuffled(task=task, source=source, batch_size=64, seed=0)
    last = max(
        number
        for number, layer in enumerate(model.layers)
        if hasattr(layer, "moving_mean")
    )
    moments = {}
    for number in range(19):
        x = inputs.batch(tf.constant(number, tf.int64))["image"]
        for layer in model.layers[: last + 1]:
            if not hasattr(layer, "moving_mean"):
                x = layer(x)
                continue
            values = np.asarray(x, np.float64)
            mean, variance = values.mean((0, 1, 2)), values.var((0, 1, 2))
            moments.setdefault(layer.name, []).append((mean, variance))
            values = (values - mean) / np.sqrt(variance + layer.epsilon)
            x = tf.constant(values * layer.gamma + layer.beta, tf.float32)
    assert len(moments) == 2
    for name, of_batches in moments.items():
        mean, variance = np.mean(of_batches, axis=0)
        layer = model.get_layer(name)
        close = {"rtol": 1e-5, "atol": 1e-5}
        np.testing.assert_allclose(layer.moving_mean, mean, **close)
        np.testing.assert_allclose(layer.moving_variance, variance, **close)


def test_all_else_of_an_average_is_that_of_the_best_one(averaged):
    step = int(averaged.prefix.name.removeprefix("ckpt-"))
    tops = {
        one: tasks.manifest(averaged.best / f"ckpt-{one}")["metrics"]["accuracy"]
        for one in tasks.steps(averaged.best)
    }
    assert step == max(tops, key=lambda one: (tops[one], -one))
    moved = tasks.different(averaged.prefix, averaged.best / f"ckpt-{step}")
    assert moved
    allowed = ("variables/", "model/", "progress/")
    graph = "_CHECKPOINTABLE_OBJECT_GRAPH"  # made of the live objects, not a snapshot
    assert [k for k in moved if not k.startswith(allowed) and k != graph] == []


def test_an_average_is_evaluated_and_told_beside_its_parents(averaged):
    header, *rows, verdict = averaged.result.stdout.splitlines()
    assert header.split() == ["path", "accuracy", "loss"]
    assert len(rows) == 4
    assert rows[-1].startswith(f"run/averaged/accuracy/{averaged.prefix.name} ")
    metrics = tasks.manifest(averaged.prefix)["metrics"]
    assert f"{metrics['accuracy']:.6g}" in rows[-1]
    right, _ = expected(digits.Digits(), averaged.prefix, "valid")
    assert metrics["accuracy"] == right["accuracy"]
    assert metrics["loss"] == pytest.approx(right["loss"], rel=1e-5)
    tops = [
        tasks.manifest(averaged.best / f"ckpt-{step}")["metrics"]["accuracy"]
        for step in tasks.steps(averaged.best)
    ]
    beats = "beats" if metrics["accuracy"] > max(tops) else "does not beat"
    assert verdict == (f"the average of 3 {beats} the best of them by accuracy.")


def test_an_average_can_be_made_again(averaged, use):
    before = tasks.tensors(averaged.prefix)
    done = use("average", f"--run_dir={averaged.run_dir}")
    assert done.code == 0, done.stderr
    after = tasks.tensors(averaged.prefix)
    assert before.keys() == after.keys()
    for key, value in before.items():
        assert np.array_equal(value, after[key]), key


# Keras reads arrays for HDF5 in a way that NumPy wants to be done with.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_an_average_is_used_by_its_path(averaged, use, tmp_path):
    where = [f"--checkpoint={averaged.prefix}"]
    evaluated = use("evaluate", *where, "--format=json")
    assert metrics_of(evaluated) == tasks.manifest(averaged.prefix)["metrics"]
    path = tmp_path / "model.weights.h5"
    done = use("export", *where, "--format=weights", f"--output={path}")
    assert done.code == 0, done.stderr
    model = digits.Digits().networks()
    model.load_weights(path)
    there = by_path(model)
    for name, value in variables(averaged.prefix).items():
        if "seed" not in name:  # Keras does not load what dropout draws from
            np.testing.assert_array_equal(there[name], value, name)


def test_training_goes_on_from_an_average(averaged, use, tmp_path):
    run_dir = tmp_path / "run"
    shutil.copytree(averaged.run_dir, run_dir)
    prefix = run_dir / "averaged/accuracy" / averaged.prefix.name
    before = tasks.tensors(prefix)
    arguments = [f"--run_dir={run_dir}", f"--checkpoint={prefix}", "--steps=90"]
    done = use("train", *arguments)
    assert done.code == 0, done.stderr
    assert f"gone back to {prefix}; what came later" in done.stderr
    assert "complete at step 90 of 90." in done.stdout
    begun = tasks.tensors(run_dir / "recent" / prefix.name)
    assert {k: v.tolist() for k, v in begun.items()} == {
        k: v.tolist() for k, v in before.items()
    }
    ended = re.search(r"^latest +(\S+)$", done.stdout, re.M)[1]
    assert ended == str(run_dir / "recent/ckpt-90")
    assert tasks.different(prefix, run_dir / "recent/ckpt-90")
