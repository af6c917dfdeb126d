"""Whole runs, each `run.py` a real process: what a user types, sees and finds on disk.

A run that was killed, stopped, moved or repeated is compared, bit for bit, with one
that was not.
"""

import dataclasses
import json
import re
import shutil
import signal
import time

import numpy as np
import processes
import pytest
import tensorflow as tf
from processes import run
from tensorboard.backend.event_processing import event_accumulator

from models import digits

LINE = '''
import dataclasses

import keras
import numpy as np

from trainer import data, task


@dataclasses.dataclass(frozen=True)
class Line(task.Task):
    """One dense layer on numbers that are always the same."""

    learning_rate: float = 0.1

    def sources(self):
        random = np.random.default_rng(0)
        x = random.normal(size=[50, 3]).astype("float32")
        y = x @ np.float32([1, -2, 3])
        return {
            "train": {"x": x[:40], "y": y[:40]},
            "valid": {"x": x[40:], "y": y[40:]},
        }

    def networks(self):
        return keras.Sequential([keras.layers.Input([3]), keras.layers.Dense(1)])

    def optimizers(self):
        return keras.optimizers.SGD(self.learning_rate)

    def values(self, networks, batch, training):
        answers = networks(batch["x"], training=training)[:, 0]
        return {"loss": (answers - batch["y"]) ** 2}


class Fileless(Line):
    def sources(self):
        return {"train": data.npz("examples.npz", ["image", "label"])}
'''

GAN = '''
import dataclasses

import keras
import numpy as np
import tensorflow as tf

from trainer import data, task

layers = keras.layers


@dataclasses.dataclass(frozen=True)
class Gan(task.Task):
    """Two networks, each with an optimizer of its own."""

    best = ("generator_loss:min",)

    def sources(self):
        real = np.random.default_rng(0).normal([2, -1], 0.3, [64, 2]).astype("float32")
        return {"train": {"real": real[:48]}, "valid": {"real": real[48:]}}

    def networks(self):
        return {
            "generator": keras.Sequential(
                [layers.Input([4]), layers.Dense(8, "relu"), layers.Dense(2)]
            ),
            "discriminator": keras.Sequential(
                [
                    layers.Input([2]),
                    layers.Dense(8, "relu"),
                    layers.Dropout(0.1),
                    layers.Dense(1),
                ]
            ),
        }

    def optimizers(self):
        return {
            "generator": keras.optimizers.Adam(0.01),
            "discriminator": keras.optimizers.SGD(0.05, momentum=0.9),
        }

    def augment(self, batch, seeds):
        return {**batch, "real": batch["real"] + 0.1 * data.uniform(seeds, [2])}

    def values(self, networks, batch, training):
        real = batch["real"]
        noise = tf.random.get_global_generator().normal([real.shape[0], 4])
        fake = networks["generator"](noise, training=training)
        of_real = networks["discriminator"](real, training=training)[:, 0]
        of_fake = networks["discriminator"](fake, training=training)[:, 0]
        return {
            "generator_loss": tf.math.softplus(-of_fake),
            "discriminator_loss": tf.math.softplus(-of_real)
            + tf.math.softplus(of_fake),
        }
'''


def copy_of(reference, cwd):
    """A copy of the reference run that a test may change: `cwd/run`."""
    return shutil.copytree(reference.directory, cwd / "run")


