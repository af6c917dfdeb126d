"""`--plateau`: when the learning rates are lowered, how far, and exact under kills."""

import dataclasses
import itertools
import re
import shutil
import signal

import keras
import numpy as np
import processes
import pytest
import tasks
import tensorflow as tf

from trainer import task
from trainer.config import options
from trainer.config.plateau_rule import PlateauRule


class Counting(keras.layers.Layer):
    """A weight, and how many training steps there were."""

    def __init__(self):
        super().__init__()
        self.weight = self.add_weight(shape=[], initializer="ones")
        self.count = self.add_weight(shape=[], initializer="zeros", trainable=False)

    def call(self, x, training=False):
        if training:
            self.count.assign_add(1.0)
        return self.weight * x


@dataclasses.dataclass(frozen=True)
class Scripted(task.Task):
    """Evaluated after step n, the score is the n-th word; the last one lasts."""

    script: str = "1"
    learning_rate: float = 0.5

    best = ("score:max",)

    def sources(self):
        x = np.ones([16], np.float32)
        return {"train": {"x": x}, "valid": {"x": x[:4]}}

    def networks(self):
        return keras.Sequential([keras.layers.Input([]), Counting()])

    def optimizers(self):
        return keras.optimizers.SGD(self.learning_rate)

    def values(self, networks, batch, training):
        y = networks(batch["x"], training=training)
        words = [float(word) for word in self.script.split()]
        step = tf.cast(networks.layers[-1].count.value, tf.int32)
        score = tf.gather(words, tf.clip_by_value(step - 1, 0, len(words) - 1))
        return {"loss": y**2, "score": score + tf.zeros_like(y)}


SCRIPT = "1 2 2 1 3 3 3 0 3 3"


def train(run_dir, script=SCRIPT, **choices):
    given = {"evaluate_every_steps": 1, "report_every_steps": 1, "plateau": "0.5:2"}
    given |= {"steps": 10} | choices
    rate = given.pop("learning_rate", 0.5)
    return tasks.train(run_dir, Scripted(script, rate), **given)


def rates(run_dir):
    """The learning rate of each step."""
    return [value for _, value in tasks.scalars(run_dir)["train/learning_rate"]]


LOWERED = [0.5] * 4 + [0.25] * 3 + [0.125] * 2 + [0.0625]


def test_rates_are_lowered_after_evaluations_that_were_no_better(tmp_path):
    """NaN is no better; after a lowering the evaluations count anew."""
    with tasks.logged() as lines:
        train(tmp_path / "run", SCRIPT.replace("0", "nan"))
    assert rates(tmp_path / "run") == LOWERED
    told = [line for line in lines if "is lowered" in line]
    assert told[0] == (
        "INFO step 4: the learning rate of optimizer is lowered from 0.5 to 0.25, for "
        "score was no better in 2 evaluations (best 2.0000 at step 2)"
    )
    assert [line.split(":")[0] for line in told] == [
        *("INFO step 4", "INFO step 7", "INFO step 9")
    ]


def test_rates_stop_at_the_smallest_one(tmp_path):
    with tasks.logged() as lines:
        train(tmp_path / "run", "1", plateau="0.5:1:0.2")
    assert rates(tmp_path / "run") == pytest.approx([0.5] * 2 + [0.25] + [0.2] * 7)
    assert len([line for line in lines if "is lowered" in line]) == 2
    train(tmp_path / "lower", "1", plateau="0.5:1:0.7", steps=4)
    assert rates(tmp_path / "lower") == [0.5] * 4, "it is never raised"


@pytest.mark.parametrize("step", [3, 4, 6, 7, 9])
def test_a_resumed_run_lowers_as_if_nothing_had_happened(tmp_path, step):
    straight = tmp_path / "straight"
    train(straight)
    run_dir = tasks.cut_back(straight, tmp_path / "run", step)
    with tasks.logged() as lines:
        train(run_dir)
    assert not [line for line in lines if "as the configuration says" in line]
    tasks.assert_same_run(straight, run_dir)
    assert rates(run_dir) == LOWERED


