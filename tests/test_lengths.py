"""Examples of unequal lengths: padded, masked, grouped, and counted as they are."""

import csv
import importlib.util
import json
from typing import ClassVar

import keras
import numpy as np
import pytest
import tasks
import tensorflow as tf

import trainer
from trainer import data, task
from trainer.checkpoint import selection
from trainer.checkpoint.layout import RunDirectory
from trainer.config import options
from trainer.data import fingerprint, order
from trainer.data.grouping import Grouped, group_by_length
from trainer.data.inputs import training
from trainer.data.prepared import Prepared
from trainer.inference import predict
from trainer.model import parts, prediction_files
from trainer.model.evaluation import EvaluationLoop
from trainer.model.steps import TrainLoop

RNG = np.random.default_rng(0)
LENGTHS = RNG.permutation(np.arange(41) % 23 + 1)
TOKENS = [RNG.integers(1, 20, n) for n in LENGTHS]
Y = RNG.normal(size=len(LENGTHS)).astype("float32")
ROWS = [{"tokens": one, "y": y} for one, y in zip(TOKENS, Y, strict=True)]


class Text(task.Task):
    """A number for each token; `kind` says where the examples come from."""

    pad = {"tokens": 0}  # noqa: RUF012
    pad_to = 4
    kind = "lists"

    def source(self):
        return {
            "lists": {"tokens": [one.tolist() for one in TOKENS], "y": Y},
            "arrays": {"tokens": TOKENS, "y": Y},
            "ragged": {"tokens": tf.ragged.constant(TOKENS), "y": Y},
            "index": ROWS,
            "dataset": tf.data.Dataset.from_generator(
                lambda: iter(ROWS),
                output_signature={
                    "tokens": tf.TensorSpec([None], tf.int64),
                    "y": tf.TensorSpec([], tf.float32),
                },
            ),
        }[self.kind]

    def sources(self):
        return {"train": self.source(), "valid": self.source()}

    def networks(self):
        layers = keras.layers
        return keras.Sequential(
            [layers.Input([None]), layers.Embedding(20, 3), layers.Dense(1)]
        )

    def optimizers(self):
        return keras.optimizers.SGD(0.1)

    def values(self, networks, batch, training):
        answers = networks(batch["tokens"])[..., 0]
        errors = (answers - batch["y"][:, None]) ** 2
        return {"loss": (errors, batch["tokens_mask"])}

    def predictions(self, networks, batch):
        return {"score": networks(batch["tokens"])[..., 0], "of": batch["tokens_mask"]}


class Decoded(Text):
    kind = "index"

    def decode(self, example, seed):
        return {"tokens": example["tokens"] + 0, "y": example["y"]}


class DecodedInMemory(Decoded):
    kind = "arrays"


KINDS = {
    **{kind: type(kind, (Text,), {"kind": kind}) for kind in ("lists", "arrays")},
    **{kind: type(kind, (Text,), {"kind": kind}) for kind in ("ragged", "index")},
    "dataset": type("dataset", (Text,), {"kind": "dataset"}),
    "decoded": Decoded,
    "decoded in memory": DecodedInMemory,
}


def built(given, batch_size=8):
    sources = parts.seeded_sources(given, 0)
    return parts.build(given, sources, batch_size=batch_size, seed=0, ema=0.0)[:2]


def evaluation(given, networks, size):
    source = data.split(given.sources(), "valid")
    return EvaluationLoop(given, networks, data.ordered(source, size, given))


def padded(rows, multiple):
    width = -(-max(map(len, rows)) // multiple) * multiple
    found = np.zeros([len(rows), width], int)
    for n, row in enumerate(rows):
        found[n, : len(row)] = row
    return found


# Padding.


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_as_long_as_its_longest_rounded_up(kind):
    given = KINDS[kind]()
    source = data.split(given.sources(), "valid")
    first = 0
    for batch, counts in data.ordered(source, 6, given):
        rows = TOKENS[first : first + 6]
        first += 6
        assert list(batch) == ["tokens", "tokens_mask", "y"]
        tokens, mask, _ = (one.numpy()[counts] for one in batch.values())
        np.testing.assert_array_equal(tokens, padded(rows, 4))
        assert mask.dtype == bool
        assert mask.sum(1).tolist() == list(map(len, rows))
        np.testing.assert_array_equal(mask, tokens != 0)
    assert first >= len(TOKENS)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "dataset"])
