"""What the networks of a task say of examples: traced, checked, in batches, as text."""

import dataclasses
import json
import re

import keras
import numpy as np
import pytest
import tasks
import tensorflow as tf

from trainer import data, task
from trainer.model import prediction


@dataclasses.dataclass(frozen=True)
class Telling(tasks.Plain):
    """Says one number of each point, and another one."""

    def predictions(self, networks, batch):
        said = networks(batch["x"], training=False)
        return {"y": said[:, 0], "both": tf.concat([said, -said], axis=1)}


def predictor(given):
    current = tasks.built(given)
    valid = data.ordered(data.split(given.sources(), "valid"), 4)
    spec = valid.element_spec[0]
    return prediction.Predictor(given, current.networks, spec), current, valid


def test_the_inputs_are_what_is_looked_up_in_a_batch():
    found, _, valid = predictor(Telling())
    assert sorted(valid.element_spec[0]) == ["label", "x", "y"]
    assert found.inputs == ("x",)
    assert found.spec["x"].shape.as_list() == [None, tasks.FEATURES]
    names = {name: one.shape.as_list() for name, one in found.spec.items()}
    assert names == {"x": [None, tasks.FEATURES]}


@pytest.mark.parametrize("count", [1, 3, 10])
def test_a_batch_may_have_any_size(count):
    found, current, _ = predictor(Telling())
    x = tasks.examples()["valid"]["x"][:count]
    said = found.predict({"x": x, "label": None})
    right = current.networks(x).numpy()
    np.testing.assert_allclose(said["y"], right[:, 0], rtol=1e-6)
    np.testing.assert_allclose(said["both"], np.hstack([right, -right]), rtol=1e-6)


def test_every_example_comes_once_and_in_order():
    """10 examples, 4 a batch: two of the last batch don't count."""
    found, current, valid = predictor(Telling())
    batches = list(found.run(valid))
    assert [len(one["x"]) for one, _ in batches] == [4, 4, 2]
    assert [len(one["y"]) for _, one in batches] == [4, 4, 2]
    arrays = tasks.examples()["valid"]
    seen = prediction.joined(one for one, _ in batches)
    for name, array in arrays.items():
        np.testing.assert_array_equal(seen[name], array)
    said = prediction.joined(one for _, one in batches)
    right = current.networks(arrays["x"])[:, 0]
    np.testing.assert_allclose(said["y"], right, rtol=1e-6)


class Moving(Telling):
    """Moves a statistic of batches, and the generator, wherever it is called."""

    def networks(self):
        layers = [keras.layers.Input([tasks.FEATURES])]
        layers += [keras.layers.BatchNormalization(), keras.layers.Dense(1)]
        return keras.Sequential(layers)

    def predictions(self, networks, batch):
        noise = tf.random.get_global_generator().normal([])
        return {"y": networks(batch["x"], training=True)[:, 0] + noise}


def test_what_predicting_moves_is_put_back():
    found, current, valid = predictor(Moving())
    before = {name: repr(v.numpy()) for name, v in current.variables().items()}
    said = [one["y"] for _, one in found.run(valid)]
    after = {name: repr(v.numpy()) for name, v in current.variables().items()}
    assert after == before
    again = [one["y"] for _, one in found.run(valid)]
    np.testing.assert_array_equal(np.concatenate(said), np.concatenate(again))


class Deciding(Telling):
    """Python's `if` and `for` about tensors, as in `values`."""

    def predictions(self, networks, batch):
        said = networks(batch["x"], training=False)[:, 0]
        if tf.reduce_sum(batch["x"]) > 1e9:
            said = tf.zeros_like(said)
        for _ in tf.range(2):
            said += 1.0
        return {"y": said}


def test_python_may_decide_about_tensors():
    found, current, valid = predictor(Deciding())
    said = prediction.joined(one for _, one in found.run(valid))
    right = current.networks(tasks.examples()["valid"]["x"])[:, 0] + 2
    np.testing.assert_allclose(said["y"], right, rtol=1e-6)


