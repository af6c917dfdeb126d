"""Whatever trains exports: what its predictions take is found wherever it is kept."""

import dataclasses
import json

import exportable
import guides
import numpy as np
import pytest
import tensorflow as tf

import trainer
from trainer.checkpoint import catalog
from trainer.config import options
from trainer.exporting import model_card, runtimes, saved_model
from trainer.inference import loaded
from trainer.model import captures

# Keras reads arrays for HDF5 in a way that NumPy wants to be done with.
ARRAYS = "ignore:__array__ implementation:DeprecationWarning"
pytestmark = pytest.mark.filterwarnings(ARRAYS)


class Trained:
    """A run of a task, in this very process."""

    def __init__(self, task, cwd):
        self.task, self.run_dir = task, cwd / "run"
        trainer.train(task, self.run_dir, steps=2, batch_size=8, progress="none")

    def export(self, kind):
        return trainer.export(self.run_dir, kind, task=self.task)

    def examples(self):
        """Two rows, wider than any that training saw."""
        return {
            "x": np.float32([[1, -2, 0.5], [0, 0, 3]]),
            "colour": np.array(["blue", "pink"]),
            "text": np.array(["a green fox", "sea"]),
            "tokens": np.int32([[1, 2, 3, 4, 5, 6, 7, 8], [8, 0, 0, 0, 0, 0, 0, 0]]),
            "tokens_mask": np.arange(8) < [[8], [1]],
        }

    def predicted(self):
        return trainer.predict(self.run_dir, task=self.task, data=self.examples())


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    return Trained(exportable.Everything(), tmp_path_factory.mktemp("everything"))


@pytest.fixture(scope="module")
def portable(tmp_path_factory):
    return Trained(exportable.Portable(), tmp_path_factory.mktemp("portable"))


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    return Trained(exportable.Parts(), tmp_path_factory.mktemp("parts"))


def assert_same(said, right):
    assert said.keys() == right.keys()
    for name, one in right.items():
        given = np.asarray(said[name])
        if one.dtype.kind in "SO":
            assert given.astype("S").tolist() == one.astype("S").tolist()
        else:
            np.testing.assert_allclose(given, one, atol=1e-5, err_msg=name)


def test_a_saved_model_holds_all_that_predictions_take(everything):
    done = everything.export("saved_model")
    loaded = tf.saved_model.load(str(done.path))
    inputs = {name: tf.constant(one) for name, one in everything.examples().items()}
    said = loaded.signatures["serving_default"](**inputs)
    assert_same(said, everything.predicted())
    assert np.ptp(said["counts"]) > 0, "the table holds what training counted"
    assert np.ptp(said["tables"]) > 0


def test_each_network_that_is_called_has_a_signature_of_its_own(everything):
    (path,) = (everything.run_dir / "exports/saved_model").iterdir()
    signatures = tf.saved_model.load(str(path)).signatures
    card = json.loads((path / "model_card.json").read_text())["signatures"]
    assert set(card) == {*signatures, "serving_default"}
    assert set(card) == {"serving_default", "tokens", "words", "pair", "judge"}
    tokens = {"dtype": "int32", "shape": [None, None]}
    assert card["tokens"]["inputs"] == {
        "tokens": tokens,
        "mask": {"dtype": "bool", "shape": [None, None]},
    }
    given, right = everything.examples(), everything.predicted()
    mask = tf.constant(given["tokens_mask"])
    said = signatures["tokens"](tokens=tf.constant(given["tokens"]), mask=mask)
    np.testing.assert_allclose(said["output"], right["token"], atol=1e-6)
    x = tf.constant(given["x"])
    said = signatures["pair"](x=x, z=-x)
    assert said.keys() == {"one", "others_0"}
    others = tf.reduce_sum(said["others_0"], 1, keepdims=True)
    np.testing.assert_allclose(others, right["others"], atol=1e-6)
    assert signatures["judge"](inputs=x[:, :2])["output"].shape == [2, 1]


def test_tensorflow_lite_holds_tables_texts_and_variables_of_the_tasks_own(
    portable, tmp_path
):
    """Of several networks; the predictions are one file all the same."""
    where = tmp_path / "all.tflite"
    done = trainer.export(portable.run_dir, "tflite", task=portable.task, output=where)
    assert done.files == {"model": where}
    assert {one.name for one in tmp_path.iterdir()} == {
        where.name,
        f"{where.name}.json",
    }
    with pytest.warns(UserWarning, match="Interpreter is deprecated"):
        interpreter = tf.lite.Interpreter(str(where))
    given = portable.examples()
    del given["text"]
    given["colour"] = given["colour"].astype(object)
    assert_same(interpreter.get_signature_runner()(**given), portable.predicted())


def test_onnx_holds_them_too(portable):
    pytest.importorskip("tf2onnx", reason="the extra `onnx` has it")
    onnxruntime = pytest.importorskip("onnxruntime")
    done = portable.export("onnx")
    session = onnxruntime.InferenceSession(str(done.files["model"]))
    given = portable.examples()
    del given["text"]
    given["colour"] = given["colour"].astype(object)
    names = [one.name for one in session.get_outputs()]
    said = dict(zip(names, session.run(None, given), strict=True))
    assert_same(said, portable.predicted())