def test_training_gets_the_same_batches_however_they_are_given(kind):
    given, plain = KINDS[kind](), KINDS["arrays"]()
    (inputs, _), (others, _) = built(given), built(plain)
    beside = kind in ("index", "decoded", "decoded in memory")
    assert isinstance(inputs, Prepared if beside else data.Shuffled)
    for step in (0, 3, 10**7):
        for name, one in inputs.again(step).items():
            np.testing.assert_array_equal(one, others.again(step)[name])


def test_what_fills_and_other_dimensions():
    frames = [np.full([n, 2], n, np.float32) for n in (1, 3)]
    words = [["a"], ["b", "c"]]

    class Mixed(Text):
        pad = {"frames": -1, "words": "?", "tokens": 7}  # noqa: RUF012
        pad_to = 1

    arrays = {"frames": frames, "words": words, "tokens": [[1, 2], [3, 4]]}
    ((batch, _),) = data.ordered(data.Arrays(arrays), 2, Mixed())
    assert batch["frames"].numpy().tolist() == [
        [[1, 1], [-1, -1], [-1, -1]],
        [[3, 3], [3, 3], [3, 3]],
    ]
    assert batch["words"].numpy().tolist() == [[b"a", b"?"], [b"b", b"c"]]
    assert batch["tokens"].numpy().tolist() == [[1, 2], [3, 4]], "nothing to fill"
    assert batch["tokens_mask"].numpy().all()


def test_an_empty_example_is_all_filled():
    arrays = {"tokens": [[], [3], []], "y": Y[:3]}
    ((batch, _),) = data.ordered(data.Arrays(arrays), 3, Text())
    assert batch["tokens"].numpy().tolist() == [[0] * 4, [3, 0, 0, 0], [0] * 4]
    assert batch["tokens"].dtype == tf.int32, "as TensorFlow takes such lists"
    empty = data.Arrays({"tokens": [[], []], "y": Y[:2]})
    ((batch, _),) = data.ordered(empty, 2, Text())
    assert batch["tokens"].shape == [2, 4]
    assert not batch["tokens_mask"].numpy().any()


def test_an_odd_length_that_no_sample_showed_is_taken_too():
    rows = [{"tokens": np.arange(3), "y": np.float32(0)} for _ in range(400)]
    rows[201] = {"tokens": np.arange(9), "y": np.float32(0)}

    class Odd(Text):
        def source(self):
            return rows

    source = data.split(Odd().sources(), "valid")
    widths = {batch["tokens"].shape[1] for batch, _ in data.ordered(source, 16, Odd())}
    assert widths == {4, 12}


# What counts.


def by_numpy(networks):
    """The mean over all tokens, each row by itself, without any padding."""
    errors = [
        (networks(tokens[None])[0, :, 0].numpy().astype("f8") - y) ** 2
        for tokens, y in zip(TOKENS, Y, strict=True)
    ]
    return np.concatenate(errors).mean()


@pytest.fixture(scope="module")
def networks():
    _, state = built(Text())
    return state.networks


@pytest.mark.parametrize("multiple", [1, 16])
@pytest.mark.parametrize("size", [1, 5, 64])
@pytest.mark.parametrize("kind", ["lists", "decoded"])
def test_a_mean_over_tokens_is_exact_whatever_the_batches(
    networks, kind, size, multiple
):
    given = type("Given", (KINDS[kind],), {"pad_to": multiple})()
    found = evaluation(given, networks, size).run()["loss"]
    assert found == pytest.approx(by_numpy(networks), rel=1e-6)


