"""What a task shows beside images, and at each evaluation, each step once."""

import dataclasses
import re
import shutil
import signal

import numpy as np
import processes
import pytest
import scripted
import tasks
import tensorflow as tf
from tensorboard.backend.event_processing import event_accumulator
from test_figures import SCRIPT, Shown, images, train

from trainer import figures
from trainer.task import TaskError

STEPS = len(SCRIPT.split())


@dataclasses.dataclass(frozen=True)
class Everything(Shown):
    """One of each kind, all of which tell the step."""

    figures_at = "evaluation"

    def figures(self, examples, predictions):
        step = -float(predictions["count"][0])
        return {
            **super().figures(examples, predictions),
            "words": f"step **{step:.0f}** ÄÖ",
            "half": step / 2,
            "whole": np.int64(step),
            "spread": figures.histogram(np.arange(10) * step, buckets=5),
        }


def shown(directory):
    """By tag: the plugin, and `{step: value}`."""
    events = event_accumulator.EventAccumulator(
        str(directory),
        size_guidance={event_accumulator.TENSORS: 0},
        purge_orphaned_data=False,
    )
    events.Reload()
    found = {}
    for tag in events.Tags()[event_accumulator.TENSORS]:
        plugin = events.SummaryMetadata(tag).plugin_data.plugin_name
        values = [
            (e.step, tf.make_ndarray(e.tensor_proto)) for e in events.Tensors(tag)
        ]
        assert len(dict(values)) == len(values), tag
        found[tag] = plugin, dict(values)
    return found


def test_each_kind_is_shown_at_each_evaluation(tmp_path):
    train(tmp_path / "run", Everything(SCRIPT))
    found = shown(tmp_path / "run/summaries/eval")
    steps = list(range(1, STEPS + 1))
    for tag in ("grey", "words", "half", "whole", "spread"):
        assert sorted(found[tag][1]) == steps
    assert found["words"][1][3].item().decode() == "step **3** ÄÖ"
    assert found["half"][1][3] == 1.5
    assert found["whole"][1][3] == 3.0
    spread = found["spread"][1][2]
    assert spread[:, 2].tolist() == [2] * 5
    assert (spread[0, 0], spread[-1, 1]) == (0.0, 18.0)


def test_they_are_what_tensorflow_itself_writes(tmp_path):
    """So TensorBoard shows each in its own tab."""
    train(tmp_path / "run", Everything(SCRIPT), steps=1)
    with tf.summary.create_file_writer(str(tmp_path / "own")).as_default(step=1):
        tf.summary.text("words", "step **1** ÄÖ")
        tf.summary.scalar("half", 0.5)
        tf.summary.histogram("spread", np.arange(10.0), buckets=5)
        tf.summary.image("grey", np.zeros([1, 4, 4, 3], np.uint8))
    ours, theirs = shown(tmp_path / "run/summaries/eval"), shown(tmp_path / "own")
    for tag, (plugin, values) in theirs.items():
        assert ours[tag][0] == plugin
        one, other = ours[tag][1][1], values[1]
        assert (one.dtype, one.ndim) == (other.dtype, other.ndim), tag
    for tag in ("words", "half"):
        assert ours[tag][1][1] == theirs[tag][1][1]
    np.testing.assert_allclose(ours["spread"][1][1], theirs["spread"][1][1])


@pytest.mark.parametrize("step", [1, 3, 4])
def test_a_resumed_run_shows_what_is_left(tmp_path, step):
    straight, task = tmp_path / "straight", Everything("0.0 0.25 0.125 0.5 0.5 0.75")
    train(straight, task)
    run_dir = tasks.cut_back(straight, tmp_path / "run", step)
    train(run_dir, task)
    tasks.assert_same_run(straight, run_dir)
    assert sorted(shown(run_dir / "summaries/eval")["words"][1]) == list(range(1, 7))


def test_without_a_word_texts_are_shown_of_a_new_best_alone(tmp_path):
    class Best(Everything):
        figures_at = "best"

    train(tmp_path / "run", Best(SCRIPT))
    assert sorted(shown(tmp_path / "run/summaries/eval")["words"][1]) == [2, 4, 6]


def test_nothing_need_be_best_for_what_is_shown_of_each_evaluation(tmp_path):
    train(tmp_path / "run", Everything(SCRIPT), steps=2, best=())
    assert sorted(images(tmp_path / "run")["grey"]) == [1, 2]