def test_weights_of_a_network_of_which_only_parts_are_called(parts):
    done = parts.export("weights")
    model = parts.task.networks()
    model.built = True
    batch = {name: tf.constant(one) for name, one in parts.examples().items()}
    parts.task.predictions(model, batch)
    model.load_weights(done.files["model"])
    assert_same(parts.task.predictions(model, batch), parts.predicted())
    card = json.loads((done.path / "model_card.json").read_text())
    assert card["parameters"] == {"model": 3 * 4 + 4 + 4 + 1}


# What a task says of its numbers.


def card_of(parts, **said):
    """The card of a task that says more than that of the run."""
    task = type("Saying", (exportable.Parts,), said)()
    traced = tf.function(lambda *, x: {"part": x})
    spec = tf.TensorSpec([None, 3], name="x")
    signatures = {"serving_default": traced.get_concrete_function(x=spec)}
    choices = options.RunOptions(run_dir=str(parts.run_dir))
    (entry,) = catalog.read_entry(parts.run_dir / "recent", 2)
    found = loaded.load(choices, parts.task, entry)
    found = dataclasses.replace(found, task=task)
    return model_card.describe("parts", entry, found, signatures, kind="keras")


SNIPPETS = guides.snippets("serving.md")


def test_class_names_and_units_are_in_the_card(parts):
    names = SNIPPETS["labels"].replace("digit", "part").replace("level", "x")
    exec(names, said := {})
    card = card_of(parts, labels=said["labels"], units=said["units"])
    assert card["labels"] == {"part": ["zero", "one", "two", "three", "four"]}
    assert card["units"] == {"x": "metres"}


def test_class_names_may_be_learned(parts):
    exec(SNIPPETS["learned_labels"].replace('"city"', '"part"'), found := {})
    learned = {"cities": ["bern", "oslo"]}
    card = card_of(parts, labels=found["labels"], prepared=learned)
    assert (card["labels"], card["units"]) == ({"part": ["bern", "oslo"]}, {})


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (
            {"labels": ["a", "b"]},
            "Saying.labels is list; expected a mapping by the names of predictions and "
            'inputs. Write: labels = {"digit": ["zero", "one"]}',
        ),
        (
            {"units": {"prat": "m"}},
            "Saying.units names 'prat', which is neither a prediction nor an input. "
            "Expected part, x. Rename it in units.",
        ),
        (
            {"labels": {"part": "ab"}},
            "Saying.labels has 'ab' for 'part'; expected a list of texts. Write: "
            'labels = {"part": ["zero", "one"]}',
        ),
    ],
)
def test_names_and_units_of_nothing_are_refused(parts, said, message):
    with pytest.raises(trainer.KeepstepError) as refused:
        card_of(parts, **said)
    assert str(refused.value) == message


# What can't be exported is refused, and nothing is left.


@pytest.mark.parametrize(
    ("kind", "system", "ops"),
    [
        (
            "tflite",
            "TensorFlow Lite",
            "DenseBincount, LookupTableFindV2, MutableHashTableV2, RaggedBincount, "
            "StaticRegexReplace, StringLower, StringSplitV2",
        ),
        ("onnx", "ONNX", "StaticRegexReplace"),
    ],
)
def test_ops_that_another_runtime_does_not_know_are_named(
    everything, kind, system, ops
):
    if kind == "onnx":
        pytest.importorskip("tf2onnx", reason="the extra `onnx` has it")
    with pytest.raises(saved_model.ExportError) as refused:
        everything.export(kind)
    said = str(refused.value)
    assert said.startswith(f"the predictions can't be written for {system}: it has no ")
    named = said.partition("it has no ")[2].partition(". Expected")[0].split(", ")
    assert set(ops.split(", ")) <= set(named)
    assert said.endswith(
        ". Expected ops that its converter knows. Leave them out of predictions(), or "
        "export as saved_model, which holds every op."
    )
    assert list((everything.run_dir / "exports" / kind).iterdir()) == []


def test_an_onnx_file_gives_a_name_to_one_tensor_only(tmp_path):
    function = tf.function(lambda *, x: {"x": 2 * x})
    traced = function.get_concrete_function(x=tf.TensorSpec([None], name="x"))
    with pytest.raises(saved_model.ExportError) as refused:
        runtimes.write("onnx", tmp_path / "model.onnx", traced)
    assert str(refused.value) == (
        "predictions() takes 'x' and gives 'x'; in an ONNX file expected a name to be "
        "that of one tensor. Give the prediction another one: return "
        '{"predicted_x": ...}'
    )


def test_a_resource_that_no_file_can_hold_is_named(tmp_path):
    iterator = iter(tf.data.Dataset.range(9))
    traced = tf.function(lambda: {"y": next(iterator)}).get_concrete_function()
    with pytest.raises(captures.UnownedError) as refused:
        saved_model.write(tmp_path, {"serving_default": traced})
    said = str(refused.value)
    assert said.startswith("the predictions use a resource (IteratorGetNext) that is ")
    assert said.endswith(
        "neither a variable nor a lookup table, or that nothing owns any more. "
        "Expected only what a file can hold. Keep a table where the task finds it: def "
        'state(self, networks): return {"words": self.table}. Leave iterators and '
        "datasets out of predictions()."
    )
