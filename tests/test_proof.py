"""The proof itself: it finds what differs, and says so only then."""

import dataclasses
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import processes
import pytest
import tasks
from tensorboard.compat.proto import event_pb2
from tensorboard.summary.writer import record_writer

from trainer.checkpoint import manifest
from trainer.inspection import proof

CHOICES = {"steps": 6, "evaluate_every_steps": 2, "report_every_steps": 2}

# Leaves behind what the test has laid ready, as a trainer that takes no time.
STANDS_IN = """
import os, pathlib, shutil, signal, sys

ready, never = pathlib.Path(sys.argv[1]), sys.argv[2].split(",")
(option,) = (a for a in sys.argv if a.startswith("--run_dir="))
run_dir = pathlib.Path(option.partition("=")[2])
assert "--progress=lines" in sys.argv
with open(ready / "starts", "a") as file:
    print(run_dir.name, os.environ.get("KEEPSTEP_KILL_AT"), file=file)
if len((ready / "starts").read_text().splitlines()) > 30:
    sys.exit("it was started too often")
point = os.environ.get("KEEPSTEP_KILL_AT", "").partition("@")[0]
if point and point not in never:
    os.kill(os.getpid(), signal.SIGKILL)
kind = "straight" if run_dir.name == "straight" else "killed"
shutil.copytree(ready / kind, run_dir, dirs_exist_ok=True)
"""


# Run as `run.py` is; what `prove` starts is this very program, and stands in.
PROGRAM = """
import os, sys

if sys.argv[1] == "prove":
    sys.path.insert(0, {project!r})
    from trainer.commands import cli

    sys.exit(cli.main(sys.argv, package="models"))
assert sys.argv[1] == "train"
sys.argv[1:1] = [os.environ["READY"], ""]
"""


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("straight") / "run"
    tasks.train(run_dir, tasks.Remembering(), **CHOICES, allow_inexact=True)
    return run_dir


@pytest.fixture
def ready(straight, tmp_path):
    """A run and a run that was killed, of which a test may change the second."""
    shutil.copytree(straight, tmp_path / "ready/straight")
    shutil.copytree(straight, tmp_path / "ready/killed")
    (tmp_path / "stands_in.py").write_text(STANDS_IN)
    return tmp_path / "ready"


def proven(ready, *, kills=1, never=""):
    directory = ready.parent / "proof"
    directory.mkdir()
    script = ready.parent / "stands_in.py"
    command = [sys.executable, str(script), str(ready), never]
    return proof.prove(command, directory, kills=kills, seed=0)


def starts(ready):
    return (ready / "starts").read_text().splitlines()


# What is compared.


def test_two_runs_that_are_equal_are_equal(ready):
    verdict = proven(ready)
    assert verdict.differences == ()
    assert verdict.kills == {"start-up": 1}
    assert verdict.compared.keys() == {
        "checkpoints",
        "manifest entries",
        "variables",
        "scalars",
    }
    recent = len(tasks.steps(ready / "straight/recent"))
    best = len(tasks.steps(ready / "straight/best/loss"))
    assert verdict.compared["checkpoints"] == recent + best
    one = len(tasks.tensors(ready / "straight/recent/ckpt-6"))
    assert verdict.compared["variables"] == one * (recent + best)
    curves = tasks.scalars(ready / "straight")
    assert verdict.compared["scalars"] >= sum(map(len, curves.values()))


def lose_the_last(run_dir):
    for path in (run_dir / "recent").glob("ckpt-6.*"):
        path.unlink()


def lose_the_best(run_dir):
    shutil.rmtree(run_dir / "best")


def find_another_best(run_dir):
    shutil.copytree(run_dir / "best/loss", run_dir / "best/other")


def lose_the_end_of_a_curve(run_dir):
    (path,) = (run_dir / "summaries/eval").iterdir()
    path.write_bytes(path.read_bytes()[:-20])


def lose_a_curve(run_dir):
    shutil.rmtree(run_dir / "summaries/eval")


def spoil(run_dir):
    (run_dir / "recent/ckpt-6.json").write_text("no manifest")


def change(run_dir, step, **entries):
    mark = manifest.read(run_dir / "recent", step)
    manifest.write(run_dir / "recent", dataclasses.replace(mark, **entries))


def change_metrics(run_dir):
    change(run_dir, 4, metrics={"loss": 0.125})


def change_records(run_dir):
    change(run_dir, 4, records={})


