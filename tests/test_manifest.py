import dataclasses
import json
import math
import os
import re
import signal

import making
import pytest

from trainer.checkpoint import layout, manifest

DATA = "ckpt-7.data-00000-of-00001"
HUGE = 10**400  # no float holds it
FILE = {"bytes": 1, "xxh3_128": "99aa06d3014798d86001c324468d497f"}
INDEX = "ckpt-7.index"


def change(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def refused(directory, reason):
    path = re.escape(str(layout.manifest_path(directory, 7)))
    text = f"(?s){path} is not a manifest of format 1: .*(?:{reason})"
    return pytest.raises(manifest.ManifestError, match=text)


def test_what_is_written_is_read_back(tmp_path):
    metrics, record = {"loss": 0.1, "élan": -0.0}, {"loss": {"step": 3, "value": 0.25}}
    more = {"lineage": 2, "parent": 5, "inexact": ("the shuffle buffer",)}
    made = making.checkpoint(tmp_path, 7, metrics, records=record, **more)
    assert manifest.read(tmp_path, 7) == made
    sizes = [(tmp_path / name).stat().st_size for name in (INDEX, DATA)]
    assert made.bytes == sum(sizes)
    assert not list(tmp_path.glob("*.tmp"))


def test_metrics_that_are_no_numbers_survive_in_strict_json(tmp_path):
    making.checkpoint(tmp_path, 7, {"a": math.nan, "b": math.inf, "c": -math.inf})
    metrics = manifest.read(tmp_path, 7).metrics
    assert math.isnan(metrics["a"])
    assert (metrics["b"], metrics["c"]) == (math.inf, -math.inf)
    foreign = []
    text = layout.manifest_path(tmp_path, 7).read_text()
    json.loads(text, parse_constant=foreign.append)
    assert foreign == []


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("format", 2, "its format is 2"),
        ("format", "1", "its format is '1'"),
        ("format", True, "its format is True"),
        ("step", 8, "its step is 8"),
        ("step", "7", "its step is '7'"),
        ("files", {DATA: FILE}, "it names no index file"),
        ("files", [INDEX], "list"),
        ("files", {INDEX: {"bytes": 1}}, "no 'xxh3_128'"),
        ("files", {INDEX: FILE | {"bytes": True}}, "True is not a count"),
        ("files", {INDEX: FILE | {"bytes": -1}}, "-1 is not a count"),
        ("files", {INDEX: FILE | {"bytes": 1.5}}, "1.5 is not a count"),
        ("files", {INDEX: FILE | {"bytes": 1 << 63}}, "is not a count"),
        ("files", {INDEX: "ab"}, "indices must be"),
        ("metrics", [0.5], "list"),
        ("metrics", {"loss": None}, "NoneType"),
        ("metrics", {"loss": "low"}, "could not convert .*'low'"),
        ("metrics", {"loss": HUGE}, "too large"),
        ("variables", 5, "not iterable"),
        ("variables", [{"path": "w", "shape": [True], "dtype": "f"}], "not a count"),
        ("variables", [{"path": "w", "shape": "88", "dtype": "f"}], "not a count"),
        ("records", {"loss": {"step": 1}}, "no 'value'"),
        ("records", {"loss": {"step": False, "value": 1.0}}, "False is not a count"),
        ("records", {"loss": {"step": 1, "value": -HUGE}}, "too large"),
        ("events", {"a": -1}, "-1 is not a count"),
        ("lineage", True, "True is not a count"),
        ("parent", "5", "'5' is not a count"),
        ("inexact", "abc", "list"),
        ("created", "yesterday", "could not convert"),
        ("created", HUGE, "too large"),
        ("versions", "1.0", "str"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_manifest_with_one_wrong_value_is_refused(tmp_path, key, value, reason):
    making.checkpoint(tmp_path, 7)
    change(tmp_path / "ckpt-7.json", **{key: value})
    with refused(tmp_path, reason):
        manifest.read(tmp_path, 7)


def test_true_is_not_the_step_one(tmp_path):
    making.checkpoint(tmp_path, 1)
    change(tmp_path / "ckpt-1.json", step=True)
    with pytest.raises(manifest.ManifestError, match="its step is True"):
        manifest.read(tmp_path, 1)


@pytest.mark.parametrize(
    "name",
    [
        *("../ckpt-7.index", "/etc/passwd", "ckpt-7.index/../../secret", "..", ""),
        *("ckpt-8.index", "ckpt-07.index", "ckpt-7.json", "ckpt-7.data-0-of-1"),
        *("ckpt-7.index\n", "ckpt-7.index\0"),
    ],
)
def test_a_manifest_names_no_file_but_its_own(tmp_path, name):
    made = making.checkpoint(tmp_path, 7)
    change(tmp_path / "ckpt-7.json", files=dict.fromkeys([*made.files, name], FILE))
    with refused(tmp_path, f"{re.escape(repr(name))} is not a file of this checkpoint"):
        manifest.read(tmp_path, 7)


def test_nothing_may_be_missing(tmp_path):
    making.checkpoint(tmp_path, 7)
    path = layout.manifest_path(tmp_path, 7)
    whole = json.loads(path.read_text())
    assert len(whole) == 2 + len(dataclasses.fields(manifest.Manifest))
    for key in whole:
        path.write_text(json.dumps({k: v for k, v in whole.items() if k != key}))
        # Releases up to 0.1.0 wrote no machine; only the digest tells that it is gone.
        reason = "it is not what was written" if key == "machine" else f"no '{key}'"
        with refused(tmp_path, reason):
            manifest.read(tmp_path, 7)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(b"", "Expecting value", id="empty"),
        pytest.param(b"[]", "not a JSON object", id="list"),
        pytest.param(b'{"format": 1, "st', "Unterminated", id="truncated"),
        pytest.param(b'\xff\xfe{"format": 1}', "can't decode", id="not UTF-8"),
        pytest.param(b"9" * 5000, "limit", id="absurd number"),
        pytest.param(b'{"a":' * 20 + b"1" + b"}" * 20, "nests deeper", id="deep"),
        pytest.param(b"[" * 200_000, "recursion|deep", id="very deep"),
    ],
)
def test_bytes_that_are_no_manifest_are_refused(tmp_path, content, reason):
    layout.manifest_path(tmp_path, 7).write_bytes(content)
    with refused(tmp_path, reason):
        manifest.read(tmp_path, 7)


