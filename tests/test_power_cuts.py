"""Power cuts: the model of a disk, the recorder, and a sample of the campaign.

The model must find what a careless writer loses, or the campaign could not fail.
"""

import dataclasses
import functools
import gc
import importlib
import json
import os
import random
import sys

import histories
import processes
import pytest
import tensorflow as tf
import xxhash

from trainer.inspection import repair
from trainer.storage import checked_json, files

OLD, NEW = b"old", b"n" * 1300
SEEDS = range(40)
SAMPLE = 5  # crashes of each act


@pytest.fixture(scope="module")
def benchmarks():
    """Their folder is no package: where one is run, it is in the path."""
    sys.path.insert(0, str(processes.PROJECT / "benchmarks"))
    yield
    sys.path.remove(str(processes.PROJECT / "benchmarks"))


@pytest.fixture(scope="module")
def disk(benchmarks):
    return importlib.import_module("disk")


@pytest.fixture(scope="module")
def power_cuts(benchmarks):
    return importlib.import_module("power_cuts")


@pytest.fixture
def empty(disk):
    return disk.Disk()


def every_cut(disk, one, seeds=SEEDS):
    """What may be found: paths with their bytes, in every way to cut."""
    for kind in disk.CUTS:
        for seed in seeds:
            found = one.cut(kind, random.Random(seed))
            yield {path: content for path, (_, content) in found.files.items()}


def what(disk, one, path):
    """All that may be found under one name; None: nothing."""
    return {found.get(path) for found in every_cut(disk, one)}


# The model of a disk.


def test_what_is_synced_with_its_name_is_whole_after_every_cut(disk, empty):
    empty.write("a", NEW)
    empty.sync("a")
    empty.sync("")
    assert what(disk, empty, "a") == {NEW}


def test_bytes_that_were_not_synced_are_missing_zeros_or_torn(disk, empty):
    empty.write("a", NEW)
    empty.sync("")
    assert what(disk, empty, "a") == {NEW, b"", bytes(1300), NEW[:512], NEW[:1024]}


def test_what_is_appended_harms_nothing_that_was_synced(disk, empty):
    empty.write("a", NEW)
    empty.sync("a")
    empty.sync("")
    empty.write("a", NEW + b"more")
    assert what(disk, empty, "a") == {NEW, NEW + b"more", NEW + bytes(4)}


def test_synced_bytes_without_a_synced_name_may_be_lost(disk, empty):
    empty.write("a", NEW)
    empty.sync("a")
    assert what(disk, empty, "a") == {None, NEW}


def test_a_synced_name_in_a_directory_without_one_may_be_lost(disk, empty):
    empty.make_directory("home")
    empty.write("home/a", NEW)
    empty.sync("home/a")
    empty.sync("home")
    assert what(disk, empty, "home/a") == {None, NEW}
    empty.sync("")
    assert what(disk, empty, "home/a") == {NEW}


def test_a_rename_is_old_or_new_if_the_bytes_were_synced_before(disk, empty):
    replaced(empty)
    assert what(disk, empty, "a") == {OLD, NEW}
    empty.sync("")
    assert what(disk, empty, "a") == {NEW}
    assert what(disk, empty, "a.tmp") == {None}


def test_a_rename_before_the_bytes_are_synced_is_found_out(disk, empty):
    replaced(empty, careless=True)
    assert what(disk, empty, "a") - {OLD, NEW} == {
        b"",
        bytes(1300),
        NEW[:512],
        NEW[:1024],
    }


def replaced(one, *, careless=False):
    """A file takes the place of another; its name is not yet synced."""
    one.write("a", OLD)
    one.make_all_durable()
    one.write("a.tmp", NEW)
    if not careless:
        one.sync("a.tmp")
    one.rename("a.tmp", "a")


def test_names_are_lost_one_by_one_or_from_some_moment_on(disk, empty):
    for name in "abc":
        empty.write(name, b"")
    subsets = {"".join(sorted(found)) for found in every_cut(disk, empty)}
    assert subsets == {"", "a", "b", "c", "ab", "ac", "bc", "abc"}
    ordered = [empty.cut("in order", random.Random(seed)).files for seed in SEEDS]
    assert {"".join(sorted(found)) for found in ordered} == {"", "a", "ab", "abc"}