@pytest.mark.parametrize("kind", ["lists", "decoded"])
def test_changing_lengths_are_traced_once(kind):
    calls = []

    class Counting(KINDS[kind]):
        def values(self, networks, batch, training):
            calls.append(batch["tokens"].shape)
            return super().values(networks, batch, training)

    given = Counting()
    inputs, state = built(given, batch_size=2)
    train, valid = TrainLoop(given, state, inputs), evaluation(given, state.networks, 8)
    seen = {inputs.again(step)["tokens"].shape[1] for step in range(12)}
    assert len(seen) > 2, "lengths that change"
    train.run(1)
    traced = len(calls)
    assert calls[-1].as_list() == [2, None]
    train.run(11)
    assert len(calls) == traced
    valid.run()
    assert [one.as_list() for one in calls[traced:]] == [[8, None]] * 2 + [[1, None]]
    valid.run()
    assert len(calls) == traced + 3


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_run_is_evaluated_predicted_and_exported(tmp_path):
    given = Text()
    tasks.train(tmp_path / "run", given, steps=6, task="test_lengths:Text")
    best = tasks.only(tmp_path / "run" / "best" / "loss")
    reported = tasks.manifest(best)["metrics"]
    ways = {"run_dir": tmp_path / "run", "task": given}
    assert trainer.evaluate(**ways) == reported
    lists = {"tokens": [one.tolist() for one in TOKENS], "y": Y}
    assert trainer.evaluate(**ways, data=lists) == reported
    whole = padded(TOKENS, 1)
    filled = {"tokens": whole, "tokens_mask": whole != 0, "y": Y}
    np.savez(tmp_path / "mine.npz", **filled)
    from_file = trainer.evaluate(**ways, data=str(tmp_path / "mine.npz"))
    assert from_file["loss"] == pytest.approx(reported["loss"], rel=1e-6)
    model = tasks.restored(given, best)
    predicted = trainer.predict(**ways)
    assert predicted["of"].sum(1).tolist() == LENGTHS.tolist()
    for row, tokens in enumerate(TOKENS):
        score = predicted["score"][row][predicted["of"][row]]
        np.testing.assert_allclose(score, model(tokens[None])[0, :, 0], rtol=1e-5)
    only = trainer.predict(**ways, data={"tokens": [[3], [4, 1, 5]]})
    assert only["of"].tolist() == [[True, False, False, False], [True] * 3 + [False]]
    exported(given, ways, model, tmp_path)


def exported(given, ways, model, home):
    """Both kinds take batches of widths that the export has never seen."""
    tokens = np.int32([[3, 1, 4, 1, 5, 9, 2, 6, 5], [7, 7, 0, 0, 0, 0, 0, 0, 0]])
    mask = tokens != 0
    expected = model(tokens)[..., 0]
    trainer.export(**ways, format="saved_model", output=str(home / "saved"))
    serve = tf.saved_model.load(str(home / "saved")).signatures["serving_default"]
    trainer.export(**ways, format="keras", output=str(home / "net.keras"))
    network = keras.models.load_model(home / "net.keras")
    for width in (9, 2, 1):
        part = tf.constant(tokens[:, :width]), tf.constant(mask[:, :width])
        said = serve(tokens=part[0], tokens_mask=part[1])
        np.testing.assert_allclose(said["score"], expected[:, :width], rtol=1e-5)
        np.testing.assert_array_equal(said["of"], mask[:, :width])
        np.testing.assert_allclose(network(part[0])[..., 0], said["score"], rtol=1e-5)


class Drawn(Text):
    """Says, shows and draws texts and numbers for each token."""

    seen: ClassVar[list] = []

    def predictions(self, networks, batch):
        words = tf.strings.as_string(batch["tokens"])
        return {**super().predictions(networks, batch), "word": words}

    def figures(self, examples, predictions):
        self.seen.append((examples, predictions))
        return {"score": np.zeros([2, 2, 3], np.uint8)}


