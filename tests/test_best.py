"""The best checkpoint, in each of the ways in which it is easily lost.

The metric of each evaluation is written down beforehand; see `scripted.py`.
"""

import json
import os
import pathlib
import re
import shutil
import signal
import sys
import threading

import processes
import pytest
import scripted
import tasks
import tensorflow as tf

from trainer.checkpoint import layout, manifest, retention, selection
from trainer.checkpoint.layout import RunDirectory
from trainer.commands import cli
from trainer.config import options


def train(run_dir, script, *, steps=None, **choices):
    """A run that evaluates after each step, if nothing else is said."""
    return tasks.train(
        run_dir,
        scripted.Scripted(script=script),
        steps=steps or len(script.split()),
        **{"evaluate_every_steps": 1, **choices},
    )


def best(run_dir, metric="score"):
    return tasks.steps(run_dir / "best" / metric)


def records(run_dir):
    """What the newest checkpoint says of the best values so far."""
    newest = tasks.steps(run_dir / "recent")[-1]
    return tasks.manifest(run_dir / f"recent/ckpt-{newest}")["records"]


def record(step, value, mode="max"):
    return {"step": step, "value": value, "mode": mode}


def weight(prefix):
    """The count that a checkpoint holds: its step, negative."""
    (value,) = (v for k, v in tasks.tensors(prefix).items() if k.startswith("var"))
    return value


def assert_best(run_dir, step, value, mode="max"):
    """All that says which one is the best says the same, and it can be read."""
    directory = run_dir / "best" / "score"
    prefix = directory / f"ckpt-{step}"
    assert best(run_dir) == [step]
    assert records(run_dir)["score"] == record(step, value, mode)
    assert tasks.manifest(prefix)["metrics"]["score"] == value
    assert tf.train.latest_checkpoint(str(directory)) == str(prefix)
    rule = retention.Best("score", mode)
    assert selection.select(RunDirectory(run_dir), "best", [rule]).prefix == prefix
    assert weight(prefix) == -step
    assert tasks.scalars(run_dir)["eval/best/score"][-1][1] == value


# Which one it is.


@pytest.mark.parametrize(
    ("script", "mode", "step", "value"),
    [
        pytest.param("nan 0.5 0.25", "max", 2, 0.5, id="a first NaN is not best"),
        pytest.param("nan 0.5 0.75", "min", 2, 0.5, id="nor is it the smallest"),
        pytest.param("inf 0.5 0.25", "max", 2, 0.5, id="nor is infinity"),
        pytest.param("0.5 nan 0.25", "max", 1, 0.5, id="a later NaN is not best"),
        pytest.param("0.5 -inf 0.75", "min", 1, 0.5, id="nor is minus infinity"),
        pytest.param("0.5 nan 0.75", "max", 3, 0.75, id="nor does a NaN end it"),
        pytest.param("0.5 0.0 0.25", "min", 2, 0.0, id="zero is a value"),
        pytest.param("0.0 -0.5 -0.25", "max", 1, 0.0, id="zero is the largest here"),
        pytest.param("-0.75 -0.5 -0.75", "max", 2, -0.5, id="all may be negative"),
        pytest.param("0.25 0.5 0.5", "max", 2, 0.5, id="of equals the earlier"),
        pytest.param("0.5 0.25 0.25", "min", 2, 0.25, id="of equals the earlier: min"),
    ],
)
def test_which_one_is_best(tmp_path, script, mode, step, value):
    train(tmp_path / "run", script, best=(f"score:{mode}",))
    assert_best(tmp_path / "run", step, value, mode)


def test_where_no_value_is_a_number_none_is_best(tmp_path):
    train(tmp_path / "run", "nan inf nan")
    assert not (tmp_path / "run/best").exists()
    assert records(tmp_path / "run") == {}
    assert "eval/best/score" not in tasks.scalars(tmp_path / "run")


def test_what_is_better_by_less_than_the_delta_takes_no_place(tmp_path):
    """Small steps that add up do: each is compared with the best."""
    script = "0.5 0.5625 0.625 0.6875 0.75"
    train(tmp_path / "run", script, steps=3, best_min_delta=0.125)
    assert_best(tmp_path / "run", 1, 0.5)
    train(tmp_path / "run", script, best_min_delta=0.125)
    assert_best(tmp_path / "run", 4, 0.6875)


