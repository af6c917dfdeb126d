"""Checkpoints are saved whole or not at all, and the newest whole one is restored."""

import json
import os
import re
import shutil

import numpy as np
import pytest
import tasks
import tensorflow as tf

from trainer.checkpoint import catalog, compatibility, layout, manifest, plan, selection
from trainer.checkpoint.layout import RunDirectory
from trainer.checkpoint.retention import Best
from trainer.checkpoint.store import NoUsableCheckpointError, SaveError
from trainer.model import loading
from trainer.model.progress import Progress

NAN = float("nan")


@pytest.fixture(scope="module")
def current():
    return tasks.built(tasks.Plain())


def save(store, current, step, **metrics):
    """A checkpoint whose values tell its step."""
    for variable in current.networks.variables:
        variable.assign(tf.fill(variable.shape, float(step)))
    return store.save(current.tree, tasks.draft(current, step, metrics=metrics))


def weight(current):
    return float(current.networks.variables[0].numpy()[0, 0])


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def data_of(directory, step):
    return directory / f"ckpt-{step}.data-00000-of-00001"


# Saved and restored.


def test_what_is_saved_is_restored(current, tmp_path):
    store = tasks.store(tmp_path)
    assert store.restore(current) is None
    progress = Progress(reported=5).evaluated_at(5, {"loss": 0.1}, {})
    current.progress = progress
    mark = save(store, current, 5, loss=0.25)
    current.progress = Progress()
    current.step.assign(0)
    current.networks.variables[0].assign(tf.zeros([4, 1]))
    found = tasks.store(tmp_path).restore(current)
    assert found == manifest.read(tmp_path / "recent", 5)
    assert found.metrics == {"loss": 0.25}
    assert int(current.step.numpy()) == 5
    assert weight(current) == 5
    assert current.progress == progress
    files = [(tmp_path / "recent" / name).stat().st_size for name in found.files]
    assert found == mark
    assert found.bytes == sum(files)
    assert len(files) == 2


def test_the_manifest_is_written_last(current, tmp_path):
    save(tasks.store(tmp_path), current, 5)
    recent = tmp_path / "recent"
    times = {path.suffix: path.stat().st_mtime_ns for path in recent.glob("ckpt-5.*")}
    assert max(times, key=times.get) == ".json"
    assert len(times) == 3


SUFFIXES = ["data-00000-of-00001", "index", "json"]


def test_data_that_nothing_speaks_for_are_set_aside_and_never_deleted(
    current, tmp_path
):
    """Somebody may have lost a manifest; the bytes are all that is left of it."""
    store = tasks.store(tmp_path)
    save(store, current, 5)
    save(store, current, 6)
    recent = tmp_path / "recent"
    (recent / "ckpt-6.json").unlink()
    content = data_of(recent, 6).read_bytes()
    with tasks.logged() as lines:
        store = tasks.store(tmp_path)
    text = "has no manifest, so it is no checkpoint. It is renamed *.unclaimed."
    assert f"ERROR {recent}/ckpt-6 {text}" in lines
    assert store.restore(current).step == 5
    assert weight(current) == 5
    assert (recent / "ckpt-6.data-00000-of-00001.unclaimed").read_bytes() == content
    assert names(recent) == [
        "checkpoint",
        *(f"ckpt-5.{suffix}" for suffix in SUFFIXES),
        *(f"ckpt-6.{suffix}.unclaimed" for suffix in SUFFIXES[:2]),
    ]


def test_without_one_manifest_whole_data_stop_the_start(current, tmp_path):
    store = tasks.store(tmp_path)
    save(store, current, 5)
    recent = tmp_path / "recent"
    (recent / "ckpt-5.json").unlink()
    before = names(recent)
    text = (
        rf"{tmp_path} holds {recent}/ckpt-5 and not one manifest \(ckpt-\*.json\), so "
        r"nothing says what was committed. Nothing was changed. Bring the manifests "
        rf"back, have them written anew \(verify --repair --run_dir={tmp_path}\), or "
    )
    with pytest.raises(NoUsableCheckpointError, match=text):
        tasks.store(tmp_path)
    assert names(recent) == before
    truncate(data_of(recent, 5))  # half of a file was never a checkpoint
    assert tasks.store(tmp_path).restore(current) is None
    assert names(recent) == [
        "checkpoint",
        *(f"ckpt-5.{suffix}.unclaimed" for suffix in SUFFIXES[:2]),
    ]