def test_a_second_name_holds_the_same_bytes(disk, empty, tmp_path):
    empty.write("a", NEW)
    empty.make_all_durable()
    empty.link("a", "b")
    empty.unlink("a")
    for found in every_cut(disk, empty):
        assert set(found) <= {"a", "b"}
    assert what(disk, empty, "b") == {None, NEW}
    empty.link("b", "c")
    empty.make_all_durable()
    found = empty.cut("empty", random.Random(0))
    found.restore(tmp_path / "found")
    assert (tmp_path / "found/b").samefile(tmp_path / "found/c")
    assert not (tmp_path / "found/a").exists()


def test_what_was_deleted_may_be_there_again_until_that_is_synced(disk, empty):
    empty.write("a", NEW)
    empty.make_all_durable()
    empty.unlink("a")
    assert what(disk, empty, "a") == {None, NEW}
    empty.sync("")
    assert what(disk, empty, "a") == {None}


@pytest.mark.parametrize("synced", ["", "home", "there"])
def test_what_moves_to_another_directory_has_always_a_name(disk, empty, synced):
    empty.make_directory("home")
    empty.make_directory("there")
    empty.write("home/a", NEW)
    empty.make_all_durable()
    empty.rename("home/a", "there/a")
    empty.sync(synced)
    for found in every_cut(disk, empty):
        assert found
        assert set(found.values()) == {NEW}
        assert synced != "there" or "there/a" in found
        assert synced != "home" or "home/a" not in found


def test_equal_disks_are_known_as_equal(disk):
    one, other = disk.Disk(), disk.Disk()
    for this in (one, other):
        this.write("a", NEW)
        this.write("b", NEW)
    chance = random.Random(0)
    digest = one.cut("lost", chance).digest
    assert digest == other.cut("lost", chance).digest
    for this in (one, other):
        this.make_all_durable()
    assert one.cut("lost", chance).digest == other.cut("lost", chance).digest != digest
    other.link("a", "b")
    other.make_all_durable()
    assert one.cut("lost", chance).digest != other.cut("lost", chance).digest


# The recorder.


def after_cuts(disk, root, act):
    """What `a` may be after a cut at any moment of `act`, and after its end."""
    (root / "a").write_bytes(OLD)
    recorder = disk.Recorder(root)
    with recorder.watching():
        act(root / "a")
    moments = [what(disk, one, "a") for one, _ in recorder.moments]
    return set().union(*moments), moments[-1]


def test_our_way_to_replace_a_file_stands_every_cut(disk, tmp_path):
    def act(path):
        files.write_atomically(path, NEW.decode())

    assert after_cuts(disk, tmp_path, act) == ({OLD, NEW}, {NEW})


def test_our_way_without_syncing_the_file_is_found_out(disk, tmp_path):
    def act(path):
        path.with_name("a.tmp").write_bytes(NEW)
        files.replace(path.with_name("a.tmp"), path)

    _, end = after_cuts(disk, tmp_path, act)
    assert {b"", bytes(1300)} <= end


def test_our_way_without_syncing_the_directory_is_found_out(disk, tmp_path):
    def act(path):
        path.with_name("a.tmp").write_bytes(NEW)
        files.sync(path.with_name("a.tmp"))
        path.with_name("a.tmp").replace(path)

    assert after_cuts(disk, tmp_path, act) == ({OLD, NEW}, {OLD, NEW})


def test_what_tensorflow_writes_is_seen_and_not_taken_for_synced(disk, tmp_path):
    def act(path):
        tf.io.write_file(str(path), NEW.decode())

    _, end = after_cuts(disk, tmp_path, act)
    assert {OLD, NEW} <= end


