"""Places are compared by what they are: another spelling of one loses nothing."""

import pathlib

import histories
import processes
import pytest

from trainer.checkpoint import catalog, filing, manifest, selection
from trainer.checkpoint.layout import RunDirectory

ASKED = 8


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return histories.make_run(tmp_path_factory.mktemp("places"))


@pytest.fixture
def run(finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return histories.copy(finished, tmp_path / "run")


# How the run directory is called, and how the checkpoint in it.
SPELLINGS = {
    "absolute beside relative": ("run", "{cwd}/run/recent/ckpt-8"),
    "relative beside absolute": ("{cwd}/run", "run/recent/ckpt-8"),
    "up and down again": ("run", "run/best/../recent/ckpt-8"),
    "by way of abandoned": ("run", "run/abandoned/../recent/ckpt-8"),
    "a slash too many": ("run/", "run//recent//ckpt-8"),
    "a dot": ("./run/.", "./run/./recent/ckpt-8.index"),
    "the manifest": ("run", "run/recent/ckpt-8.json"),
    "a link to the run": ("run", "linked/recent/ckpt-8"),
    "the run by a link": ("linked", "run/recent/ckpt-8"),
    "a link to recent": ("run", "rolling/ckpt-8"),
    "a link to best": ("run", "winners/ckpt-8"),
    "the best by its path": ("run", "run/best/loss/ckpt-8"),
    "the step": ("run", "step:8"),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_going_back_by_another_spelling_loses_nothing(finished, run, tmp_path, name):
    spelled, asked = (text.format(cwd=tmp_path) for text in SPELLINGS[name])
    (tmp_path / "linked").symlink_to("run")
    (tmp_path / "rolling").symlink_to("run/recent")
    (tmp_path / "winners").symlink_to(run / "best" / "loss")
    (run / "abandoned").mkdir()
    held, before = histories.digests(run), histories.steps(run / "recent")
    assert ASKED in before, before
    assert ASKED in histories.steps(run / "best" / "loss")
    given = (f"--checkpoint={asked}", f"--steps={ASKED}")
    done = histories.train(spelled, *given, "--allow_change=steps", of=finished)
    assert done.code == 0, done.stderr
    assert histories.steps(run / "recent")[-1] == ASKED
    assert histories.digests(run) == held
    later = [step for step in before if step > ASKED]
    assert histories.steps(run / "abandoned" / "1" / "recent") == later
    assert all(row["problem"] is None for row in verified(run))
    done = histories.train(spelled, of=finished)
    assert done.code == 0, done.stderr
    assert histories.steps(run / "recent")[-1] == histories.STEPS


def verified(run):
    from trainer.inspection import rows

    return rows.verify(RunDirectory(run))


def test_what_was_abandoned_can_be_gone_back_to(finished, run):
    held = histories.digests(run)
    assert histories.train("run", "--checkpoint=step:8", of=finished).code == 0
    held |= histories.digests(run)
    asked = "--checkpoint=run/recent/../abandoned/1/recent/ckpt-12"
    done = histories.train(run, asked, of=finished)
    assert done.code == 0, done.stderr
    assert histories.digests(run) >= held
    assert histories.sound(run / "abandoned" / "1" / "recent").keys() >= {10, 12}
    assert histories.steps(run / "recent") == [12]
    numbers = sorted(path.name for path in (run / "abandoned").iterdir())
    assert numbers == ["1", "2"], "no number is used twice"


def test_a_directory_of_the_best_may_have_two_names(finished, run, tmp_path):
    best = run / "best" / "loss"
    elsewhere = run / "best" / "other"
    best.rename(elsewhere)
    best.symlink_to("other")  # stays in the run
    held = histories.digests(run)
    done = histories.train("run", "--checkpoint=step:8", of=finished)
    assert done.code == 0, done.stderr
    assert histories.digests(run) >= held
    assert histories.steps(run / "recent")[-1] == histories.STEPS


def test_a_link_onto_itself_changes_nothing(run, tmp_path):
    (tmp_path / "linked").symlink_to("run")
    recent = run / "recent"
    before = histories.picture(run)
    mark = manifest.read(recent, ASKED)
    for one in ("run/recent", "linked/recent", "run/best/../recent", recent):
        for other in ("run/recent", "linked/recent", recent):
            filing.link(mark, pathlib.Path(one), pathlib.Path(other))
    assert histories.picture(run) == before


def small(run_dir, last=5):
    """A few steps without a task; each is better than the one before."""
    house = histories.store(run_dir, "loss:min:2", keep_recent=9)
    house.prepare()
    held = histories.tree()
    for step in range(1, last + 1):
        histories.save(house, held, step, {"loss": 1 / step})


def go_back(run_dir, asked, number=None):
    house = histories.store(run_dir, "loss:min:2", keep_recent=9)
    house.prepare()
    held = histories.tree()
    entry = selection.select(house.directory, asked, house.upkeep.rules.best)
    house.go_back(entry, held, number or house.directory.unused_number())
    return house.restore(held).step


@pytest.mark.parametrize("asked", ["step:2", "abandoned"])
def test_interrupted_anywhere_going_back_loses_nothing(tmp_path, asked):
    """At each storage operation of it; the number of the first time stays its own."""
    small(tmp_path / "made")
    if asked == "abandoned":
        go_back(tmp_path / "made", "step:2")
    expected = {"step:2": 2, "abandoned": 4}[asked]

    def text(run):
        return f"{run}/abandoned/1/recent/ckpt-4" if asked == "abandoned" else asked

    with histories.death() as counted:
        whole = histories.copy(tmp_path / "made", tmp_path / "whole")
        assert go_back(whole, text(whole)) == expected
    assert counted.count > 5
    held = histories.digests(tmp_path / "made")
    for at in range(1, counted.count + 1):
        run = histories.copy(tmp_path / "made", tmp_path / f"run{at}")
        set_aside = histories.contents(run / "abandoned")
        with histories.death(at) as dying:
            go_back(run, text(run))
        assert dying.came
        assert histories.digests(run) == held, at
        first = histories.contents(run / "abandoned")
        assert set_aside.items() <= first.items()
        assert go_back(run, text(run)) == expected
        assert histories.digests(run) == held, at
        manifests = {n: b for n, b in first.items() if n.endswith((".json", ".index"))}
        assert manifests.items() <= histories.contents(run / "abandoned").items(), at
        assert catalog.scan(RunDirectory(run)).entries[0].step == expected
        before = histories.contents(run)
        house = histories.store(run, "loss:min:2", keep_recent=9)
        house.prepare()
        assert house.restore(histories.tree()).step == expected
        assert histories.contents(run) == before, "a start more changes nothing"


def test_a_number_is_never_used_twice(tmp_path):
    run = RunDirectory(tmp_path)
    assert run.unused_number() == 1
    for name in ("1", "7", "a", "٣", "7.old", "-9"):
        (tmp_path / "abandoned" / name).mkdir(parents=True)
    assert run.unused_number() == 8
    (tmp_path / "abandoned" / "9").touch()
    assert run.unused_number() == 10


@pytest.mark.parametrize("kill_at", ["storage.link@3", "storage.replace@4"])
def test_killed_while_it_goes_back_the_same_command_ends_well(
    finished, run, tmp_path, monkeypatch, kill_at
):
    held = histories.digests(run)
    given = histories.arguments(finished.parent / "mine.py", "run", "--steps=12")
    given.append("--checkpoint=run/best/../recent/ckpt-8")
    monkeypatch.setenv("KEEPSTEP_KILL_AT", kill_at)
    assert processes.run(*given, cwd=tmp_path).code == -9
    monkeypatch.delenv("KEEPSTEP_KILL_AT")
    assert histories.digests(run) >= held
    done = processes.call(*given)
    assert done.code == 0, done.stderr
    assert histories.digests(run) >= held
    assert histories.steps(run / "recent")[-1] == histories.STEPS
