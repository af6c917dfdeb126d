"""Links in a run directory lead nobody to write, link or delete outside of it."""

import shutil

import histories
import processes
import pytest


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return histories.make_run(tmp_path_factory.mktemp("outside"))


def moved_out(run, outside, name):
    """What had that name is outside; a link in its place leads there."""
    path, target = run / name, outside / name.replace("/", "-")
    if path.is_dir():
        shutil.copytree(path, target)
        shutil.rmtree(path)
    elif path.exists():
        shutil.copy2(path, target)
        path.unlink()
    elif "." in name or name.endswith("checkpoint"):
        target.write_text("somebody else's")
        path.parent.mkdir(parents=True, exist_ok=True)
    else:
        target.mkdir()
        (target / "mine.txt").write_text("somebody else's")
        path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


NAMES = (
    "recent",
    "recent/staging",
    "best",
    "best/loss",
    "summaries",
    "summaries/train",
    "summaries/eval",
    "abandoned",
    "averaged",
    "averaged/loss",
    "exports",
    "exports/keras",
    "recent/ckpt-12.data-00000-of-00001",
    "recent/ckpt-12.index",
    "recent/ckpt-12.json",
    "best/loss/ckpt-4.json",
    "best/loss/ckpt-4.data-00000-of-00001",
    "recent/checkpoint",
    "recent/checkpoint.tmp",
    "recent/ckpt-14.json.tmp",
    "recent/ckpt-14.partial",
    "recent/ckpt-14.index",
    "recent/ckpt-14.data-00000-of-00001",
    "recent/ckpt-14.json",
    "recent/ckpt-14_temp",
    "run.lock",
    "config.json",
    "config.json.tmp",
    "run.flags",
    "run.flags.tmp",
    "events",
)
COMMANDS = (
    ("prune", "--keep_recent=1"),
    ("average",),
    ("verify", "--repair"),
    ("list",),
    ("show",),
)


@pytest.mark.usefixtures("forked_reloads")
@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_written_outside(finished, tmp_path, name):
    run, outside = histories.copy(finished, tmp_path / "run"), tmp_path / "outside"
    outside.mkdir()
    if name == "events":
        (path,) = (run / "summaries" / "train").glob("events.*")
        name = str(path.relative_to(run))
    moved_out(run, outside, name)
    before = histories.picture(outside)
    mine = f"--task={finished.parent / 'mine.py'}:Mine"
    failed = []
    commands = [*COMMANDS, ("train",)]
    if name.startswith("exports"):  # the only ones that it writes to
        commands.append(("export", "--format=keras"))
    for number, command in enumerate(commands):
        here = histories.copy(run, tmp_path / f"run{number}")
        if command == ("train",):
            done = histories.train(here, "--steps=16", of=finished)
        else:
            done = processes.call(*command, mine, f"--run_dir={here}")
        assert done.code in (0, 1, 2), done
        if histories.picture(outside) != before:
            failed.append(command)
    assert failed == []
