"""Values with weights, exact whatever the batches are; losses over pairs."""

import keras
import numpy as np
import pytest
import tasks
import tensorflow as tf

import trainer
from trainer import data, task
from trainer.model import parts
from trainer.model.evaluation import EvaluationLoop
from trainer.model.means import Value, loss
from trainer.model.steps import TrainLoop

ROWS, WORDS = 11, 5
RNG = np.random.default_rng(0)
X = RNG.normal(size=[ROWS, WORDS]).astype("float32")
KEPT = RNG.integers(0, 2, [ROWS, WORDS]).astype(bool)
EVERY = {"x": X, "kept": KEPT, "heavy": KEPT.sum(1).astype("float32")}


class Words(task.Task):
    """A number for each word, of which some don't count."""

    best = ("loss:min",)

    def sources(self):
        return {"train": EVERY, "valid": EVERY}

    def networks(self):
        return keras.Sequential([keras.layers.Dense(WORDS)])

    def optimizers(self):
        return keras.optimizers.SGD(0.1)

    def values(self, networks, batch, training):
        errors = (networks(batch["x"]) - 1) ** 2
        return {
            "loss": (errors, batch["kept"]),
            "by_row": (tf.reduce_max(batch["x"], 1), batch["heavy"]),
            "column": batch["x"][:, :1],
            "plain": batch["x"][:, 0],
            "weighted_column": (batch["x"][:, :1], batch["heavy"]),
        }


def built(given, batch_size=4):
    sources = parts.seeded_sources(given, 0)
    return parts.build(given, sources, batch_size=batch_size, seed=0, ema=0.0)[:2]


def evaluated(given, size, networks=None):
    networks = given.networks() if networks is None else networks
    source = data.split(given.sources(), "valid")
    return EvaluationLoop(given, networks, data.ordered(source, size, given)).run()


@pytest.mark.parametrize("size", [1, 2, 3, 4, 11, 64])
def test_a_weighted_mean_is_that_of_the_whole_split(size):
    _, state = built(Words())
    found = evaluated(Words(), size, state.networks)
    errors = (state.networks(X).numpy().astype("f8") - 1) ** 2
    heavy = EVERY["heavy"].astype("f8")
    assert found == pytest.approx(
        {
            "loss": errors[KEPT].mean(),
            "by_row": (X.max(1) * heavy).sum() / heavy.sum(),
            "column": X[:, 0].mean(dtype="f8"),
            "plain": X[:, 0].mean(dtype="f8"),
            "weighted_column": (X[:, 0] * heavy).sum() / heavy.sum(),
        },
        rel=1e-6,
    )


def test_means_of_training_are_over_the_words_that_counted():
    given = Words()
    inputs, state = built(given)
    state.optimizers["optimizer"].learning_rate = 0.0
    train = TrainLoop(given, state, inputs)
    train.run(7)
    batches = [inputs.again(step) for step in range(7)]
    errors = [(state.networks(one["x"]).numpy() - 1) ** 2 for one in batches]
    kept = [one["kept"].numpy() for one in batches]
    expected = np.concatenate(errors)[np.concatenate(kept)].mean(dtype="f8")
    found = train.take_means()
    assert found["loss"] == pytest.approx(expected, rel=1e-6)
    assert train.take_means() == {}, "begun anew"


def test_the_gradient_is_that_of_the_weighted_mean():
    given = Words()
    inputs, state = built(given, batch_size=ROWS)
    kernel, bias = (one.numpy() for one in state.networks.variables)
    TrainLoop(given, state, inputs).run(1)
    answers = X @ kernel + bias
    slope = 2 * (answers - 1) * KEPT / KEPT.sum()
    moved = state.networks.variables[0].numpy()
    np.testing.assert_allclose(moved, kernel - 0.1 * X.T @ slope, rtol=2e-5, atol=1e-6)


def test_weights_are_part_of_the_state_only_where_there_are_any():
    _, state = built(Words())
    weighted = ("by_row", "loss", "weighted_column")
    assert {k for k in state.totals if "/" in k} == {f"{k}/weight" for k in weighted}
    _, state = built(tasks.Plain())
    assert list(state.totals) == ["loss", "examples"]


def test_a_run_with_weights_goes_on_as_if_it_had_not_been_cut_off(tmp_path):
    choices = {"steps": 11, "report_every_steps": 4, "task": "test_weights:Words"}
    tasks.train(tmp_path / "straight", Words(), **choices)
    tasks.cut_back(tmp_path / "straight", tmp_path / "resumed", 6)
    tasks.train(tmp_path / "resumed", Words(), **choices)
    tasks.assert_same_run(tmp_path / "straight", tmp_path / "resumed")
    best = tasks.only(tmp_path / "resumed" / "best" / "loss")
    reported = tasks.manifest(best)["metrics"]
    assert trainer.evaluate(tmp_path / "resumed", task=Words()) == reported


