"""What an evaluation means: what becomes a record, and what is counted as stale."""

import pytest
import tasks

from trainer.checkpoint import retention
from trainer.training import progress

NAN, INF = float("nan"), float("inf")
SCORE, LOSS = retention.Best("score", "max"), retention.Best("loss", "min")


def entry(step, value, mode="max"):
    return {"step": step, "value": value, "mode": mode}


# Records.


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
        (retention.Best("score", "max", min_delta=0.25), 0.5, 0.75, 0.5),
        (retention.Best("score", "max", min_delta=0.25), 0.5, 0.875, 0.875),
        (retention.Best("loss", "min", min_delta=0.25), 0.5, 0.25, 0.5),
        (retention.Best("loss", "min", min_delta=0.25), 0.5, 0.125, 0.125),
        (retention.Best("loss", "min", count=3), 0.5, 0.75, 0.5),
    ],
)
def test_a_record_is_what_was_really_better(rule, before, value, after):
    known = {} if before is None else {rule.metric: entry(3, before, rule.mode)}
    found = progress.judge(known, [rule], 7, {rule.metric: value})
    if after is None:
        assert found == {}
    else:
        step = 7 if after != before else 3
        assert found == {rule.metric: entry(step, after, rule.mode)}


def test_what_is_no_number_is_told_for_each_metric():
    with tasks.logged() as lines:
        progress.judge({}, [SCORE, LOSS], 7, {"score": NAN, "loss": INF})
    assert lines == [
        "WARNING score is nan at step 7: such a value is never best",
        "WARNING loss is inf at step 7: such a value is never best",
    ]


def test_each_metric_has_a_record_of_its_own_and_nothing_is_changed_in_place():
    before = {"score": entry(1, 0.5), "loss": entry(1, 2.0, "min")}
    kept = {name: dict(one) for name, one in before.items()}
    metrics = {"score": 0.25, "loss": 1.0, "other": 9.0}
    after = progress.judge(before, [SCORE, LOSS], 2, metrics)
    assert after == {"score": entry(1, 0.5), "loss": entry(2, 1.0, "min")}
    assert before == kept


def test_a_record_of_a_metric_that_is_ranked_no_more_stays():
    before = {"score": entry(1, 0.5)}
    after = progress.judge(before, [LOSS], 2, {"loss": 1.0, "score": 0.75})
    assert after == {"score": entry(1, 0.5), "loss": entry(2, 1.0, "min")}


# Early stopping.


def counted(values, rule=SCORE, *, min_delta=0.0, patience=None):
    """How many were stale after each evaluation, and what is known in the end."""
    patience, stale = patience or {}, []
    for step, value in enumerate(values, start=1):
        patience = progress.count_stale(
            patience, rule, step, {rule.metric: value}, min_delta=min_delta
        )
        stale.append(patience["stale"])
    return stale, patience


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
    ranking = retention.Best("score", "max", min_delta=0.125)
    assert counted(values, ranking)[0] == [0, 0, 0, 0]


def test_what_is_known_in_the_end_goes_on():
    _, whole = counted([0.5, 0.25, 0.75, 0.5])
    assert whole == {
        "metric": "score",
        "value": 0.75,
        "step": 3,
        "stale": 1,
    }
    _, half = counted([0.5, 0.25])
    resumed = progress.count_stale(half, SCORE, 3, {"score": 0.75}, min_delta=0.0)
    resumed = progress.count_stale(resumed, SCORE, 4, {"score": 0.5}, min_delta=0.0)
    assert resumed == whole


def test_another_metric_begins_anew():
    _, patience = counted([0.5, 0.25, 0.25])
    stale, patience = counted([3.0, 3.0], LOSS, patience=patience)
    assert stale == [0, 1]
    assert patience == {"metric": "loss", "value": 3.0, "step": 1, "stale": 1}
