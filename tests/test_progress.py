"""The progress of a run: the best values so far, and patience with the rest."""

import json
import math

import making
import pytest
import tasks

from trainer.checkpoint import catalog
from trainer.checkpoint.best import records_after
from trainer.checkpoint.layout import RunDirectory
from trainer.checkpoint.retention import Best
from trainer.model.progress import Patience, Progress

NAN, INF = float("nan"), float("inf")
SCORE, LOSS = Best("score", "max"), Best("loss", "min")


def entry(step, value, mode="max"):
    return {"step": step, "value": value, "mode": mode}


# Records.


def judged(run_dir, saved, rules, step, metrics, pending=()):
    """The records after an evaluation, where `saved` is on disk, metrics by step."""
    directory = RunDirectory(run_dir)
    for before, values in saved.items():
        making.checkpoint(directory.recent, before, values)
        for rule in rules:
            if rule.metric in values:
                making.checkpoint(directory.best(rule.metric), before, values)
    return records_after(catalog.scan(directory), rules, step, metrics, pending)


@pytest.mark.parametrize(
    ("rule", "before", "value", "after"),
    [
        (SCORE, None, 0.5, 0.5),
        (SCORE, None, 0.0, 0.0),
        (SCORE, None, -3.0, -3.0),
        (SCORE, None, NAN, None),
        (SCORE, None, INF, None),
        (SCORE, None, -INF, None),
        (SCORE, 0.5, 0.75, 0.75),
        (SCORE, 0.5, 0.5, 0.5),
        (SCORE, 0.5, 0.25, 0.5),
        (SCORE, 0.5, NAN, 0.5),
        (SCORE, 0.5, INF, 0.5),
        (SCORE, 0.0, -0.5, 0.0),
        (SCORE, -0.5, 0.0, 0.0),
        (LOSS, 0.5, 0.0, 0.0),
        (LOSS, 0.0, 0.5, 0.0),
        (LOSS, 0.5, 0.5, 0.5),
        (LOSS, 0.5, -INF, 0.5),
        (Best("score", "max", min_delta=0.25), 0.5, 0.75, 0.5),
        (Best("score", "max", min_delta=0.25), 0.5, 0.875, 0.875),
        (Best("loss", "min", min_delta=0.25), 0.5, 0.25, 0.5),
        (Best("loss", "min", min_delta=0.25), 0.5, 0.125, 0.125),
        (Best("loss", "min", count=3), 0.5, 0.75, 0.5),
    ],
)
@pytest.mark.parametrize("place", ["on disk", "being saved"])
def test_a_record_is_what_was_really_better(
    tmp_path, place, rule, before, value, after
):
    known = {} if before is None else {3: {rule.metric: before}}
    saved, pending = (known, ()) if place == "on disk" else ({}, known.items())
    found = judged(tmp_path, saved, [rule], 7, {rule.metric: value}, pending)
    if after is None:
        assert found == {}
    else:
        step = 7 if after != before else 3
        assert found == {rule.metric: entry(step, after, rule.mode)}


def test_what_is_no_number_is_told_for_each_metric(tmp_path):
    with tasks.logged() as lines:
        judged(tmp_path, {}, [SCORE, LOSS], 7, {"score": NAN, "loss": INF})
    assert lines == [
        "WARNING score is nan at step 7: such a value is never best",
        "WARNING loss is inf at step 7: such a value is never best",
    ]


def test_each_metric_that_is_ranked_has_a_record_of_its_own(tmp_path):
    saved = {1: {"score": 0.5, "loss": 2.0}}
    metrics = {"score": 0.25, "loss": 1.0, "other": 9.0}
    after = judged(tmp_path, saved, [SCORE, LOSS], 2, metrics)
    assert after == {"score": entry(1, 0.5), "loss": entry(2, 1.0, "min")}
    after = judged(tmp_path, saved, [LOSS], 2, metrics)
    assert after == {"loss": entry(2, 1.0, "min")}


def test_the_record_is_what_the_checkpoints_say_whoever_brought_them(tmp_path):
    """A checkpoint that was restored, repaired or removed by hand counts as it is."""
    first, second = {1: {"score": 0.5}}, {2: {"score": 0.75}}
    assert judged(tmp_path, first | second, [SCORE], 3, {"score": 0.625}) == {
        "score": entry(2, 0.75)
    }
    for home in ("recent", "best/score"):
        (tmp_path / home / "ckpt-2.json").unlink()
    after = judged(tmp_path, {}, [SCORE], 3, {"score": 0.625})
    assert after == {"score": entry(3, 0.625)}


