import pytest

from trainer.reporting import event_rollback

NAME = "events.out.tfevents.1700000000.host"


@pytest.fixture
def logs(tmp_path):
    for name, content in {
        f"train/{NAME}.1": b"0123456789",
        f"valid/{NAME}.1": b"abcdefgh",
        f"train/{NAME}.2": b"begun later",
        "train/plot.png": b"not ours",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    return tmp_path


def contents(directory):
    files = (path for path in directory.rglob("*") if path.is_file())
    return {f.relative_to(directory).as_posix(): f.read_bytes() for f in files}


KEPT = {f"train/{NAME}.1": 6, f"valid/{NAME}.1": 8}
CUT = {
    f"train/{NAME}.1": b"012345",
    f"valid/{NAME}.1": b"abcdefgh",
    "train/plot.png": b"not ours",
}


def test_sizes_are_told_of_event_files_alone_by_relative_name(logs):
    assert event_rollback.sizes(logs) == {
        f"train/{NAME}.1": 10,
        f"train/{NAME}.2": 11,
        f"valid/{NAME}.1": 8,
    }


def test_files_are_cut_back_and_later_ones_go(logs):
    event_rollback.cut(logs, KEPT)
    assert contents(logs) == CUT


def test_to_cut_twice_is_to_cut_once(logs):
    event_rollback.cut(logs, KEPT)
    event_rollback.cut(logs, KEPT)
    assert contents(logs) == CUT


@pytest.mark.parametrize("done", [f"train/{NAME}.1", f"train/{NAME}.2"])
def test_a_cut_that_was_interrupted_is_finished_by_the_next(logs, done):
    if done in KEPT:
        (logs / done).write_bytes(CUT[done])
    else:
        (logs / done).unlink()
    event_rollback.cut(logs, KEPT)
    assert contents(logs) == CUT


def test_what_was_there_at_the_save_stays(logs):
    before = contents(logs)
    event_rollback.cut(logs, event_rollback.sizes(logs))
    assert contents(logs) == before


def test_what_is_written_after_a_cut_follows_what_was_kept(logs):
    event_rollback.cut(logs, KEPT)
    with open(logs / f"train/{NAME}.1", "ab") as file:
        file.write(b"next")
    assert (logs / f"train/{NAME}.1").read_bytes() == b"012345next"


def test_a_file_that_is_shorter_than_it_was_is_left_as_it_is(logs):
    event_rollback.cut(logs, KEPT | {f"train/{NAME}.1": 1000, f"train/{NAME}.9": 5})
    assert contents(logs) == CUT | {f"train/{NAME}.1": b"0123456789"}


def test_nothing_kept_leaves_no_curve(logs):
    event_rollback.cut(logs, {})
    assert contents(logs) == {"train/plot.png": b"not ours"}


def test_an_empty_file_stays_empty(logs):
    event_rollback.cut(logs, {f"train/{NAME}.1": 0})
    assert (logs / f"train/{NAME}.1").read_bytes() == b""


@pytest.mark.parametrize("name", ["../outside.tfevents", f"../{NAME}", "/outside"])
def test_no_file_elsewhere_is_touched(logs, name):
    for outside in (logs.parent / "outside.tfevents", logs.parent / NAME):
        outside.write_bytes(b"of another run")
    event_rollback.cut(logs, KEPT | {name: 3})
    assert (logs.parent / "outside.tfevents").read_bytes() == b"of another run"
    assert (logs.parent / NAME).read_bytes() == b"of another run"


def test_a_copy_has_the_same_files_and_the_original_keeps_its_own(logs):
    before, target = contents(logs), logs / "aside"
    for _ in range(2):  # the second time over what the first one left
        event_rollback.copy(logs / "train", target)
        copied = {f"train/{NAME}.1": b"0123456789", f"train/{NAME}.2": b"begun later"}
        assert contents(target) == copied
    assert contents(logs) == before | {f"aside/{k}": v for k, v in copied.items()}


def test_a_run_without_events_has_nothing_to_cut(tmp_path):
    assert event_rollback.sizes(tmp_path / "not there") == {}
    event_rollback.cut(tmp_path / "not there", KEPT)
    assert not (tmp_path / "not there").exists()
