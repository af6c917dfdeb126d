"""A run that was interrupted anywhere ends, bit for bit, as one that was not."""

import json
import pathlib
import re
import signal

import keras
import numpy as np
import pytest
import tasks
import tensorflow as tf

from trainer.checkpoint import selection
from trainer.checkpoint.layout import RunDirectory
from trainer.config import options
from trainer.inspection.rows import list_checkpoints
from trainer.model import steps
from trainer.training import preemption

TOTAL = 12


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A run of the task with the most state; every step is saved."""
    run_dir = tmp_path_factory.mktemp("straight") / "run"
    outcome = tasks.train(run_dir, tasks.Rich(), steps=TOTAL)
    assert (outcome.step, outcome.trained_steps) == (TOTAL, TOTAL)
    return run_dir


@pytest.fixture(scope="module")
def light(tmp_path_factory):
    """The same of a task that is quick to build."""
    run_dir = tmp_path_factory.mktemp("light") / "run"
    tasks.train(run_dir, tasks.Light(), steps=TOTAL)
    return run_dir


# Killed after any step.


def test_every_step_changes_the_state_everywhere(straight):
    """Otherwise that two runs are equal would say nothing."""
    for step in range(1, TOTAL):
        one, after = (straight / f"recent/ckpt-{s}" for s in (step, step + 1))
        moved = {key.partition("/")[0] for key in tasks.different(one, after)}
        kinds = {"variables", "optimizer", "totals", "step", "save_counter"}
        assert kinds <= moved, step
    paths = " ".join(v["path"] for v in tasks.manifest(one)["variables"])
    for part in ("seed_generator", "moving_mean", "average", "velocity", "iteration"):
        assert part in paths
    evaluated = {s: tasks.manifest(straight / f"recent/ckpt-{s}") for s in (3, 12)}
    assert evaluated[3]["metrics"] != evaluated[12]["metrics"]
    assert list(evaluated[12]["records"]) == ["accuracy", "loss"]


@pytest.mark.parametrize("step", range(TOTAL))
def test_a_run_killed_after_any_step_ends_as_if_it_had_not_been(
    straight, tmp_path, step
):
    run_dir = tasks.cut_back(straight, tmp_path / "run", step)
    with tasks.logged() as lines:
        outcome = tasks.train(run_dir, tasks.Rich(), steps=TOTAL)
    resumed = f"INFO resumed {run_dir} at step {step} of {TOTAL}"
    assert (
        resumed if step else f"INFO training {run_dir} from scratch to step 12"
    ) in (lines)
    assert outcome.trained_steps == TOTAL - step
    tasks.assert_same_run(straight, run_dir)


def test_a_run_killed_twice_ends_as_if_it_had_not_been(straight, tmp_path):
    once = tasks.cut_back(straight, tmp_path / "once", 4)
    tasks.train(once, tasks.Rich(), steps=TOTAL)
    twice = tasks.cut_back(once, tmp_path / "twice", 7)
    assert tasks.train(twice, tasks.Rich(), steps=TOTAL).trained_steps == TOTAL - 7
    tasks.assert_same_run(straight, twice)


def test_a_longer_run_goes_on_from_a_complete_one(light, tmp_path):
    """What is due at the last step is done there; the steps are the same ones."""
    run_dir = tmp_path / "run"
    tasks.train(run_dir, tasks.Light(), steps=6)
    tasks.train(run_dir, tasks.Light(), steps=TOTAL)
    tasks.assert_same_run(light, run_dir)


def test_how_often_is_saved_changes_no_number(light, tmp_path):
    run_dir = tmp_path / "run"
    tasks.train(run_dir, tasks.Light(), steps=TOTAL, save_every_steps=5)
    assert tasks.steps(run_dir / "recent")[-1] == TOTAL
    for step in tasks.steps(run_dir / "recent"):
        name = f"recent/ckpt-{step}"
        tasks.assert_same_checkpoint(light / name, run_dir / name)
    assert tasks.scalars(run_dir) == tasks.scalars(light)


# Stopped on request.

SPARSE = {
    "steps": TOTAL,
    "report_every_steps": 4,
    "evaluate_every_steps": 6,
    "save_every_steps": 5,
    "allow_inexact": True,  # the tasks of these tests call Python in a step
}


@pytest.fixture(scope="module")
def sparse(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("sparse") / "run"
    task, _ = tasks.stopping(tasks.Light, None)
    tasks.train(run_dir, task, **SPARSE)
    return run_dir


@pytest.mark.parametrize(
    ("step", "records"),
    [
        pytest.param(1, [], id="between two borders"),
        pytest.param(4, [], id="where the scalars are due"),
        pytest.param(5, [], id="where a save is due"),
        pytest.param(6, [], id="where an evaluation is due"),
        pytest.param(10, ["loss"], id="after an evaluation"),
        pytest.param(12, ["loss"], id="at the very end"),
    ],
)
def test_a_stopped_run_ends_as_if_it_had_not_been(sparse, tmp_path, step, records):
    run_dir = tmp_path / "run"
    task, stop = tasks.stopping(tasks.Light, step)
    outcome = tasks.train(run_dir, task, stop, **SPARSE)
    assert (outcome.step, outcome.stopped_by) == (step, "SIGTERM")
    assert tasks.steps(run_dir / "recent")[-1] == step
    mark = tasks.manifest(run_dir / f"recent/ckpt-{step}")
    assert mark["metrics"] == {}, "it does not evaluate where it is asked to stop"
    assert list(mark["records"]) == records
    task, stop = tasks.stopping(tasks.Light, None)
    outcome = tasks.train(run_dir, task, stop, **SPARSE)
    assert (outcome.step, outcome.stopped_by) == (TOTAL, None)
    tasks.assert_same_run(sparse, run_dir)


def test_a_run_stopped_again_and_again_ends_as_if_it_had_not_been(sparse, tmp_path):
    run_dir, at = tmp_path / "run", []
    for _ in range(3):
        task, stop = tasks.stopping(tasks.Light, 2)
        at.append(tasks.train(run_dir, task, stop, **SPARSE).step)
    assert at == sorted(set(at))
    assert at[-1] < TOTAL
    task, stop = tasks.stopping(tasks.Light, None)
    tasks.train(run_dir, task, stop, **SPARSE)
    tasks.assert_same_run(sparse, run_dir)


class Watched:
    """A source that tells when it is read."""

    def __init__(self, arrays, hook):
        self._arrays, self._hook = arrays, hook

    def __len__(self):
        return len(self._arrays["x"])

    def gather(self, indices):
        with tf.control_dependencies([tf.py_function(self._hook, [], [])]):
            return {k: tf.gather(v, indices) for k, v in self._arrays.items()}


class Noisy(tasks.Light):
    """Draws random numbers where it is evaluated, too."""

    def values(self, networks, batch, training):
        noise = keras.random.normal([1, tasks.FEATURES], stddev=0.1)
        noise += 0.1 * tf.random.get_global_generator().normal([1, tasks.FEATURES])
        batch = {**batch, "x": batch["x"] + noise}
        return super().values(networks, batch, training)


# Reads before the first evaluation: the fingerprint, and twice what Python gives.
BEFORE = 1 + 2 * 5


@pytest.mark.parametrize("cls", [tasks.Light, Noisy])
def test_a_run_stopped_inside_an_evaluation_ends_as_if_it_had_not_been(tmp_path, cls):
    """It has saved that step without metrics, and saves it again with them."""
    stop, batches = preemption.Request(), []

    def read():
        batches.append(stop)
        if batches.count(stop) == BEFORE + 7:
            stop.hear(signal.SIGTERM)

    def silent():
        batches.append(None)

    def interrupted(hook):
        valid = Watched(tasks.examples()["valid"], hook)
        sources = {**tasks.examples(), "valid": valid}
        return type("Interrupted", (cls,), {"sources": lambda self: sources})()

    choices = {"steps": 6, "eval_batch_size": 2, "save_every_steps": 2}
    straight, run_dir = tmp_path / "straight", tmp_path / "run"
    tasks.train(straight, interrupted(silent), **choices)
    assert len(batches) == BEFORE + 10, "two evaluations of 5 batches"
    outcome = tasks.train(run_dir, interrupted(read), stop, **choices)
    assert (outcome.step, outcome.stopped_by) == (6, "SIGTERM")
    assert tasks.manifest(run_dir / "recent/ckpt-6")["metrics"] == {}
    with tasks.logged() as lines:
        tasks.train(run_dir, interrupted(silent), **choices)
    assert f"INFO resumed {run_dir} at step 6 of 6" in lines
    assert not (run_dir / "recent/staging").exists()
    tasks.assert_same_run(straight, run_dir)


def test_a_request_before_the_first_step_saves_nothing(tmp_path):
    stop = preemption.Request()
    stop.hear(signal.SIGUSR1)
    with pytest.raises(preemption.Interrupted, match="SIGUSR1"):
        tasks.train(tmp_path / "run", tasks.Plain(), stop, steps=4)
    assert tasks.steps(tmp_path / "run/recent") == []


def test_a_complete_run_has_nothing_to_do(light, tmp_path):
    run_dir = tasks.cut_back(light, tmp_path / "run", TOTAL)
    outcome = tasks.train(run_dir, tasks.Light(), steps=TOTAL)
    assert (outcome.step, outcome.trained_steps) == (TOTAL, 0)
    tasks.assert_same_run(light, run_dir)


# Seeds and choices.


def test_one_seed_gives_one_run_and_two_give_two(light, tmp_path):
    tasks.train(tmp_path / "same", tasks.Light(), steps=TOTAL)
    tasks.assert_same_run(light, tmp_path / "same")
    tasks.train(tmp_path / "other", tasks.Light(), steps=2, seed=1)
    moved = tasks.different(light / "recent/ckpt-2", tmp_path / "other/recent/ckpt-2")
    assert [key for key in moved if key.startswith("variables/")]


def test_early_stopping_counts_on_where_it_was(tmp_path):
    """The loss of a frozen network never gets better: the first evaluation is best."""

    class Stuck(tasks.Plain):
        def optimizers(self):
            return keras.optimizers.SGD(0.0)

    choices = {"steps": 30, "early_stop_patience": 3}
    straight = tmp_path / "straight"
    outcome = tasks.train(straight, Stuck(), **choices)
    assert (outcome.step, outcome.stopped_early) == (12, True)
    for step in (3, 7):
        run_dir = tasks.cut_back(straight, tmp_path / f"run-{step}", step)
        outcome = tasks.train(run_dir, Stuck(), **choices)
        assert (outcome.step, outcome.stopped_early) == (12, True), step
        tasks.assert_same_run(straight, run_dir)
    before = {p: p.stat().st_mtime_ns for p in run_dir.rglob("ckpt-*")}
    outcome = tasks.train(run_dir, Stuck(), **choices)
    assert (outcome.step, outcome.trained_steps) == (12, 0)
    assert outcome.stopped_early
    assert {p: p.stat().st_mtime_ns for p in run_dir.rglob("ckpt-*")} == before
    outcome = tasks.train(run_dir, Stuck(), **{**choices, "early_stop_patience": 4})
    assert (outcome.step, outcome.trained_steps) == (15, 3)


def test_what_is_better_by_less_than_the_delta_counts_as_stale(tmp_path):
    choices = {"steps": 30, "early_stop_patience": 2, "early_stop_min_delta": 1e6}
    outcome = tasks.train(tmp_path / "run", tasks.Plain(0.001), **choices)
    assert (outcome.step, outcome.stopped_early) == (9, True)
    losses = [loss for _, loss in tasks.scalars(tmp_path / "run")["eval/loss"]]
    assert losses == sorted(losses, reverse=True), "it got better all the time"


def test_a_changed_learning_rate_wins_over_the_restored_one(tmp_path):
    run_dir = tmp_path / "run"
    tasks.train(run_dir, tasks.Plain(learning_rate=0.05), steps=4)
    with pytest.raises(
        options.ConfigError, match=r"learning_rate: 0\.05 there, 0\.5 here"
    ):
        tasks.train(run_dir, tasks.Plain(learning_rate=0.5), steps=6)
    with tasks.logged() as lines:
        tasks.train(
            run_dir,
            tasks.Plain(learning_rate=0.5),
            steps=6,
            allow_change=("learning_rate",),
        )
    assert (
        "WARNING the learning rate of optimizer was 0.05 and is now 0.5, as the "
        "configuration says"
    ) in lines
    curve = tasks.scalars(run_dir)["train/learning_rate"]
    assert curve == [(2, np.float32(0.05)), (4, np.float32(0.05)), (6, 0.5)]
    changes = json.loads((run_dir / "config.json").read_text())["changes"]
    assert changes[0]["learning_rate"] == [0.05, 0.5]
    assert changes[1].keys() == {"time", "code"}, "the rate is a constant of the graph"
    with tasks.logged() as lines:
        tasks.train(run_dir, tasks.Plain(learning_rate=0.5), steps=8)
    assert not [line for line in lines if "learning rate" in line]


# A loss that is not a number.


def test_a_bad_loss_halts_the_run_at_its_step_and_keeps_the_good_checkpoint(tmp_path):
    run_dir = tmp_path / "run"
    text = (
        "loss and the gradient of loss became NaN or infinite at step 7. Nothing was "
        "saved over the last good checkpoint."
    )
    for save_every_steps in (4, 1):
        with pytest.raises(steps.NonFiniteError, match=re.escape(text)):
            tasks.train(
                run_dir,
                tasks.Poisoned(),
                steps=TOTAL,
                save_every_steps=save_every_steps,
            )
        newest = tasks.steps(run_dir / "recent")[-1]
        assert newest < 7
        values = tasks.tensors(run_dir / f"recent/ckpt-{newest}")
        numbers = [v for v in values.values() if v.dtype.kind == "f"]
        assert numbers
        assert all(np.isfinite(v).all() for v in numbers)


def test_a_bad_gradient_alone_halts_the_run(tmp_path):
    class Steep(tasks.Plain):
        """The square root is finite at 0, its slope is not."""

        def values(self, networks, batch, training):
            values = super().values(networks, batch, training)
            return {"loss": values["loss"] + tf.sqrt(values["loss"] * 0.0)}

    text = r"^the gradient of loss became NaN or infinite at step 1\."
    with pytest.raises(steps.NonFiniteError, match=text):
        tasks.train(tmp_path / "run", Steep(), steps=4)
    assert tasks.steps(tmp_path / "run/recent") == []


REWIND = {"steps": 14, "save_every_steps": 4, "best": (), "on_nonfinite": "rewind"}


@pytest.fixture(scope="module")
def rewound(tmp_path_factory):
    """A run whose data of the steps 7 and 8 is bad, with what it said."""
    run_dir = tmp_path_factory.mktemp("rewound") / "run"
    with tasks.logged() as lines:
        outcome = tasks.train(run_dir, tasks.Poisoned(), **REWIND)
    assert (outcome.step, outcome.stopped_by) == (14, None)
    return run_dir, lines


def test_a_rewind_passes_over_the_bad_data_and_counts(rewound):
    run_dir, lines = rewound
    said = [line for line in lines if line.startswith("WARNING rewound")]
    assert len(said) == 2
    assert said[0].startswith(
        "WARNING rewound to step 4, past the data of 3 steps (rewind 1 of 3): loss "
        "and the gradient of loss became NaN or infinite at step 7."
    )
    assert said[1].startswith(
        "WARNING rewound to step 4, past the data of 1 steps (rewind 2 of 3): "
    )
    values = tasks.tensors(run_dir / "recent/ckpt-14")
    assert values["skipped/.ATTRIBUTES/VARIABLE_VALUE"] == 4
    progress = json.loads(values["progress/.ATTRIBUTES/VARIABLE_VALUE"].item())
    assert progress["rewinds"] == 2
    assert all(np.isfinite(v).all() for v in values.values() if v.dtype.kind == "f")
    tasks.assert_each_step_once(run_dir)
    assert [step for step, _ in tasks.scalars(run_dir)["train/loss"]] == [
        *range(2, 15, 2)
    ]


@pytest.mark.parametrize("step", [4, 8, 12])
def test_a_run_killed_around_a_rewind_ends_as_if_it_had_not_been(
    rewound, tmp_path, step
):
    run_dir = tasks.cut_back(rewound[0], tmp_path / "run", step)
    tasks.train(run_dir, tasks.Poisoned(), **REWIND)
    tasks.assert_same_run(rewound[0], run_dir)


def test_a_run_killed_before_a_rewind_rewinds_again(rewound, tmp_path):
    """The checkpoint of step 4 is as it was before the rewind."""
    run_dir = tmp_path / "run"
    with pytest.raises(steps.NonFiniteError, match=r"at step 7\."):
        tasks.train(run_dir, tasks.Poisoned(), **{**REWIND, "on_nonfinite": "halt"})
    assert tasks.steps(run_dir / "recent") == [4]
    with tasks.logged() as lines:
        tasks.train(run_dir, tasks.Poisoned(), **REWIND)
    assert len([line for line in lines if "rewound to step 4" in line]) == 2
    tasks.assert_same_run(rewound[0], run_dir)


def test_a_run_stopped_just_before_bad_data_ends_as_if_it_had_not_been(
    rewound, tmp_path
):
    """The stop has saved a step that is on no schedule; the rewind passes over it."""
    run_dir = tmp_path / "run"
    choices = {**REWIND, "allow_inexact": True}
    task, stop = tasks.stopping(tasks.Poisoned, 6)
    outcome = tasks.train(run_dir, task, stop, **choices)
    assert (outcome.step, outcome.stopped_by) == (6, "SIGTERM")
    task, stop = tasks.stopping(tasks.Poisoned, 60)
    outcome = tasks.train(run_dir, task, stop, **choices)
    assert (outcome.step, outcome.stopped_by) == (14, None), "it goes on for ever"
    tasks.assert_same_run(rewound[0], run_dir, every=False)


def test_stops_do_not_push_out_where_a_rewind_goes_back_to(tmp_path):
    run_dir = tmp_path / "run"
    choices = {**REWIND, "keep_recent": 1, "allow_inexact": True}
    task, stop = tasks.stopping(tasks.Poisoned, 6)
    assert tasks.train(run_dir, task, stop, **choices).step == 6
    assert tasks.steps(run_dir / "recent") == [4, 6]
    task, stop = tasks.stopping(tasks.Poisoned, 60)
    assert tasks.train(run_dir, task, stop, **choices).step == 14


def test_a_save_that_fails_just_before_bad_data_is_rewound_over(tmp_path):
    """It is known only when the rewind waits for it, and it is made on the way back."""
    recent = tmp_path / "run/recent"

    def obstruct(number):
        if number == 8:
            (recent / "ckpt-8.index/in the way").mkdir(parents=True)

    task = tasks.calling(tasks.Poisoned, obstruct, first=8, last=8)
    with tasks.logged() as lines:
        outcome = tasks.train(tmp_path / "run", task, **REWIND, allow_inexact=True)
    assert outcome.step == 14
    failed, rewound = [
        line for line in lines if "could not be saved" in line or "rewound" in line
    ]
    assert failed.startswith(f"ERROR {recent}/ckpt-8 could not be saved: ")
    assert failed.endswith(" Every earlier checkpoint is as it was. Trying again.")
    assert rewound.startswith("WARNING rewound to step 4, past the data of 5 steps")
    assert tasks.steps(recent) == [4, 8, 12, 14]


def test_rewinds_to_a_step_that_no_schedule_saves_come_to_an_end(tmp_path):
    """The newest checkpoint is there because it is the best."""
    task, stop = tasks.stopping(tasks.Poisoned, 60, first=4, last=5)
    choices = {**REWIND, "save_every_steps": 14, "best": ("loss:min",)}
    with tasks.logged() as lines:
        outcome = tasks.train(
            tmp_path / "run", task, stop, **choices, allow_inexact=True
        )
    assert (outcome.step, outcome.stopped_by) == (14, None), "it goes on for ever"
    assert len([line for line in lines if "rewound to step 3" in line]) == 2


def test_a_rewind_gives_up_in_the_end(tmp_path):
    text = r"at step 5\..*It was rewound 1 times already \(--max_rewinds\)\."
    with pytest.raises(steps.NonFiniteError, match=text):
        tasks.train(tmp_path / "run", tasks.Poisoned(), **REWIND, max_rewinds=1)
    assert tasks.steps(tmp_path / "run/recent") == [4]


def test_without_a_checkpoint_there_is_nothing_to_rewind_to(tmp_path):
    with pytest.raises(steps.NonFiniteError, match="became NaN or infinite at step 1"):
        tasks.train(tmp_path / "run", tasks.Poisoned(first=0), **REWIND)
    assert tasks.steps(tmp_path / "run/recent") == []


def test_where_only_a_stop_has_saved_there_is_nothing_to_rewind_to(tmp_path):
    """As if it had not been stopped; and what is there stays there."""
    run_dir = tmp_path / "run"
    choices = {**REWIND, "save_every_steps": 10, "allow_inexact": True}
    task, stop = tasks.stopping(tasks.Poisoned, 6)
    assert tasks.train(run_dir, task, stop, **choices).step == 6
    before = tasks.scalars(run_dir)["train/loss"]
    task, stop = tasks.stopping(tasks.Poisoned, 60)
    with pytest.raises(steps.NonFiniteError, match="became NaN or infinite at step 7"):
        tasks.train(run_dir, task, stop, **choices)
    assert tasks.steps(run_dir / "recent") == [6]
    assert tasks.scalars(run_dir)["train/loss"][: len(before)] == before


# Going back.


def files(directory):
    """The bytes of every file below, by relative name."""
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize(
    ("asked", "step"),
    [("step:5", 5), ("best", None), ("{run_dir}/recent/ckpt-7", 7)],
)
def test_going_back_moves_aside_what_came_later_and_loses_nothing(
    light, tmp_path, asked, step
):
    run_dir = tasks.cut_back(light, tmp_path / "run", TOTAL)
    asked = asked.format(run_dir=run_dir)
    if step is None:
        (step,) = tasks.steps(run_dir / "best/loss")
        assert 0 < step < TOTAL
    before = files(run_dir)
    with tasks.logged() as lines:
        outcome = tasks.train(run_dir, tasks.Light(), steps=TOTAL, checkpoint=asked)
    assert outcome.trained_steps == TOTAL - step
    aside = files(run_dir / "abandoned/1")
    after = files(run_dir)
    kept = {name for name in before if (found := re.search(r"ckpt-(\d+)", name))
            and int(found[1]) <= step}  # fmt: skip
    moved = {name for name in before if "ckpt-" in name} - kept
    assert moved
    for name in moved:
        assert aside[name] == before[name]
    for name in kept:
        if name.startswith("recent/"):
            assert after[name] == before[name]
    for name in before:
        if name.startswith("summaries/"):
            assert aside[name] == before[name]
    assert any("abandoned/1" in line and "gone back to" in line for line in lines)
    tasks.assert_same_run(light, run_dir)
    for later in range(step + 1, TOTAL + 1):
        mark = tasks.manifest(run_dir / f"recent/ckpt-{later}")
        assert (mark["lineage"], mark["parent"]) == (1, step)
    mark = tasks.manifest(run_dir / f"recent/ckpt-{step}")
    assert (mark["lineage"], mark["parent"]) == (0, None)
    rows = {r["step"]: r for r in list_checkpoints(RunDirectory(pathlib.Path(run_dir)))}
    assert rows[TOTAL]["lineage"] == 1
    assert rows[step]["lineage"] == 0
    recorded = json.loads((run_dir / "config.json").read_text())["lineages"]
    assert [(one["asked"], one["step"]) for one in recorded] == [(asked, step)]


def test_the_command_that_went_back_resumes_when_it_is_given_again(light, tmp_path):
    run_dir = tasks.cut_back(light, tmp_path / "run", TOTAL)
    choices = {"steps": TOTAL, "checkpoint": "step:5"}
    tasks.train(run_dir, tasks.Light(), **choices)
    run_dir = tasks.cut_back(run_dir, tmp_path / "again", 9)
    outcome = tasks.train(run_dir, tasks.Light(), **choices)
    assert outcome.trained_steps == TOTAL - 9
    assert not (run_dir / "abandoned/2").exists()
    tasks.assert_same_run(light, run_dir)
    # Somewhere else is another matter.
    outcome = tasks.train(run_dir, tasks.Light(), **{**choices, "checkpoint": "step:8"})
    assert outcome.trained_steps == TOTAL - 8
    assert tasks.steps(run_dir / "abandoned/2/recent") == [9, 10, 11, 12]
    assert tasks.manifest(run_dir / "recent/ckpt-12")["lineage"] == 2
    tasks.assert_same_run(light, run_dir)


def test_going_back_with_other_choices_begins_another_curve(light, tmp_path):
    run_dir = tasks.cut_back(light, tmp_path / "run", TOTAL)
    tasks.train(
        run_dir,
        tasks.Light(learning_rate=0.01),
        steps=TOTAL,
        checkpoint="step:6",
        allow_change=("learning_rate",),
    )
    tasks.assert_each_step_once(run_dir)
    one, other = (tasks.scalars(d)["eval/loss"] for d in (light, run_dir))
    assert one[:2] == other[:2]
    assert one[2:] != other[2:]
    assert [step for step, _ in other] == [3, 6, 9, 12]


def test_going_back_to_another_run_sets_all_of_ones_own_aside(light, tmp_path):
    run_dir = tmp_path / "run"
    tasks.train(run_dir, tasks.Light(), steps=4)
    before = files(run_dir)
    asked = str(light / "recent/ckpt-9")
    source = files(light)
    outcome = tasks.train(run_dir, tasks.Light(), steps=TOTAL, checkpoint=asked)
    assert outcome.trained_steps == TOTAL - 9
    name = "recent/ckpt-12"
    different = tasks.different(light / name, run_dir / name)
    # The other run's record stays there, for so does its checkpoint.
    assert set(different) <= {"progress/.ATTRIBUTES/VARIABLE_VALUE"}
    record = tasks.manifest(run_dir / name)["records"]["loss"]
    assert record["step"] in tasks.steps(run_dir / "best/loss")
    aside = files(run_dir / "abandoned/1")
    for name, content in before.items():
        if "ckpt-" in name or name.startswith("summaries/"):
            assert aside[name] == content, name
    assert files(light) == source


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ("step:77", r"there is no checkpoint of step 77\. .* at the steps: 1, 2, 3, 4"),
        ("best:speed", r"no checkpoint 'best:speed'; this run keeps the best by loss"),
        ("nonsense", r"there is no checkpoint 'nonsense'\. Expected latest, best,"),
    ],
)
def test_going_back_to_nowhere_is_refused(light, tmp_path, asked, text):
    run_dir = tasks.cut_back(light, tmp_path / "run", 4)
    before = {k: v for k, v in files(run_dir).items() if k != "run.lock"}
    with pytest.raises(selection.NoCheckpointError, match=text):
        tasks.train(run_dir, tasks.Light(), steps=TOTAL, checkpoint=asked)
    assert {k: v for k, v in files(run_dir).items() if k != "run.lock"} == before


# Weights from elsewhere.


NET = "model/sequential"


class Two(tasks.Plain):
    """Two layers, so that some weights may fit and others not."""

    def networks(self):
        return keras.Sequential(
            [
                keras.layers.Input([tasks.FEATURES]),
                keras.layers.Dense(3, name="first"),
                keras.layers.Dense(self.width, name="last"),
            ]
        )


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("given") / "run"
    tasks.train(run_dir, Two(), steps=3)
    return run_dir / "recent/ckpt-3"


def weights(prefix):
    """The values of the network, by the names of the manifest."""
    variables = [
        one["path"]
        for one in tasks.manifest(prefix)["variables"]
        if one["path"].startswith("model/")
    ]
    values = tasks.tensors(prefix)
    return {
        path: values[f"variables/{number}/.ATTRIBUTES/VARIABLE_VALUE"]
        for number, path in enumerate(variables)
    }


class Still(Two):
    """Learns nothing, so that what it began with can be seen."""

    def optimizers(self):
        return keras.optimizers.SGD(0.0)


@pytest.mark.parametrize(
    ("width", "taken", "fresh", "unused"),
    [
        (1, "first/kernel first/bias last/kernel last/bias", "none", "none"),
        (
            2,
            "first/kernel first/bias",
            "last/kernel last/bias",
            "last/kernel last/bias",
        ),
    ],
)
def test_a_new_run_may_begin_with_the_weights_that_fit(
    given, tmp_path, width, taken, fresh, unused
):
    with tasks.logged() as lines:
        tasks.train(tmp_path / "run", Still(width=width), steps=1, init_from=str(given))
    listed = {
        what: ", ".join(f"{NET}/{name}" for name in names.split())
        if names != "none"
        else names
        for what, names in (("fresh", fresh), ("unused", unused))
    }
    assert (
        f"INFO initial weights from {given}: {len(taken.split())} taken; fresh: "
        f"{listed['fresh']}; not used: {listed['unused']}"
    ) in lines
    there, here = weights(given), weights(tmp_path / "run/recent/ckpt-1")
    for name in taken.split():
        np.testing.assert_array_equal(here[f"{NET}/{name}"], there[f"{NET}/{name}"])
    assert here[f"{NET}/last/kernel"].shape == (3, width)
    assert np.any(here[f"{NET}/last/kernel"])


def test_weights_of_which_none_fits_are_refused(given, tmp_path):
    text = (
        f"--init_from={given}: not one of its weights fits by path and shape. It has "
        f"{NET}/first/kernel, {NET}/first/bias, {NET}/last/kernel, {NET}/last/bias, "
        f"...; expected {NET}/dense/kernel, {NET}/dense/bias, ..."
    )
    with pytest.raises(options.ConfigError, match=re.escape(text)):
        tasks.train(
            tmp_path / "run", tasks.Plain(width=7), steps=1, init_from=str(given)
        )
    assert tasks.steps(tmp_path / "run/recent") == []


def test_a_resumed_run_keeps_its_own_weights(given, tmp_path):
    run_dir = tmp_path / "run"
    choices = {"steps": 2, "init_from": str(given)}
    tasks.train(run_dir, Two(), **choices)
    with tasks.logged() as lines:
        tasks.train(run_dir, Two(), **{**choices, "steps": 3})
    assert not [line for line in lines if "initial weights" in line]
    tasks.train(tmp_path / "straight", Two(), **{**choices, "steps": 3})
    name = "recent/ckpt-3"
    assert tasks.different(run_dir / name, tmp_path / "straight" / name) == []


@pytest.mark.parametrize(
    ("resume", "text"),
    [
        ("never", "has checkpoints already, and --resume=never says not to go on"),
        ("require", "has no checkpoint to go on from, and --resume=require asks"),
    ],
)
def test_resuming_may_be_forbidden_or_demanded(light, tmp_path, resume, text):
    run_dir = tmp_path / "run"
    if resume == "never":
        tasks.cut_back(light, run_dir, 4)
    with pytest.raises(options.ConfigError, match=text):
        tasks.train(run_dir, tasks.Light(), steps=TOTAL, resume=resume)
    assert tasks.steps(run_dir / "recent") == (
        [1, 2, 3, 4] if resume == "never" else []
    )


# The configuration.


def test_without_its_configuration_a_run_goes_on_with_the_same_choices_only(tmp_path):
    run_dir = tmp_path / "run"
    tasks.train(run_dir, tasks.Plain(), steps=4)
    (run_dir / "config.json").unlink()
    text = "has checkpoints that were made with other choices, and its config.json"
    with pytest.raises(options.ConfigError, match=text):
        tasks.train(run_dir, tasks.Plain(), steps=8, batch_size=4)
    assert tasks.train(run_dir, tasks.Plain(), steps=8).trained_steps == 4
    assert (run_dir / "config.json").exists()