def test_what_batches_of_other_widths_say_is_drawn_and_written(tmp_path):
    given, run_dir = Drawn(), tmp_path / "run"
    tasks.train(run_dir, given, steps=2, eval_batch_size=3, task="test_lengths:Drawn")
    examples, said = given.seen[-1]
    whole = padded(TOKENS, 4)
    np.testing.assert_array_equal(examples["tokens"], whole)
    np.testing.assert_array_equal(said["of"], whole != 0)
    assert said["word"].shape == whole.shape
    assert said["word"][whole != 0].tolist() == [b"%d" % n for n in whole[whole != 0]]
    predicted = predict.predict_examples(*chosen(run_dir, given))
    batches = list(predicted)
    assert len({one["score"].shape for one in batches}) > 2, "of other widths"
    has_arrow = importlib.util.find_spec("pyarrow")  # the extra `data` has it
    for ending in ("npz", "csv", "jsonl", *["parquet"] * bool(has_arrow)):
        path = tmp_path / f"said.{ending}"
        assert prediction_files.write(path, path.name, batches) == len(TOKENS)
    with np.load(tmp_path / "said.npz") as file:
        np.testing.assert_array_equal(file["of"], whole != 0)
        score = file["score"]
    lines = (tmp_path / "said.jsonl").read_text().splitlines()
    rows = list(csv.DictReader((tmp_path / "said.csv").read_text().splitlines()))
    for n, (line, row, length) in enumerate(zip(lines, rows, LENGTHS, strict=True)):
        found, last = json.loads(line), length - 1
        assert found["score"][:length] == score[n, :length].tolist()
        assert found["word"][last] == row[f"word.{last}"] == str(whole[n, last])
        assert float(row[f"score.{last}"]) == pytest.approx(score[n, last])


def chosen(run_dir, given):
    choices = options.RunOptions(run_dir=str(run_dir), eval_batch_size=3)
    directory = RunDirectory(choices.directory())
    return choices, given, selection.select(directory, "latest", rules=[])


def test_one_of_several_sources_may_have_what_an_evaluation_has_not():
    class Uneven(Text):
        pad = {"tokens": 0, "more": 0}  # noqa: RUF012

        def sources(self):
            more = {"more": TOKENS, "tokens": TOKENS, "y": Y}
            arrays = {"tokens": TOKENS, "y": Y}
            pair = {"a": data.group_by_length(arrays, "tokens"), "b": more}
            return {"train": pair, "valid": ROWS}

        def values(self, networks, batch, training):
            one = batch["a"] if training else batch
            return super().values(networks, one, training)

    given = Uneven()
    inputs, state = built(given)
    found = inputs.again(3)
    assert "more_mask" in found["b"]
    assert "more_mask" not in found["a"]
    assert evaluation(given, state.networks, 6).run()["loss"] > 0


# Grouping.

SIZES = [
    *((1, 1), (1, 4), (2, 3), (3, 2), (7, 7), (10, 4), (5, 16)),
    *((257, 64), (100, 1000), (1000, 6)),
]


def drawn(source, first, count, batch_size, seed=3):
    numbers = tf.range(first, first + count, dtype=tf.int64)
    return source.places(numbers, batch_size=batch_size, seed=seed).numpy()


@pytest.mark.parametrize("spread", [1, 40])
@pytest.mark.parametrize(("length", "batch_size"), SIZES)
def test_each_epoch_has_each_example_once(length, batch_size, spread):
    source = Grouped(None, RNG.integers(0, spread, length))
    for epoch in (0, 1, 2, 10**9, 2**30 + 1):
        found = drawn(source, epoch * length, length, batch_size)
        assert sorted(found) == list(range(length))


def test_a_batch_far_away_is_that_of_a_walk_to_it():
    source = Grouped(None, RNG.integers(1, 40, 100))
    walk = drawn(source, 0, 100 * 7, 7).reshape(100, 7)
    for step in (0, 1, 14, 99):
        np.testing.assert_array_equal(drawn(source, step * 7, 7, 7), walk[step])
    other = drawn(source, 0, 100 * 7, 7, seed=4).reshape(100, 7)
    assert (walk != other).mean() > 0.9


