"""Metrics that are no means: of Keras, and of all predictions of a split."""

import keras
import numpy as np
import pytest
import tasks
import tensorflow as tf

import trainer
from trainer import data, task
from trainer.checkpoint.best import UnknownMetricError
from trainer.config.fields import ConfigError
from trainer.model.evaluation import EvaluationLoop


class Judged(tasks.Plain):
    """Ranked by AUC; its scores look at the whole split at once."""

    best = ("auc:max", "worst:min")

    def metrics(self):
        return {
            "auc": keras.metrics.AUC(num_thresholds=20),
            "recall": keras.metrics.Recall(),
            "seen": keras.metrics.Sum(),
        }

    def values(self, networks, batch, training):
        answers = networks(batch["x"], training=training)[:, 0]
        likely = tf.sigmoid(answers)
        return {
            "loss": (answers - batch["y"]) ** 2,
            "auc": (batch["label"], likely),
            "recall": (batch["label"], likely, tf.abs(batch["y"])),
            "seen": tf.ones_like(likely),
        }

    def predictions(self, networks, batch):
        return {"answer": networks(batch["x"])[:, 0]}

    def scores(self, examples, predictions):
        errors = np.abs(examples["y"] - predictions["answer"])
        return {"worst": errors.max(), "median": np.median(errors)}


def evaluated(given, networks, size=4, **choices):
    source = data.split(given.sources(), "valid")
    batches = data.ordered(source, size, given)
    return EvaluationLoop(given, networks, batches, **choices).run()


@pytest.mark.parametrize("size", [3, 4, 10])
def test_they_are_those_of_the_whole_split(size):
    given = Judged()
    networks = tasks.built(given).networks
    found = evaluated(given, networks, size)
    rows = given.sources()["valid"]
    answers = networks(rows["x"])[:, 0].numpy()
    likely = 1 / (1 + np.exp(-answers))
    auc, recall = keras.metrics.AUC(num_thresholds=20), keras.metrics.Recall()
    auc.update_state(rows["label"], likely)
    recall.update_state(rows["label"], likely, np.abs(rows["y"]))
    errors = np.abs(answers - rows["y"])
    assert found == pytest.approx(
        {
            "auc": float(auc.result()),
            "recall": float(recall.result()),
            "seen": 10,
            "loss": float((errors**2).mean()),
            "worst": float(errors.max()),
            "median": float(np.median(errors)),
        },
        rel=1e-5,
    )


def test_a_run_ranks_by_them_and_evaluate_says_the_same(tmp_path):
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    choices = {"task": "test_measures:Judged", "steps": 11}
    tasks.train(straight, Judged(), **choices)
    tasks.cut_back(straight, resumed, 7)
    tasks.train(resumed, Judged(), **choices)
    tasks.assert_same_run(straight, resumed)
    curves = tasks.scalars(resumed)
    assert {"eval/auc", "eval/recall", "eval/worst", "eval/best/worst"} <= set(curves)
    assert "train/auc" not in curves
    best = tasks.only(resumed / "best" / "auc")
    found = trainer.evaluate(resumed, "best:auc", task=Judged())
    assert found == tasks.manifest(best)["metrics"]
    assert found["seen"] == 10, "begun anew at each evaluation"


def test_a_stop_is_heeded_among_the_predictions_too():
    given = Judged()
    networks, asked = tasks.built(given).networks, []

    def stop():
        asked.append(None)
        return len(asked) > 3  # after the three batches of the means

    source = data.split(given.sources(), "valid")
    batches = data.ordered(source, 4, given)
    assert EvaluationLoop(given, networks, batches).run(stop) is None
    assert len(asked) == 4


def changed(**methods):
    return type("Changed", (Judged,), methods)()


def values(**more):
    def found(self, networks, batch, training):
        given = Judged.values(self, networks, batch, training) | more
        return {name: one for name, one in given.items() if one is not None}

    return found


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (
            changed(metrics=lambda self: [keras.metrics.AUC()]),
            r"^Changed\.metrics\(\) returns list; expected metrics by name: return {",
        ),
        (
            changed(metrics=lambda self: {"auc": "auc"}),
            r"^Changed\.metrics\(\) gives 'auc' as str; expected metrics of Keras by",
        ),
        (
            changed(values=values(auc=None)),
            r"^Changed\.values\(\) gives nothing for the metric 'auc' of metrics\(\)\.",
        ),
        (
            changed(values=values(auc=(tf.ones([3]), tf.ones([2, 2])))),
            r"^Changed\.values\(\) gives 'auc' as \(3,\), \(2, 2\), which AUC can't",
        ),
        (
            changed(scores=lambda self, examples, predictions: [1.0]),
            r"^Changed\.scores\(\) returns list; expected numbers by name: return {",
        ),
        (
            changed(scores=lambda self, examples, predictions: {"a": np.ones(2)}),
            r"^Changed\.scores\(\) gives 'a' as ndarray; expected one number by a name",
        ),
        (
            changed(scores=lambda self, examples, predictions: {"auc": 1.0}),
            r"^Changed\.scores\(\) gives 'auc', which values\(\) or metrics\(\) gi",
        ),
        (
            changed(metrics=lambda self: Judged.metrics(self) | {"auc": Many()}),
            r"^the metric 'auc' of Changed\.metrics\(\) gives an array of shape \(2,",
        ),
    ],
)
def test_what_is_no_metric_is_told(given, text):
    networks = tasks.built(tasks.Plain()).networks
    with pytest.raises(task.TaskError, match=text):
        evaluated(given, networks)


class Many(keras.metrics.Metric):
    def update_state(self, *given):
        pass

    def result(self):
        return tf.ones([2])


def test_a_metric_that_nobody_gives_is_told(tmp_path):
    named = {"task": "test_measures:Judged", "steps": 3}
    with pytest.raises(UnknownMetricError, match=r"^--best=wer:min:1: the evaluation"):
        tasks.train(tmp_path / "late", Judged(), best=("wer:min",), **named)
    with pytest.raises(ConfigError, match=r"the task has no metric 'wer'"):
        tasks.train(tmp_path / "now", tasks.Plain(), best=("wer:min",), **named)


def test_one_that_is_moved_by_hand_says_where_it_belongs(tmp_path):
    counter = keras.metrics.Sum(name="seen")

    class Moved(tasks.Plain):
        def values(self, networks, batch, training):
            counter.update_state(tf.ones_like(batch["y"]))
            return super().values(networks, batch, training)

    with pytest.raises(
        RuntimeError, match=r"the variable .*total.*\n.*metrics\(self\)"
    ):
        tasks.train(tmp_path, Moved(), task="test_measures:Moved", steps=3)
