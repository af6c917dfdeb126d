import errno
import os
import re
import resource
import subprocess
import sys

import pytest
import xxhash

from trainer.storage import files

WRITE_FOREVER = """
import itertools, pathlib, sys
from trainer.storage import files
for letter in itertools.cycle("ab"):
    files.write_atomically(pathlib.Path(sys.argv[1]), letter * 300_000)
    print("written", flush=True)
"""


def start(code, path):
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", code, str(path)]
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def refuse_links(monkeypatch, number):
    def refuse(source, target, **options):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refuse)


def test_a_directory_is_made_with_its_parents_and_the_users_umask(tmp_path):
    before = os.umask(0o027)
    try:
        files.make_directory(tmp_path / "a" / "b")
    finally:
        os.umask(before)
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o750
    files.make_directory(tmp_path / "a" / "b")  # that it is there is fine


@pytest.mark.parametrize(
    ("name", "reason"), [("file", "File exists"), ("file/run", "Not a directory")]
)
def test_a_file_in_the_way_of_a_directory_is_told(tmp_path, name, reason):
    (tmp_path / "file").write_text("mine")
    place = re.escape(str(tmp_path / name))
    expected = f"cannot write to the directory {place}: {reason}.*Give another.*run_dir"
    with pytest.raises(OSError, match=expected):
        files.make_directory(tmp_path / name)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_directory_that_is_not_writable_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may always
    expected = "cannot write to the directory .*: Permission denied.*make this one wri"
    with pytest.raises(OSError, match=expected):
        files.make_directory(tmp_path)


def test_atomic_writing_replaces_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "x.json"
    (tmp_path / "x.json.tmp").write_text("what a killed write left, and longer")
    files.write_atomically(path, "old")
    files.write_atomically(path, "né")
    assert names(tmp_path) == ["x.json"]
    with pytest.raises(UnicodeEncodeError):
        files.write_atomically(path, "half \ud800")
    assert path.read_bytes() == "né".encode()


def test_a_reader_never_meets_half_a_file_even_after_a_kill(tmp_path):
    path, whole = tmp_path / "x", ("a" * 300_000, "b" * 300_000)
    with start(WRITE_FOREVER, path) as writer:
        assert writer.stdout.readline() == "written\n"
        assert all(path.read_text() in whole for _ in range(100))
        writer.kill()
    assert path.read_text() in whole


def test_a_link_is_the_same_file(tmp_path):
    (tmp_path / "a").write_text("numbers")
    for _ in range(2):
        files.link(tmp_path / "a", tmp_path / "b")
        assert files.same(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize("act", [files.link, files.copy])
def test_a_file_is_never_replaced_by_itself(tmp_path, act):
    """However it is spelled: to delete the target first would lose it."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run/a").write_text("numbers")
    (tmp_path / "other").symlink_to(tmp_path / "run")
    act(tmp_path / "run/a", tmp_path / "other/a")
    assert (tmp_path / "run/a").read_text() == "numbers"
    assert names(tmp_path / "run") == ["a"]


@pytest.mark.parametrize("name", ["EPERM", "EXDEV", "ENOTSUP", "EMLINK", "ENOSYS"])
def test_where_links_are_refused_the_bytes_are_copied(tmp_path, monkeypatch, name):
    refuse_links(monkeypatch, getattr(errno, name))
    (tmp_path / "a").write_bytes(b"numbers" * 1000)
    files.link(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"numbers" * 1000
    assert not (tmp_path / "a").samefile(tmp_path / "b")
    assert names(tmp_path) == ["a", "b"]


def test_another_error_of_linking_is_not_hidden_by_a_copy(tmp_path, monkeypatch):
    refuse_links(monkeypatch, errno.ENOSPC)
    (tmp_path / "a").write_text("numbers")
    with pytest.raises(OSError, match="No space left"):
        files.link(tmp_path / "a", tmp_path / "b")
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("refused", [False, True])
def test_to_link_over_a_shared_file_spares_its_other_name(
    tmp_path, monkeypatch, refused
):
    (tmp_path / "new").write_text("new")
    (tmp_path / "old").write_text("old")
    os.link(tmp_path / "old", tmp_path / "target")
    if refused:
        refuse_links(monkeypatch, errno.EPERM)
    files.link(tmp_path / "new", tmp_path / "target")
    assert (tmp_path / "target").read_text() == "new"
    assert (tmp_path / "old").read_text() == "old"


def test_a_copy_that_fails_is_not_taken_for_the_file(tmp_path, monkeypatch):
    """Half a manifest under its own name would be a commit mark that lies."""
    refuse_links(monkeypatch, errno.EPERM)
    (tmp_path / "a").write_bytes(bytes(100_000))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            files.link(tmp_path / "a", tmp_path / "b")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not (tmp_path / "b").exists()


def test_deleting_takes_files_and_trees_but_not_what_a_link_leads_to(tmp_path):
    for name in ("tree/deep", "mine"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    for name in ("tree", "link", "gone"):
        files.delete(tmp_path / name)
    assert names(tmp_path) == ["mine"]
    files.delete(tmp_path / "mine" / "file")
    assert names(tmp_path / "mine") == []


def test_the_room_on_a_disk_is_no_more_than_the_disk(tmp_path):
    disk = os.statvfs(tmp_path)
    assert 0 < files.free_bytes(tmp_path) <= disk.f_blocks * disk.f_frsize


def test_the_checksum_of_nothing_is_the_published_one(tmp_path):
    (tmp_path / "empty").touch()
    digest = files.checksum(tmp_path / "empty")
    assert digest == "99aa06d3014798d86001c324468d497f"


@pytest.mark.parametrize("size", [1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1])
def test_the_checksum_covers_every_byte(tmp_path, size):
    content = bytearray(os.urandom(size))
    (tmp_path / "x").write_bytes(content)
    whole = files.checksum(tmp_path / "x")
    assert whole == xxhash.xxh3_128_hexdigest(content)
    content[-1] ^= 1
    (tmp_path / "x").write_bytes(content)
    assert files.checksum(tmp_path / "x") != whole