def waste(lengths, batches):
    """Tokens with padding for each token without."""
    found = lengths[batches]
    return found.max(1).sum() * batches.shape[1] / found.sum()


def test_batches_are_of_similar_lengths_also_where_epochs_meet():
    lengths = np.clip(RNG.lognormal(4, 0.8, 20_011), 1, 2000).astype(int)
    source = Grouped(None, lengths)
    grouped = drawn(source, 0, 626 * 32 * 2, 32).reshape(-1, 32)
    plain = order.drawn(tf.range(626 * 32, dtype=tf.int64), length=len(lengths), seed=3)
    plain = plain.numpy().reshape(-1, 32)
    assert waste(lengths, plain) > 4
    assert waste(lengths, grouped) < 1.2
    meeting = [
        drawn(source, 20_011 * epoch // 32 * 32, 32, 32) for epoch in range(1, 60)
    ]
    assert waste(lengths, np.stack(meeting)) < 1.6


def test_epochs_differ_in_order_and_in_who_is_together():
    lengths = RNG.integers(1, 100, 3200)
    source = Grouped(None, lengths)
    epochs = drawn(source, 0, 3200 * 4, 32).reshape(4, 100, 32)
    means = lengths[epochs].mean(2)
    for one in range(4):
        for other in range(one):
            assert abs(np.corrcoef(means[one], means[other])[0, 1]) < 0.45
    assert abs(np.corrcoef(means[0], np.arange(100))[0, 1]) < 0.45
    together = [{frozenset(batch) for batch in one.tolist()} for one in epochs]
    assert not together[0] & together[1]


def test_examples_of_one_length_are_shuffled_among_all():
    source = Grouped(None, np.full(4000, 7))
    first = np.sort(drawn(source, 0, 4000, 8).reshape(-1, 8), axis=1)
    spread = (first[:, -1] - first[:, 0]).mean()
    assert spread > 4000 * 0.7, "as 8 of 4000 at random are"


def test_a_million_lengths_are_at_hand():
    lengths = RNG.integers(1, 1000, 1_000_000)
    source = group_by_length(tf.data.Dataset, lengths)
    step = 10**7
    found = drawn(source, step * 32, 32, 32)
    assert np.ptp(lengths[found]) < 60


@pytest.mark.parametrize("size", [6, 8])
def test_a_grouped_source_is_trained_on_and_evaluated_in_order(size):
    class InMemory(Text):
        def sources(self):
            source = self.source()
            return {
                "train": data.group_by_length(source, "tokens"),
                "valid": data.group_by_length(source, "tokens"),
            }

    class ByIndex(InMemory):
        kind = "index"

        def sources(self):
            return {"train": data.group_by_length(self.source(), LENGTHS)}

    given, other = InMemory(), ByIndex()
    inputs, _ = built(given, size)
    beside, _ = built(other, size)
    assert isinstance(inputs, data.Shuffled)
    assert isinstance(beside, Prepared)
    for step in (0, 1, 5, 6, 40):
        one, two = inputs.again(step), beside.again(step)
        for name in one:
            np.testing.assert_array_equal(one[name], two[name])
        numbers = order.places(tf.constant(step, tf.int64), size)
        places = Grouped(None, LENGTHS).places(numbers, batch_size=size, seed=0)
        np.testing.assert_array_equal(one["y"], Y[places])
    source = data.split(given.sources(), "valid")
    seen = [b["y"].numpy()[c] for b, c in data.ordered(source, size, given)]
    np.testing.assert_array_equal(np.concatenate(seen), Y)


def test_other_lengths_are_other_data():
    def of(lengths, tokens=TOKENS):
        source = data.group_by_length({"tokens": tokens, "y": Y}, lengths)
        return fingerprint.fingerprint({"train": source})["train"]

    one = of("tokens")
    assert one == of(LENGTHS)
    assert one["length"] == len(Y)
    assert one["examples"] == "tokens int64 (None,), y float32 ()"
    assert one["digest"] != of(LENGTHS + 1)["digest"]
    changed = [*TOKENS[:-1], TOKENS[-1] + 1]
    assert one["digest"] != of("tokens", changed)["digest"]


# What is refused.


@pytest.mark.parametrize(
    ("tokens", "settings", "text"),
    [
        (
            TOKENS,
            {"pad": {}},
            r"'tokens' is of unequal lengths\. Expected one shape, so that batches can "
            r'be made .*in the task: pad = {"tokens": 0}\.$',
        ),
        (
            TOKENS,
            {"pad": {"words": 0}},
            r"Given\.pad names 'words', which the examples don't have; they have "
            r'tokens, y\. Name what .*: pad = {"tokens": 0}',
        ),
        (
            TOKENS,
            {"pad": {"tokens": 0, "y": 0}},
            r"Given\.pad names 'y', whose examples have the shape \(\)\. Expected that "
            r"they differ in their first dimension only",
        ),
        (
            [np.zeros([2, 3]), np.zeros([3, 4])] * 20 + [np.zeros([1, 1])],
            {},
            r"the rows of 'tokens' can't be put together: .*Expected rows \[length, "
            r"\.\.\.\] of one dtype that differ in their first dimension only",
        ),
        (
            tf.ragged.constant([[[1], [2, 3]]] * len(Y)),
            {},
            r"'tokens' is ragged in 2 dimensions, .*Fill the others: value\.to_tensor",
        ),
        (TOKENS, {"pad": ["tokens"]}, r"Given\.pad is \['tokens'\]; expected what fi"),
        (TOKENS, {"pad_to": 0}, r"Given\.pad_to is 0; expected a whole number of at l"),
    ],
)
def test_what_can_not_be_padded_is_refused(tokens, settings, text):
    class Given(Text):
        def source(self):
            return {"tokens": tokens, "y": Y}

    for name, value in settings.items():
        setattr(Given, name, value)
    given = Given()
    with pytest.raises((data.DataError, task.TaskError), match=text):
        training(
            given, data.split(given.sources(), "train"), batch_size=4, seed=0
        ).again(0)


def test_unequal_shapes_out_of_decode_are_told():
    class Unfilled(Decoded):
        pad = {}  # noqa: RUF012

    source = data.split(Unfilled().sources(), "valid")
    batches = data.ordered(source, 8, Unfilled())
    text = (
        r"^examples of unequal shapes are to be one batch: \[\d+\] and \[\d+\]\. "
        r'Expected one shape\. Fill them up, in the task: pad = {"tokens": 0}'
    )
    networks = Text().networks()
    loop = EvaluationLoop(Unmasked(), networks, batches)
    with pytest.raises(data.DataError, match=text):
        loop.run()


class Unmasked(Text):
    pad = {}  # noqa: RUF012

    def values(self, networks, batch, training):
        return {"loss": networks(batch["tokens"])[:, 0, 0]}


@pytest.mark.parametrize(
    ("source", "lengths", "text"),
    [
        (ROWS, LENGTHS[1:], r"are 41 examples, grouped by 40 lengths\. Expected a len"),
        (ROWS, "tokens", r"are 'tokens', a name, and the examples are a list\. Expec"),
        ({"y": Y}, "tokens", r"those of 'tokens', which is not there; there are y"),
        (ROWS, LENGTHS / 2, r"are float64 \(41,\)\. Expected whole numbers \[N\], one"),
        (tf.data.Dataset.range(3), [1, 2, 3], r"a tf\.data\.Dataset can't be grouped"),
    ],
)
def test_lengths_that_can_not_be_grouped_by_are_refused(source, lengths, text):
    with pytest.raises(data.DataError, match=text):
        data.split({"train": data.group_by_length(source, lengths)}, "train")