class Nothing(Words):
    """Of some batches, nothing counts."""

    def sources(self):
        train = EVERY | {"kept": np.zeros_like(KEPT)}
        return {"train": train, "valid": train}

    def values(self, networks, batch, training):
        errors = tf.where(batch["kept"], networks(batch["x"]), np.float32("nan"))
        return {"loss": (errors, batch["kept"])}


def test_a_batch_of_which_nothing_counts_moves_nothing():
    given = Nothing()
    inputs, state = built(given)
    before = [one.numpy() for one in state.networks.variables]
    train = TrainLoop(given, state, inputs)
    train.run(3)
    for one, other in zip(state.networks.variables, before, strict=True):
        np.testing.assert_array_equal(one.numpy(), other)
    assert train.take_means() == {}


def test_a_split_of_which_nothing_counts_is_told():
    with tasks.logged() as lines:
        assert np.isnan(evaluated(Nothing(), 4)["loss"])
    assert "the mean of 'loss' is NaN: all of its weights are 0 in this split" in (
        "\n".join(lines)
    )


def test_where_the_weight_is_zero_even_a_bad_value_has_no_say():
    value, weight = tf.constant([np.nan, 3.0, np.inf]), tf.constant([0.0, 2.0, 0.0])
    with tf.GradientTape() as tape:
        tape.watch(value)
        mean = loss(Value.weighted(value, weight))
    assert float(mean) == 3.0
    assert tape.gradient(mean, value).numpy().tolist() == [0, 1, 0]


def test_no_weight_is_stretched_over_several_numbers():
    class Stretched(Words):
        def values(self, networks, batch, training):
            any_width = tf.py_function(lambda: tf.ones([4, 1]), [], tf.float32)
            any_width.set_shape([4, None])
            errors = tf.where(batch["x"][:, :1] > 9, 0.0, networks(batch["x"]))
            value = tf.py_function(lambda one: one, [errors], tf.float32)
            value.set_shape([4, None])
            return {"loss": (value, any_width)}

    given = Stretched()
    _, state = built(given)
    batches = data.ordered(data.split(given.sources(), "valid"), 4, given)
    text = (
        r"^Stretched\.values\(\) gives 'loss' in the shape \[4 5\] and a weight in the "
        r"shape \[4 1\]\. Expected one shape for both\..*tf\.broadcast_to"
    )
    with pytest.raises(task.TaskError, match=text):
        EvaluationLoop(given, state.networks, batches).run()


def test_small_floats_are_summed_as_larger_ones():
    value = tf.fill([300, 300], tf.constant(2.0, tf.float16))
    assert float(loss(Value.weighted(value, tf.ones([300, 300])))) == 2.0


def test_the_networks_own_losses_are_added_to_a_weighted_mean():
    class Regularised(Words):
        def networks(self):
            dense = keras.layers.Dense(
                WORDS, kernel_regularizer=keras.regularizers.L2()
            )
            return keras.Sequential([dense])

    _, state = built(Regularised())
    errors = (state.networks(X).numpy().astype("f8") - 1) ** 2
    expected = errors[KEPT].mean() + float(sum(state.networks.losses))
    assert evaluated(Regularised(), 4, state.networks)["loss"] == pytest.approx(
        expected
    )


