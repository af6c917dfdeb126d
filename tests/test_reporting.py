"""What a run says: scalars with tags, lines with rates, and each of them once."""

import re

import pytest
import tasks
import tensorflow as tf
from tensorboard.backend.event_processing import event_accumulator
from tensorboard.plugins.hparams import metadata as hparams_metadata

from trainer.reporting.reporter import EVAL, TRAIN, Reporter


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def reporter_of(directory, clock, **changes):
    choices = {"progress": "lines", "total_steps": 1000, "batch_size": 8, **changes}
    return Reporter(directory, clock=clock, **choices)


def shown(directory, kind):
    """Tag, step and value of every scalar, as they were written."""
    events = event_accumulator.EventAccumulator(
        str(directory / kind),
        size_guidance={event_accumulator.TENSORS: 0},
        purge_orphaned_data=False,
    )
    events.Reload()
    return {
        tag: [
            (event.step, tf.make_ndarray(event.tensor_proto).tolist())
            for event in events.Tensors(tag)
        ]
        for tag in events.Tags()["tensors"]
    }


def files(directory):
    return sorted(directory.rglob("events.out.tfevents.*"))


# Scalars.


def test_training_scalars_have_their_tags_and_the_speed(tmp_path, clock):
    with reporter_of(tmp_path, clock) as reporter:
        reporter.begin(100)
        clock.now += 4
        reporter.train(120, {"loss": 0.5}, {"learning_rate": 0.25})
    assert shown(tmp_path, "train") == {
        "loss": [(120, 0.5)],
        "learning_rate": [(120, 0.25)],
        "speed/steps_per_sec": [(120, 5.0)],
        "speed/examples_per_sec": [(120, 40.0)],
    }
    assert not (tmp_path / "eval").exists()


def test_evaluations_have_the_tags_of_training_elsewhere(tmp_path, clock):
    with reporter_of(tmp_path, clock) as reporter:
        reporter.begin(0)
        reporter.evaluation(20, {"loss": 0.5, "accuracy": 0.75}, {})
        reporter.evaluation(40, {"loss": 0.25, "accuracy": 0.75}, {})
    assert shown(tmp_path, "eval") == {
        "loss": [(20, 0.5), (40, 0.25)],
        "accuracy": [(20, 0.75), (40, 0.75)],
    }
    assert not (tmp_path / "train").exists()


def test_what_a_save_cost_is_shown_below_checkpoint(tmp_path, clock):
    with reporter_of(tmp_path, clock) as reporter:
        reporter.begin(0)
        reporter.saved(20, {"write_ms": 12.5, "bytes": 2048})
    assert shown(tmp_path, "train") == {
        "checkpoint/write_ms": [(20, 12.5)],
        "checkpoint/bytes": [(20, 2048)],
    }


@pytest.mark.parametrize("kind", [TRAIN, EVAL])
def test_the_hyperparameters_and_the_flags_are_described(tmp_path, clock, kind):
    with reporter_of(tmp_path, clock) as reporter:
        hyperparameters = {
            "width": 8,
            "rate": 0.5,
            "deep": True,
            "name": "a",
            "t": (1,),
        }
        reporter.describe(hyperparameters, "--steps=5\n", kind=kind)
    found = shown(tmp_path, kind)
    ((step, text),) = found["flags"]
    assert (step, text) == (0, b"```\n--steps=5\n```")
    (path,) = files(tmp_path / kind)
    content = path.read_bytes()
    for part in (b"width", b"rate", b"deep", b"name", b"_hparams_/session_start_info"):
        assert part in content


def test_each_run_is_a_trial_of_its_own(tmp_path, clock):
    """TensorBoard averages over those that have one group name."""
    groups = []
    for name, flags in (("a", "--seed=0"), ("b", "--seed=0"), ("a", "--seed=1")):
        with reporter_of(tmp_path / name, clock) as reporter:
            reporter.describe({"width": 8}, flags, kind=EVAL)
        (tag,) = (tmp_path / name / EVAL).iterdir()
        events = event_accumulator.EventAccumulator(str(tag))
        events.Reload()
        metadata = events.SummaryMetadata(hparams_metadata.SESSION_START_INFO_TAG)
        content = metadata.plugin_data.content
        groups.append(hparams_metadata.parse_session_start_info_plugin_data(content))
        tag.unlink()
    assert len({one.group_name for one in groups}) == 3
    assert {one.hparams["width"].number_value for one in groups} == {8}


def test_nothing_is_written_before_the_first_scalar(tmp_path, clock):
    with reporter_of(tmp_path / "summaries", clock) as reporter:
        reporter.begin(0)
        reporter.advance(3)
        reporter.flush()
    assert not (tmp_path / "summaries").exists()


# Rates.


def test_the_rate_is_that_since_the_last_report(tmp_path, clock):
    with reporter_of(tmp_path, clock) as reporter:
        reporter.begin(0)
        for step, secs in ((10, 1), (30, 4), (40, 0)):
            clock.now += secs
            reporter.train(step, {}, {})
    rates = shown(tmp_path, "train")["speed/steps_per_sec"]
    assert rates[:2] == [(10, 10.0), (30, 5.0)]
    assert rates[2][1] > 1e6, "no time at all is no error"