# That it lasts.


def test_a_restart_and_then_a_worse_value_leave_the_best_alone(tmp_path):
    run_dir, script = tmp_path / "run", "0.25 0.5 0.375 0.25"
    train(run_dir, script, steps=2)
    before = {p.name: p.stat() for p in (run_dir / "best/score").glob("ckpt-2.*")}
    train(run_dir, script, keep_recent=1)
    assert_best(run_dir, 2, 0.5)
    assert tasks.steps(run_dir / "recent") == [4]
    for name, stat in before.items():
        now = (run_dir / "best/score" / name).stat()
        assert (now.st_ino, now.st_mtime_ns) == (stat.st_ino, stat.st_mtime_ns)


@pytest.mark.parametrize(
    ("choices", "step", "value"),
    [
        pytest.param({"evaluate_every_steps": 3}, 3, 0.5, id="evaluation"),
        pytest.param({"save_every_steps": 5}, 2, 0.75, id="saving"),
        pytest.param(
            {"save_every_steps": 0, "save_every_secs": 1e6},
            2,
            0.75,
            id="saving, by the clock",
        ),
    ],
)
def test_one_may_be_rarer(tmp_path, choices, step, value):
    """Only what was evaluated is ranked, and what is best is saved for itself."""
    script = "0.25 0.75 0.5 0.25 0.125 0.375"
    train(tmp_path / "run", script, keep_recent=1, **choices)
    assert_best(tmp_path / "run", step, value)
    assert tasks.steps(tmp_path / "run/recent")[-1] == 6


def test_a_moved_run_remembers_its_best(tmp_path):
    script = "0.25 0.5 0.375"
    train(tmp_path / "a", script, steps=2)
    (tmp_path / "a").rename(tmp_path / "b")
    train(tmp_path / "b", script)
    assert_best(tmp_path / "b", 2, 0.5)
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("point", "promoted"), [("save@2", False), ("promotion@2", True)]
)
def test_a_kill_between_record_and_promotion_separates_them_for_no_one(
    tmp_path, point, promoted
):
    """A record without its checkpoint would refuse a value that is really better."""
    script, run_dir = "0.25 0.5 0.375 0.4375 0.75", tmp_path / "run"
    shutil.copy(scripted.__file__, tmp_path / "mine.py")
    choices = {**tasks.CHOICES, "task": "mine:Scripted", "evaluate_every_steps": 1}
    arguments = [f"--{name}={value}" for name, value in choices.items()]
    arguments += ["--run_dir=run", f"--set=script={script}", "--steps=5"]
    killed = processes.run(*arguments, cwd=tmp_path, KEEPSTEP_KILL_AT=point)
    assert killed.code == -signal.SIGKILL, killed.stderr
    assert best(run_dir) == [1], "the old best is there as long as the new one is not"
    assert (tasks.steps(run_dir / "recent") == [1, 2]) == promoted
    train(run_dir, script, steps=4, **{**choices, "evaluate_every_steps": 1})
    assert_best(run_dir, 2, 0.5)
    train(run_dir, script, **choices)
    assert_best(run_dir, 5, 0.75)


class Watch:
    """Looks, before each change of a file by any thread, whether a best is there."""

    def __init__(self, directory):
        self.directory = directory
        self.before = []
        self._looking = threading.local()
        self._open = True

    def close(self):
        self._open = False  # an audit hook can't be taken away again

    def __call__(self, event, arguments):
        if event not in ("os.link", "os.rename", "os.remove") or not self._open:
            return
        if not getattr(self._looking, "now", False):
            self._looking.now = True
            path = pathlib.Path(os.fspath(arguments[0]))
            self.before.append((event, path.parent.name, self.complete()))
            self._looking.now = False

    def complete(self):
        """The steps of the best checkpoints whose files are all there."""
        found = []
        for step in layout.steps(self.directory):
            mark = manifest.read(self.directory, step)
            sizes = {name: file.bytes for name, file in mark.files.items()}
            paths = {name: self.directory / name for name in sizes}
            if all(
                paths[name].exists() and paths[name].stat().st_size == sizes[name]
                for name in sizes
            ):
                found.append(step)
        return found


