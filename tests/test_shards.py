"""A large state lies in several files, each durable and as it was committed."""

import errno
import os
import pathlib
import signal

import numpy as np
import processes
import pytest
import tasks
import tensorflow as tf
import xxhash

from trainer.checkpoint import layout, manifest, shards, store
from trainer.storage import failpoints

LEAST = shards._LEAST_BYTES
ROWS = LEAST // 1024  # of 256 floats


def tree(value=0.0, count=3):
    """Parts that fill a file each, and two small ones that share the last."""
    large = [tf.Variable(tf.fill([ROWS, 256], value + n)) for n in range(count)]
    small = [tf.Variable([value, 2.0]), tf.Variable("text")]
    return tf.train.Checkpoint(large=large, small=small)


def draft(step):
    return manifest.Draft(step=step, metrics={}, variables=())


def save_second():
    """For a process of its own."""
    tasks.store(pathlib.Path("run")).save(tree(2.0), draft(2))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("saved")
    size = tasks.store(run_dir).save(tree(5.0), draft(1)).bytes
    return run_dir, size, manifest.read(run_dir / "recent", 1)


def test_a_file_takes_a_share_of_a_large_state_and_no_tensor_is_cut(saved):
    run_dir, size, mark = saved
    parts = [f"ckpt-1.data-{n:05d}-of-00004" for n in range(4)]
    assert list(mark.files) == [*parts, "ckpt-1.index"]
    sizes = [mark.files[name].bytes for name in parts]
    assert sizes[:3] == [LEAST + 8, LEAST, LEAST]  # the first also has the counter
    assert sizes[3] < 10_000
    assert size == sum(
        (run_dir / "recent" / name).stat().st_size for name in mark.files
    )


def test_a_state_is_in_so_many_files_however_large(tmp_path):
    """The share grows with the state; tensors are shared out in their order."""
    tensors = [
        tf.train.experimental.ShardableTensor(
            _tensor_save_spec=None,
            tensor=tf.TensorSpec([1 << 30], tf.float32),  # 4 GiB
            dtype=tf.float32,
            device=None,
            name=f"v{n}",
            shape=None,
            slice_spec="",
            checkpoint_key=f"v{n}",
            trackable=None,
        )
        for n in range(100)
    ]
    with shards.Durable(tmp_path / "ckpt-1") as durable:
        found = list.__iter__(durable(tensors))
        names = [list(shard) for shard in found]
    assert [name for shard in names for name in shard] == [f"v{n}" for n in range(100)]
    assert 14 <= len(names) <= 16
    assert max(map(len, names)) == 7


def test_the_files_have_the_digests_that_the_manifest_says(saved):
    run_dir, _, mark = saved
    for name, file in mark.files.items():
        content = (run_dir / "recent" / name).read_bytes()
        assert file.xxh3_128 == xxhash.xxh3_128_hexdigest(content)
        assert file.bytes == len(content)


def test_tensorflow_alone_finds_in_them_what_it_finds_in_one_file(saved, tmp_path):
    run_dir, _, _ = saved
    plain = tree(5.0).write(str(tmp_path / "plain"))
    ours = str(run_dir / "recent" / "ckpt-1")
    listed = [one for one in tf.train.list_variables(ours) if "counter" not in one[0]]
    assert listed == tf.train.list_variables(plain)
    found = tree(0.0)
    found.read(ours).assert_existing_objects_matched()
    for n, variable in enumerate(found.large):
        np.testing.assert_array_equal(variable.numpy(), np.full([ROWS, 256], 5.0 + n))
    assert found.small[1].numpy() == b"text"


def test_damage_in_any_of_them_is_found(saved, tmp_path):
    run_dir, _, mark = saved
    for name in mark.files:
        path = run_dir / "recent" / name
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        original = path.read_bytes()
        path.write_bytes(content)
        expected = f"{name} does not have the checksum that the manifest says"
        assert manifest.damage(run_dir / "recent", mark) == expected
        path.write_bytes(original)
    assert manifest.damage(run_dir / "recent", mark) is None


@pytest.mark.parametrize("number", [1, 2, 3])
def test_what_the_disk_refuses_early_is_no_checkpoint(tmp_path, monkeypatch, number):
    found = tasks.store(tmp_path)
    found.save(tree(1.0), draft(1))
    left = [number]
    fsync = os.fsync

    def refuse(descriptor):
        if os.fstat(descriptor).st_size >= LEAST:
            left[0] -= 1
            if left[0] == 0:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(store.SaveError) as error:
        found.save(tree(2.0), draft(2))
    assert str(error.value) == (
        f"{tmp_path}/recent/ckpt-2 could not be saved: [Errno 5] Input/output error. "
        "Every earlier checkpoint is as it was."
    )
    assert layout.steps(tmp_path / "recent") == [1]
    assert not list((tmp_path / "recent").glob("ckpt-2*"))
    found.save(tree(2.0), draft(2))
    assert layout.steps(tmp_path / "recent") == [1, 2]


@pytest.mark.parametrize("number", [3, 4, 6])
def test_a_kill_while_one_is_synced_leaves_the_checkpoint_before(tmp_path, number):
    run_dir = tmp_path / "run"
    tasks.store(run_dir).save(tree(1.0), draft(1))
    places = [str(processes.PROJECT / "tests"), str(processes.PROJECT)]
    environment = {
        "PYTHONPATH": os.pathsep.join(places),
        failpoints.VARIABLE: f"storage.sync@{number}",
    }
    code = "import test_shards; test_shards.save_second()"
    done = processes.script("-c", code, cwd=tmp_path, **environment)
    assert done.code == -signal.SIGKILL, done.stderr
    assert list((run_dir / "recent").glob("ckpt-2*"))
    tasks.store(run_dir)
    assert layout.steps(run_dir / "recent") == [1]
    assert not list((run_dir / "recent").glob("ckpt-2*"))
    mark = manifest.read(run_dir / "recent", 1)
    assert manifest.damage(run_dir / "recent", mark) is None