def test_a_run_that_goes_on_further_is_the_same(tmp_path):
    """The evaluation at its end was on no schedule, and counts for no rate."""
    choices = {"script": "3 2 2 2 2 2 2 2 2 2 2 2", "evaluate_every_steps": 2}
    train(tmp_path / "straight", steps=12, **choices)
    train(tmp_path / "run", steps=5, **choices)
    train(tmp_path / "run", steps=12, **choices)
    assert rates(tmp_path / "run") == rates(tmp_path / "straight")
    assert rates(tmp_path / "run") == [0.5] * 6 + [0.25] * 4 + [0.125] * 2
    prefixes = [tmp_path / name / "recent/ckpt-12" for name in ("straight", "run")]
    # Early stopping has counted it.
    assert tasks.different(*prefixes) == ["progress/.ATTRIBUTES/VARIABLE_VALUE"]


def test_another_configured_rate_is_lowered_as_often(tmp_path):
    train(tmp_path / "run", steps=8)
    allowed = {"learning_rate": 0.4, "allow_change": ("learning_rate", "code")}
    with tasks.logged() as lines:
        train(tmp_path / "run", **allowed)
    told = "the learning rate of optimizer was 0.125 and is now 0.1, as the config"
    assert [line for line in lines if told in line]
    assert rates(tmp_path / "run")[8:] == pytest.approx([0.1, 0.05])


def test_a_rewind_goes_back_to_the_rate_of_then(tmp_path):
    poisoned = tasks.Poisoned()
    choices = {"steps": 14, "save_every_steps": 4, "on_nonfinite": "rewind"}
    choices |= {"evaluate_every_steps": 1, "report_every_steps": 1, "keep_recent": 30}
    for name in ("one", "two"):
        tasks.train(tmp_path / name, poisoned, plateau="0.5:1", **choices)
    tasks.assert_same_run(tmp_path / "one", tmp_path / "two")
    shown = rates(tmp_path / "one")
    assert all(b in (a, a / 2) for a, b in itertools.pairwise(shown))
    last = tasks.cut_back(tmp_path / "one", tmp_path / "again", 8)
    tasks.train(last, poisoned, plateau="0.5:1", **choices)
    tasks.assert_same_run(tmp_path / "one", last)


class Two(Scripted):
    """Two networks with an optimizer each."""

    def networks(self):
        return {name: super(Two, self).networks() for name in ("a", "b")}

    def optimizers(self):
        rates = {"a": self.learning_rate, "b": self.learning_rate / 5}
        return {name: keras.optimizers.SGD(rate) for name, rate in rates.items()}

    def values(self, networks, batch, training):
        found = {k: super(Two, self).values(networks[k], batch, training) for k in "ab"}
        losses = {f"{name}_loss": one["loss"] for name, one in found.items()}
        return {**losses, "score": found["a"]["score"]}


def test_several_optimizers_are_lowered_together(tmp_path):
    choices = {"evaluate_every_steps": 1, "report_every_steps": 1, "steps": 4}
    tasks.train(tmp_path / "run", Two("1"), plateau="0.5:2:0.06", **choices)
    curves = tasks.scalars(tmp_path / "run")
    shown = {k: [v for _, v in curves[f"train/learning_rate/{k}"]] for k in "ab"}
    assert shown["a"] == [0.5, 0.5, 0.5, 0.25]
    assert shown["b"] == pytest.approx([0.1, 0.1, 0.1, 0.06])


# Killed.


