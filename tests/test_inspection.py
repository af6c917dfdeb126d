import os
import pathlib
import re

import making
import pytest

from trainer.checkpoint import catalog, manifest, selection
from trainer.checkpoint.layout import RunDirectory
from trainer.inspection import rows
from trainer.inspection.rows import show_checkpoint


def list_checkpoints(run, rules=()):
    return rows.list_checkpoints(RunDirectory(run), rules)


def verify(run):
    return rows.verify(RunDirectory(run))


def entries(run):
    return catalog.scan(RunDirectory(run)).entries


def data_of(directory, step):
    return directory / f"ckpt-{step}.data-00000-of-00001"


def snapshot(directory):
    files = (path for path in directory.rglob("*") if path.is_file())
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


@pytest.fixture
def run(tmp_path):
    making.checkpoint(tmp_path / "recent", 10, {"loss": 0.5})
    more = {"created": 1700000000.5, "lineage": 2}
    making.checkpoint(tmp_path / "recent", 20, {"loss": 0.75}, **more)
    making.checkpoint(tmp_path / "best" / "loss", 10, {"loss": 0.5})
    return tmp_path


def test_a_row_tells_everything_about_a_checkpoint(run):
    row = list_checkpoints(run)[0]
    prefix = run / "recent" / "ckpt-20"
    sizes = [path.stat().st_size for path in (run / "recent").glob("ckpt-20.[id]*")]
    assert row == {
        "step": 20,
        "path": str(prefix),
        "kind": "recent",
        "best_of": [],
        "ranks": {},
        "latest": True,
        "metrics": {"loss": 0.75},
        "bytes": sum(sizes),
        "created": 1700000000.5,
        "lineage": 2,
        "status": "ok",
    }


def test_the_rows_come_newest_first_with_their_marks(run):
    making.checkpoint(run / "best" / "accuracy", 10, {"accuracy": 0.9})
    rows = list_checkpoints(run)
    marks = [(r["step"], r["kind"], r["latest"], r["best_of"]) for r in rows]
    assert marks == [
        (20, "recent", True, []),
        (10, "recent", False, ["accuracy", "loss"]),
        (10, "best", False, ["accuracy", "loss"]),
        (10, "best", False, ["accuracy", "loss"]),
    ]


def test_a_metric_may_be_called_recent(run):
    making.checkpoint(run / "best" / "recent", 20, {"recent": 1.0})
    rows = list_checkpoints(run)
    assert [r["kind"] for r in rows] == ["recent", "best", "recent", "best"]
    assert [r["latest"] for r in rows] == [True, False, False, False]


@pytest.mark.parametrize("spoiled", [[], ["recent"], ["recent", "best/loss"]])
def test_the_latest_is_the_one_that_would_be_selected(run, spoiled):
    making.checkpoint(run / "best" / "loss", 20, {"loss": 0.1})
    for directory in spoiled:
        making.spoil(run / directory, 20)
    latest = [r["path"] for r in list_checkpoints(run) if r["latest"]]
    assert latest == [str(selection.select(RunDirectory(run), "latest", ()).prefix)]


def cut_short(path):
    os.truncate(path, 1)


def lengthen(path):
    path.write_bytes(path.read_bytes() + b"\0")


@pytest.mark.parametrize(
    ("harm", "status"),
    [(cut_short, "damaged"), (lengthen, "damaged"), (os.unlink, "incomplete")],
)
def test_the_status_tells_what_happened_to_the_files(run, harm, status):
    harm(data_of(run / "recent", 20))
    rows = list_checkpoints(run)
    assert [row["status"] for row in rows] == [status, "ok", "ok"]


def test_the_status_does_not_read_the_bytes(run):
    path = data_of(run / "recent", 20)
    path.write_bytes(bytes(path.stat().st_size))
    assert list_checkpoints(run)[0]["status"] == "ok"


def test_a_broken_manifest_is_a_row_too(run):
    making.spoil(run / "recent", 20)
    row = list_checkpoints(run)[0]
    assert (row["step"], row["status"]) == (20, "damaged")
    assert (row["metrics"], row["bytes"], row["created"]) == ({}, 0, None)


def test_nothing_is_changed(run):
    making.spoil(run / "recent", 20)
    before = snapshot(run)
    list_checkpoints(run)
    assert snapshot(run) == before


def test_a_run_that_has_saved_nothing_yet_has_no_rows(tmp_path):
    assert list_checkpoints(tmp_path) == []


def test_the_bytes_are_verified_where_sizes_tell_nothing(run):
    path = data_of(run / "recent", 20)
    path.write_bytes(bytes(path.stat().st_size))
    making.spoil(run / "best" / "loss", 10)
    (run / "recent" / "ckpt-5.json.damaged").touch()
    before = snapshot(run)
    rows = verify(run)
    names = [pathlib.Path(row["path"]).relative_to(run).as_posix() for row in rows]
    expected = ["recent/ckpt-20", "recent/ckpt-10", "best/loss/ckpt-10"]
    assert names == [*expected, "recent/ckpt-5.json.damaged"]
    problems = [row["problem"] for row in rows]
    assert "does not have the checksum" in problems[0]
    assert problems[1] is None
    assert "is not a manifest" in problems[2]
    assert problems[3] == "was set aside before"
    assert snapshot(run) == before


@pytest.mark.parametrize("look", [list_checkpoints, verify])
def test_a_file_that_cannot_be_read_does_not_hide_the_other_checkpoints(run, look):
    path = data_of(run / "recent", 20)
    path.unlink()
    path.symlink_to(path)  # as a bad disk would: an error that is not "missing"
    bad, *others = look(run)
    assert bad.get("status", bad.get("problem")) not in ("ok", None)
    assert len(others) == 2


def test_a_checkpoint_is_shown_with_its_files_and_variables(run):
    (entry,) = [e for e in entries(run) if e.step == 20]
    shown = show_checkpoint(entry)
    assert (shown["step"], shown["metrics"]) == (20, {"loss": 0.75})
    assert {row["file"]: row["bytes"] for row in shown["files"]} == {
        path.name: path.stat().st_size for path in entry.directory.glob("ckpt-20.[id]*")
    }
    kernel = {"variable": "model/dense/kernel", "shape": "(8, 2)", "dtype": "float32"}
    assert shown["variables"] == [kernel]
    assert re.fullmatch(r"2023-11-1\d \d\d:\d\d:20", shown["created"])


@pytest.mark.parametrize("created", [1e300, -1e300, "nan", "inf"])
def test_a_time_that_is_none_is_a_fault_of_the_manifest(run, created):
    making.checkpoint(run / "recent", 30, created=created)
    with pytest.raises(manifest.ManifestError):
        show_checkpoint(entries(run)[0])


def test_what_cannot_be_read_is_not_shown(run):
    making.spoil(run / "recent", 20)
    with pytest.raises(manifest.ManifestError, match="is not a manifest of format"):
        show_checkpoint(entries(run)[0])


@pytest.mark.parametrize("look", [list_checkpoints, verify])
@pytest.mark.parametrize("name", ["not there", "file"])
def test_a_directory_that_is_not_there_is_told(tmp_path, name, look):
    (tmp_path / "file").touch()
    place = re.escape(str(tmp_path / name))
    expected = f"there is no run directory {place}. Check --run_dir, or train first"
    with pytest.raises(FileNotFoundError, match=expected):
        look(tmp_path / name)
