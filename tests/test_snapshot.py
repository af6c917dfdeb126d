"""What a snapshot writes is what the state was when it was taken, and nothing else."""

import weakref

import numpy as np
import pytest
import tasks
import tensorflow as tf

from trainer.checkpoint import snapshot
from trainer.model.progress import Progress


@pytest.fixture(scope="module")
def current():
    return tasks.built(tasks.Rich())


def fill(current, value):
    """Every variable that training changes in place."""
    for variable in current.networks.variables:
        variable.assign(tf.fill(variable.shape, tf.cast(value, variable.dtype)))
    current.step.assign(value)
    current.progress = Progress(reported=value)
    current.pack()


@tf.function
def change_in_place(variables):
    """As optimizers do, in a graph: all of it, and single rows."""
    for variable in variables:
        variable.assign_add(tf.ones_like(variable))
        row = tf.IndexedSlices(tf.ones_like(variable[:1]), tf.constant([0]))
        variable.scatter_sub(row)


def content(prefix):
    return [
        prefix.with_name(f"{prefix.name}.{kind}").read_bytes()
        for kind in ("index", "data-00000-of-00001")
    ]


def test_the_shadow_is_written_byte_for_byte_as_the_tree_was_when_it_was_taken(
    current, tmp_path
):
    shadow = snapshot.Snapshot(current.tree)
    for step in (3, 5):
        fill(current, step)
        shadow.take()
        current.tree.write(str(tmp_path / "tree"))
        change_in_place([v.value for v in current.networks.trainable_variables])
        current.step.assign_add(1)
        shadow.tree.write(str(tmp_path / "shadow"))
        assert not shadow.unshadowed
        assert content(tmp_path / "shadow") == content(tmp_path / "tree")


def test_the_file_of_a_shadow_is_restored_in_full(current, tmp_path):
    shadow = snapshot.Snapshot(current.tree)
    fill(current, 4)
    shadow.take()
    prefix = shadow.tree.write(str(tmp_path / "shadow"))
    fill(current, 77)
    current.restore(prefix)
    assert int(current.step.numpy()) == 4
    assert current.progress == Progress(reported=4)
    for variable in current.networks.variables:
        np.testing.assert_array_equal(variable.numpy(), np.full(variable.shape, 4))


def test_the_values_are_let_go_of_when_they_are_written(current, tmp_path):
    shadow = snapshot.Snapshot(current.tree)
    shadow.take()
    shadow.tree.write(str(tmp_path / "shadow"))
    kept = [weakref.ref(value.tensor) for value in shadow._values]
    assert len(kept) > 20
    shadow.drop()
    assert [one() for one in kept if one() is not None] == []


def test_what_is_no_variable_is_named():
    dataset = iter(tf.data.Dataset.range(3))
    tree = tf.train.Checkpoint(input=dataset, step=tf.Variable(0))
    assert snapshot.Snapshot(tree).unshadowed == {"OwnedIterator"}
