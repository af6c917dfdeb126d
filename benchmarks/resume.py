"""How long a stopped run takes to train again: ours and the least it can be.

    python benchmarks/resume.py

From the start of a process until its first new step is done, on the digits task:

ours   `python run.py`, with all that a resume is: the lock, the record, every byte of
       the checkpoint verified, the audit, the event files cut; and it dies there, by
       its own hand. Resumed at step 10 and, as the step must not matter, at 10,000,000
bare   a script that imports TensorFlow, builds the same network and optimizer, reads
       the same checkpoint, traces the same step on a fixed batch, and takes it

Round by round, by turns; seconds are medians, the ratio is the median over the rounds
of the ratio in a round. A ratio above what is owed, 1.1, has a `!`.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

ROOT = pathlib.Path(__file__).resolve().parents[1]
_BATCH = 64
_EARLY, _LATE = 10, 10_000_000
_OWED = 1.1


def bare(prefix: str) -> None:
    """The script; ends the process."""
    import tensorflow as tf

    from models import digits
    from trainer import data

    tf.config.experimental.enable_op_determinism()
    one = digits.Digits()
    batch = data.split(one.sources(), "train").gather(tf.range(_BATCH))
    network, optimizer = one.networks(), one.optimizers()
    optimizer.build(network.trainable_variables)
    variables = [variable.value for variable in network.variables]
    tree = tf.train.Checkpoint(variables=variables, optimizer=optimizer)
    tree.read(prefix).expect_partial()

    @tf.function
    def steps(count: tf.Tensor) -> None:
        for _ in tf.range(count):
            with tf.GradientTape() as tape:
                values = one.values(network, batch, training=True)
                loss = tf.reduce_mean(values["loss"])
            gradients = tape.gradient(loss, network.trainable_variables)
            optimizer.apply(gradients, network.trainable_variables)

    steps(tf.constant(1))
    os._exit(0)


def make_late(run_dir: pathlib.Path) -> None:
    """Gives the checkpoint of the early step out as one of the late step."""
    from models import digits
    from trainer import data
    from trainer.checkpoint import store, upkeep
    from trainer.model import building

    one = digits.Digits()
    source = data.split(one.sources(), "train")
    inputs = data.Shuffled(task=one, source=source, batch_size=_BATCH, seed=0)
    current = building.build(one, inputs.batch, seed=0)
    keeper = store.Keeper(
        upkeep.Upkeep(run_dir=run_dir, keep_recent=1, keep_every_steps=0, best=())
    )
    mark = keeper.restore(current)
    if mark is None:
        raise FileNotFoundError(f"no checkpoint in {run_dir}")
    current.step.assign(_LATE)
    current.pack()
    keeper.save(current.tree, dataclasses.replace(mark, step=_LATE, files={}))


def command(run_dir: pathlib.Path, steps: int) -> list[str]:
    """Trains digits to a step."""
    return [
        *(sys.executable, str(ROOT / "run.py")),
        *("--task=digits", f"--run_dir={run_dir}", f"--steps={steps}"),
        *(f"--batch_size={_BATCH}", "--progress=none", "--allow_change=steps"),
    ]


def timed(arguments: list[str], end: int, **environment: str) -> float:
    """Seconds that a process lives; it must end with `end`."""
    began = time.perf_counter()
    done = subprocess.run(
        arguments,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    secs = time.perf_counter() - began
    if done.returncode != end:
        sys.exit(done.stderr or f"it ended with {done.returncode}")
    return secs


def main() -> None:
    """The table; or the script that it compares with."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--bare", help=argparse.SUPPRESS)
    parser.add_argument("--late", help=argparse.SUPPRESS)
    choices = parser.parse_args()
    if choices.bare:
        bare(choices.bare)
    if choices.late:
        make_late(pathlib.Path(choices.late))
        return
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        runs = {step: pathlib.Path(name, str(step)) for step in (_EARLY, _LATE)}
        for run_dir in runs.values():
            timed(command(run_dir, _EARLY), 0)
        script = [sys.executable, __file__]
        timed([*script, f"--late={runs[_LATE]}"], 0)
        prefix = runs[_EARLY] / "recent" / f"ckpt-{_EARLY}"
        ways = {
            f"ours, at {step:,}": (
                command(run_dir, step + 1000),
                -signal.SIGKILL,
                {"KEEPSTEP_KILL_AT": "training@2"},
            )
            for step, run_dir in runs.items()
        }
        ways["bare"] = ([*script, f"--bare={prefix}"], 0, {})
        for _ in range(choices.rounds):
            for way, (arguments, end, environment) in ways.items():
                found.setdefault(way, []).append(timed(arguments, end, **environment))
    print(f"{'':22} seconds   min-max     of bare   owed {_OWED}")
    for way, secs in found.items():
        of_bare = statistics.median(
            own / least for own, least in zip(secs, found["bare"], strict=True)
        )
        print(
            f"{way:22} {statistics.median(secs):7.2f}   {min(secs):.2f}-{max(secs):.2f}"
            f"   {of_bare:7.2f} {'!' if of_bare > _OWED else ''}"
        )


if __name__ == "__main__":
    main()
