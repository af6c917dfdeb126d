"""Options by command: what each takes and refuses, its help, its one document."""

import dataclasses
import json
import re
import shutil

import processes
import pytest
from rich.cells import cell_len

import trainer
from models import digits
from trainer.commands import cli, command_line, console, help
from trainer.commands.export import ExportOptions
from trainer.config import flagfiles, flags, options

DIGITS = processes.DIGITS


def refused(*arguments):
    """The message of a command line that is wrong."""
    result = processes.call(*arguments)
    assert (result.code, result.stdout) == (2, ""), result
    return result.stderr


# Options of other commands.


def test_another_commands_options_are_refused_by_name():
    assert refused("train", "--dry_run", "--kills=3", "--split=nope") == (
        "ConfigError: --dry_run is an option of prune, not of train.\n"
        "--kills is an option of prove, not of train.\n"
        "--split is an option of evaluate and predict, not of train.\n"
        "`python run.py train --help` lists the options of train.\n"
    )


@pytest.mark.parametrize("command", command_line.NAMES)
def test_every_command_refuses_every_option_of_the_others(command):
    taken = command_line.fields_of(command)
    every = {
        k: v
        for name in command_line.NAMES
        for k, v in command_line.fields_of(name).items()
    }
    foreign = sorted(every.keys() - taken.keys())
    assert foreign
    for name in foreign:
        flag = f"--{name}" if isinstance(every[name].default, bool) else f"--{name}=1"
        text = refused(command, "--run_dir=none", flag)
        assert re.search(rf"--{name} is an option of .*, not of {command}\.", text)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--stepps=5"], "train has no option --stepps. Did you mean --steps?"),
        (
            ["list", "-rundir", "a"],
            "list has no option --rundir. Did you mean --run_dir",
        ),
        (
            ["evaluate", "--dryrun"],
            "evaluate has no option --dryrun. Did you mean --dry_run, an option of pr",
        ),
        (["--flagfiel=a"], "train has no option --flagfiel. Did you mean --flagfile?"),
        (
            ["verify", "--zzz"],
            "verify has no option --zzz. `python run.py verify --help` lists the opt",
        ),
        (
            ["list", "--undefok=zzz", "--zzz", "--steps=1"],
            "--steps is an option of tra",
        ),
    ],
)
def test_an_unknown_option_is_answered_with_the_closest(words, text):
    assert text in refused(*words)


# Hyperparameters.


@pytest.mark.parametrize(
    "words",
    [
        ["--task=digits", "--learning_rate=3"],
        ["--learning_rate", "3", DIGITS],
        ["evaluate", DIGITS, "-learning_rate=3"],
    ],
)
def test_a_hyperparameter_is_answered_with_its_setting(words):
    expected = "--learning_rate is a hyperparameter of the task: --set=learning_rate=3"
    assert expected in refused(*words)


def test_the_hyperparameters_of_a_run_are_those_that_it_recorded(reference):
    where = f"--run_dir={reference.directory}"
    assert "of the task: --set=width=8" in refused("train", where, "--width=8")
    text = refused("predict", where, "--widht=8")
    assert "predict has no option --widht. Did you mean --set=width=8?" in text
    assert "list has no option --width. `python" in refused("list", where, "--width=8")


def test_a_boolean_hyperparameter_may_be_switched(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import dataclasses\nfrom trainer import task\n"
        "@dataclasses.dataclass(frozen=True)\nclass Mine(task.Task):\n"
        "  fast: bool = False\n"
    )
    line = ["--task=mine:Mine", "--nofast"]
    result = processes.run(*line, cwd=tmp_path)
    assert result.code == 2
    assert "--nofast is a hyperparameter of the task: --set=fast=false" in result.stderr


# Flagfiles.


@pytest.mark.parametrize("command", command_line.NAMES[1:])
def test_a_flagfile_of_a_run_suits_every_command(command, tmp_path):
    """What train takes may stand there; the command line alone is strict."""
    path = tmp_path / "a.flags"
    path.write_text(f"{DIGITS}\n--progress=none\n--resume=auto\n--noallow_inexact\n")
    line = command_line.read(_words(command, f"--flagfile={path}", tmp_path))
    asked = command_line.asked(line, package="models", as_json=False, debug=False)
    assert (asked.run.task, asked.run.report_every_steps) == ("digits", 19)


def _words(command, flagfile, tmp_path):
    more = [f"--run_dir={tmp_path}"] if command != "tasks" else []
    return flagfiles.opened([command, flagfile, *more])


def test_an_option_of_another_command_in_a_flagfile_is_refused(tmp_path):
    (tmp_path / "a").write_text("--task=digits\n--dry_run\n")
    text = refused("train", f"--flagfile={tmp_path}/a")
    assert "--dry_run (in a flagfile) is an option of prune, not of train." in text


# Help.


def test_plain_help_is_short():
    shown = [processes.call(word) for word in ("--help", "-h", "help", "--helP")]
    assert [one.code for one in shown] == [0, 0, 0, 2]
    text = shown[0].stdout
    assert shown[1].stdout == shown[2].stdout == text
    assert len(text.splitlines()) < 35
    for command in command_line.NAMES:
        assert len(re.findall(rf"^  {command} +[A-Z].*\.$", text, re.M)) == 1