# Early stopping.


def counted(values, rule=SCORE, *, min_delta=0.0, progress=None):
    """How many were stale after each evaluation, and the progress in the end."""
    progress, stale = progress or Progress(), []
    first = (progress.evaluated or 0) + 1
    for step, value in enumerate(values, start=first):
        progress = progress.evaluated_at(step, {rule.metric: value}, {})
        progress = progress.counted(rule, step, min_delta=min_delta)
        stale.append(progress.patience.stale)
    return stale, progress


@pytest.mark.parametrize(
    ("rule", "values", "stale"),
    [
        (SCORE, [0.5, 0.5, 0.25, 0.75, 0.5], [0, 1, 2, 0, 1]),
        (LOSS, [0.5, 0.5, 0.25, 0.75, 0.5], [0, 1, 0, 1, 2]),
        (SCORE, [NAN, NAN, 0.5, NAN], [1, 2, 0, 1]),
        (LOSS, [0.0, 0.5, -0.5], [0, 1, 0]),
    ],
)
def test_what_was_no_better_is_counted_in_a_row(rule, values, stale):
    assert counted(values, rule)[0] == stale


def test_what_is_better_by_less_than_the_delta_is_stale_until_it_adds_up():
    """The delta of the ranking has nothing to do with it."""
    values = [0.5, 0.5625, 0.625, 0.6875]
    assert counted(values, min_delta=0.125)[0] == [0, 1, 2, 0]
    ranking = Best("score", "max", min_delta=0.125)
    assert counted(values, ranking)[0] == [0, 0, 0, 0]


def test_what_is_known_in_the_end_goes_on():
    _, whole = counted([0.5, 0.25, 0.75, 0.5])
    assert whole.patience == Patience("score", 0.75, 1, 3)
    _, half = counted([0.5, 0.25])
    resumed = Progress.from_json(half.to_json())
    assert resumed == half
    assert counted([0.75, 0.5], progress=resumed)[1] == whole


def test_another_metric_begins_anew():
    _, progress = counted([0.5, 0.25, 0.25])
    stale, progress = counted([3.0, 3.0], LOSS, progress=progress)
    assert stale == [0, 1]
    assert progress.patience == Patience("loss", 3.0, 1, 4)


# In a checkpoint.

# What release 0.1.0 wrote, key for key.
TEXTS = [
    (Progress(), "{}"),
    (Progress(reported=0), '{"reported": 0}'),
    (Progress(rewinds=2), '{"rewinds": 2}'),
    (
        Progress(reported=4).evaluated_at(3, {"score": 0.5}, {"score": entry(3, 0.5)}),
        '{"evaluated": 3, "metrics": {"score": 0.5}, "records": {"score": '
        '{"mode": "max", "step": 3, "value": 0.5}}, "reported": 4}',
    ),
    (
        Progress(patience=Patience("score", 0.5, 1, 3)),
        '{"patience": {"metric": "score", "stale": 1, "step": 3, "value": 0.5}}',
    ),
    (
        Progress(patience=Patience("score", None, 2)),
        '{"patience": {"metric": "score", "stale": 2, "value": null}}',
    ),
]


@pytest.mark.parametrize(("progress", "text"), TEXTS)
def test_the_text_in_a_checkpoint_is_that_of_the_first_release(progress, text):
    assert progress.to_json() == text
    assert Progress.from_json(text) == progress


def test_a_metric_that_is_no_number_comes_back():
    progress = Progress().evaluated_at(3, {"score": NAN, "loss": -INF}, {})
    back = Progress.from_json(progress.to_json())
    assert math.isnan(back.metrics["score"])
    assert back.metrics["loss"] == -INF
    assert json.loads(progress.to_json())["records"] == {}


def test_the_metrics_belong_to_the_step_of_their_evaluation():
    progress = Progress().evaluated_at(3, {"score": 0.5}, {})
    assert progress.metrics_at(3) == {"score": 0.5}
    assert progress.metrics_at(4) == {}
