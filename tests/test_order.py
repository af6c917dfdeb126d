"""The order of a save, as the kernel and the interpreter see it.

What a power cut leaves is decided by it: at every instant, what counts as committed is
on the disk. Two checkpoints are saved, of which the second one takes the place of the
first in `recent` and among the best; looked at is the second save.
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys

import processes
import pytest
import tasks
import tensorflow as tf

HERE = pathlib.Path(__file__).resolve().parent
EVENTS = "train/events.out.tfevents.1"
CALLS = "openat,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,link,linkat"
SECOND = "second"
DATA, INDEX = "data-00000-of-00001", "index"

# 123  rename("/a", "/b") = 0
# 123  fsync(3</a> <unfinished ...>
# 123  <... fsync resumed>) = 0
LINE = re.compile(r"\d+ +(\w+)\((.*?)(\) += (-?\d+).*| <unfinished \.\.\.>)")
RESUMED = re.compile(r"(\d+) +<\.\.\. (\w+) resumed>.*\) += (-?\d+)")


def save_twice(directory):
    """Each is better than all before, and one is kept."""
    run_dir = directory / "run"
    (run_dir / "summaries/train").mkdir(parents=True)
    (run_dir / "summaries" / EVENTS).write_bytes(b"scalars")
    current = tasks.built(tasks.Plain())
    store = tasks.store(run_dir, "loss:min", keep_recent=1)
    for step, loss in ((1, 0.5), (2, 0.25)):
        if step == 2:
            (directory / SECOND).write_bytes(b"")
        draft = tasks.draft(current, step, metrics={"loss": loss}, events={EVENTS: 7})
        store.save(current.tree, draft)
    (directory / SECOND).unlink()


def save_large(directory):
    """A state of two files of data, and a third with what is left."""
    current = tasks.built(tasks.Plain())
    store = tasks.store(directory / "run")
    halves = [tf.Variable(tf.zeros([1 << 14, 1 << 8])) for _ in range(2)]
    (directory / SECOND).write_bytes(b"")
    tree = tf.train.Checkpoint(halves=halves, rest=tf.Variable(0))
    store.save(tree, tasks.draft(current, 2))
    (directory / SECOND).unlink()


def save_twice_audited(directory):
    """And says to stdout what the interpreter was told to do with files."""

    def hear(event, arguments):
        if event in ("os.rename", "os.link"):
            say(event.removeprefix("os."), arguments[1])
        elif event == "os.remove":
            say("unlink", arguments[0])
        elif event == "open" and isinstance(arguments[0], str):
            writes = arguments[2] & (os.O_WRONLY | os.O_RDWR)
            say("write" if writes else "read", arguments[0])

    def say(what, path):
        os.write(1, f"{what} {path}\n".encode())  # whole, from any thread

    sys.addaudithook(hear)
    save_twice(directory)


def child(function, directory, *before):
    """Runs one of the above in a process of its own."""
    code = (
        f"import sys, pathlib, test_order as t; t.{function}(pathlib.Path(sys.argv[1]))"
    )
    path = os.pathsep.join([str(HERE), str(processes.PROJECT)])
    done = subprocess.run(
        [*before, sys.executable, "-c", code, str(directory)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=processes.PATIENCE_SECS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def second_save(seen, directory):
    """What was done to the run after `second` was made: (what, path in the run)."""
    marks = [n for n, (_, path) in enumerate(seen) if path == str(directory / SECOND)]
    within = seen[marks[0] : marks[-1]]
    prefix = f"{directory}/run/"
    return [
        (what, path.removeprefix(prefix))
        for what, path in within
        if path.startswith(prefix)
    ]


def parsed(trace):
    """The calls that went well, in the order in which they were done."""
    begun, done = {}, []
    for line in trace.splitlines():
        pid = line.split()[0]
        if match := RESUMED.match(line):
            name, arguments = begun.pop(pid)
            code = int(match[3])
        elif match := LINE.match(line):
            name, arguments = match[1], match[2]
            if match[4] is None:
                begun[pid] = name, arguments
                continue
            code = int(match[4])
        else:
            continue
        if code >= 0:
            done.append(event(name, arguments))
    return done


def event(name, arguments):
    if name in ("fsync", "fdatasync"):
        return "fsync", re.search(r"<(.*)>", arguments)[1]
    path = re.findall(r'"(.*?)"', arguments)[-1]
    if name == "openat":
        return ("write" if re.search("O_WRONLY|O_RDWR", arguments) else "read"), path
    return next(w for w in ("rename", "unlink", "link") if name.startswith(w)), path


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    """The second save as system calls."""
    return traced("save_twice", tmp_path_factory.mktemp("kernel"))


def traced(function, directory):
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    trace = directory / "trace"
    command = [
        strace,
        "-f",
        "-y",
        "-s",
        "4096",
        "-o",
        str(trace),
        "-e",
        f"trace={CALLS}",
    ]
    allowed = subprocess.run([*command, "true"], capture_output=True, check=False)
    if allowed.returncode:
        pytest.skip(f"strace may not trace here: {allowed.stderr.decode().strip()}")
    child(function, directory, *command)
    return second_save(parsed(trace.read_text()), directory)


@pytest.fixture(scope="module")
def interpreter(tmp_path_factory):
    """The second save as Python's own file operations; TensorFlow's are not seen."""
    directory = tmp_path_factory.mktemp("interpreter")
    lines = child("save_twice_audited", directory).splitlines()
    seen = [tuple(line.split(" ", 1)) for line in lines if " " in line]
    return second_save(seen, directory)


@pytest.fixture(params=["kernel", "interpreter"])
def seen(request):
    return request.getfixturevalue(request.param)


def assert_in_order(seen, *expected):
    """Each of these was done, the first time after the one before it."""
    place = 0
    for one in expected:
        assert one in seen[place:], (one, "is not after", seen[:place])
        place = seen.index(one, place) + 1


COMMIT = ("rename", "recent/ckpt-2.json")


def test_everything_is_on_the_disk_before_the_manifest_is_in_place(kernel):
    commit = kernel.index(COMMIT)
    for path in (
        f"summaries/{EVENTS}",
        f"recent/ckpt-2.{DATA}",
        f"recent/ckpt-2.{INDEX}",
        "recent/ckpt-2.json.tmp",
    ):
        assert ("fsync", path) in kernel[:commit], path
        written = [n for n, one in enumerate(kernel) if one == ("write", path)]
        assert all(n < kernel.index(("fsync", path)) for n in written), path


def test_a_part_is_made_durable_while_the_next_one_is_written(tmp_path):
    seen = traced("save_large", tmp_path)
    place = r"recent/ckpt-2(_temp/part|\.data)-0000{}-of-00003.*"
    done = [
        [what for what, path in seen if re.fullmatch(place.format(number), path)]
        for number in range(3)
    ]
    assert [one.count("fsync") for one in done] == [1, 1, 1]
    for number, name in enumerate(["part-00001", "part-00002"]):
        begun = next(n for n, (_, path) in enumerate(seen) if name in path)
        part = f"part-0000{number}-of-00003.data"
        before = [what for what, path in seen[:begun] if part in path]
        assert before[:3] == ["write", "rename", "read"]
    commit = seen.index(COMMIT)
    assert all(what != "fsync" for what, path in seen[commit:] if ".data-" in path)


def test_the_manifest_is_on_the_disk_before_anything_follows_from_it(kernel):
    assert_in_order(
        kernel, COMMIT, ("fsync", "recent"), ("rename", "recent/checkpoint")
    )
    commit = kernel.index(COMMIT)
    synced = kernel.index(("fsync", "recent"), commit)
    for what, path in kernel[:synced]:
        assert what not in ("unlink", "link") or "ckpt-2_temp" in path, path
        assert (what, path) != ("rename", "recent/checkpoint")


@pytest.mark.parametrize("suffix", [DATA, INDEX])
def test_a_promotion_is_on_the_disk_before_its_manifest_is_there(kernel, suffix):
    assert_in_order(
        kernel,
        COMMIT,
        ("link", f"best/loss/ckpt-2.{suffix}"),
        ("fsync", "best/loss"),
        ("link", "best/loss/ckpt-2.json"),
        ("fsync", "best/loss"),
        ("rename", "best/loss/ckpt-1.deleting"),
    )


@pytest.mark.parametrize("home", ["recent", "best/loss"])
@pytest.mark.parametrize("suffix", [DATA, INDEX])
def test_a_manifest_is_gone_from_the_disk_before_its_files(kernel, home, suffix):
    assert_in_order(
        kernel,
        ("rename", f"{home}/ckpt-1.deleting"),
        ("fsync", home),
        ("unlink", f"{home}/ckpt-1.{suffix}"),
        ("unlink", f"{home}/ckpt-1.deleting"),
    )


@pytest.mark.parametrize("home", ["recent", "best/loss"])
@pytest.mark.parametrize("suffix", [DATA, INDEX])
def test_a_mark_says_whose_files_are_being_made(kernel, home, suffix):
    made = "write" if home == "recent" else "link"
    if made == "write" and suffix == DATA:
        suffix = None  # TensorFlow writes it under a name of its own
    assert_in_order(
        kernel,
        ("write", f"{home}/ckpt-2.partial"),
        ("fsync", home),
        *([(made, f"{home}/ckpt-2.{suffix}")] if suffix else []),
        ("fsync", home),
        ("unlink", f"{home}/ckpt-2.partial"),
    )


def test_the_files_are_read_back_before_the_manifest_is_written(seen):
    for suffix in (DATA, INDEX):
        assert_in_order(
            seen,
            ("read", f"recent/ckpt-2.{suffix}"),
            ("write", "recent/ckpt-2.json.tmp"),
            COMMIT,
        )


def test_promotion_comes_after_the_commit_and_its_manifest_last(seen):
    links = [n for n, (what, _) in enumerate(seen) if what == "link"]
    assert seen.index(COMMIT) < links[0]
    names = [seen[n][1].removeprefix("best/loss/ckpt-2.") for n in links]
    assert sorted(names[:-1]) == [DATA, INDEX]
    assert names[-1] == "json"


@pytest.mark.parametrize("home", ["recent", "best/loss"])
def test_the_old_one_goes_when_the_new_one_is_there_its_manifest_first(seen, home):
    there = COMMIT if home == "recent" else ("link", "best/loss/ckpt-2.json")
    gone = [
        n
        for n, (what, path) in enumerate(seen)
        if what in ("unlink", "rename") and old(path, home)
    ]
    assert seen.index(there) < gone[0]
    assert seen[gone[0]] == ("rename", f"{home}/ckpt-1.deleting")
    assert seen[gone[-1]] == ("unlink", f"{home}/ckpt-1.deleting")
    assert len(gone) == 4
    last_link = max(n for n, (what, _) in enumerate(seen) if what == "link")
    assert gone[0] > last_link, "what is among the best is so before it is pruned"
    listed = seen.index(("rename", f"{home}/checkpoint"), seen.index(there))
    assert listed < gone[0], "nor is it in the list of TensorFlow any more"


def test_what_is_committed_is_not_written_again(seen):
    later = seen[seen.index(COMMIT) :]
    written = [path for what, path in later if what == "write" and "ckpt-2" in path]
    assert written == ["best/loss/ckpt-2.partial"]


def old(path, home):
    return path.startswith(f"{home}/ckpt-1.")
