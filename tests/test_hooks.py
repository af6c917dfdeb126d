"""Hooks: what they are told, and that they change nothing of the training."""

import json
import random
import re
import shutil
import signal

import keras
import numpy as np
import processes
import pytest
import tasks
import tensorflow as tf

import trainer
from trainer.checkpoint.layout import RunDirectory
from trainer.config import chosen_hooks, options, run_record
from trainer.reporting import hook

STEPS = {"steps": 7, "save_every_steps": 3, "report_every_steps": 2}


class Heard(trainer.Hook):
    """Writes down what it is told."""

    def __init__(self):
        self.told = []

    def on_begin(self, step, run_dir):
        self.told.append(("begin", step, run_dir.name))

    def on_report(self, step, scalars):
        self.told.append(("report", step, *sorted(scalars)))

    def on_evaluation(self, step, metrics):
        self.told.append(("evaluation", step, *sorted(metrics)))

    def on_best(self, step, name, value, path):
        there = path.with_name(f"{path.name}.json").exists()
        self.told.append(("best", step, name, there, path.parent.name))

    def on_commit(self, step, path):
        there = path.with_name(f"{path.name}.json").exists()
        self.told.append(("commit", step, there, path.parent.name))

    def on_end(self, outcome):
        self.told.append(("end", outcome and outcome.step))

    def of(self, *kinds):
        return [one[:2] for one in self.told if one[0] in kinds]


def test_a_hook_is_told_what_happens_in_its_order(tmp_path):
    heard = Heard()
    tasks.train(tmp_path / "run", tasks.Plain(), hooks=[heard], **STEPS)
    assert heard.told[0] == ("begin", 0, "run")
    assert heard.told[-1] == ("end", 7)
    scalars = ["gradient_norm", "learning_rate", "loss"]
    speeds = ["speed/examples_per_sec", "speed/steps_per_sec"]
    assert ("report", 4, *scalars, *speeds) in heard.told
    assert heard.of("report") == [("report", n) for n in (2, 4, 6, 7)]
    assert ("evaluation", 3, "loss") in heard.told
    assert heard.of("evaluation") == [("evaluation", n) for n in (3, 6, 7)]
    assert heard.of("commit") == [("commit", n) for n in (3, 6, 7)]
    assert ("commit", 3, True, "recent") in heard.told
    assert ("best", 3, "loss", True, "loss") in heard.told
    assert {n for _, n in heard.of("best")} == {
        record["step"]
        for n in (3, 6, 7)
        for record in tasks.manifest(tmp_path / f"run/recent/ckpt-{n}")[
            "records"
        ].values()
    }
    places = {one[:2]: place for place, one in enumerate(heard.told)}
    assert places["evaluation", 3] < places["commit", 3] < places["best", 3]
    assert places["commit", 3] < places["commit", 6] < places["end", 7]


def test_a_resumed_run_tells_from_where_and_its_checkpoint_once_more(tmp_path):
    tasks.train(tmp_path / "run", tasks.Plain(), **STEPS)
    run_dir = tasks.cut_back(tmp_path / "run", tmp_path / "again", 3)
    heard = Heard()
    tasks.train(run_dir, tasks.Plain(), hooks=[heard], **STEPS)
    assert heard.told[:2] == [("begin", 3, "again"), ("commit", 3, True, "recent")]
    assert heard.of("report") == [("report", n) for n in (4, 6, 7)]
    assert heard.of("evaluation") == [("evaluation", n) for n in (6, 7)]
    done = Heard()
    tasks.train(run_dir, tasks.Plain(), hooks=[done], **STEPS)
    assert done.of("begin", "report", "commit", "end") == [
        *(("begin", 7), ("commit", 7), ("end", 7))
    ]


def test_a_rewind_is_told_as_a_new_beginning(tmp_path):
    heard = Heard()
    choices = {"steps": 14, "save_every_steps": 4, "on_nonfinite": "rewind"}
    tasks.train(tmp_path / "run", tasks.Poisoned(), hooks=[heard], **choices, best=())
    begun = heard.of("begin")
    assert begun[:2] == [("begin", 0), ("begin", 4)]
    assert heard.of("report").count(("report", 6)) >= 1
    assert heard.of("commit")[0] == ("commit", 4)


def test_an_error_of_the_run_is_told_as_an_end_without_outcome(tmp_path):
    heard = Heard()
    with pytest.raises(ArithmeticError, match="NaN or infinite at step 7"):
        tasks.train(tmp_path / "run", tasks.Poisoned(), hooks=[heard], steps=9)
    assert heard.told[-1] == ("end", None)