def test_at_no_instant_is_there_no_best(tmp_path):
    """One best is kept, and it is written behind the training thread."""
    run_dir = tmp_path / "run"
    watch = Watch(run_dir / "best/score")
    sys.addaudithook(watch)
    try:
        train(run_dir, "0.125 0.25 0.5 0.375 0.75", keep_recent=1)
    finally:
        watch.close()
    assert_best(run_dir, 5, 0.75)
    seen = [complete for _, _, complete in watch.before]
    first = seen.index([1])
    assert all(seen[first:])
    assert {step for complete in seen for step in complete} == {1, 2, 3, 5}
    removals = [one for one in watch.before if one[:2] == ("os.remove", "score")]
    assert len(removals) >= 3 * 3, "three bests were replaced, of three files each"


# Going back.


def test_going_back_and_then_improving(tmp_path):
    run_dir = tmp_path / "run"
    train(run_dir, "0.25 0.5 0.125 0.75")
    again = {"checkpoint": "step:3", "allow_change": ("script",)}
    train(run_dir, "0.25 0.5 0.125 0.375 0.625", steps=4, **again)
    assert_best(run_dir, 2, 0.5)
    train(run_dir, "0.25 0.5 0.125 0.375 0.625", **again)
    assert_best(run_dir, 5, 0.625)
    abandoned = run_dir / "abandoned/1/best/score/ckpt-4"
    assert tasks.manifest(abandoned)["metrics"]["score"] == 0.75
    assert weight(abandoned) == -4


def test_going_back_before_every_best_begins_anew(tmp_path):
    run_dir = tmp_path / "run"
    train(run_dir, "nan 0.75")
    again = {"checkpoint": "step:1", "allow_change": ("script",)}
    train(run_dir, "nan 0.5", **again)
    assert_best(run_dir, 2, 0.5)


def test_going_back_before_every_best_leaves_none(tmp_path):
    run_dir = tmp_path / "run"
    train(run_dir, "nan nan 0.5")
    again = {"checkpoint": "step:2", "allow_change": ("script",)}
    train(run_dir, "nan nan nan", **again)
    assert best(run_dir) == []
    assert tf.train.latest_checkpoint(str(run_dir / "best/score")) is None
    assert records(run_dir) == {}


def test_going_back_to_where_the_record_was_lost_takes_what_is_there(tmp_path):
    """The best of that time was displaced by one that is abandoned now."""
    run_dir = tmp_path / "run"
    train(run_dir, "0.25 0.5 0.125 0.75", keep_recent=2)
    again = {"checkpoint": "step:3", "allow_change": ("script",)}
    train(run_dir, "0.25 0.5 0.125 0.375", keep_recent=2, **again)
    assert_best(run_dir, 4, 0.375)


# Several of them.