@pytest.mark.parametrize("command", command_line.NAMES)
def test_the_help_of_a_command_shows_its_options_and_no_others(command, monkeypatch):
    shown = {}
    for columns in (60, 80, 120):
        monkeypatch.setenv("COLUMNS", str(columns))
        shown[columns] = processes.call(command, "--help").stdout
        assert max(map(cell_len, shown[columns].splitlines())) <= columns
    assert processes.call("help", command).stdout == shown[120]
    assert processes.call(command, "-h").stdout == shown[120]
    flags = set(re.findall(r"^  --(?:\[no\])?(\w+)", shown[80], re.M))
    assert flags == {*command_line.fields_of(command), "flagfile"}
    assert f"\n  python run.py {command}" in shown[80]


def test_every_option_has_a_group_a_unit_and_a_sentence():
    for command in command_line.NAMES:
        for name, field in command_line.fields_of(command).items():
            assert sum(name in names.split() for names in help._GROUPS.values()) == 1
            assert re.match(r"[A-Z].*\.$", field.metadata["help"]), name
            described = field.metadata["unit"] or field.metadata["choices"]
            assert bool(described) != isinstance(field.default, bool), name
            zero = field.metadata["minimum"] == 0 and type(field.default) is int
            assert not zero or field.default or field.metadata["zero"] or name == "seed"


def test_help_says_defaults_units_and_the_meaning_of_0():
    text = " ".join(processes.call("train", "--help").stdout.split())
    for part in (
        "--batch_size=EXAMPLES Examples per training step. (default: 64)",
        "--evaluate_every_steps=STEPS Steps between two evaluations. (default: 0, "
        "meaning once per epoch)",
        "--[no]deterministic Use only ops that give the same bits every time. "
        "(default: on)",
        "--run_dir=DIRECTORY Directory of the run. (default: runs/<task>)",
        "--resume=auto|never|require ",
    ):
        assert part in text


@pytest.mark.parametrize("words", [["--task=digits"], [DIGITS, "--steps=1"]])
def test_the_help_of_train_shows_the_hyperparameters_of_the_task(words):
    text = processes.call("train", "--help", *words).stdout
    assert "Hyperparameters of the task digits (--set=NAME=VALUE)\n" in text
    for field in dataclasses.fields(digits.Digits):
        row = rf"^  {field.name} +{field.type} \(default: {field.default}\)$"
        assert re.search(row, text, re.M)


def test_the_help_of_a_task_that_is_not_there_is_still_help():
    shown = processes.call("train", "--help", "--task=nope")
    assert shown.code == 0
    assert "The task 'nope' has no hyperparameters, or is not found." in shown.stdout


def test_the_version_is_told():
    shown = processes.call("--version")
    assert (shown.code, shown.stdout) == (0, f"keepstep {trainer.__version__}\n")


@pytest.mark.parametrize(
    ("path", "program"),
    [
        ("/somewhere/run.py", "python run.py"),
        ("/env/bin/keepstep", "keepstep"),
        ("/env/lib/trainer/__main__.py", "python -m trainer"),
    ],
)
def test_messages_name_the_program_as_it_was_called(path, program, capsys):
    assert cli.main([path, "list", "--help"], package="models") == 0
    assert f"usage: {program} list " in capsys.readouterr().out
    assert console.program() == program
    console.begin("run.py")


def test_an_answer_of_no_tensorflow_does_not_wait_for_it(tmp_path):
    """Importing every command is part of reading a command line."""
    python = ["-X", "importtime"]
    for words in (["train", "--help"], ["--version"], ["evaluate", "--kills=1"]):
        shown = processes.run(*words, cwd=tmp_path, python=python)
        assert "trainer.checkpoint.upkeep" in shown.stderr
        assert "tensorflow" not in shown.stderr


# One document.


def document(result):
    """The one JSON document on stdout, strictly read."""
    return json.loads(result.stdout, parse_constant=lambda name: 1 / 0)