def test_killed_anywhere_the_rates_and_the_bits_are_the_same(tmp_path):
    arguments = (
        *("--task=mine:Light", "--batch_size=8", "--steps=30", "--keep_recent=30"),
        *("--evaluate_every_steps=2", "--report_every_steps=1", "--progress=lines"),
        *("--save_every_steps=5", "--best=loss:min", "--plateau=0.7:1"),
    )
    shutil.copy(tasks.__file__, tmp_path / "mine.py")
    done = processes.run(*arguments, "--run_dir=straight", cwd=tmp_path)
    assert done.code == 0, done.stderr
    shown = rates(tmp_path / "straight")
    assert len(set(shown)) >= 4, shown
    for point in ("evaluation@4", "save@2", "training@3", "storage@30"):
        done = processes.run(
            *arguments, "--run_dir=run", cwd=tmp_path, KEEPSTEP_KILL_AT=point
        )
        assert done.code == -signal.SIGKILL, done.stderr
    done = processes.run(*arguments, "--run_dir=run", cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert rates(tmp_path / "run") == shown
    tasks.assert_same_run(tmp_path / "straight", tmp_path / "run", every=False)


# Refused.


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0.5", "--plateau=0.5: expected FACTOR:PATIENCE or FACTOR:PATIENCE:MIN, such"),
        ("a:3", "--plateau=a:3: expected FACTOR:PATIENCE or FACTOR:PATIENCE:MIN, such"),
        ("0.5:1.5", "--plateau=0.5:1.5: expected FACTOR:PATIENCE or"),
        ("0.5:3:0:0", "--plateau=0.5:3:0:0: expected FACTOR:PATIENCE or"),
        ("1:3", "the factor 1 is out of range: expected more than 0 and less than 1,"),
        ("0:3", "the factor 0 is out of range: expected more than 0 and less than 1,"),
        ("nan:3", "the factor nan is out of range: expected more than 0 and less"),
        ("0.5:0", "--plateau=0.5:0: expected a patience of 1 or more evaluations, and"),
        ("0.5:3:-1", "and a smallest learning rate of 0 or more."),
        ("0.5:3:inf", "and a smallest learning rate of 0 or more."),
    ],
)
def test_a_rule_that_is_none_is_refused(text, message):
    with pytest.raises(options.ConfigError, match=re.escape(message)):
        options.RunOptions(plateau=text)
    with pytest.raises(options.ConfigError):
        PlateauRule.parse(text)


def test_a_schedule_is_refused(tmp_path):
    text = (
        "--plateau=0.5:3: the learning rate of optimizer is a LearningRateSchedule, "
        "which follows from the step alone. Give that optimizer a number, such as "
        "Adam(1e-3), or leave --plateau out."
    )
    with pytest.raises(options.ConfigError, match=f"^{re.escape(text)}$"):
        tasks.train(tmp_path / "run", tasks.Rich(), steps=2, plateau="0.5:3")


class Blind(tasks.Plain):
    def sources(self):
        return {"train": tasks.examples()["train"]}


@pytest.mark.parametrize(
    ("given", "more"), [(Blind(), {}), (tasks.Plain(), {"best": ()})]
)
def test_where_nothing_is_ranked_it_is_refused(tmp_path, given, more):
    text = (
        "--plateau=0.5:3 needs a metric that gets better: give --best=name:min|max, "
        "and a split 'valid' to evaluate it on."
    )
    with pytest.raises(options.ConfigError, match=f"^{re.escape(text)}$"):
        tasks.train(tmp_path / "run", given, steps=2, plateau="0.5:3", **more)


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"plateau": "0.5:3"}, "  plateau: '0.5:2' there, '0.5:3' here"),
        ({"plateau": ""}, "  plateau: '0.5:2' there, '' here"),
        ({"evaluate_every_steps": 2}, "  evaluate_every_steps: 1 there, 2 here"),
    ],
)
def test_what_the_rates_depend_on_may_not_change_unasked(tmp_path, changed, line):
    train(tmp_path / "run", steps=2)
    with pytest.raises(options.ConfigError, match=f"\n{re.escape(line)}\n"):
        train(tmp_path / "run", steps=3, **changed)
    allowed = {"allow_change": tuple(changed)}
    assert train(tmp_path / "run", steps=3, **changed, **allowed).step == 3
