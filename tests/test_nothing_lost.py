"""Nothing that was committed is ever lost, whatever is missing or damaged."""

import os

import histories
import processes
import pytest
import tasks

from trainer.checkpoint import layout, locks
from trainer.checkpoint.layout import RunDirectory


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return histories.make_run(tmp_path_factory.mktemp("lost"))


@pytest.fixture
def run(finished, tmp_path):
    return histories.copy(finished, tmp_path / "run")


def without_manifests(run, *, kept=()):
    for path in run.rglob("ckpt-*.json"):
        if path.relative_to(run).as_posix() not in kept:
            path.unlink()
    return run


# Manifests.


def test_without_one_manifest_nothing_is_begun_and_nothing_changes(finished, run):
    before = histories.contents(without_manifests(run))
    refused = histories.train(run, of=finished)
    assert refused.code == 1
    assert "not one manifest (ckpt-*.json), so nothing says what was" in refused.stderr
    assert f"verify --repair --run_dir={run}" in refused.stderr
    after = histories.contents(run)
    assert {k: v for k, v in after.items() if k != "run.lock"} == {
        k: v for k, v in before.items() if k != "run.lock"
    }


def test_repaired_it_ends_bit_for_bit(finished, run):
    straight = finished.parent / "longer"
    if not straight.exists():
        histories.copy(finished, straight)
        assert histories.train(straight, "--steps=16", of=finished).code == 0
    repaired = processes.call(
        "verify", "--repair", f"--run_dir={without_manifests(run)}"
    )
    assert repaired.code == 0, repaired.stderr
    assert "its manifest is written anew" in repaired.stdout
    resumed = histories.train(run, "--steps=16", of=finished)
    assert resumed.code == 0, resumed.stderr
    assert tasks.different(run / "recent/ckpt-16", straight / "recent/ckpt-16") == []
    assert tasks.scalars(run) == tasks.scalars(straight)


def test_where_one_is_left_the_others_are_set_aside(finished, run):
    held = histories.digests(run)
    without_manifests(run, kept=("recent/ckpt-8.json",))
    resumed = histories.train(run, of=finished)
    assert resumed.code == 0, resumed.stderr
    assert "has no manifest, so it is no checkpoint. It is renamed" in resumed.stderr
    aside = [path.name for path in (run / "recent").glob(f"*{layout.UNCLAIMED}")]
    assert "ckpt-10.index.unclaimed" in aside
    renamed = {path for path in run.rglob("*") if "data-" in path.name}
    digests = {
        histories.hashlib.sha256(path.read_bytes()).hexdigest() for path in renamed
    }
    assert held <= digests, "not a byte is gone"
    assert histories.train(run, of=finished).code == 0


def test_a_run_that_had_checkpoints_is_not_begun_again_unasked(finished, run):
    for home in RunDirectory(run).homes():
        for path in home.glob("*"):
            path.unlink()
    refused = histories.train(run, of=finished)
    assert refused.code == 1
    assert "has had checkpoints, the first at step 2" in refused.stderr
    given = f"--checkpoint={finished}/recent/ckpt-8"
    assert histories.train(run, given, of=finished).code == 0


# Damage.


def test_what_is_staged_and_damaged_does_not_drive_out_the_first(finished, run):
    staging = run / "recent/staging"
    staging.mkdir()
    for path in (run / "recent").glob("ckpt-12.*"):
        (staging / path.name).write_bytes(path.read_bytes())
    histories.flip(next(staging.glob("*.data-*")), 100)
    before = histories.digests(run / "recent")
    resumed = histories.train(run, of=finished)
    assert resumed.code == 0, resumed.stderr
    assert "damaged checkpoint" in resumed.stderr
    aside = set(map(histories.digest, (run / "recent").glob("*.damaged")))
    assert before <= histories.digests(run / "recent") | aside
    assert 12 in histories.sound(run / "recent")


def test_prune_counts_only_what_it_can_read(run):
    recent = run / "recent"
    newest = recent / "ckpt-12.json"
    newest.write_text("{")
    sound = set(histories.sound(recent))
    pruned = processes.call("prune", "--keep_recent=2", f"--run_dir={run}")
    assert pruned.code == 0, pruned.stderr
    assert newest.exists()
    assert set(histories.sound(recent)) == set(sorted(sound)[-2:])


def test_prune_counts_only_what_is_whole(run):
    recent = run / "recent"
    histories.flip(next(recent.glob("ckpt-12.data-*")), 50)
    sound = set(histories.sound(recent))
    told = processes.call("prune", "--keep_recent=2", "--dry_run", f"--run_dir={run}")
    pruned = processes.call("prune", "--keep_recent=2", f"--run_dir={run}")
    assert pruned.code == 0, pruned.stderr
    assert set(histories.sound(recent)) == set(sorted(sound)[-2:])
    assert len(told.stdout.splitlines()) == len(pruned.stdout.splitlines())


# Others.


def test_whoever_deletes_the_lock_file_lets_nobody_in(run):
    with locks.lock(run, run / "run.lock"):
        (run / "run.lock").unlink()
        refused = processes.run("prune", f"--run_dir={run}", cwd=run)
    assert refused.code == 73
    assert "is being written by another process. One run directory" in refused.stderr


def test_the_holder_of_the_lock_is_named(run):
    with locks.lock(run, run / "run.lock"):
        refused = processes.run("prune", f"--run_dir={run}", cwd=run)
    assert f"is being written by process {os.getpid()} on " in refused.stderr


def test_files_of_other_people_are_left_alone(finished, run):
    foreign = [
        *("recent/notes.txt", "recent/ckpt-best.json", "recent/ckpt-007.json"),
        *("recent/backup/ckpt-3.index", "recent/ckpt-3.index.bak", "best/README"),
        *("best/loss/plot.png", "summaries/train/events.out.tfevents.1.host.7.v2"),
        *("summaries/mine/events.out.tfevents.12", "recent/staging/mine.txt"),
    ]
    for name in foreign:
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text(name)
    done = histories.train(run, "--steps=14", of=finished)
    assert done.code == 0, done.stderr
    assert processes.call("prune", "--keep_recent=1", f"--run_dir={run}").code == 0
    assert {name: (run / name).read_text() for name in foreign} == {
        name: name for name in foreign
    }
