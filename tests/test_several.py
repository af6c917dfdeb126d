"""Several sources in one batch: each in an order and of a size of its own."""

import re

import numpy as np
import pytest
import tasks
import tensorflow as tf
from test_indexed import batches

from trainer import data
from trainer.commands import functions
from trainer.config import run_record
from trainer.data.inputs import training
from trainer.model.steps import NonFiniteError


def rows(count, start=0):
    return {"x": np.arange(start, start + count, dtype=np.float32)}


class Two(tasks.Plain):
    """The batch says which examples are in it."""

    def sources(self):
        few, many = rows(10), [{"x": float(n)} for n in range(100, 130)]
        pair = data.Several({"few": few, "many": many}, {"many": 10})
        return {"train": pair, "valid": rows(4)}

    def values(self, networks, batch, training):
        if not training:
            batch = {"few": batch, "many": batch}
        few, many = (batch[name]["x"][:, None] for name in ("few", "many"))
        four = tf.ones([1, tasks.FEATURES])
        loss = networks(few * four)[:, 0] ** 2
        return {"loss": loss * 0 + 1, "few": few[:, 0], "many": many[:, 0], "all": loss}


def inputs(given, **ways):
    source = data.split(given.sources(), "train")
    return training(given, source, batch_size=5, **{"seed": 3, **ways})


def test_each_source_goes_through_epochs_of_its_own():
    found = batches(inputs(Two()), 0, 6)
    few = np.concatenate([one["few/x"] for one in found])
    many = np.concatenate([one["many/x"] for one in found])
    assert few.shape == (30,)
    assert many.shape == (60,)
    for epoch in few.reshape(3, 10):
        assert sorted(epoch) == list(range(10))
    for epoch in many.reshape(2, 30):
        assert sorted(epoch) == list(range(100, 130))
    assert (few[:10] != few[10:20]).any()


def test_sources_of_one_length_are_in_orders_that_are_unlike():
    class Twins(tasks.Plain):
        def sources(self):
            return {"train": {"a": rows(50), "b": rows(50)}}

    (one,) = batches(inputs(Twins()), 0, 1)
    assert one["a/x"].shape == one["b/x"].shape == (5,)
    assert (one["a/x"] != one["b/x"]).any()
    (other,) = batches(inputs(Twins(), seed=4), 0, 1)
    assert (one["a/x"] != other["a/x"]).any()


def test_augment_gets_a_seed_for_each_example_of_each():
    seen = {}

    class Seeing(Two):
        def augment(self, batch, seeds):
            seen.update(seeds)
            return batch

    inputs(Seeing())
    assert {k: tuple(v.shape) for k, v in seen.items()} == {
        "few": (5, 2),
        "many": (10, 2),
    }


def test_an_epoch_is_one_of_the_first_and_means_are_over_a_value_s_own_rows(tmp_path):
    with tasks.logged() as lines:
        outcome = tasks.train(
            tmp_path / "run", Two(), epochs=6, batch_size=5, report_every_steps=6
        )
    assert outcome.step == 12
    means = {
        tag: [value for step, value in curve if step == 6]
        for tag, curve in tasks.scalars(tmp_path / "run").items()
    }
    assert means["train/loss"] == [1.0]
    assert means["train/few"] == [4.5]
    assert means["train/many"] == [114.5]
    assert not any("NaN" in line for line in lines)
    facts = run_record.read(tmp_path / "run/config.json").choices["facts"]
    assert facts["train_data"] == "10 examples of few, 30 examples of many (10 a step)"
    assert set(facts["data"]) == {"train/few", "train/many", "valid"}


def test_data_that_are_not_finite_are_named_with_their_source(tmp_path):
    class Bad(Two):
        def sources(self):
            given = super().sources()["train"]
            few = {"x": np.full([10], np.nan, np.float32)}
            return {"train": given.of({**given.sources, "few": few})}

        def values(self, networks, batch, training):
            found = super().values(networks, batch, training)
            return {**found, "loss": found["loss"] + found["few"]}

    with pytest.raises(NonFiniteError, match=r"not finite: 'few/x' in 5 of 5 examples"):
        tasks.train(tmp_path / "run", Bad(), steps=3, batch_size=5)


def test_an_error_names_the_source(tmp_path):
    class Broken(Two):
        def sources(self):
            given = super().sources()["train"]
            return {"train": given.of({**given.sources, "many": Torn()})}

    class Torn:
        def __len__(self):
            return 3

        def __getitem__(self, index):
            raise RuntimeError("torn")

    with pytest.raises(data.SourceError, match=r"of 'train/many' can't be read"):
        tasks.train(tmp_path / "run", Broken(), steps=3)


@pytest.mark.parametrize(
    ("sources", "text"),
    [
        (
            {"train": {"x": np.ones(3), "more": {"x": np.ones(3)}}},
            "hold both arrays and sources: 'x' (ndarray), 'more' (dict)",
        ),
        (
            {"train": {"a": tf.data.Dataset.range(3), "b": {"x": np.ones(3)}}},
            "several sources are read from the middle",
        ),
    ],
)
def test_what_can_not_be_several_is_refused(sources, text):
    with pytest.raises(data.DataError, match=re.escape(text)):
        data.split(sources, "train")


def test_an_evaluation_reads_one():
    sources = {"valid": {"a": rows(3), "b": rows(4)}}
    with pytest.raises(data.DataError, match="Expected one: batches are made of"):
        data.split(sources, "valid")


@pytest.mark.parametrize(
    ("sizes", "text"),
    [
        ({"b": 3}, "names 'b', which is no source; there are a"),
        ({"a": 0}, "has 0 for 'a'. Expected a whole number of at least 1"),
    ],
)
def test_batch_sizes_are_those_of_the_sources(sizes, text):
    with pytest.raises(data.DataError, match=text):
        data.Several({"a": rows(3)}, batch_sizes=sizes)
    with pytest.raises(data.DataError, match="has no source"):
        data.Several({})


def test_another_batch_size_is_another_run(tmp_path):
    tasks.train(tmp_path / "run", Two(), steps=2, batch_size=5)

    class Larger(Two):
        def sources(self):
            given = super().sources()["train"]
            return {"train": data.Several(given.sources, {"many": 11})}

    with pytest.raises(ValueError, match=r"many \(11 a step\)' here"):
        tasks.train(tmp_path / "run", Larger(), steps=4, batch_size=5)


def test_an_evaluation_of_several_is_refused_by_name(tmp_path):
    tasks.train(tmp_path / "run", Two(), task="test_several:Two", steps=2)
    with pytest.raises(ValueError, match="--split=train is several sources"):
        functions.evaluate(tmp_path / "run", "latest", task=Two(), split="train")
