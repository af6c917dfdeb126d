"""A run directory from a stranger runs none of its code."""

import json
import pathlib
import re
import shutil

import processes
import pytest

HERE = pathlib.Path(__file__).parent
CODE = """
import pathlib
pathlib.Path(__file__).with_name("it_ran").touch()
from test_golden import Golden
"""


@pytest.fixture
def strange(tmp_path):
    """A run whose config.json names code that lies in it, and here."""

    def make(name, **choices):
        run_dir = tmp_path / "strange"
        shutil.copytree(HERE / "golden" / "0.1.0", run_dir)
        for place in (run_dir, tmp_path):
            (place / "evil.py").write_text(CODE)
        change(run_dir, task=name.format(run_dir=run_dir), **choices)
        return run_dir

    return make


def change(run_dir, **choices):
    from trainer.storage import checked_json

    path = run_dir / "config.json"
    body = json.loads(path.read_text())
    del body[checked_json.DIGEST]
    body["choices"] |= choices
    checked_json.write(path, body)


@pytest.mark.parametrize("name", ["evil:Golden", "{run_dir}/evil.py:Golden"])
def test_code_that_only_a_run_directory_names_is_not_run(strange, tmp_path, name):
    run_dir = strange(name)
    before = sorted(run_dir.rglob("*"))
    for command in (
        ["evaluate"],
        ["predict"],
        ["export"],
        ["average"],
        ["train", "--steps=9", "--allow_change=steps"],
        ["prove", "--kills=1"],
    ):
        done = processes.run(*command, "--run_dir=strange", cwd=tmp_path)
        assert done.code == 2, done.stderr
        assert not list(tmp_path.rglob("it_ran")), command
        if command == ["average"]:
            continue  # there is but one best checkpoint
        text = r"UntrustedTaskError: the run directory names the task '\S*evil\S*', and"
        assert re.search(text, done.stderr), done.stderr
        assert re.search(r"give --task=\S*evil\S* or --trust\.", done.stderr)
    assert sorted(run_dir.rglob("*")) == before


@pytest.mark.parametrize("command", ["list", "verify", "show", "prune"])
def test_it_is_looked_at_all_the_same(strange, tmp_path, command):
    strange("evil:Golden")
    done = processes.run(command, "--run_dir=strange", cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert not list(tmp_path.rglob("it_ran"))


@pytest.mark.parametrize("said", ["--trust", "--task=evil:Golden", "--flagfile=f"])
def test_code_that_the_command_names_or_trusts_is_run(
    strange, tmp_path, monkeypatch, said
):
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    strange("evil:Golden")
    (tmp_path / "f").write_text("--task=evil:Golden\n")
    done = processes.run("evaluate", "--run_dir=strange", said, cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert (tmp_path / "it_ran").exists()


def test_options_of_a_command_are_not_taken_from_it(strange, tmp_path):
    victim = tmp_path / "victim.npz"
    victim.write_text("precious")
    strange("digits", output=str(victim))
    done = processes.run("predict", "--run_dir=strange", cwd=tmp_path)
    assert done.code == 2
    assert "it has unknown choices: output" in done.stderr
    assert victim.read_text() == "precious"