@pytest.mark.parametrize(
    ("weight", "shown"), [(-0.5, "-0.5"), ("nan", "nan"), ("inf", "inf"), (-3, "-3")]
)
def test_a_weight_that_can_be_none_is_told_with_its_value(weight, shown):
    kind = np.int64 if isinstance(weight, int) else np.float32

    class Odd(Words):
        def values(self, networks, batch, training):
            weights = tf.where(tf.range(len(batch["x"])) == 1, kind(weight), kind(1))
            return {"loss": (networks(batch["x"])[:, 0], weights)}

    text = (
        rf"^Odd\.values\(\) gives 'loss' a weight of {shown}\. Expected weights that "
        r"are finite and at least 0\. Leave out .*tf\.maximum\(weight, 0\.0\)\)}\.$"
    )
    given = Odd()
    inputs, state = built(given)
    before = [one.numpy() for one in state.networks.variables]
    with pytest.raises(task.TaskError, match=text):
        TrainLoop(given, state, inputs).run(2)
    for one, other in zip(state.networks.variables, before, strict=True):
        np.testing.assert_array_equal(one.numpy(), other)
    with pytest.raises(task.TaskError, match=text):
        evaluated(given, 4, state.networks)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (
            lambda b: (b["x"], b["heavy"]),
            r"returns 'loss' with shape \(4, 5\) and a weight of shape \(4,\); "
            r"expected one shape for both, \[4\] or \[4, \.\.\.\].*tf\.broadcast_to",
        ),
        (
            lambda b: (b["x"][0], b["x"][0]),
            r"with shape \(5,\) and a weight; expected \[4\] or \[4, \.\.\.\], one row "
            r"an example\. Leave the sum over the batch to the framework",
        ),
        (
            lambda b: (tf.reduce_sum(b["x"]), tf.reduce_sum(b["heavy"])),
            r"with shape \(\) and a weight of shape \(\); expected one shape for both",
        ),
        (
            lambda b: (b["heavy"], b["heavy"], b["heavy"]),
            r"as a tuple of 3; expected a value and its weight: {\"loss\": \(val",
        ),
        (lambda b: (b["heavy"], tf.as_string(b["heavy"])), r"as string; expected"),
    ],
)
def test_what_is_no_value_with_its_weight_is_refused(value, text):
    class Wrong(Words):
        def values(self, networks, batch, training):
            networks(batch["x"])
            return {"loss": value(batch)}

    with pytest.raises(task.TaskError, match=text):
        built(Wrong())


@pytest.mark.parametrize("weighted", [False, True])
def test_a_value_must_not_turn_out_to_have_other_rows(weighted):
    class Some(Words):
        def values(self, networks, batch, training):
            answers = networks(batch["x"])[:, 0]
            some = tf.boolean_mask(answers, batch["heavy"] > 2)
            return {"loss": answers, "some": (some, some**2) if weighted else some}

    _, state = built(Some())
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"not compatible.*\[4\]"):
        evaluated(Some(), 4, state.networks)


# Losses over pairs.


HALVES = {
    name: RNG.normal(size=[10, 3]).astype("float32") for name in ("left", "right")
}


class Pairs(task.Task):
    """Each row should find its other half among those of its batch."""

    def sources(self):
        return {"train": HALVES, "valid": HALVES}

    def networks(self):
        return keras.Sequential([keras.layers.Dense(3, use_bias=False)])

    def optimizers(self):
        return keras.optimizers.SGD(0.1)

    def values(self, networks, batch, training):
        likeness = networks(batch["left"]) @ tf.transpose(batch["right"])
        places = tf.range(len(batch["left"]))
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(places, likeness)
        return {"loss": losses}


def contrastive(left, right):
    likeness = left.astype("f8") @ right.T
    top = likeness.max(1, keepdims=True)
    logs = likeness - top - np.log(np.exp(likeness - top).sum(1, keepdims=True))
    return -np.diag(logs)


@pytest.mark.parametrize("size", [3, 4, 7, 10, 32])
def test_a_loss_over_pairs_is_right_in_the_last_batch_too(size):
    _, state = built(Pairs())
    left = HALVES["left"] @ state.networks.variables[0].numpy()
    expected = [
        contrastive(left[n : n + size], HALVES["right"][n : n + size])
        for n in range(0, 10, size)
    ]
    found = evaluated(Pairs(), size, state.networks)
    assert found["loss"] == pytest.approx(np.concatenate(expected).mean(), rel=1e-5)


def test_a_metric_that_counts_what_it_sees_sees_each_example_once():
    class Counting(tasks.Plain):
        def state(self, networks):
            counter = keras.metrics.Sum(name="seen")
            object.__setattr__(self, "_counter", counter)
            return {"seen": counter}

        def values(self, networks, batch, training):
            found = super().values(networks, batch, training)
            if training:
                return found
            self._counter.update_state(tf.ones_like(batch["y"]))
            return found | {
                "seen": tf.fill(tf.shape(batch["y"]), self._counter.result())
            }

    given = Counting()
    _, state = built(given)
    source = data.split(given.sources(), "valid")
    for size in (4, 10, 3):
        batches = data.ordered(source, size, given)
        loop = EvaluationLoop(given, state.networks, batches, metrics=state.metrics)
        ends = np.minimum(np.arange(size, 10 + size, size), 10)
        expected = np.repeat(ends, np.diff(ends, prepend=0)).mean()
        assert loop.run()["seen"] == loop.run()["seen"] == pytest.approx(expected)
        assert given._counter.result() == 0, "put back"
