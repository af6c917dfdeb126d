"""A run that an earlier release began goes on, is evaluated, and loses nothing.

In `golden/` there is one small run of each release, with averages, best checkpoints and
event files, stopped at step 6. To make that of a new release, from `tests/`:

    python -c "import test_golden; test_golden.make()"
"""

import pathlib
import shutil

import keras
import numpy as np
import pytest
import tasks

import trainer
from trainer import task
from trainer.checkpoint import catalog, manifest
from trainer.checkpoint.layout import RunDirectory
from trainer.inference import restore

HERE = pathlib.Path(__file__).with_name("golden")
CHOICES = {"save_every_steps": 2, "keep_recent": 2, "ema": 0.9, "best": ("loss:min",)}


class Golden(task.Task):
    """Never changes: what it is is what the golden runs are of."""

    def sources(self):
        x = np.linspace(-1, 1, 64, dtype=np.float32).reshape(16, 4)
        arrays = {"x": x, "y": x.sum(1)}
        return {"train": arrays, "valid": arrays}

    def networks(self):
        layers = keras.layers
        return keras.Sequential(
            [
                layers.Input([4]),
                layers.Dense(3, name="first"),
                layers.BatchNormalization(name="normalise"),
                layers.Dropout(0.2, name="drop"),
                layers.Dense(1, name="last"),
            ]
        )

    def optimizers(self):
        return keras.optimizers.Adam(0.01)

    def values(self, networks, batch, training):
        answers = networks(batch["x"], training=training)[:, 0]
        return {"loss": (answers - batch["y"]) ** 2}


def make():
    """The run of this release."""
    run_dir = HERE / trainer.__version__
    shutil.rmtree(run_dir, ignore_errors=True)
    tasks.train(run_dir, Golden(), steps=6, **CHOICES)
    (run_dir / "run.lock").unlink()


@pytest.fixture(params=sorted(path.name for path in HERE.iterdir()))
def run_dir(request, tmp_path):
    return pathlib.Path(shutil.copytree(HERE / request.param, tmp_path / "run"))


def test_every_byte_of_it_is_still_what_was_committed(run_dir):
    entries = catalog.scan(RunDirectory(run_dir)).entries
    assert [entry.step for entry in entries] == [6, 6, 4]
    for entry in entries:
        assert entry.manifest is not None, entry.problem
        assert manifest.damage(entry.directory, entry.manifest) is None


def test_it_goes_on_where_it_was(run_dir):
    curve = tasks.scalars(run_dir)["train/loss"]
    before = tasks.tensors(run_dir / "recent/ckpt-6")
    with tasks.logged() as lines:
        outcome = tasks.train(
            run_dir, Golden(), steps=8, allow_change=("steps",), **CHOICES
        )
    assert (outcome.step, outcome.trained_steps) == (8, 2), lines
    assert tasks.scalars(run_dir)["train/loss"][: len(curve)] == curve
    tasks.assert_each_step_once(run_dir)
    after = tasks.tensors(run_dir / "recent/ckpt-8")
    later = {name for name in after if name.startswith("norms/")}  # since 0.2.0
    assert after.keys() - before.keys() == later - before.keys()
    assert before.keys() <= after.keys()
    kernel = "variables/0/.ATTRIBUTES/VARIABLE_VALUE"
    moved = np.abs(after[kernel] - before[kernel])
    assert 0 < moved.max() < 0.05, "two steps of Adam at 0.01"


def test_it_is_evaluated_as_it_was(run_dir):
    entry = next(
        e
        for e in catalog.scan(RunDirectory(run_dir)).entries
        if e.directory.name == "loss"
    )
    assert entry.manifest.metrics.keys() == {"loss"}
    given = Golden()
    model = given.networks()
    assert restore.weights(model, run_dir).step == 6
    values = given.values(model, given.sources()["valid"], training=False)
    expected = entry.manifest.metrics["loss"]
    assert np.mean(values["loss"]) == pytest.approx(expected, rel=1e-5)