def test_files_are_known_by_what_they_are(disk, tmp_path):
    """Also where a new one takes the number of one that was deleted."""
    recorder = disk.Recorder(tmp_path)
    with recorder.watching():
        for number in range(8):
            path = tmp_path / str(number)
            path.write_bytes(bytes([number]) * 600)
            files.link(path, tmp_path / f"{number}.link")
            files.sync(path)
            path.rename(tmp_path / f"{number}.renamed")
            (tmp_path / f"{number}.link").unlink()
            (tmp_path / f"{number}.renamed").unlink()
        (tmp_path / "last").write_bytes(OLD)
        files.sync(tmp_path)
    end, _ = recorder.moments[-1]
    assert set(end.cut("empty", random.Random(0)).files) == {"last"}
    # Within the file's life: one number under all its names.
    names = [one.cut("empty", random.Random(0)).files for one, _ in recorder.moments]
    both = [found for found in names if {"0", "0.link"} <= found.keys()]
    assert both
    assert all(found["0"] == found["0.link"] for found in both)


# The order of our own operations, at every moment, in every way to cut.


@pytest.fixture(scope="module")
def saves(disk, tmp_path_factory):
    """Saves that promote and prune, one of a step that is there already."""
    run_dir = tmp_path_factory.mktemp("saves")
    house, held = histories.store(run_dir, "loss:min", keep_recent=1), histories.tree()
    house.prepare()
    recorder = disk.Recorder(run_dir)
    with recorder.watching():
        for step, loss in ((1, 0.5), (2, 0.25), (2, 0.125), (3, 1.0), (4, 0.0)):
            histories.save(house, held, step, {"loss": loss})
            recorder.note(step)
    return recorder.moments


def test_what_counts_as_committed_is_whole_after_every_cut(disk, saves):
    known = set()
    for moment, told in saves:
        for found in every_cut(disk, moment, range(6)):
            steps = committed(found)
            assert max(steps, default=0) >= (told or 0)
            known |= set(steps)
    assert known == {1, 2, 3, 4}


def committed(found):
    """The step of each manifest; what it speaks of is there and right."""
    steps = []
    for path, content in found.items():
        if path.endswith(".json"):
            body = checked_json.opened(json.loads(content))
            for name, expected in body["files"].items():
                held = found[f"{path.rpartition('/')[0]}/{name}"]
                assert expected["bytes"] == len(held)
                assert expected["xxh3_128"] == xxhash.xxh3_128_hexdigest(held)
            steps.append(body["step"])
    return steps


def test_going_back_loses_nothing_in_any_cut(disk, tmp_path):
    """What is moved to `abandoned` is there before it leaves its place."""
    house, held = histories.store(tmp_path, "loss:min:2"), histories.tree()
    house.prepare()
    for step in (1, 2, 3):
        histories.save(house, held, step, {"loss": 1 / step})
    recorder = disk.Recorder(tmp_path)
    with recorder.watching():
        entry = house.upkeep.catalog.home(tmp_path / "recent")[1]
        house.go_back(entry, held, 1)
        histories.save(house, held, 2, {"loss": 0.25})
    for moment, _ in recorder.moments:
        for found in every_cut(disk, moment, range(6)):
            assert set(committed(found)) == {1, 2, 3}
    found = recorder.moments[-1][0].cut("lost", random.Random(0)).files
    assert {"abandoned/1/recent/ckpt-3.json", "abandoned/1/best/loss/ckpt-3.json"} <= (
        found.keys()
    )


def test_a_manifest_written_anew_speaks_of_what_is_on_the_disk(disk, tmp_path):
    """Whoever brought the files back did not sync them."""
    house, held = histories.store(tmp_path), histories.tree()
    house.prepare()
    histories.save(house, held, 1)
    (tmp_path / "recent/ckpt-1.json").unlink()
    recorder = disk.Recorder(tmp_path)
    with recorder.watching():
        for path in sorted((tmp_path / "recent").glob("ckpt-1.*")):
            content = path.read_bytes()
            path.unlink()
            path.write_bytes(content)
        files.sync(tmp_path / "recent")
        assert [row["repaired"] for row in repair.repair(house.directory)] == [True]
    for moment, _ in recorder.moments:
        for found in every_cut(disk, moment, range(6)):
            with_manifest = committed(found)
    assert with_manifest == [1]


def test_no_data_are_left_that_nothing_speaks_for(disk, saves):
    """They would be set aside, and stay for ever."""
    moments = [moment for moment, _ in saves]
    assert marks_of_data(disk, moments) == {".json", ".partial", ".deleting"}