@pytest.fixture(scope="module")
def saved(current, tmp_path_factory):
    """A run with one checkpoint, in `recent` and in `best/loss`."""
    run_dir = tmp_path_factory.mktemp("saved") / "run"
    save(tasks.store(run_dir, "loss:min"), current, 5, loss=1.0)
    return run_dir


@pytest.mark.parametrize("home", ["recent", "best/loss"])
@pytest.mark.parametrize(
    "debris",
    [
        "ckpt-6.json.tmp",
        "ckpt-5.json.tmp",
        "ckpt-6.data-00000-of-00001.tmp",
        "ckpt-6.data-00000-of-00001.tempstate12345",
        "ckpt-6_temp/part-00000-of-00001.index",
        "checkpoint.tmp0123abcd",
        "checkpoint.tmp",
    ],
)
def test_what_a_killed_save_left_is_removed(saved, tmp_path, home, debris):
    run_dir = shutil.copytree(saved, tmp_path / "run")
    before = names(run_dir / home)
    path = run_dir / home / debris
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"half a file")
    with tasks.logged() as lines:
        tasks.store(run_dir, "loss:min")
    top = run_dir / home / debris.partition("/")[0]
    assert f"INFO removing what an interrupted save left: {top}" in lines
    assert names(run_dir / home) == before


@pytest.mark.parametrize("home", ["recent", "best/loss"])
@pytest.mark.parametrize("kind", [layout.PARTIAL, layout.DELETING])
def test_files_that_a_mark_speaks_for_are_removed_with_it(saved, tmp_path, home, kind):
    run_dir = shutil.copytree(saved, tmp_path / "run")
    before = names(run_dir / home)
    for name in ("ckpt-6.index", "ckpt-6.data-00000-of-00002"):
        (run_dir / home / name).write_bytes(b"half a file")
    for step in (5, 6):  # the files of 5 are committed, whatever else is said of them
        layout.marker(run_dir / home, step, kind).touch()
    tasks.store(run_dir, "loss:min")
    assert names(run_dir / home) == before


@pytest.mark.parametrize("home", ["recent", "best/loss", ""])
@pytest.mark.parametrize(
    "foreign",
    [
        "notes.txt",
        "notes.tmp",
        "ckpt-final.index",
        "ckpt-6.txt",
        "my-ckpt-6.index",
        "ckpt-6.index.damaged",
        "model/weights.index",
        "checkpoints.csv",
        "ckpt-5.data-00000-of-00001.orig",
    ],
)
def test_what_is_not_ours_stays(saved, current, tmp_path, home, foreign):
    run_dir = shutil.copytree(saved, tmp_path / "run")
    path = run_dir / home / foreign
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"of someone else")
    store = tasks.store(run_dir, "loss:min")
    store.restore(current)
    save(store, current, 7, loss=2.0)
    assert path.read_bytes() == b"of someone else"


# Damaged.