MINE = """
import dataclasses
import numpy as np
import scripted
from trainer import figures

@dataclasses.dataclass(frozen=True)
class Mine(scripted.Scripted):
    figures_at = "evaluation"

    def predictions(self, networks, batch):
        return {"count": networks(batch["x"], training=False)}

    def figures(self, examples, predictions):
        step = -float(predictions["count"][0])
        return {
            "grey": np.full([4, 4, 3], step, np.uint8),
            "words": f"step {step}",
            "half": step / 2,
            "spread": figures.histogram(np.arange(10) * step),
        }
"""


def test_killed_and_resumed_everything_is_shown_once(tmp_path):
    shutil.copy(scripted.__file__, tmp_path)
    (tmp_path / "mine.py").write_text(MINE)
    arguments = (
        *("--task=mine:Mine", "--steps=9", "--evaluate_every_steps=1"),
        *("--save_every_steps=3", "--set=script=0 1 0 0 2 0 3 0 0", "--progress=lines"),
    )
    done = processes.run(*arguments, "--run_dir=straight", cwd=tmp_path)
    assert done.code == 0, done.stderr
    for point in ("evaluation@3", "save@2", "training@3"):
        done = processes.run(
            *arguments, "--run_dir=run", cwd=tmp_path, KEEPSTEP_KILL_AT=point
        )
        assert done.code == -signal.SIGKILL, done.stderr
    done = processes.run(*arguments, "--run_dir=run", cwd=tmp_path)
    assert done.code == 0, done.stderr
    one, other = (shown(tmp_path / n / "summaries/eval") for n in ("straight", "run"))
    for tag in ("grey", "words", "half", "spread"):
        assert one[tag][1].keys() == other[tag][1].keys() == set(range(1, 10))
        for step, value in one[tag][1].items():
            assert (value == other[tag][1][step]).all()


# Refused.


def giving(value, **more):
    class Giving(Shown):
        def figures(self, examples, predictions):
            return {"it": value, **more} if value is not ... else [1]

    return Giving("0.5")


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (np.zeros([4, 4, 3]), "an array of float64, shape [4, 4, 3]"),
        (np.zeros([4, 4, 5], np.uint8), "an array of uint8, shape [4, 4, 5]"),
        (np.zeros([9]), "an array of float64, shape [9]"),
        ([1.0, 2.0], "list"),
        (None, "NoneType"),
    ],
)
def test_what_can_not_be_shown_is_refused_with_what_can(tmp_path, value, told):
    text = (
        f"figures() gave 'it' as {told}; expected an image (uint8 [H, W, 3]), a text "
        "(str), a number, or figures.histogram(values) of an array."
    )
    with pytest.raises(TaskError, match=f"^{re.escape(text)}$"):
        train(tmp_path / "run", giving(value))


def test_what_is_given_without_names_is_refused(tmp_path):
    text = "figures() gave list; expected a dict by name, such as {"
    with pytest.raises(TaskError, match=f"^{re.escape(text)}"):
        train(tmp_path / "run", giving(...))


def test_a_number_with_the_name_of_a_metric_is_refused(tmp_path):
    text = (
        "figures() gave the number 'score', and a metric has that name: TensorBoard "
        'would show one curve of both. Rename it, such as "own_score".'
    )
    with pytest.raises(TaskError, match=f"^{re.escape(text)}$"):
        train(tmp_path / "run", giving("words", score=1.0))


def test_another_time_is_refused(tmp_path):
    class Often(Shown):
        figures_at = "often"

    text = "Often.figures_at is 'often'; expected 'best' or 'evaluation': figures_at = "
    with pytest.raises(TaskError, match=f"^{re.escape(text)}"):
        train(tmp_path / "run", Often("0.5"))


# Histograms.


def test_a_histogram_leaves_out_what_is_not_finite():
    values = [[1, 2], [np.inf, np.nan], [2, -np.inf]]
    assert figures.histogram(values, buckets=2).buckets.tolist() == [
        [1.0, 1.5, 1.0],
        [1.5, 2.0, 2.0],
    ]
    for empty in ([], [np.nan]):
        assert figures.histogram(empty).buckets.shape == (0, 3)
    assert figures.histogram(np.ones([3, 4])).buckets[:, 2].sum() == 12