def test_what_was_not_training_does_not_count(tmp_path, clock):
    with reporter_of(tmp_path, clock) as reporter:
        reporter.begin(0)
        clock.now += 60
        reporter.restart_clock(1)
        clock.now += 2
        reporter.train(11, {}, {})
    assert shown(tmp_path, "train")["speed/steps_per_sec"] == [(11, 5.0)]


# Lines.


def test_a_line_has_the_step_the_means_the_rate_and_the_time_to_go(tmp_path, clock):
    with tasks.logged() as lines, reporter_of(tmp_path, clock) as reporter:
        reporter.begin(0)
        clock.now += 8
        reporter.train(200, {"loss": 1 / 3, "accuracy": 0.75}, {"learning_rate": 0.1})
    assert lines == [
        "INFO step 200 of 1000: loss 0.3333, accuracy 0.7500; 25 steps/s, 0:00:32 to go"
    ]


def test_lines_come_every_few_seconds_and_scalars_always(tmp_path, clock):
    with tasks.logged() as lines, reporter_of(tmp_path, clock) as reporter:
        reporter.begin(0)
        for step in range(1, 9):
            clock.now += 2
            reporter.train(step, {"loss": 0.0}, {})
    assert [re.match(r"INFO step (\d+) ", line)[1] for line in lines] == ["1", "4", "7"]
    assert len(shown(tmp_path, "train")["loss"]) == 8


def test_every_evaluation_is_a_line_with_the_best_so_far(tmp_path, clock):
    best = {
        "accuracy": {"step": 20, "value": 0.875},
        "loss": {"step": 40, "value": 0.25},
    }
    with tasks.logged() as lines, reporter_of(tmp_path, clock) as reporter:
        reporter.begin(0)
        for step in (20, 40):
            reporter.evaluation(step, {"accuracy": 0.5, "loss": 0.25}, best)
    assert lines == [
        f"INFO step {step} evaluated: accuracy 0.5000, loss 0.2500; best accuracy "
        "0.8750 at step 20; best loss 0.2500 at step 40"
        for step in (20, 40)
    ]


@pytest.mark.parametrize(
    ("secs", "text"), [(0.4, "0:00:00"), (59.6, "0:01:00"), (3725, "1:02:05")]
)
def test_the_time_to_go_is_readable(tmp_path, clock, secs, text):
    with tasks.logged() as lines, reporter_of(tmp_path, clock) as reporter:
        reporter.begin(0)
        clock.now += secs
        reporter.train(500, {}, {})
    assert lines[0].endswith(f", {text} to go")


@pytest.mark.parametrize("progress", ["none", "bar"])
def test_only_lines_are_logged_as_lines(tmp_path, clock, progress, capsys):
    reporter = reporter_of(tmp_path, clock, progress=progress)
    with tasks.logged() as lines, reporter:
        reporter.begin(10)
        clock.now += 1
        reporter.train(30, {"loss": 0.5}, {})
        reporter.evaluation(30, {"loss": 0.25}, {"loss": {"step": 30, "value": 0.25}})
        reporter.advance(40)
    assert lines == []
    printed = capsys.readouterr()
    assert printed.out == ""
    assert ("40/1000" in printed.err) == (progress == "bar")
    assert ("best loss 0.2500 at step 30" in printed.err) == (progress == "bar")
    assert shown(tmp_path, "train")["loss"] == [(30, 0.5)]


def test_what_is_no_terminal_gets_lines(tmp_path, clock):
    reporter = reporter_of(tmp_path, clock, progress="auto")
    with tasks.logged() as lines, reporter:
        reporter.begin(0)
        reporter.evaluation(5, {"loss": 0.5}, {})
    assert lines == ["INFO step 5 evaluated: loss 0.5000; "]


# Files.


def test_after_a_flush_everything_is_in_the_file(tmp_path, clock):
    with reporter_of(tmp_path, clock) as reporter:
        reporter.begin(0)
        for step in (1, 2):
            reporter.evaluation(step, {"loss": float(step)}, {})
            reporter.flush()
            assert shown(tmp_path, "eval")["loss"][-1] == (step, step)
        (path,) = files(tmp_path)
        size = path.stat().st_size
        reporter.flush()
        assert path.stat().st_size == size


def test_after_a_close_the_next_scalar_begins_a_new_file(tmp_path, clock):
    with reporter_of(tmp_path, clock) as reporter:
        reporter.begin(0)
        reporter.evaluation(1, {"loss": 1.0}, {})
        reporter.close()
        (first,) = files(tmp_path)
        content = first.read_bytes()
        reporter.close()
        assert files(tmp_path) == [first]
        reporter.evaluation(2, {"loss": 2.0}, {})
    assert len(files(tmp_path)) == 2
    assert first.read_bytes() == content
    assert sorted(shown(tmp_path, "eval")["loss"]) == [(1, 1.0), (2, 2.0)]