def flip(path):
    """One bit in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def empty(path):
    os.truncate(path, 0)


def lengthen(path):
    path.write_bytes(path.read_bytes() + b"\0")


def swap(path):
    """The bytes of another checkpoint: of the right size, and each one sound."""
    other = path.with_name(path.name.replace("ckpt-6", "ckpt-5"))
    path.write_bytes(other.read_bytes())


def delete(path):
    path.unlink()


def replace_by_directory(path):
    path.unlink()
    path.mkdir()


CHECKSUM = "does not have the checksum that the manifest says"
NO_MANIFEST = r"\S+ckpt-6.json is not a manifest of format 1: .+"
DAMAGES = [
    ("data-00000-of-00001", flip, CHECKSUM),
    ("data-00000-of-00001", truncate, r"has \d+ bytes, the manifest says \d+"),
    ("data-00000-of-00001", empty, r"has 0 bytes, the manifest says \d+"),
    ("data-00000-of-00001", lengthen, r"has \d+ bytes, the manifest says \d+"),
    ("data-00000-of-00001", swap, CHECKSUM),
    ("data-00000-of-00001", delete, "is missing"),
    ("data-00000-of-00001", replace_by_directory, "is not a regular file"),
    ("index", flip, CHECKSUM),
    ("index", truncate, r"has \d+ bytes, the manifest says \d+"),
    ("index", swap, CHECKSUM),
    ("index", delete, "is missing"),
    ("json", flip, None),
    ("json", truncate, NO_MANIFEST),
    ("json", empty, NO_MANIFEST),
    ("json", swap, r"\S+ckpt-6.json is not a manifest of format 1: its step is 5"),
]


@pytest.mark.parametrize(
    ("suffix", "harm", "reason"),
    DAMAGES,
    ids=[f"{harm.__name__} {suffix}" for suffix, harm, _ in DAMAGES],
)
def test_a_damaged_checkpoint_is_set_aside_and_an_older_one_is_restored(
    current, tmp_path, suffix, harm, reason
):
    store = tasks.store(tmp_path)
    for step in (4, 5, 6):
        save(store, current, step)
    recent = tmp_path / "recent"
    path = recent / f"ckpt-6.{suffix}"
    harm(path)
    left = {p.name: p.is_file() and p.read_bytes() for p in recent.glob("ckpt-6.*")}
    with tasks.logged() as lines:
        found = tasks.store(tmp_path).restore(current)
    assert found.step == 5
    assert weight(current) == 5
    (line,) = (line for line in lines if line.startswith("ERROR"))
    if reason is None:
        reason = ".+"
    elif suffix != "json":
        reason = f"{re.escape(path.name)} {reason}"
    assert re.fullmatch(
        rf"ERROR damaged checkpoint {re.escape(str(recent))}/ckpt-6: {reason}\. It is "
        r"renamed \*\.damaged, and an older one is used\.",
        line,
    )
    for name, content in left.items():
        kept = recent / f"{name}.damaged"
        assert (kept.is_file() and kept.read_bytes()) == content, "nothing is lost"
    assert not [p for p in recent.glob("ckpt-6.*") if p.suffix != ".damaged"]
    assert tf.train.latest_checkpoint(str(recent)) == str(recent / "ckpt-5")


def test_a_flipped_bit_anywhere_in_a_manifest_is_noticed(current, tmp_path):
    """What it says decides which checkpoint is best and how event files are cut."""
    mark = save(tasks.store(tmp_path), current, 6, loss=0.5)
    path = tmp_path / "recent/ckpt-6.json"
    created = json.dumps(mark.created).encode()
    content = path.read_bytes()
    unnoticed = []
    for part in (b'"loss": 0.5', b"model/sequential", created, b"c0ffee"):
        place = content.index(part) + len(part) - 1
        changed = bytearray(content)
        changed[place] ^= 1
        path.write_bytes(changed)
        try:
            mark = manifest.read(path.parent, 6)
        except manifest.ManifestError:
            continue
        if manifest.damage(path.parent, mark) is None:
            unnoticed.append(part)
    assert unnoticed == []


def test_what_is_damaged_twice_is_kept_twice(current, tmp_path):
    store = tasks.store(tmp_path)
    save(store, current, 5)
    path = data_of(tmp_path / "recent", 6)
    kept = []
    for change in (flip, truncate):
        save(store, current, 6)
        change(path)
        kept.append(path.read_bytes())
        assert store.restore(current).step == 5
    found = [p.read_bytes() for p in (tmp_path / "recent").glob(f"{path.name}*")]
    assert sorted(found) == sorted(kept)


def test_a_good_copy_among_the_best_serves_for_a_damaged_recent_one(current, tmp_path):
    store = tasks.store(tmp_path, "loss:min")
    save(store, current, 5, loss=2.0)
    save(store, current, 6, loss=1.0)
    data_of(tmp_path / "recent", 6).unlink()
    found = tasks.store(tmp_path, "loss:min").restore(current)
    assert found.step == 6
    assert weight(current) == 6


def test_if_all_are_damaged_nothing_is_restored_now_or_later(current, tmp_path):
    store = tasks.store(tmp_path, "loss:min")
    for step in (5, 6):
        save(store, current, step, loss=1.0)
    for path in tmp_path.rglob("ckpt-*.data-*"):
        path.write_bytes(b"nothing")
    text = (
        f"every checkpoint in {tmp_path} is damaged; nothing was restored and nothing "
        "is lost: they are the files *.damaged. Give another --run_dir to train from "
        "scratch, or bring back a good copy."
    )
    for _ in range(2):
        with pytest.raises(NoUsableCheckpointError) as error:
            tasks.store(tmp_path, "loss:min").restore(current)
        assert str(error.value) == text
    damaged = [path.name for path in tmp_path.rglob("*.damaged")]
    assert len(damaged) == 9


def test_a_good_copy_that_is_brought_back_is_restored(current, tmp_path):
    save(tasks.store(tmp_path / "a"), current, 5)
    shutil.copytree(tmp_path / "a/recent", tmp_path / "copy")
    flip(data_of(tmp_path / "a/recent", 5))
    with pytest.raises(NoUsableCheckpointError, match="is damaged"):
        tasks.store(tmp_path / "a").restore(current)
    shutil.copytree(tmp_path / "copy", tmp_path / "a/recent", dirs_exist_ok=True)
    assert tasks.store(tmp_path / "a").restore(current).step == 5


# TensorFlow's own list.


@pytest.mark.parametrize(
    "content",
    [None, b"", b"nonsense", b"\xff\0\xfe", b'model_checkpoint_path: "ckpt-77"\n'],
    ids=["missing", "empty", "nonsense", "no text", "stale"],
)
@pytest.mark.parametrize("saved", [[5, 6], []], ids=["with checkpoints", "without"])
def test_the_list_of_tensorflow_is_never_relied_on(current, tmp_path, content, saved):
    store = tasks.store(tmp_path)
    for step in saved:
        save(store, current, step)
    path = tmp_path / "recent/checkpoint"
    path.unlink(missing_ok=True)
    if content is not None:
        path.write_bytes(content)
    store = tasks.store(tmp_path)
    found = store.restore(current)
    assert found.step == 6 if saved else found is None
    if saved:
        assert tf.train.latest_checkpoint(str(path.parent)).endswith("recent/ckpt-6")
    save(store, current, 7)
    assert tf.train.latest_checkpoint(str(path.parent)).endswith("recent/ckpt-7")
    listed = tf.train.get_checkpoint_state(str(path.parent)).all_model_checkpoint_paths
    assert [one.rpartition("/")[2] for one in listed] == [
        f"ckpt-{step}" for step in [*saved, 7]
    ]


def test_a_directory_that_was_moved_is_read_where_it_is(current, tmp_path):
    save(tasks.store(tmp_path / "a", "loss:min"), current, 5, loss=1.0)
    (tmp_path / "a").rename(tmp_path / "b")
    for home in ("recent", "best/loss"):
        path = str(tmp_path / "b" / home)
        assert tf.train.latest_checkpoint(path) == f"{path}/ckpt-5"
    store = tasks.store(tmp_path / "b", "loss:min")
    assert store.restore(current).step == 5
    save(store, current, 6, loss=0.5)
    assert tasks.steps(tmp_path / "b/recent") == [5, 6]
    assert not (tmp_path / "a").exists()


# Kept.


@pytest.mark.parametrize(
    ("rules", "kept"),
    [
        ({"keep_recent": 1}, [7]),
        ({"keep_recent": 3}, [5, 6, 7]),
        ({"keep_recent": 9}, [1, 2, 3, 4, 5, 6, 7]),
        ({"keep_recent": 2, "keep_every_steps": 3}, [3, 6, 7]),
    ],
)
def test_the_newest_are_kept_and_no_file_of_the_others(current, tmp_path, rules, kept):
    store = tasks.store(tmp_path, **rules)
    for step in range(1, 8):
        save(store, current, step)
    assert tasks.steps(tmp_path / "recent") == kept
    assert len(names(tmp_path / "recent")) == 1 + 3 * len(kept)


TABLE = [
    # rule, the metric by step, the best ones
    ("loss:min", {1: 3.0, 2: 1.0, 3: 2.0}, [2]),
    ("loss:max", {1: 3.0, 2: 1.0, 3: 2.0}, [1]),
    ("loss:min:2", {1: 3.0, 2: 1.0, 3: 2.0, 4: 5.0}, [2, 3]),
    ("loss:max:3", {1: 1.0, 2: 2.0, 3: 3.0, 4: 4.0, 5: 0.0}, [2, 3, 4]),
    ("loss:min", {1: 1.0, 2: 1.0, 3: 1.0}, [1]),
    ("loss:min:2", {1: 2.0, 2: 1.0, 3: 1.0, 4: 1.0}, [2, 3]),
    ("loss:min", {1: NAN, 2: 2.0, 3: NAN}, [2]),
    ("loss:max", {1: 2.0, 2: float("inf"), 3: NAN}, [1]),
    ("loss:min", {1: NAN, 2: NAN}, []),
    ("other:min", {1: 1.0, 2: 0.0}, []),
]


def would_be_best(store, step, metrics, pending=()):
    found, rules = store.upkeep.catalog, store.upkeep.rules
    return plan.is_best(found, rules, step, metrics, pending)


@pytest.mark.parametrize(("rule", "values", "best"), TABLE)
def test_the_best_are_kept_beside_the_recent(current, tmp_path, rule, values, best):
    store = tasks.store(tmp_path, rule, keep_recent=2)
    for step, value in values.items():
        is_best = would_be_best(store, step, {"loss": value})
        save(store, current, step, loss=value)
        home = tmp_path / "best" / rule.partition(":")[0]
        assert is_best == (step in tasks.steps(home)), step
    assert tasks.steps(home) == best
    for step in best:
        current.networks.variables[0].assign(tf.zeros([4, 1]))
        current.restore(str(home / f"ckpt-{step}"))
        assert weight(current) == step


def test_the_latest_of_the_best_is_the_best_one(current, tmp_path):
    store = tasks.store(tmp_path, "loss:min:3")
    for step, value in {1: 2.0, 2: 1.0, 3: 3.0}.items():
        save(store, current, step, loss=value)
    home = str(tmp_path / "best/loss")
    assert tf.train.latest_checkpoint(home) == f"{home}/ckpt-2"
    assert tf.train.latest_checkpoint(str(tmp_path / "recent")).endswith("/ckpt-3")
    run = RunDirectory(tmp_path)
    ranked = catalog.scan(run).ranked(run.best("loss"), Best("loss", "min"))
    assert [(row.directory, row.step) for row in ranked] == [
        (run.best("loss"), step) for step in (2, 1, 3)
    ]


def test_the_best_shares_its_bytes_with_the_recent_one_and_survives_it(
    current, tmp_path
):
    store = tasks.store(tmp_path, "loss:min", keep_recent=2)
    save(store, current, 1, loss=1.0)
    recent, best = (data_of(tmp_path / d, 1) for d in ("recent", "best/loss"))
    assert recent.stat().st_ino == best.stat().st_ino
    assert best.stat().st_nlink == 2
    content = best.read_bytes()
    save(store, current, 2, loss=2.0)
    save(store, current, 3, loss=1.5)
    assert tasks.steps(tmp_path / "recent") == [2, 3]
    assert not recent.exists()
    assert best.stat().st_nlink == 1
    assert best.read_bytes() == content


def test_each_metric_has_its_own_best(current, tmp_path):
    store = tasks.store(tmp_path, "loss:min", "accuracy:max", keep_recent=1)
    save(store, current, 1, loss=1.0, accuracy=0.5)
    save(store, current, 2, loss=2.0, accuracy=0.75)
    save(store, current, 3)
    assert tasks.steps(tmp_path / "best/loss") == [1]
    assert tasks.steps(tmp_path / "best/accuracy") == [2]
    assert tasks.steps(tmp_path / "recent") == [3]
    assert tasks.store(tmp_path, "loss:min", "accuracy:max").restore(current).step == 3


def test_what_is_being_saved_counts_when_the_best_is_asked_for(tmp_path):
    store = tasks.store(tmp_path, "loss:min")
    pending = [(4, {"loss": 1.0})]
    assert would_be_best(store, 5, {"loss": 2.0})
    assert not would_be_best(store, 5, {"loss": 2.0}, pending)
    assert would_be_best(store, 5, {"loss": 0.5}, pending)


# The same step once more.


def test_a_step_is_saved_again_beside_the_first(current, tmp_path):
    store = tasks.store(tmp_path, "loss:min", keep_recent=2)
    save(store, current, 5)
    first = data_of(tmp_path / "recent", 5).read_bytes()
    progress = current.progress = Progress().evaluated_at(5, {"loss": 0.5}, {})
    save(store, current, 5, loss=0.5)
    current.progress = Progress()
    assert manifest.read(tmp_path / "recent", 5).metrics == {"loss": 0.5}
    assert data_of(tmp_path / "recent", 5).read_bytes() != first
    assert tasks.steps(tmp_path / "best/loss") == [5]
    assert not (tmp_path / "recent/staging").exists()
    assert tasks.store(tmp_path, "loss:min").restore(current).metrics == {"loss": 0.5}
    assert current.progress == progress


@pytest.fixture
def staged(current, tmp_path):
    """A run whose checkpoint was saved once more, and killed before it was adopted."""
    save(tasks.store(tmp_path / "run"), current, 5)
    save(tasks.store(tmp_path / "other"), current, 5, loss=0.5)
    staging = tmp_path / "run/recent/staging"
    staging.mkdir()
    for path in (tmp_path / "other/recent").glob("ckpt-5.*"):
        shutil.copy(path, staging)
    return staging


@pytest.mark.parametrize(
    ("lost", "adopted"),
    [([], True), (["json"], False), (["json", "index"], False)],
    ids=["committed", "before the manifest", "halfway"],
)
def test_what_was_staged_when_it_was_killed_is_adopted_whole_or_not_at_all(
    current, tmp_path, staged, lost, adopted
):
    for suffix in lost:
        (staged / f"ckpt-5.{suffix}").unlink()
    layout.marker(staged, 5, layout.PARTIAL).touch()
    found = tasks.store(tmp_path / "run").restore(current)
    assert found.metrics == ({"loss": 0.5} if adopted else {})
    assert not staged.exists()
    assert names(tmp_path / "run/recent") == [
        "checkpoint",
        *(f"ckpt-5.{suffix}" for suffix in SUFFIXES),
    ]


def test_a_damaged_one_never_takes_the_place_of_a_good_one(current, tmp_path, staged):
    flip(data_of(staged, 5))
    content = data_of(staged, 5).read_bytes()
    with tasks.logged() as lines:
        store = tasks.store(tmp_path / "run")
    text = (
        f"ERROR damaged checkpoint {staged}/ckpt-5: ckpt-5.data-00000-of-00001 "
        f"{CHECKSUM}. It is renamed *.damaged, and an older one is used."
    )
    assert text in lines
    assert store.restore(current).metrics == {}
    assert not staged.exists()
    recent = tmp_path / "run/recent"
    assert (recent / f"{data_of(staged, 5).name}.damaged").read_bytes() == content


@pytest.mark.parametrize("again", [False, True], ids=["a new step", "once more"])
def test_a_save_that_fails_says_where_and_why_and_can_be_done_again(
    current, tmp_path, again
):
    store = tasks.store(tmp_path)
    save(store, current, 5)
    before = {p: p.read_bytes() for p in (tmp_path / "recent").iterdir()}
    step = 5 if again else 6
    recent = tmp_path / "recent" / ("staging" if again else "")
    missing = tmp_path / "summaries/train/events.out.tfevents.1"
    draft = tasks.draft(current, step, events={"train/events.out.tfevents.1": 88})
    with pytest.raises(SaveError) as error:
        store.save(current.tree, draft)
    assert str(error.value) == (
        f"{recent / 'ckpt'}-{step} could not be saved: [Errno 2] No such file or "
        f"directory: '{missing}'. Every earlier checkpoint is as it was."
    )
    assert isinstance(error.value.__cause__, FileNotFoundError)
    assert {p: p.read_bytes() for p in (tmp_path / "recent").iterdir()} == before
    save(store, current, step)
    assert store.restore(current).step == step


def test_a_checkpoint_that_would_not_fit_is_not_begun(current, tmp_path):
    store = tasks.store(tmp_path)
    save(store, current, 5)
    before = names(tmp_path / "recent")
    vast = manifest.Variable("model/vast", (1 << 40, 1 << 10), "float32")
    draft = tasks.draft(current, 6, variables=(vast,))
    text = rf"ckpt-6 could not be saved: it needs {4 << 50} bytes and (\d+) are free"
    with pytest.raises(SaveError, match=text):
        store.save(current.tree, draft)
    assert names(tmp_path / "recent") == before


# Of other states.


def test_a_checkpoint_of_another_state_is_refused_and_left_alone(current, tmp_path):
    save(tasks.store(tmp_path), current, 5)
    before = {p: p.read_bytes() for p in (tmp_path / "recent").iterdir()}
    wider = tasks.built(tasks.Plain(width=2))
    text = (
        rf"cannot restore {re.escape(str(tmp_path))}/recent/ckpt-5\.\n"
        r"  model/sequential/dense/kernel: the checkpoint has shape \(4, 1\), the "
        r"model \(4, 2\)\n(.*\n)+.*start with the same flags"
    )
    with pytest.raises(compatibility.IncompatibleCheckpointError, match=text):
        tasks.store(tmp_path).restore(wider)
    assert {p: p.read_bytes() for p in (tmp_path / "recent").iterdir()} == before


@pytest.mark.parametrize("load", [loading.load_networks, loading.load_weights])
@pytest.mark.parametrize(
    ("harm", "reason"),
    [(flip, CHECKSUM), (delete, "is missing")],
    ids=["flipped", "deleted"],
)
def test_reading_a_damaged_checkpoint_changes_no_file(
    current, tmp_path, load, harm, reason
):
    save(tasks.store(tmp_path), current, 5)
    path = data_of(tmp_path / "recent", 5)
    harm(path)
    before = names(tmp_path / "recent")
    (entry,) = catalog.scan(RunDirectory(tmp_path)).entries
    text = (
        rf"recent/ckpt-5 is damaged: {re.escape(path.name)} {reason}\. Choose another"
    )
    with pytest.raises(selection.DamagedCheckpointError, match=text):
        load(entry, current)
    assert names(tmp_path / "recent") == before


def test_the_networks_alone_are_read_without_the_training_state(current, tmp_path):
    save(tasks.store(tmp_path), current, 5)
    (entry,) = catalog.scan(RunDirectory(tmp_path)).entries
    other = tasks.built(tasks.Plain(learning_rate=0.5), seed=3)
    rate = other.optimizers["optimizer"].learning_rate.numpy()
    loading.load_networks(entry, other)
    np.testing.assert_array_equal(
        other.networks.variables[0].numpy(), np.full((4, 1), 5)
    )
    assert int(other.step.numpy()) == 0
    assert other.optimizers["optimizer"].learning_rate.numpy() == rate