# It can't change the training.


class Drawing(tasks.Light):
    """Training draws from every generator that a hook could disturb."""

    def values(self, networks, batch, training):
        noise = tf.random.get_global_generator().normal([1, tasks.FEATURES])
        more = keras.random.normal([1, tasks.FEATURES])
        return super().values(
            networks, {**batch, "x": batch["x"] + noise + more}, training
        )


class Meddler(trainer.Hook):
    """Does all that it can."""

    def on_begin(self, step, run_dir):
        keras.utils.set_random_seed(step)
        keras.config.set_dtype_policy("float16")
        raise SystemExit(3)

    def on_report(self, step, scalars):
        random.random()
        np.random.rand(9)
        tf.random.get_global_generator().normal([3])
        keras.random.normal([3])
        scalars.clear()
        return {"stop": True}

    def on_evaluation(self, step, metrics):
        tf.random.set_global_generator(tf.random.Generator.from_seed(99))
        metrics["loss"] = -1.0
        raise ValueError("no")

    def on_commit(self, step, path):
        keras.utils.clear_session()
        raise OSError("disk full")


def test_whatever_a_hook_does_the_bits_are_the_same(tmp_path):
    heard, states = Heard(), []
    for name, hooks in (("without", []), ("with", [Meddler(), heard])):
        tasks.train(tmp_path / name, Drawing(), hooks=hooks, steps=9)
        states.append((random.getstate(), np.random.get_state()[1].tolist()))
    assert states[0] == states[1], "and so is what a source in Python draws"
    tasks.assert_same_run(tmp_path / "without", tmp_path / "with")
    assert ("evaluation", 9, "loss") in heard.told, "the next one hears all of it"


def test_an_error_is_told_once_with_its_line_and_counted_at_the_end(tmp_path):
    with tasks.logged() as lines:
        tasks.train(tmp_path / "run", tasks.Plain(), hooks=[Meddler()], **STEPS)
    told = [line for line in lines if "hook Meddler" in line]
    assert re.fullmatch(
        r"ERROR the hook Meddler failed in on_evaluation of step 3: ValueError: no "
        r"\(.*test_hooks\.py, line \d+, in on_evaluation\)\. Training goes on, and the "
        "hook is called again; further errors there are counted, and told at the end.",
        told[1],
    )
    assert [line.partition(" of ")[0] for line in told[:3]] == [
        "ERROR the hook Meddler failed in on_begin",
        "ERROR the hook Meddler failed in on_evaluation",
        "ERROR the hook Meddler failed in on_commit",
    ]
    assert (
        "ERROR errors of the hook Meddler: on_begin 1, on_evaluation 3, on_commit 3"
        in told
    )


def test_a_hook_that_takes_long_is_told(tmp_path):
    from trainer.training import listeners

    now = iter(range(100))
    with tasks.logged() as lines:
        told = listeners.Listeners(
            [trainer.Hook()], tmp_path, clock=lambda: float(next(now))
        )
        told.report(1, {})
        told.end(None)
    assert lines[-1] == (
        "WARNING the hook Hook took 2.0 s, 40% of the run: training waits for it"
    )


# What is chosen.