def marks_of_data(disk, moments):
    """What speaks for the files of checkpoints, each of which has such a mark."""
    seen = set()
    for moment in moments:
        for found in every_cut(disk, moment, range(6)):
            for path in found:
                stem, _, suffix = path.rpartition(".")
                if suffix == "index" or suffix.startswith("data-"):
                    if "_temp/" in path:
                        continue  # TensorFlow's own name speaks for itself
                    marks = {".json", ".partial", ".deleting"}
                    speaking = {mark for mark in marks if stem + mark in found}
                    assert speaking, (path, sorted(found))
                    seen |= speaking
    return seen


def test_a_start_after_a_cut_leaves_no_data_either(disk, saves, tmp_path):
    """Where a second cut comes while the first one is mended."""
    chance = random.Random(0)
    partial = [one for one, _ in saves if ".partial" in str(one.cut("torn", chance))]
    for number, moment in enumerate(partial[::4]):
        root = tmp_path / str(number)
        moment.cut("subset", chance).restore(root)
        recorder = disk.Recorder(root)
        with recorder.watching():
            histories.store(root, "loss:min", keep_recent=1).prepare()
        marks_of_data(disk, [one for one, _ in recorder.moments])


# The campaign.


ACTS = ("save", "promotion", "pruning", "going back", "adopting")


@pytest.fixture(scope="module")
def campaign(power_cuts, tmp_path_factory):
    """Makes one of each act; without garbage of other tests to look through."""

    @functools.cache
    def make(act):
        directory = tmp_path_factory.mktemp("campaign")
        scenario = power_cuts.SCENARIOS[act]
        return power_cuts.Campaign(directory, scenario, least=1, seed=0)

    gc.freeze()
    yield make
    gc.unfreeze()


def test_these_are_all_acts(power_cuts):
    assert tuple(power_cuts.SCENARIOS) == ACTS


@pytest.mark.parametrize("act", ACTS)
def test_a_run_that_lost_power_goes_on_to_the_same_end(power_cuts, campaign, act):
    recorded = campaign(act)
    assert recorded.operations > 50
    crashes = power_cuts.sample(recorded.crashes, SAMPLE, random.Random(0))
    assert len(crashes) == SAMPLE
    for crash in crashes:
        outcome, aside, more = recorded.trial(crash)
        assert outcome in ("newest", "older"), (crash.first, outcome, more)
        assert not aside, crash.first


def test_a_framework_that_syncs_nothing_is_found_out(power_cuts, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        patch.setattr(files, "sync", lambda path: None)
        scenario = power_cuts.SCENARIOS["promotion"]
        recorded = power_cuts.Campaign(tmp_path, scenario, least=1, seed=0)
    crash = next(c for c in recorded.crashes if c.told == 8 and "lost" in c.first)
    outcome, _, more = recorded.trial(crash)
    assert outcome == "LOST"
    assert more == "went on from 4, 8 told: ['ckpt-6', 'ckpt-8']"


def test_a_run_that_ends_otherwise_is_found_out(campaign):
    recorded = campaign("save")
    crash = recorded.crashes[-1]
    name = "run/recent/ckpt-4.json"
    number, text = crash.found.files[name]
    body = {**checked_json.opened(json.loads(text)), "metrics": {"loss": 0.25}}
    forged = {**crash.found.files, name: (number, checked_json.text(body).encode())}
    found = dataclasses.replace(crash.found, files=forged)
    crash = dataclasses.replace(crash, found=found)
    assert recorded.trial(crash) == (
        "WRONG",
        False,
        "went on from 6: recent/ckpt-4.json",
    )


def test_a_start_that_is_refused_is_found_out(campaign):
    recorded = campaign("save")
    crash = recorded.crashes[-1]
    name = "run/config.json"
    forged = {**crash.found.files, name: (crash.found.files[name][0], b"")}
    found = dataclasses.replace(crash.found, files=forged)
    outcome, _, more = recorded.trial(dataclasses.replace(crash, found=found))
    assert outcome == "refused"
    assert "config.json is not the configuration of a run" in more