def test_a_huge_file_is_refused_unread(tmp_path):
    layout.manifest_path(tmp_path, 7).touch()
    os.truncate(layout.manifest_path(tmp_path, 7), (64 << 20) + 1)  # sparse
    with refused(tmp_path, "it is larger than 67108864 bytes"):
        manifest.read(tmp_path, 7)


def test_a_pipe_in_the_place_of_a_manifest_does_not_block(tmp_path):
    def too_long(number, frame):
        pytest.fail("still reading from the pipe")

    os.mkfifo(layout.manifest_path(tmp_path, 7))
    before = signal.signal(signal.SIGALRM, too_long)
    signal.setitimer(signal.ITIMER_REAL, 1)
    try:
        with refused(tmp_path, "file"):
            manifest.read(tmp_path, 7)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_only_committed_steps_are_found_in_rising_order(tmp_path):
    for step in (100, 0, 20, 3):
        making.checkpoint(tmp_path, step)
    for name in ("ckpt-5.index", "ckpt-6.json.tmp", "ckpt-x.json", "ckpt-8.json.old"):
        (tmp_path / name).touch()
    assert layout.steps(tmp_path) == [0, 3, 20, 100]
    assert layout.steps(tmp_path / "not there") == []


@pytest.mark.parametrize("name", ["ckpt-007.json", "ckpt-\u0667.json"])
def test_another_spelling_of_a_number_is_not_a_second_checkpoint(tmp_path, name):
    making.checkpoint(tmp_path, 7)
    (tmp_path / name).write_bytes(layout.manifest_path(tmp_path, 7).read_bytes())
    assert layout.steps(tmp_path) == [7]


def test_only_the_files_of_the_step_are_measured(tmp_path):
    making.checkpoint(tmp_path, 7)
    making.checkpoint(tmp_path, 70)
    for name in ("ckpt-7.index.damaged", f"{DATA}.tempstate1"):
        (tmp_path / name).touch()
    assert set(manifest.measure(tmp_path, 7)) == {INDEX, DATA}


SIZE = "has [0-9]+ bytes, the manifest says [0-9]+"
HARMS = {  # the new bytes, or None for a file that is gone
    "truncated": (lambda old: old[:-1], SIZE),
    "lengthened": (lambda old: old + b"\0", SIZE),
    "changed": (lambda old: b"X" + old[1:], "does not have the checksum that the man"),
    "missing": (lambda old: None, "is missing"),
}


@pytest.mark.parametrize("name", [INDEX, DATA])
@pytest.mark.parametrize(("harm", "problem"), HARMS.values(), ids=HARMS)
def test_damage_to_any_file_is_told(tmp_path, name, harm, problem):
    made = making.checkpoint(tmp_path, 7)
    assert manifest.damage(tmp_path, made) is None
    content = harm((tmp_path / name).read_bytes())
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert re.match(f"{name} {problem}", manifest.damage(tmp_path, made))


def test_a_file_that_cannot_be_looked_at_is_not_called_damaged(tmp_path):
    made = making.checkpoint(tmp_path / "recent", 7)
    loop = tmp_path / "loop"
    loop.symlink_to(loop)  # around and around
    with pytest.raises(OSError, match="symbolic links"):
        manifest.damage(loop, made)


def test_a_link_in_the_place_of_a_file_is_damage(tmp_path):
    """It could lead to bytes that change, or out of the run."""
    made = making.checkpoint(tmp_path, 7)
    (tmp_path / DATA).rename(tmp_path / "elsewhere")
    (tmp_path / DATA).symlink_to(tmp_path / "elsewhere")
    assert manifest.damage(tmp_path, made) == f"{DATA} is not a regular file"