class Naming(Telling):
    """Says texts."""

    def predictions(self, networks, batch):
        said = networks(batch["x"], training=False)[:, 0]
        return {"way": tf.where(said > 0, "up", "down")}


def test_texts_are_predictions_too(tmp_path):
    found, current, valid = predictor(Naming())
    batches = [one for _, one in found.run(valid)]
    said = current.networks(tasks.examples()["valid"]["x"]).numpy()[:, 0]
    right = ["up" if one > 0 else "down" for one in said]
    assert set(right) == {"up", "down"}
    rows = map(json.loads, prediction.as_lines(batches))
    assert [row["way"] for row in rows] == right
    prediction.write_npz(tmp_path / "said.npz", batches)
    with np.load(tmp_path / "said.npz", allow_pickle=False) as file:
        assert [one.decode() for one in file["way"]] == right


def saying(said):
    class Saying(tasks.Plain):
        def predictions(self, networks, batch):
            return said(networks(batch["x"], training=False))

    return Saying()


WRONG = {
    "a tensor": (
        lambda y: y,
        "Saying.predictions() returns SymbolicTensor; expected tensors by name, such "
        'as {"probability": ...}.',
    ),
    "nothing": (
        lambda y: {},
        "Saying.predictions() returns dict; expected tensors by name, such as "
        '{"probability": ...}.',
    ),
    "an unusable name": (
        lambda y: {"a b": y},
        "Saying.predictions() returns 'a b': a name becomes that of an output, so use "
        "letters, digits, '_', '-' and '.'.",
    ),
    "one value of all": (
        lambda y: {"y": tf.reduce_mean(y)},
        "Saying.predictions() returns 'y' as a single value; expected one entry an "
        "example, shape [B, ...].",
    ),
}


@pytest.mark.parametrize(("said", "text"), WRONG.values(), ids=WRONG)
def test_what_breaks_the_contract_is_refused(said, text):
    with pytest.raises(task.TaskError, match=f"^{re.escape(text)}$"):
        predictor(saying(said))


def test_a_task_that_says_nothing_is_told_how():
    text = (
        "Plain does not say what it predicts. Add to it: def predictions(self, "
        'networks, batch): return {"score": networks(batch["x"], training=False)}'
    )
    with pytest.raises(task.TaskError, match=f"^{re.escape(text)}$"):
        predictor(tasks.Plain())


# As text and as files.


def test_a_line_is_json_whatever_the_numbers_are():
    batches = [
        {"y": np.float32([0.5, np.nan]), "words": np.array([b"a", b"\xff"])},
        {"y": np.float32([np.inf]), "words": np.array([b"c"])},
    ]
    lines = list(prediction.as_lines(batches))

    def refuse(word):
        raise AssertionError(word)

    rows = [json.loads(line, parse_constant=refuse) for line in lines]
    assert rows == [
        {"index": 0, "y": 0.5, "words": "a"},
        {"index": 1, "y": None, "words": "\ufffd"},
        {"index": 2, "y": None, "words": "c"},
    ]


def test_nested_arrays_are_nested_lists():
    (line,) = prediction.as_lines([{"box": np.array([[[1, 2], [3, 4]]])}])
    assert json.loads(line) == {"index": 0, "box": [[1, 2], [3, 4]]}
    (line,) = prediction.as_lines([{"box": np.array([[[0.5, np.nan]]])}])
    assert json.loads(line) == {"index": 0, "box": [[0.5, None]]}


def test_an_npz_has_every_example(tmp_path):
    batches = [{"y": np.arange(4.0)}, {"y": np.float64([9.0])}]
    path = tmp_path / "said.npz.tmp"  # the name is kept, whatever it is
    assert prediction.write_npz(path, batches) == 5
    with np.load(path) as file:
        assert file["y"].tolist() == [0, 1, 2, 3, 9]
    assert list(tmp_path.iterdir()) == [path]