@pytest.mark.parametrize(
    ("words", "code", "kind"),
    [
        (["list", "--run_dir=none"], 1, "FileNotFoundError"),
        (["show", "--run_dir=none"], 2, "NoCheckpointError"),
        (["train", "--stepps=5"], 2, "ConfigError"),
        (["train", "--task=digits"], 2, "ConfigError"),
        (["trian"], 2, "ConfigError"),
        (["--flagfile=none"], 2, "ConfigError"),
        (["list", "tasks"], 2, "ConfigError"),
        (["export"], 2, "ConfigError"),
    ],
)
def test_a_failure_is_a_document_too(words, code, kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = processes.call(*words, "--format=json")
    body = document(result)
    assert (result.code, body["exit_code"], body["error"]["type"]) == (code, code, kind)
    assert result.stderr == f"{kind}: {body['error']['message']}\n"


def test_help_and_version_are_documents_too():
    assert document(processes.call("--version", "--format=json")) == {
        "version": trainer.__version__
    }
    assert "usage" in document(processes.call("list", "-h", "--format", "json"))["help"]


def test_tasks_have_typed_hyperparameters():
    rows = {
        row["task"]: row for row in document(processes.call("tasks", "--format=json"))
    }
    found = rows["digits"]["hyperparameters"]
    assert {"name": "width", "type": "int", "default": 32} in found
    assert {"name": "dropout", "type": "float", "default": 0.2} in found
    assert {row["task"] for row in rows.values()} >= {"digits", "mnist"}


NOISY = """
import dataclasses
import keras
import numpy as np
from trainer import task

print("at import")


@dataclasses.dataclass(frozen=True)
class Noisy(task.Task):
    bad: bool = False
    best = ("loss:min",)

    def sources(self):
        print("in sources")
        x = np.ones([8, 1], "float32")
        return {"train": {"x": x}, "valid": {"x": x}}

    def networks(self):
        return keras.Sequential([keras.layers.Input([1]), keras.layers.Dense(1)])

    def optimizers(self):
        return keras.optimizers.SGD(0.0)

    def values(self, networks, batch, training):
        value = networks(batch["x"], training=training)[:, 0]
        nan = np.float32("nan") if self.bad and not training else 1.0
        return {"loss": value, "odd": value * 0 + nan}
"""


def test_training_answers_with_its_outcome_whatever_the_task_prints(tmp_path):
    (tmp_path / "noisy.py").write_text(NOISY)
    words = ["--task=noisy:Noisy", "--set=bad=true", "--run_dir=a", "--format=json"]
    done = processes.run(*words, "--steps=4", cwd=tmp_path)
    body = document(done)
    assert "at import" in done.stderr and "in sources" in done.stderr
    value = body["best"]["loss"].pop("value")
    assert isinstance(value, float)
    assert body == {
        "run_dir": "a",
        "step": 4,
        "total_steps": 4,
        "trained_steps": 4,
        "latest": "a/recent/ckpt-4",
        "best": {"loss": {"step": 1, "path": "a/best/loss/ckpt-1"}},
        "stopped_by": None,
        "stopped_early": False,
        "inexact": [],
        "exit_code": 0,
    }
    again = document(processes.run(*words, "--steps=4", cwd=tmp_path))
    assert (again["step"], again["trained_steps"]) == (4, 0)
    listed = processes.run("list", "--run_dir=a", "--format=json", cwd=tmp_path)
    assert document(listed)[0]["metrics"]["odd"] is None  # NaN is no JSON


def test_pruning_answers_with_what_it_deleted(reference, tmp_path):
    run_dir = tmp_path / "run"
    shutil.copytree(reference.directory, run_dir)
    words = ["prune", f"--run_dir={run_dir}", "--keep_recent=1", "--format=json"]
    paths = {str(run_dir / "recent" / f"ckpt-{step}") for step in (80, 100)}
    asked = document(processes.call(*words, "--dry_run"))
    assert (asked["deleted"], set(asked["would_delete"])) == ([], paths)
    done = document(processes.call(*words))
    assert (set(done["deleted"]), done["would_delete"]) == (paths, [])
    assert done["run_dir"] == str(run_dir)
    assert document(processes.call(*words))["deleted"] == []


def test_predictions_are_one_list_or_a_file(reference, tmp_path):
    words = ["predict", f"--run_dir={reference.directory}", "--split=test"]
    rows = document(processes.call(*words, "--format=json"))
    assert [row["index"] for row in rows] == list(range(296))
    path = tmp_path / "said.jsonl"
    body = document(processes.call(*words, "--format=json", f"--output={path}"))
    assert (body["count"], body["output"]) == (296, str(path))
    assert [json.loads(line) for line in path.read_text().splitlines()] == rows


# The house.


def test_every_command_has_a_sentence_and_an_example_that_is_read():
    for name in command_line.NAMES:
        first, *lines = command_line.load(name).__doc__.splitlines()
        assert re.fullmatch("[A-Z].*[.]", first)
        examples = [line.split()[2:] for line in lines if line.startswith("    ")]
        assert examples
        for words in examples:
            found = flags.scan(words, [], commands=command_line.NAMES)
            assert found.words == (name,)
            given = {flag.lstrip("-") for flag, _ in found.unknown} - {"flagfile"}
            assert given <= command_line.fields_of(name).keys()


def test_the_options_of_exports_know_each_format():
    def kind(*texts):
        return ExportOptions(format=texts).kind()

    assert kind() == kind("json") == "saved_model"
    assert kind("keras", "json") == kind("json,keras") == kind("h5", "keras") == "keras"
    with pytest.raises(options.ConfigError, match="--format=kears: expected a format"):
        kind("kears")


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["--format=json"], True),
        (["-format", "json"], True),
        (["--format=json", "--format=table"], False),
        (["--format=keras,json"], True),
        (["--format=json", "--format=keras"], True),
        (["--", "--format=json"], False),
        ([], False),
    ],
)
def test_the_last_format_says_how_to_answer(words, wanted):
    assert command_line.wants_json(words) is wanted