def files(directory):
    """Size and time of every file below `directory`, but for the locks."""
    return {
        str(path.relative_to(directory)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name != "run.lock"
    }


def manifest(prefix):
    return json.loads(prefix.with_name(prefix.name + ".json").read_text())


def committed(directory):
    """The steps in `recent` or in one directory of `best`."""
    marks = directory.glob("ckpt-*.json")
    return sorted(manifest(path.with_suffix(""))["step"] for path in marks)


def variables(prefix):
    """Everything in a checkpoint as TensorFlow itself reads it, comparable by `==`."""
    reader = tf.train.load_checkpoint(str(prefix))
    values = {key: reader.get_tensor(key) for key in reader.get_variable_to_shape_map()}
    return {
        key: value
        if isinstance(value, bytes)
        else (value.dtype.str, value.shape, _bits(value))
        for key, value in values.items()
    }


def _bits(value):
    """Bytes, so that a NaN equals itself and nothing else does by rounding."""
    return value.tolist() if value.dtype == object else value.tobytes()


def different(one, other):
    """The keys under which two checkpoints differ."""
    a, b = variables(one), variables(other)
    return sorted(key for key in a.keys() | b.keys() if a.get(key) != b.get(key))


def scalars(directory):
    """What TensorBoard shows of a run, by tag; what depends on the clock left out."""
    found = {}
    for kind in ("train", "eval"):
        events = event_accumulator.EventAccumulator(
            str(directory / "summaries" / kind),
            size_guidance={event_accumulator.TENSORS: 0},
            purge_orphaned_data=False,  # true would hide a step that is there twice
        )
        events.Reload()
        for tag in events.Tags()[event_accumulator.TENSORS]:
            if not tag.startswith(("speed/", "checkpoint/")):
                found[f"{kind}: {tag}"] = [
                    (event.step, tf.make_ndarray(event.tensor_proto).tolist())
                    for event in events.Tensors(tag)
                ]
    return found


def assert_ended_as(reference, directory):
    """The run in `directory` ended as the one that nobody interrupted."""
    assert different(directory / "recent/ckpt-120", last(reference)) == []
    for best in ("best/accuracy", "best/loss"):
        (step,) = committed(reference.directory / best)
        assert committed(directory / best) == [step]
        name = f"{best}/ckpt-{step}"
        assert different(directory / name, reference.directory / name) == []
    curves = scalars(directory)
    assert {"train: loss", "train: learning_rate", "eval: accuracy"} < curves.keys()
    for curve in curves.values():
        steps = [step for step, _ in curve]
        assert steps == sorted(set(steps))
    assert curves == scalars(reference.directory)


def last(reference):
    return reference.directory / "recent" / "ckpt-120"


def best(reference, metric):
    """Step and value of the largest, the earlier one of equals, from the curve."""
    curve = scalars(reference.directory)[f"eval: {metric}"]
    step, _ = max(curve, key=lambda point: (point[1], -point[0]))
    prefix = reference.directory / "best" / metric / f"ckpt-{step}"
    return step, manifest(prefix)["metrics"][metric]


# Training, and training again.


def test_training_ends_with_where_everything_is(reference):
    stdout = reference.result.stdout
    assert "complete at step 120 of 120." in stdout
    assert re.search(r"^latest +run/recent/ckpt-120$", stdout, re.M)
    for metric in ("accuracy", "loss"):
        step, value = best(reference, metric)
        line = rf"^best +run/best/{metric}/ckpt-{step}  \({metric} {value:.4f}\)$"
        assert re.search(line, stdout, re.M)
    assert "python run.py evaluate --run_dir=run" in stdout
    assert "tensorboard --logdir=" in stdout


def test_training_logs_each_evaluation_once(reference):
    logged = re.findall(r"step (\d+) evaluated", reference.result.stderr)
    assert list(map(int, logged)) == [20, 40, 60, 80, 100, 120]


def test_training_keeps_the_recent_and_the_best_checkpoints(reference):
    assert committed(reference.directory / "recent") == [80, 100, 120]
    assert committed(reference.directory / "best/loss") == [20]


def test_training_writes_down_its_choices(reference):
    choices = json.loads((reference.directory / "config.json").read_text())["choices"]
    assert choices["task"] == "digits"
    assert choices["steps"] == 120
    assert choices["set"]["width"] == 32
    lines = (reference.directory / "run.flags").read_text().splitlines()
    assert {"--task=digits", "--steps=120", "--set=width:=32"} < set(lines)
    assert not any(line.startswith("--run_dir") for line in lines)


def test_the_same_command_again_has_nothing_to_do(reference, tmp_path):
    directory = copy_of(reference, tmp_path)
    before = files(directory / "recent"), files(directory / "best")
    again = run(*reference.arguments, "--run_dir=run", cwd=tmp_path)
    assert again.code == 0
    assert "already complete at step 120 of 120: nothing to do" in again.stdout
    assert (files(directory / "recent"), files(directory / "best")) == before


def test_more_steps_go_on_from_the_last_one(reference, tmp_path):
    directory = copy_of(reference, tmp_path)
    more = run("--run_dir=run", "--steps=140", cwd=tmp_path)
    assert more.code == 0
    assert "resumed run at step 120 of 140" in more.stderr
    assert "complete at step 140 of 140." in more.stdout
    assert committed(directory / "recent") == [100, 120, 140]


def test_run_flags_repeat_the_run_to_the_bit(reference, tmp_path):
    flags = reference.directory / "run.flags"
    assert run(f"--flagfile={flags}", "--run_dir=other", cwd=tmp_path).code == 0
    assert_ended_as(reference, tmp_path / "other")


def test_a_flagfile_may_name_another(reference, tmp_path):
    (tmp_path / "outer.flags").write_text("# both\n--flagfile=inner.flags\n")
    (tmp_path / "inner.flags").write_text(
        f"--run_dir={reference.directory}\n--format=json\n"
    )
    listed = run("list", "--flagfile=outer.flags", cwd=tmp_path)
    assert listed.code == 0
    assert json.loads(listed.stdout)[0]["step"] == 120


def test_a_run_goes_on_where_it_was_moved(tmp_path):
    (tmp_path / "mine.py").write_text(LINE)
    assert run("--task=mine:Line", "--steps=10", "--run_dir=a", cwd=tmp_path).code == 0
    (tmp_path / "a").rename(tmp_path / "b")
    more = run("--run_dir=b", "--steps=20", "--trust", cwd=tmp_path)
    assert more.code == 0
    assert "resumed b at step 10 of 20" in more.stderr
    assert not (tmp_path / "a").exists()
    assert tf.train.latest_checkpoint(str(tmp_path / "b/recent")) == str(
        tmp_path / "b/recent/ckpt-20"
    )


# Reading a run.


def test_list_shows_every_checkpoint(reference):
    listed = run("list", "--run_dir=run", cwd=reference.directory.parent)
    assert listed.code == 0
    header, *rows = listed.stdout.splitlines()
    assert " ".join(header.split()) == "step path metrics size age marks status"
    assert all(row.rstrip().endswith(" ok") for row in rows)
    paths = {row.split()[1]: row for row in rows}
    assert len(paths) == 5
    assert re.match(r"120 .* accuracy=0\.\d{4} loss=", paths["run/recent/ckpt-120"])
    assert " latest" in paths["run/recent/ckpt-120"]
    assert " best loss " in paths["run/best/loss/ckpt-20"]
    step, _ = best(reference, "accuracy")
    assert " best accuracy " in paths[f"run/best/accuracy/ckpt-{step}"]


def test_list_as_json_has_the_documented_keys(reference):
    cwd = reference.directory.parent
    listed = run("list", "--run_dir=run", "--format=json", cwd=cwd)
    assert listed.code == 0
    rows = json.loads(listed.stdout)
    step, _ = best(reference, "accuracy")
    best_of = {step: ["accuracy"], 20: ["loss"]}
    expected = [(one, "recent", one == 120) for one in (120, 100, 80)]
    expected += [(one, "best", False) for one in best_of]
    expected.sort(key=lambda row: (-row[0], row[1] == "best"))
    assert [(row["step"], row["kind"], row["latest"]) for row in rows] == expected
    for row in rows:
        mark = manifest(cwd / row["path"])
        assert row == {
            "step": mark["step"],
            "path": row["path"],
            "kind": row["kind"],
            "best_of": best_of.get(mark["step"], []),
            "ranks": dict.fromkeys(best_of.get(mark["step"], []), 1),
            "latest": row["latest"],
            "metrics": mark["metrics"],
            "bytes": sum(file["bytes"] for file in mark["files"].values()),
            "created": mark["created"],
            "lineage": 0,
            "status": "ok",
        }


def test_list_answers_at_once_and_without_tensorflow(reference):
    began = time.monotonic()
    listed = run(
        "list",
        "--run_dir=run",
        cwd=reference.directory.parent,
        python=["-X", "importtime"],
    )
    assert time.monotonic() - began < 2
    assert listed.code == 0
    assert "trainer.checkpoint.catalog" in listed.stderr
    assert "tensorflow" not in listed.stderr


@pytest.mark.parametrize(
    ("checkpoint", "path"),
    [
        ("best", "run/best/accuracy/ckpt-*.json"),
        ("step:80", "run/recent/ckpt-80.json"),
        ("run/best/loss/ckpt-20", "run/best/loss/ckpt-20.json"),
    ],
)
def test_evaluate_finds_the_metrics_of_the_training(reference, checkpoint, path):
    cwd = reference.directory.parent
    before = files(cwd)
    where = ["--run_dir=run", f"--checkpoint={checkpoint}"]
    evaluated = run("evaluate", *where, "--format=json", cwd=cwd)
    assert evaluated.code == 0
    (path,) = cwd.glob(path)
    mark = manifest(path.with_suffix(""))
    assert json.loads(evaluated.stdout) == {
        "step": mark["step"],
        "path": str(path.with_suffix("").relative_to(cwd)),
        "split": "valid",
        "metrics": mark["metrics"],
    }
    assert files(cwd) == before


def test_evaluate_prints_a_table(reference):
    cwd = reference.directory.parent
    where = ["--run_dir=run", "--checkpoint=latest"]
    evaluated = run("evaluate", *where, "--split=test", cwd=cwd)
    assert evaluated.code == 0
    header, row = evaluated.stdout.splitlines()
    assert " ".join(header.split()) == "step path split accuracy loss"
    step, path, split, accuracy, loss = row.split()
    assert (step, path, split) == ("120", "run/recent/ckpt-120", "test")
    assert 0.8 < float(accuracy) < 1
    assert 0 < float(loss) < 1


def test_tasks_shows_the_hyperparameters_and_their_defaults(tmp_path):
    listed = run("tasks", cwd=tmp_path)
    assert listed.code == 0
    (row,) = (row for row in listed.stdout.splitlines() if row.startswith("digits "))
    assert (digits.Digits.__doc__ or "").partition("\n")[0] in row
    for field in dataclasses.fields(digits.Digits):
        assert f"{field.name}={field.default}" in row


def test_plain_tensorflow_reads_the_model(reference):
    """Nothing of the framework, only the model's own code."""
    task = digits.Digits()
    path = tf.train.latest_checkpoint(str(reference.directory / "recent"))
    assert path == str(last(reference))
    model = task.networks()
    checkpoint = tf.train.Checkpoint(variables=[v.value for v in model.variables])
    checkpoint.read(path).assert_existing_objects_matched()
    valid = task.sources()["valid"]
    answers = np.argmax(model(valid["image"], training=False), axis=-1)
    right = (answers == valid["label"]).sum()
    accuracy = manifest(last(reference))["metrics"]["accuracy"]
    assert right / len(answers) == accuracy


# Killed, stopped, and two at a time.


def test_a_killed_run_ends_as_an_uninterrupted_one(reference, tmp_path):
    arguments = (*reference.arguments, "--run_dir=run")
    with processes.started(*arguments, cwd=tmp_path) as child:
        child.wait_for("evaluated", count=3)
        child.send(signal.SIGKILL)
        assert child.finish().code == -signal.SIGKILL
    resumed = run(*arguments, cwd=tmp_path)
    assert resumed.code == 0
    assert re.search(r"resumed run at step [246]0 of 120", resumed.stderr)
    assert_ended_as(reference, tmp_path / "run")


def test_a_stopped_run_has_saved_everything_and_ends_as_an_uninterrupted_one(
    reference, tmp_path
):
    arguments = (*reference.arguments, "--run_dir=run")
    with processes.started(*arguments, cwd=tmp_path) as child:
        child.wait_for("evaluated", count=3)
        child.send(signal.SIGTERM)
        stopped = child.finish()
    assert stopped.code == 75
    said = re.search(
        r"stopped by SIGTERM at step (\d+) of 120; everything is saved", stopped.stdout
    )
    assert said
    assert "Traceback" not in stopped.stderr
    assert committed(tmp_path / "run/recent")[-1] == int(said[1]) < 120
    resumed = run(*arguments, cwd=tmp_path)
    assert resumed.code == 0
    assert f"resumed run at step {said[1]} of 120" in resumed.stderr
    assert_ended_as(reference, tmp_path / "run")


def test_one_run_directory_has_one_writer(tmp_path):
    (tmp_path / "mine.py").write_text(LINE)
    arguments = (
        "--task=mine:Line",
        "--run_dir=run",
        "--report_every_steps=500",
        "--evaluate_every_steps=500",
        "--save_every_steps=500",
    )
    with processes.started(*arguments, f"--steps={10**9}", cwd=tmp_path) as first:
        first.wait_for("evaluated", count=3)
        first.send(signal.SIGSTOP)  # paused, so that it takes no time from the second
        second = run(*arguments, f"--steps={10**9}", cwd=tmp_path)
        assert second.code == 73
        assert f"run is being written by process {first.pid} on " in second.stderr
        assert "Traceback" not in second.stderr
        first.send(signal.SIGKILL)
        assert first.finish().code == -signal.SIGKILL
    step = committed(tmp_path / "run/recent")[-1]
    third = run(*arguments, f"--steps={step + 500}", cwd=tmp_path)
    assert third.code == 0
    assert f"complete at step {step + 500} of {step + 500}." in third.stdout


# Tasks of one's own.


def test_a_task_in_a_file_of_ones_own_is_trained(tmp_path):
    (tmp_path / "mine.py").write_text(LINE)
    trained = run(
        "--task=mine:Line", "--epochs=10", "--set=learning_rate=0.2", cwd=tmp_path
    )
    assert trained.code == 0
    assert "complete at step 7 of 7." in trained.stdout  # 400 examples, 64 a step
    choices = json.loads((tmp_path / "runs/Line/config.json").read_text())["choices"]
    assert choices["set"] == {"learning_rate": 0.2}
    assert committed(tmp_path / "runs/Line/recent")[-1] == 7


def test_two_networks_with_two_optimizers_resume_to_the_bit(tmp_path):
    (tmp_path / "mine.py").write_text(GAN)
    arguments = (
        "--task=mine:Gan",
        "--batch_size=16",
        "--report_every_steps=5",
        "--evaluate_every_steps=5",
        "--save_every_steps=5",
    )
    straight = run(*arguments, "--steps=10", "--run_dir=a", cwd=tmp_path)
    assert straight.code == 0, straight.stderr
    assert run(*arguments, "--steps=5", "--run_dir=b", cwd=tmp_path).code == 0
    resumed = run(*arguments, "--steps=10", "--run_dir=b", cwd=tmp_path)
    assert resumed.code == 0
    assert "resumed b at step 5 of 10" in resumed.stderr
    assert different(tmp_path / "a/recent/ckpt-10", tmp_path / "b/recent/ckpt-10") == []
    moved = different(tmp_path / "a/recent/ckpt-5", tmp_path / "a/recent/ckpt-10")
    for network in ("generator", "discriminator"):
        assert any(key.startswith(f"{network}_variables/") for key in moved)
    metrics = manifest(tmp_path / "a/recent/ckpt-10")["metrics"]
    assert sorted(metrics) == ["discriminator_loss", "generator_loss"]


# What is wrong: one clear message, and nothing has changed.


def assert_refused(result, code, *texts):
    assert result.code == code, result
    assert result.stdout == ""
    for text in texts:
        assert text in result.stderr
    assert re.match(r"\w+Error: \S", result.stderr), "it says something else first"
    assert len(re.findall(r"\w+Error: ", result.stderr)) == 1
    assert "Traceback" not in result.stderr


WRONG = {
    "trian": "there is no command 'trian'. Did you mean 'train'?",
    "list tasks": "one command at a time, not list and tasks.",
    "": "give --task=NAME, --flagfile=FILE or --run_dir=DIRECTORY",
    "--task=digit": "there is no task 'digit'. Did you mean 'digits'?",
    "--stepps=5": "train has no option --stepps. Did you mean --steps?",
    "--task=digits --set=widht=8": (
        "the task digits has no hyperparameter 'widht'. Did you mean 'width'?"
    ),
    "--task=digits --set=width=wide": "--set=width=wide: 'wide' is not a whole number.",
    "--task=digits --steps=5 --best=acuracy:max": (
        "the task has no metric 'acuracy'. Did you mean 'accuracy'?"
    ),
    "--task=digits --best=accuracy": (
        "'accuracy' does not say what is best. Expected name:min|max[:count]"
    ),
    "--task=digits --best=loss:min:0": "'loss:min:0' does not say what is best.",
    "--run_dir=runs[1]": "--run_dir: 'runs[1]' has a '[' in it",
    "--steps=-1": "--steps=-1 is out of range: expected 0 or more",
    "--epochs=-1": "--epochs=-1.0 is out of range: expected 0 or more",
    "--batch_size=0": "--batch_size=0 is out of range: expected 1 or more",
    "--keep_recent=-3": "--keep_recent=-3 is out of range: expected 1 or more",
    "--seed=-1": "--seed=-1 is out of range: expected 0 to 2147483647.",
    "--steps=many": "--steps=many",
    "--format=yaml": "--format=yaml",
    "--flagfile=missing.flags": "missing.flags",
    "--steps=10 --epochs=1": "--steps=10 and --epochs=1 both say how long to train",
    "--task=digits": "nothing says how long to train: give --steps=N or --epochs=N.",
    "--task=digits --steps=5 --resume=require": (
        "has no checkpoint to go on from, and --resume=require asks for one."
    ),
}


@pytest.mark.parametrize(("line", "text"), WRONG.items(), ids=WRONG)
def test_a_wrong_command_line_is_refused(tmp_path, line, text):
    assert_refused(run(*line.split(), cwd=tmp_path), 2, text)
    assert files(tmp_path) == {}


UNFIT = {
    "--task=mine:Line": ["run holds a run of the task 'digits', not 'mine:Line'."],
    "--resume=never": ["run has checkpoints already, and --resume=never says not to"],
    "--set=learning_rate=0.5 --steps=140": [
        "learning_rate: 0.001 there, 0.5 here",
        "--allow_change=learning_rate",
    ],
    "--batch_size=32 --seed=7": [
        "batch_size: 64 there, 32 here",
        "seed: 0 there, 7 here",
        "--allow_change=batch_size --allow_change=seed",
    ],
    "evaluate --checkpoint=step:7": [
        "there is no checkpoint of step 7. run has checkpoints at the steps: 20, "
    ],
    "evaluate --checkpoint=lattest": [
        "there is no checkpoint 'lattest'. Expected latest, best, best:metric, step:N"
    ],
    "evaluate --checkpoint=best:acuracy": [
        "no checkpoint 'best:acuracy'; this run keeps the best by accuracy, loss."
    ],
    "evaluate --split=tset": [
        "--split=tset: the task has no such split. Did you mean 'test'?"
    ],
}


@pytest.mark.parametrize(("line", "texts"), UNFIT.items(), ids=UNFIT)
def test_what_does_not_fit_the_run_is_refused(reference, tmp_path, line, texts):
    copy_of(reference, tmp_path)
    before = files(tmp_path)
    assert_refused(run(*line.split(), "--run_dir=run", cwd=tmp_path), 2, *texts)
    assert files(tmp_path) == before


def test_a_directory_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("not a directory\n")
    before = files(tmp_path)
    refused = run("--task=digits", "--steps=5", "--run_dir=file/run", cwd=tmp_path)
    assert_refused(
        refused, 1, "cannot write to the directory file/run: ", "with --run_dir"
    )
    assert files(tmp_path) == before


def test_evaluate_refuses_a_damaged_checkpoint(reference, tmp_path):
    directory = copy_of(reference, tmp_path)
    (path,) = (directory / "recent").glob("ckpt-100.data-*")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    before = files(tmp_path)
    refused = run("evaluate", "--run_dir=run", "--checkpoint=step:100", cwd=tmp_path)
    assert_refused(refused, 1, f"run/recent/ckpt-100 is damaged: {path.name} does not")
    assert files(tmp_path) == before


def test_an_npz_without_the_arrays_is_refused(tmp_path):
    (tmp_path / "mine.py").write_text(LINE)
    np.savez(tmp_path / "examples.npz", image=np.zeros([3, 2]), lable=np.zeros(3))
    refused = run("--task=mine:Fileless", "--steps=5", cwd=tmp_path)
    assert_refused(
        refused, 1, "examples.npz has no array 'label'; it has image, lable."
    )


def test_a_traceback_is_shown_where_it_is_asked_for(tmp_path):
    refused = run("trian", "--debug", cwd=tmp_path)
    assert refused.code == 2
    assert "Traceback" in refused.stderr
    assert refused.stderr.splitlines()[-1].startswith(
        "ConfigError: there is no command"
    )
