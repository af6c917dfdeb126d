"""Who reads beside a writer never sees damage that is not there."""

import threading

import histories
import pytest

from trainer.checkpoint import selection
from trainer.checkpoint.layout import RunDirectory
from trainer.inspection import rows

CALLS = 300


@pytest.fixture
def written(tmp_path):
    """A run directory in which somebody saves, promotes and prunes all the while."""
    house = histories.store(tmp_path, "loss:min:3", keep_recent=2)
    house.prepare()
    held = histories.tree()
    ended, errors = threading.Event(), []

    def write():
        step = 1
        try:
            while not ended.is_set():
                step += 1
                # Every other step is a new best one, and some are saved again.
                loss = 1 / step if step % 2 else 1.0
                for _ in range(1 + (step % 3 == 0)):
                    histories.save(house, held, step, {"loss": loss})
        except BaseException as error:
            errors.append(error)

    histories.save(house, held, 1, {"loss": 1.0})
    thread = threading.Thread(target=write)
    thread.start()
    yield RunDirectory(tmp_path)
    ended.set()
    thread.join()
    assert not errors


def test_what_only_reads_finds_no_problem_beside_a_writer(written):
    for _ in range(CALLS):
        assert [row for row in rows.verify(written) if row["problem"]] == []
        listed = rows.list_checkpoints(written)
        assert [row for row in listed if row["status"] != "ok"] == []
    assert max(row["step"] for row in listed) > 10, "somebody wrote meanwhile"


@pytest.mark.parametrize("asked", ["latest", "best"])
def test_a_checkpoint_that_is_pruned_meanwhile_is_told_to_be_gone(written, asked):
    house = histories.store(written.root, "loss:min:3")
    gone = 0
    for _ in range(CALLS):
        try:
            entry = selection.select(written, asked, house.upkeep.rules.best)
            selection.verified(entry)
        except selection.NoCheckpointError:
            gone += 1
    assert gone < CALLS