def change_choices(run_dir):
    change(run_dir, 4, config_digest="c0ffee")


def say_a_step_twice(run_dir):
    """As a run does that is killed after a report, and reports once more."""
    (path,) = (run_dir / "summaries/eval").iterdir()
    shutil.copy(path, path.with_name(path.name.replace("tfevents.1", "tfevents.9")))


def forget(run_dir):
    """What a resumed run ends with if something was not saved."""
    shutil.rmtree(run_dir)
    tasks.cut_back(run_dir.parent / "straight", run_dir, 3)
    tasks.train(run_dir, tasks.Remembering(), **CHOICES, allow_inexact=True)


@pytest.mark.parametrize(
    ("harm", "first"),
    [
        (lose_the_last, "step 6: killed-1 has no checkpoint recent/ckpt-6"),
        (lose_the_best, r"step \d: killed-1 has no checkpoint best/loss/ckpt-\d"),
        (find_another_best, r"step \d: straight has no checkpoint best/other/ckpt-\d"),
        (
            lose_the_end_of_a_curve,
            r"step 6: eval: the scalar \S*loss of killed-1 differs",
        ),
        (lose_a_curve, r"step \d: eval: the scalar .+ of killed-1 differs"),
        (
            spoil,
            r"step 6: recent/ckpt-6 of killed-1 can't be compared: .*not a manif.*",
        ),
        (change_metrics, "step 4: recent/ckpt-4: the metrics of killed-1 differ"),
        (change_records, "step 4: recent/ckpt-4: the records of killed-1 differ"),
        (change_choices, "step 4: recent/ckpt-4: the config_digest of killed-1 differ"),
        (say_a_step_twice, r"step \d: eval: the scalar .+ of killed-1 differs"),
        (forget, r"step 4: .+ of killed-1 differs"),
    ],
)
def test_what_differs_is_found_and_named(ready, harm, first):
    harm(ready / "killed")
    differences = proven(ready).differences
    assert differences
    assert re.fullmatch(first, differences[0]), differences


def test_the_earliest_step_comes_first_and_variables_are_named(ready):
    forget(ready / "killed")
    differences = proven(ready).differences
    numbers = [int(re.match(r"step (\d+): ", line)[1]) for line in differences]
    assert numbers == sorted(numbers)
    assert set(numbers) == {4, 5, 6}
    assert [line for line in differences if "/kernel" in line]


def test_what_the_clock_says_is_no_difference(ready):
    (path,) = (ready / "killed/summaries/train").iterdir()
    events = event_pb2.Event()
    with open(path, "ab") as file:
        events.step, events.wall_time = 6, 1.0
        value = events.summary.value.add()
        value.tag = "speed/steps_per_sec"
        value.simple_value = 3.0
        record_writer.RecordWriter(file).write(events.SerializeToString())
    change(ready / "killed", 4, created=1.0)
    assert proven(ready).differences == ()


# How it kills.


def test_a_task_without_examples_to_evaluate_is_proven_too(ready):
    """There is no evaluation, no best and no curve of them."""
    for name in ("straight", "killed"):
        shutil.rmtree(ready / name / "best")
        shutil.rmtree(ready / name / "summaries/eval")
    verdict = proven(ready, kills=2, never="evaluation,promotion")
    assert verdict.differences == ()
    assert verdict.compared["checkpoints"] == len(tasks.steps(ready / "killed/recent"))


def test_a_moment_that_never_comes_is_passed_over(ready):
    """Such as an evaluation, in a task that has no examples for one."""
    verdict = proven(ready, kills=5, never="evaluation,promotion")
    assert sum(verdict.kills.values()) == 5
    assert not verdict.kills.keys() & {"evaluation", "promotion"}


def test_the_kills_go_round_the_moments_that_matter(ready):
    verdict = proven(ready, kills=6)
    assert set(verdict.kills.values()) == {1}
    begun = starts(ready)
    assert begun[0].split() == ["straight"]
    phases = [line.split()[1].partition("@")[0] for line in begun[1:7]]
    expected = "start-up training evaluation save storage promotion"
    assert " ".join(phases) == expected
    assert begun[-1].split() == [begun[-2].split()[0]], "the last start may finish"