@pytest.fixture(scope="module")
def ranked(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("ranked") / "run"
    script = "0.5 0.25 0.75 0.5 0.125"
    train(run_dir, script, best=("score:max:3", "loss:min"), keep_recent=1)
    return run_dir


def test_the_ranks_are_listed(ranked, capsys):
    where = f"--run_dir={ranked}"
    assert cli.main(["run.py", "list", where, "--format=json"], package="models") == 0
    rows = json.loads(capsys.readouterr().out)
    shown = {row["step"]: (row["best_of"], row["ranks"]) for row in rows}
    assert shown == {
        5: (["loss"], {"loss": 1}),
        4: (["score"], {"score": 3}),
        3: (["score"], {"score": 1}),
        1: (["score"], {"score": 2}),
    }
    assert cli.main(["run.py", "list", where], package="models") == 0
    lines = capsys.readouterr().out.splitlines()
    marks = {line.split()[0]: line for line in lines}
    assert " best score " in marks["3"]
    assert " 2. best score " in marks["1"]
    assert " 3. best score " in marks["4"]


def test_each_of_several_is_the_whole_checkpoint_of_its_step(ranked):
    for step in (1, 3, 4):
        assert weight(ranked / f"best/score/ckpt-{step}") == -step
    latest = tf.train.latest_checkpoint(str(ranked / "best/score"))
    assert latest == str(ranked / "best/score/ckpt-3")


# Another rule on resume.


@pytest.mark.parametrize(
    "rules",
    [
        pytest.param(("score:min", "loss:min"), id="another mode"),
        pytest.param(("loss:min", "score:max"), id="another one first"),
        pytest.param(("loss:min",), id="one less"),
    ],
)
def test_another_ranking_is_refused(tmp_path, rules):
    run_dir, before = tmp_path / "run", ("score:max", "loss:min")
    train(run_dir, "0.25 0.5", best=before)
    text = (
        f"{run_dir} holds a run that was started with other choices:\n"
        f"  best: {list(before)!r} there, {list(rules)!r} here\n"
        "Start with the same ones, give another --run_dir, or say that you mean it: "
        "--allow_change=best"
    )
    with pytest.raises(options.ConfigError, match=f"^{re.escape(text)}$"):
        train(run_dir, "0.25 0.5", steps=3, best=rules)
    assert tasks.steps(run_dir / "recent") == [1, 2]
    assert_best(run_dir, 2, 0.5)


def test_where_another_mode_is_allowed_the_record_is_that_of_the_directory(tmp_path):
    script, run_dir = "0.25 0.5 0.375 0.75 0.125", tmp_path / "run"
    train(run_dir, script, steps=3)
    allowed = {"best": ("score:min",), "allow_change": ("best",)}
    train(run_dir, script, steps=4, **allowed)
    assert best(run_dir) == [1]
    assert records(run_dir) == {"score": record(1, 0.25, "min")}
    train(run_dir, script, **allowed)
    assert best(run_dir) == [5]
    assert records(run_dir) == {"score": record(5, 0.125, "min")}


def test_one_more_metric_needs_no_leave(tmp_path):
    script, run_dir = "0.25 0.5 0.375", tmp_path / "run"
    train(run_dir, script, steps=2)
    train(run_dir, script, best=("score:max:2", "loss:min"))
    assert best(run_dir) == [2, 3]
    assert best(run_dir, "loss") == [3]
    loss = record(3, -3, "min")
    assert records(run_dir) == {"score": record(2, 0.5), "loss": loss}


# Early stopping.


@pytest.mark.parametrize(
    ("metric", "rules", "step"),
    [
        pytest.param("score", ("loss:min", "score:max"), 4, id="the named one"),
        pytest.param("", ("score:max", "loss:min"), 4, id="the first"),
        pytest.param("", ("loss:min", "score:max"), 6, id="the first gets better"),
        pytest.param("loss", ("score:max", "loss:min"), 6, id="the named one does"),
    ],
)
def test_early_stopping_looks_at_one_metric(tmp_path, metric, rules, step):
    """The loss gets better at each step."""
    outcome = train(
        tmp_path / "run",
        "0.25 0.5 0.5 0.375 0.25 0.125",
        best=rules,
        early_stop_metric=metric,
        early_stop_patience=2,
    )
    assert (outcome.step, outcome.stopped_early) == (step, step < 6)


@pytest.mark.parametrize(
    "choices", [{"early_stop_patience": 1}, {"early_stop_metric": "score"}]
)
def test_early_stopping_where_nothing_is_ranked_is_refused(tmp_path, choices):
    text = "early stopping needs a metric that gets better: give --best=name:min|max"
    with pytest.raises(options.ConfigError, match=re.escape(text)):
        train(tmp_path / "run", "0.5", best=(), **choices)


def test_early_stopping_on_a_metric_that_is_not_ranked_is_refused():
    text = (
        "--early_stop_metric=loss: --best does not say whether less or more of it is "
        "better. Give it as a --best, too, such as --best=loss:min."
    )
    with pytest.raises(options.ConfigError, match=f"^{re.escape(text)}$"):
        options.RunOptions(best=("score:max",), early_stop_metric="loss")
