import dataclasses
import math

import pytest

from trainer.checkpoint.retention import Best, Rules

NAN, INF = math.nan, math.inf
LOSS, ACCURACY = Best("loss", "min"), Best("accuracy", "max")


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("loss:min", ("loss", "min", 1)),
        ("accuracy:max:3", ("accuracy", "max", 3)),
        ("top-5_acc.v2:max:999999", ("top-5_acc.v2", "max", 999999)),
        ("min:max", ("min", "max", 1)),
        ("0:min", ("0", "min", 1)),
    ],
)
def test_a_rule_is_read_and_told_again(text, rule):
    best = Best.parse(text)
    assert (best.metric, best.mode, best.count) == rule
    assert Best.parse(str(best)) == best


@pytest.mark.parametrize(
    "text",
    [
        *("", "loss", "loss:", ":min", "loss:low", "loss:MIN", "loss:min:2:3"),
        *("loss:min:", "loss:min:0", "loss:min:-1", "loss:min:1.5", "loss:min:1000000"),
        *("loss :min", "../loss:min", "a/b:min", ".hidden:min", "-x:min"),
        *("loss:min\n", "loss:min:\u0663"),
    ],
)
def test_what_is_no_rule_is_refused_with_an_example(text):
    expected = r"does not say what is best\. Expected name:min\|max\[:count\], such as"
    with pytest.raises(ValueError, match=expected) as caught:
        Best.parse(text)
    assert str(caught.value).startswith(repr(text))


@pytest.mark.parametrize(
    ("rule", "value", "record", "better"),
    [
        (LOSS, 0.9, 1.0, True),
        (LOSS, 1.1, 1.0, False),
        (ACCURACY, 1.1, 1.0, True),
        (ACCURACY, 0.9, 1.0, False),
        (LOSS, -5.0, 0.0, True),
        (ACCURACY, 0.0, -0.5, True),
        (LOSS, 7.0, None, True),
        (ACCURACY, 0.0, None, True),
        (LOSS, 0.0, 0.5, True),
        (ACCURACY, 5e-324, 0.0, True),
    ],
)
def test_a_better_value_improves_on_the_record(rule, value, record, better):
    assert rule.improves(value, record) is better


@pytest.mark.parametrize("rule", [LOSS, ACCURACY])
@pytest.mark.parametrize("record", [None, 0.0, 1.0])
@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_what_is_no_number_never_improves(rule, record, value):
    assert not rule.improves(value, record)


@pytest.mark.parametrize("rule", [LOSS, ACCURACY])
@pytest.mark.parametrize(("value", "record"), [(1.0, 1.0), (0.0, -0.0), (-0.0, 0.0)])
def test_a_tie_is_no_improvement(rule, value, record):
    assert not rule.improves(value, record)


@pytest.mark.parametrize(
    ("rule", "value", "record", "better"),
    [
        (LOSS, 0.5, 1.0, True),
        (LOSS, 0.75, 1.0, False),  # exactly the delta is not more than it
        (LOSS, 1.5, 1.0, False),
        (ACCURACY, 1.5, 1.0, True),
        (ACCURACY, 1.25, 1.0, False),
        (ACCURACY, 0.5, 1.0, False),
        (LOSS, 1e9, None, True),
    ],
)
def test_a_gain_must_be_more_than_the_delta(rule, value, record, better):
    assert dataclasses.replace(rule, min_delta=0.25).improves(value, record) is better


@pytest.mark.parametrize(
    ("text", "values", "kept"),
    [
        ("loss:min:2", {10: 0.5, 20: 0.3, 30: 0.4}, [20, 30]),
        ("loss:max:2", {10: 0.5, 20: 0.3, 30: 0.4}, [10, 30]),
        ("loss:min:2", {10: -0.5, 20: 0.3, 30: -0.4}, [10, 30]),
        ("loss:min:9", {10: 0.5, 20: 0.3}, [20, 10]),
        ("loss:min", {}, []),
        # Ties: the earlier one stays, whatever the order in which they are told.
        ("loss:min:2", {30: 1.0, 10: 1.0, 20: 1.0}, [10, 20]),
        ("loss:max:2", {30: 1.0, 10: 1.0, 20: 1.0}, [10, 20]),
        ("loss:max", {20: 0.0, 10: -0.0}, [10]),
        ("loss:min", {20: -0.0, 10: 0.0}, [10]),
        # 0.0 is a value like any other, though it is false.
        ("loss:min", {10: 0.0, 20: 0.1}, [10]),
        ("loss:max:2", {0: 0.0, 20: -0.1}, [0, 20]),
        # What is no number isn't kept even when there is room.
        ("loss:min:3", {10: NAN, 20: 0.3, 30: -INF, 40: INF}, [20]),
        ("loss:max:3", {10: NAN, 20: 0.3, 30: INF, 40: -INF}, [20]),
        ("loss:min:3", {10: NAN}, []),
    ],
)
def test_the_best_are_kept_best_first(text, values, kept):
    assert Best.parse(text).top(values) == kept


def test_a_worse_value_is_never_promoted_over_a_better_one():
    values, kept = {10: 0.3, 20: 0.2, 30: 0.1}, [30, 20]
    rule = Best("loss", "min", 2)
    assert rule.top(values) == kept
    assert rule.top(values | {40: 0.25}) == kept
    assert rule.top(values | {40: 0.15}) == [30, 40]


def test_what_takes_the_place_of_another_must_be_better_by_the_delta():
    rule = Best("loss", "min", 1, min_delta=0.1)
    assert rule.top({10: 1.0, 20: 0.95}) == [10]
    assert rule.top({10: 1.0, 20: 0.95, 30: 0.85}) == [30]
    assert rule.top({20: 0.95, 30: 0.85}, held=[30]) == [30], "20 was refused before"


def test_a_free_place_needs_no_gain():
    rule = Best("loss", "min", 2, min_delta=0.1)
    assert rule.top({10: 1.0, 20: 0.99}) == [20, 10]
    assert rule.top({10: 1.0, 20: 0.99, 30: 0.95}) == [20, 10]
    assert rule.top({10: 1.0, 20: 0.99, 30: 0.89}) == [30, 20]


def test_who_has_a_place_keeps_it_on_a_tie():
    assert Best("loss", "min").top({10: 1.0, 20: 1.0}, held=[20]) == [20]


@pytest.mark.parametrize(
    ("steps", "keep_recent", "kept"),
    [
        ([100, 9, 20], 2, [20, 100]),
        ([3, 2, 1], 3, [1, 2, 3]),
        ([5], 3, [5]),
        ([], 3, []),
        ([0], 1, [0]),
    ],
)
def test_the_newest_steps_are_kept(steps, keep_recent, kept):
    assert Rules(keep_recent=keep_recent).recent(iter(steps)) == kept


@pytest.mark.parametrize(
    ("every", "kept"),
    [(0, [57, 58]), (20, [40, 57, 58]), (29, [57, 58]), (60, [57, 58])],
)
def test_the_newest_scheduled_one_is_not_pushed_out(every, kept):
    steps = [20, 40, 55, 57, 58]
    assert Rules(keep_recent=2, save_every_steps=every).recent(steps) == kept


@pytest.mark.parametrize(
    ("every", "kept"),
    [(0, [50, 60]), (20, [20, 40, 50, 60]), (30, [30, 50, 60]), (7, [50, 60])],
)
def test_multiples_are_kept_for_good_and_each_once(every, kept):
    steps = [60, 10, 20, 30, 40, 50]
    assert Rules(keep_recent=2, keep_every_steps=every).recent(steps) == kept