def test_a_run_that_is_complete_before_its_kill_is_begun_anew(ready):
    (ready.parent / "stands_in.py").write_text(
        STANDS_IN.replace("point not in never", "'killed-2' in str(run_dir)")
    )
    verdict = proven(ready)
    assert starts(ready) == [
        "straight ",
        "killed-1 start-up@1",
        "killed-2 training@7",
        "killed-2 ",
    ]
    assert verdict.kills == {"training": 1}


def test_a_run_that_fails_by_itself_proves_nothing(ready):
    (ready.parent / "stands_in.py").write_text(
        "import sys\nprint('early')\nsys.exit('the data is missing')\n"
    )
    text = (
        r"training ended with exit code 1: the data is missing \(all of it: "
        rf"{re.escape(str(ready.parent))}/proof/straight\.log\)"
    )
    with pytest.raises(proof.ProofError, match=text):
        proven(ready)


def test_a_run_that_is_killed_from_outside_proves_nothing(ready):
    script = "import os\nos.kill(os.getpid(), 9)\n"
    (ready.parent / "stands_in.py").write_text(script)
    text = "the uninterrupted run was killed from outside"
    with pytest.raises(proof.ProofError, match=text):
        proven(ready)


# The command.


def test_a_proof_that_succeeds_says_what_it_compared_and_cleans_up(ready, monkeypatch):
    program = ready.parent / "program.py"
    program.write_text(PROGRAM.format(project=str(processes.PROJECT)) + STANDS_IN)
    (ready.parent / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(ready.parent / "tmp"))
    arguments = ["prove", "--task=tasks:Any", "--steps=6", "--kills=2"]
    done = subprocess.run(
        [sys.executable, str(program), *arguments],
        env={**os.environ, "READY": str(ready)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = dict(re.findall(r"^(\S.*?) +(\d+) *$", done.stdout, re.M))
    assert rows["kills in start-up"] == rows["kills in training"] == "1"
    for kind in ("checkpoints", "manifest entries", "variables", "scalars"):
        assert int(rows[f"{kind} compared"]) > 0
    assert done.stdout.endswith("exact: 2 kills survived, nothing differs.\n")
    assert list((ready.parent / "tmp").glob("keepstep-prove-*")) == []


def test_a_task_that_loses_something_is_not_proven_exact(tmp_path, monkeypatch):
    """The whole of it: real runs, two real kills, one of them after a checkpoint."""
    shutil.copy(tasks.__file__, tmp_path / "mine.py")
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    failed = processes.run(
        "prove",
        "--task=mine:Remembering",
        "--allow_inexact",
        "--kills=2",
        "--seed=0",  # the second kill is at the beginning of the 7th step
        "--steps=8",
        "--batch_size=8",
        "--report_every_steps=2",
        "--evaluate_every_steps=4",
        "--save_every_steps=1",
        "--keep_recent=8",
        "--best=loss:min:2",  # as many as there are evaluations: the same in both
        cwd=tmp_path,
    )
    assert failed.code == 1, failed
    said = re.search(
        r"^NOT EXACT: (\d+) differences; the runs are in (\S+)\n\Z",
        failed.stdout,
        re.M,
    )
    kept = pathlib.Path(said[2])
    assert kept.parent == tmp_path / "tmp"
    log = (kept / "killed-1.log").read_text()
    resumed = int(re.search(r"resumed \S+ at step (\d+) of 8", log)[1])
    assert resumed > 0
    lines = re.findall(r"^step (\d+): (.+)$", failed.stdout, re.M)
    assert 0 < len(lines) <= int(said[1])
    first = f"{resumed + 1}"
    assert lines[0][0] == first, "up to what was saved the runs are equal"
    variable = rf"recent/ckpt-{first}: \S+/kernel \(\S+\) of killed-1 differs"
    named = [what for step, what in lines if step == first]
    assert [what for what in named if re.fullmatch(variable, what)], named
    for run in ("straight", "killed-1"):
        assert tasks.steps(kept / run / "recent")[-1] == 8, "both are complete"


def test_a_shipped_task_is_exact_under_kills(tmp_path):
    """A sample of the campaign in benchmarks/kills.py."""
    schedule = ["--steps=60", "--evaluate_every_steps=10", "--save_every_steps=10"]
    line = [processes.DIGITS, *schedule, "--kills=4", "--format=json"]
    done = processes.prove(*line, cwd=tmp_path)
    assert done.code == 0, done.stdout + done.stderr
    verdict = json.loads(done.stdout)
    assert verdict["differences"] == []
    assert sum(verdict["kills"].values()) == 4
    assert min(verdict["compared"].values()) > 0