MINE = """
import pathlib, trainer

class Mine(trainer.Hook):
    def __init__(self, name="told.txt"):
        self.path = pathlib.Path(name)
    def on_commit(self, step, path):
        with self.path.open("a") as file:
            file.write(f"{step}\\n")

class Wrong:
    def on_commited(self, step, path): pass

class Narrow:
    def on_commit(self, step): pass

class Nothing: pass

class Picky(trainer.Hook):
    def __init__(self):
        raise ValueError("I won't")
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    (tmp_path / "mine_hooks.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "mine_hooks.py"


def test_hooks_are_named_as_tasks_are_with_an_argument(mine):
    one, two, csv, command = chosen_hooks.made(
        [f"{mine}:Mine", f"{mine}:Mine(a (b).txt)", "csv", "command(ls {path}.*)"]
    )
    assert [one.path.name, two.path.name] == ["told.txt", "a (b).txt"]
    assert isinstance(csv, trainer.hooks.Csv)
    assert isinstance(command, trainer.hooks.Command)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "cvs",
            "--hook=cvs: there is no hook 'cvs'; Did you mean 'csv'? expected csv,",
        ),
        (
            "(x)",
            "--hook=(x): expected csv, command(LINE), package.module:Class or path",
        ),
        ("command", "--hook=command: it can't be made: Command.__init__() missing 1"),
        ("command( )", "--hook=command( ): it can't be made: command() has nothing to"),
        ("nowhere:X", "--hook=nowhere:X: there is no module 'nowhere' in the current"),
        ("no/x.py:X", "--hook=no/x.py:X: there is no Python file no/x.py. Expected"),
        ("{mine}:Mein", " has no class 'Mein'. Did you mean 'Mine'?"),
        ("{mine}:Picky", "it can't be made: I won't ("),
        (
            "{mine}:Wrong",
            "the hook Wrong has a method on_commited, which nothing calls. Did you "
            "mean 'on_commit'?",
        ),
        (
            "{mine}:Narrow",
            "Narrow.on_commit can't be called as it is. Expected: def on_commit(self, "
            "step, path): ...",
        ),
        ("{mine}:Nothing", "the hook Nothing has none of the methods on_begin, on_re"),
    ],
)
def test_what_is_no_hook_is_refused_with_what_mends_it(mine, text, message):
    with pytest.raises(options.ConfigError, match=re.escape(message)):
        chosen_hooks.made([text.format(mine=mine)])


def test_a_class_in_the_place_of_an_object_is_refused(tmp_path):
    with pytest.raises(
        options.ConfigError, match=r"expected an object of it: hooks=\[H"
    ):
        trainer.train(tasks.Plain(), tmp_path / "run", hooks=[Heard], steps=1)


def test_every_method_that_is_called_is_one_of_a_hook():
    own = {name for name in vars(trainer.Hook) if name.startswith("on_")}
    assert own == hook.METHODS.keys()


# Processes.

RUN = (
    *("--task=mine:Light", "--run_dir=run", "--batch_size=8", "--steps=30"),
    *("--evaluate_every_steps=3", "--report_every_steps=2", "--save_every_steps=5"),
    *("--keep_recent=30", "--best=loss:min", "--progress=lines"),
)
POINTS = (
    *("save@1", "evaluation@2", "promotion@1", "training@3", "storage@40"),
    *("promotion@2", "storage@30"),
)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A directory with a task, hooks, and an uninterrupted run that has heard them."""
    home = tmp_path_factory.mktemp("home")
    shutil.copy(tasks.__file__, home / "mine.py")
    (home / "mine_hooks.py").write_text(MINE)
    done = processes.run(*RUN, "--hook=csv", "--hook=mine_hooks:Mine", cwd=home)
    assert done.code == 0, done.stderr
    return home


def test_killed_anywhere_the_tables_are_the_same_and_each_commit_is_told(
    home, tmp_path
):
    for name in ("mine.py", "mine_hooks.py"):
        shutil.copy(home / name, tmp_path)
    arguments = (*RUN, "--hook=csv", "--hook=mine_hooks:Mine")
    kills = 0
    for point in POINTS:
        done = processes.run(*arguments, cwd=tmp_path, KEEPSTEP_KILL_AT=point)
        assert done.code in (-signal.SIGKILL, 0), done.stderr
        kills += done.code != 0
    assert kills >= 6
    done = processes.run(*arguments, cwd=tmp_path)
    assert done.code == 0, done.stderr
    for name in ("train.csv", "eval.csv"):
        straight = (home / "run" / name).read_text()
        assert (tmp_path / "run" / name).read_text() == straight
        steps = [int(line.partition(",")[0]) for line in straight.splitlines()[1:]]
        assert steps == sorted(set(steps))
        assert len(steps) >= 10
    told = set(map(int, (tmp_path / "told.txt").read_text().split()))
    assert told == set(tasks.steps(tmp_path / "run" / "recent"))
    assert len((home / "told.txt").read_text().split()) == len(told)
    tasks.assert_same_run(home / "run", tmp_path / "run", every=False)


def test_no_run_directory_names_a_hook(home, tmp_path):
    for name in ("config.json", "run.flags"):
        assert "hook" not in (home / "run" / name).read_text()
    path = RunDirectory(tmp_path).config
    body = json.loads((home / "run" / "config.json").read_text())
    body["choices"]["hook"] = ["mine_hooks:Mine"]
    path.write_text(json.dumps(body))
    with pytest.raises(options.ConfigError, match="is not the configuration of a run"):
        run_record.read(path)


def test_a_command_of_the_program_refuses_a_wrong_hook_before_it_trains(home):
    done = processes.run(*RUN, "--hook=mine_hooks:Wrong", "--steps=99", cwd=home)
    assert done.code == 2
    assert "Did you mean 'on_commit'?" in done.stderr
    assert max(tasks.steps(home / "run" / "recent")) == 30
