"""Averages of weights: trained with raw ones, judged, kept and used as averages."""

import re
import shutil

import numpy as np
import pytest
import tasks

import trainer.inference.average
from trainer.checkpoint import catalog, compatibility, retention
from trainer.checkpoint.layout import RunDirectory
from trainer.config import options
from trainer.inference import evaluate

TOTAL, DECAY = 12, 0.5
KEY = "/.ATTRIBUTES/VARIABLE_VALUE"


def ranked(run_dir, rule):
    directory = RunDirectory(run_dir)
    return catalog.scan(directory).ranked(directory.best(rule.metric), rule)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A task with batch normalisation and dropout; every step is saved."""
    run_dir = tmp_path_factory.mktemp("straight") / "run"
    tasks.train(run_dir, tasks.Rich(), steps=TOTAL, ema=DECAY)
    return run_dir


def networks(prefix):
    """The network's variables in a checkpoint that have averages, raw and averaged."""
    listed = [v["path"] for v in tasks.manifest(prefix)["variables"]]
    model = [path for path in listed if path.startswith("model/")]
    averaged = [path for path in listed if path.startswith("averages/")]
    values = tasks.tensors(prefix)
    raw = {path: values[f"variables/{n}{KEY}"] for n, path in enumerate(model)}
    averages = {
        path.removeprefix("averages/"): values[f"averages/{n}{KEY}"]
        for n, path in enumerate(averaged)
    }
    return {path: raw[path] for path in averages}, averages


def test_every_weight_has_an_average_and_so_have_the_statistics(straight):
    raw, averages = networks(straight / f"recent/ckpt-{TOTAL}")
    names = sorted(path.rpartition("/")[2] for path in averages)
    statistics = ["moving_mean", "moving_variance"]
    layers = ["bias", "kernel", "kernel"]
    assert names == sorted(["beta", "gamma", *layers, *statistics])
    for path, mean in averages.items():
        assert (mean != raw[path]).any(), path


def test_an_average_is_what_numpy_makes_of_the_weights_of_each_step(straight):
    """The decay grows up to the one that was asked for, at step 8."""
    built = tasks.built(tasks.Rich())
    mine = {
        f"model/{variable.path}": np.float64(variable.numpy())
        for variable in built.networks.variables
    }
    assert (1 + 7) / (10 + 7) < DECAY == (1 + 8) / (10 + 8)
    for step in range(1, TOTAL + 1):
        raw, averages = networks(straight / f"recent/ckpt-{step}")
        count = step - 1
        decay = min(DECAY, (1 + count) / (10 + count))
        for path, mean in averages.items():
            mine[path] = decay * mine[path] + (1 - decay) * raw[path]
            np.testing.assert_allclose(mean, mine[path], rtol=1e-5, atol=1e-6)


def test_training_is_as_if_there_were_no_averages(straight, tmp_path):
    tasks.train(tmp_path / "run", tasks.Rich(), steps=TOTAL)
    for step in range(1, TOTAL + 1):
        name = f"recent/ckpt-{step}"
        moved = tasks.different(straight / name, tmp_path / "run" / name)
        # The metrics are other ones, and so is what they are kept in.
        ours = ("averages/", "progress/", "_CHECKPOINTABLE_OBJECT_GRAPH")
        assert [key for key in moved if not key.startswith(ours)] == []
    with_them, without = tasks.scalars(straight), tasks.scalars(tmp_path / "run")
    for tag, curve in without.items():
        if tag.startswith("train/"):
            assert with_them[tag] == curve
    assert with_them["eval/loss"] != without["eval/loss"]


@pytest.mark.parametrize("step", [0, 1, 3, 8, 11])
def test_a_killed_run_ends_as_if_it_had_not_been(straight, tmp_path, step):
    run_dir = tasks.cut_back(straight, tmp_path / "run", step)
    tasks.train(run_dir, tasks.Rich(), steps=TOTAL, ema=DECAY)
    tasks.assert_same_run(straight, run_dir)


def loss_of(values):
    """Of the valid split, by the weights of `tasks.Plain`."""
    kernel, bias = values.values()
    valid = tasks.examples()["valid"]
    return np.mean(((valid["x"] @ kernel + bias)[:, 0] - valid["y"]) ** 2)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("plain") / "run"
    rules = {"best": ("loss:min:2",)}
    tasks.train(run_dir, tasks.Plain(), steps=6, ema=0.9, **rules)
    return run_dir


def test_an_evaluation_is_of_the_averages(plain):
    for step in (3, 6):
        prefix = plain / f"recent/ckpt-{step}"
        raw, averages = networks(prefix)
        loss = tasks.manifest(prefix)["metrics"]["loss"]
        assert loss == pytest.approx(loss_of(averages), rel=1e-5)
        assert loss != pytest.approx(loss_of(raw), rel=1e-2)


def test_a_checkpoint_is_evaluated_as_the_training_did(plain):
    choices = options.RunOptions(task="tasks:Plain", run_dir=str(plain), batch_size=8)
    rule = retention.Best("loss", "min", 2)
    for entry in ranked(plain, rule):
        found = evaluate.evaluate_checkpoint(choices, tasks.Plain(), entry)
        assert found == entry.manifest.metrics


def test_the_mean_of_several_is_that_of_their_averages(plain, tmp_path):
    run_dir = shutil.copytree(plain, tmp_path / "run")
    rule = retention.Best("loss", "min", 2)
    entries = ranked(run_dir, rule)
    assert len(entries) == 2
    choices = options.RunOptions(
        task="tasks:Plain", run_dir=str(run_dir), batch_size=8, ema=0.9
    )
    made = trainer.inference.average.average(choices, tasks.Plain(), entries, rule)
    each = [networks(entry.prefix)[1] for entry in entries]
    for values in networks(made.prefix):
        for path, value in values.items():
            mean = np.mean([one[path] for one in each], axis=0, dtype=np.float64)
            np.testing.assert_array_equal(value, mean.astype(np.float32))
    assert made.metrics["loss"] == pytest.approx(loss_of(values), rel=1e-5)
    best = min(entry.manifest.metrics["loss"] for entry in entries)
    assert made.beats == (made.metrics["loss"] < best)


def test_a_new_run_begins_with_the_averages_of_another(plain, tmp_path):
    """Its learning rate is 0, so that they are there to be seen."""
    prefix = plain / "recent/ckpt-6"
    raw, averages = networks(prefix)
    tasks.train(
        tmp_path / "run",
        tasks.Plain(learning_rate=0.0),
        steps=1,
        ema=0.9,
        init_from=str(prefix),
    )
    begun = networks(tmp_path / "run/recent/ckpt-1")
    for path, mean in averages.items():
        assert (mean != raw[path]).any()
        for values in begun:
            np.testing.assert_array_equal(values[path], mean)


def test_another_decay_is_refused(plain):
    text = r"ema: 0\.9 there, 0\.5 here\n.*--allow_change=ema"
    with pytest.raises(options.ConfigError, match=text):
        tasks.train(plain, tasks.Plain(), steps=8, ema=0.5)


def test_averages_cannot_begin_in_the_middle(tmp_path):
    run_dir = tmp_path / "run"
    tasks.train(run_dir, tasks.Plain(), steps=2)
    path = "averages/model/sequential/dense/kernel"
    text = re.escape(f"{path}: the model has it, the checkpoint does not")
    with pytest.raises(compatibility.IncompatibleCheckpointError, match=text):
        tasks.train(run_dir, tasks.Plain(), steps=4, ema=0.5, allow_change=("ema",))
    assert tasks.steps(run_dir / "recent") == [1, 2]
