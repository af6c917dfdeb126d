"""Event files go back to where a checkpoint was, and no other file does."""

import random

import pytest

from trainer.reporting import event_rollback
from trainer.reporting.event_file import EventFile, scalar

FIRST, SECOND = (f"events.out.tfevents.{n}" for n in (170, 171))
OTHERS = {
    "train/plot.png": b"not ours",
    "train/events.out.tfevents.1700000000.host.7.v2": b"of another writer",
    "mine/events.out.tfevents.170": b"in a directory of somebody else",
}


@pytest.fixture
def logs(tmp_path):
    ours = {
        f"train/{FIRST}": b"0123456789",
        f"eval/{FIRST}": b"abcdefgh",
        f"train/{SECOND}": b"begun later",
    }
    for name, content in (ours | OTHERS).items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    return tmp_path


def contents(directory):
    files = (path for path in directory.rglob("*") if path.is_file())
    return {f.relative_to(directory).as_posix(): f.read_bytes() for f in files}


KEPT = {f"train/{FIRST}": 6, f"eval/{FIRST}": 8}
CUT = {f"train/{FIRST}": b"012345", f"eval/{FIRST}": b"abcdefgh"} | OTHERS


def test_sizes_are_told_of_our_event_files_alone(logs):
    assert event_rollback.sizes(logs) == {
        f"train/{FIRST}": 10,
        f"train/{SECOND}": 11,
        f"eval/{FIRST}": 8,
    }


def test_files_are_cut_back_and_later_ones_go(logs):
    for _ in range(2):  # to cut twice is to cut once
        assert event_rollback.cut(logs, KEPT) == []
        assert contents(logs) == CUT


@pytest.mark.parametrize("done", [f"train/{FIRST}", f"train/{SECOND}"])
def test_a_cut_that_was_interrupted_is_finished_by_the_next(logs, done):
    if done in KEPT:
        (logs / done).write_bytes(CUT[done])
    else:
        (logs / done).unlink()
    event_rollback.cut(logs, KEPT)
    assert contents(logs) == CUT


def test_what_was_there_at_the_save_stays(logs):
    before = contents(logs)
    assert event_rollback.cut(logs, event_rollback.sizes(logs)) == []
    assert contents(logs) == before


def test_what_is_shorter_or_missing_is_told_and_nothing_else_changes(logs):
    lost = {f"train/{FIRST}": 1000, "train/events.out.tfevents.169": 5}
    problems = event_rollback.cut(logs, KEPT | lost)
    assert problems == [
        f"{logs}/train/{FIRST} has 10 bytes and had 1000 at the save",
        f"{logs}/train/events.out.tfevents.169 is missing, with 5 bytes",
    ]
    assert contents(logs) == CUT | {f"train/{FIRST}": b"0123456789"}


def test_nothing_kept_leaves_no_curve_of_ours(logs):
    assert event_rollback.cut(logs, {}) == []
    assert contents(logs) == OTHERS


def test_a_link_is_not_followed(logs, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "precious"
    outside.write_bytes(b"of somebody else")
    (logs / f"train/{FIRST}").unlink()
    (logs / f"train/{FIRST}").symlink_to(outside)
    event_rollback.cut(logs, KEPT)
    assert outside.read_bytes() == b"of somebody else"


@pytest.mark.parametrize("name", ["../outside.tfevents", f"../{FIRST}", "/outside"])
def test_no_file_elsewhere_is_touched(logs, name):
    for outside in (logs.parent / "outside.tfevents", logs.parent / FIRST):
        outside.write_bytes(b"of another run")
    event_rollback.cut(logs, KEPT | {name: 3})
    assert (logs.parent / "outside.tfevents").read_bytes() == b"of another run"
    assert (logs.parent / FIRST).read_bytes() == b"of another run"


def test_a_copy_has_the_same_files_and_the_original_keeps_its_own(logs):
    before, target = contents(logs), logs / "aside"
    for _ in range(2):  # the second time over what the first one left
        event_rollback.copy(logs, target)
        copied = {k: v for k, v in before.items() if k not in OTHERS}
        assert contents(target / logs.name) == copied
    (target / logs.name / "eval").rename(logs / "moved")
    assert {k: v for k, v in contents(logs).items() if k in before} == before


def test_a_run_without_events_has_nothing_to_cut(tmp_path):
    assert event_rollback.sizes(tmp_path / "not there") == {}
    assert event_rollback.cut(tmp_path / "not there", {}) == []
    assert not (tmp_path / "not there").exists()


# Thousands of restarts.


def test_a_new_file_comes_after_all_of_ours_whatever_else_is_there(tmp_path):
    later = tmp_path / f"events.out.tfevents.{10**19}"
    later.write_bytes(b"the clock was put back since")
    (tmp_path / "zzz").write_bytes(b"not ours")
    file = EventFile(tmp_path)
    file.add(1, [scalar("loss", 0.5)])
    file.flush()
    file.close()
    assert event_rollback.names(tmp_path)[0] == later.name
    assert event_rollback.names(tmp_path)[1] == f"events.out.tfevents.{10**19 + 1}"


@pytest.mark.parametrize("seed", range(8))
def test_however_often_files_are_joined_a_cut_gives_the_same_curve(tmp_path, seed):
    """A history of restarts: write, save, be killed, go back to any of the saves."""
    chance = random.Random(seed)
    home = tmp_path / "train"
    home.mkdir()
    saves = [({}, b"")]
    for number in range(120):
        del saves[max(1, len(saves) - chance.randrange(4)) :]
        kept, curve = saves[-1]
        assert event_rollback.cut(tmp_path, kept) == []
        assert _curve(home) == curve
        assert len(event_rollback.names(home)) <= 17
        path = home / f"events.out.tfevents.{1000 + number}"
        for _ in range(chance.randrange(3)):
            with path.open("ab") as file:
                file.write(chance.randbytes(chance.randrange(1, 9)))
            if chance.random() < 0.7:
                saves.append((event_rollback.sizes(tmp_path), _curve(home)))


@pytest.mark.parametrize("deleted", range(18))
def test_a_joining_that_was_interrupted_is_finished_by_the_next_cut(tmp_path, deleted):
    home = tmp_path / "train"
    home.mkdir()
    for number in range(18):
        (home / f"events.out.tfevents.{number}").write_bytes(bytes([number]))
    kept, curve = event_rollback.sizes(tmp_path), _curve(home)
    parts = event_rollback.names(home)
    (home / "events.out.tfevents.17.joined").write_bytes(curve)
    for name in parts[:deleted]:
        (home / name).unlink()
    assert event_rollback.cut(tmp_path, kept) == []
    assert _curve(home) == curve
    assert event_rollback.names(home) == ["events.out.tfevents.17.joined"]


def _curve(home):
    return b"".join((home / name).read_bytes() for name in event_rollback.names(home))
