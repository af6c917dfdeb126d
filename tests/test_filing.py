"""Names that only look like ours, and what stands in the way of a link."""

import dataclasses

import making
import pytest

from trainer.checkpoint import layout, manifest, retention
from trainer.checkpoint.layout import RunDirectory
from trainer.checkpoint.manifest import Draft
from trainer.checkpoint.saver import Saver
from trainer.checkpoint.store import Store
from trainer.checkpoint.upkeep import Upkeep


class Described:
    """A state of which nothing is known but its variables."""

    tree = None
    advice = ""
    later = ()

    def describe(self):
        return ()

    def pack(self):
        raise MemoryError


def prepared(root):
    store = Store(RunDirectory(root), retention.Rules(keep_recent=3))
    store.prepare()
    return store


def upkeep(root):
    rules = retention.Rules(best=(retention.Best("loss", "min"),))
    found = Upkeep(RunDirectory(root), rules)
    found.prepare()
    return found


def names(directory):
    return sorted(path.name for path in directory.iterdir())


@pytest.mark.parametrize("foreign", ["ckpt-007.index", "ckpt-07.data-00000-of-00001"])
def test_another_spelling_of_a_number_is_no_file_of_a_checkpoint(tmp_path, foreign):
    """It would be listed in a manifest that then could never be read."""
    recent = tmp_path / "recent"
    recent.mkdir()
    (recent / foreign).write_bytes(b"of someone else")
    made = making.checkpoint(recent, 7)
    assert manifest.read(recent, 7) == made
    assert foreign not in made.files
    prepared(tmp_path)
    assert (recent / foreign).read_bytes() == b"of someone else"


def test_the_mark_of_another_spelling_speaks_for_no_files(tmp_path):
    recent = tmp_path / "recent"
    making.checkpoint(recent, 5)
    making.checkpoint(recent, 7)
    layout.manifest_path(recent, 7).unlink()
    (recent / "ckpt-007.deleting").touch()
    prepared(tmp_path)
    assert "ckpt-7.index.unclaimed" in names(recent)
    assert "ckpt-007.deleting" in names(recent)


def test_an_unreadable_manifest_does_not_stand_in_the_way_of_a_link(tmp_path):
    best, recent = tmp_path / "best/loss", tmp_path / "recent"
    making.checkpoint(best, 5, {"loss": 1.0})
    making.checkpoint(recent, 5, {"loss": 1.0})
    making.spoil(recent, 5)
    house = upkeep(tmp_path)
    house.link(house.catalog.home(best)[5], recent)
    mark = manifest.read(recent, 5)
    assert manifest.damage(recent, mark) is None
    assert "ckpt-5.json.damaged" in names(recent)
    assert house.catalog.home(recent)[5].manifest == mark


def test_going_back_past_a_manifest_that_was_written_anew(tmp_path):
    """The same bytes, committed at another time: the one that is asked for wins."""
    best, recent = tmp_path / "best/loss", tmp_path / "recent"
    asked = making.checkpoint(best, 5, {"loss": 1.0})
    anew = making.checkpoint(recent, 5)
    anew = dataclasses.replace(anew, created=anew.created + 9)
    manifest.write(recent, anew)
    store = prepared(tmp_path)
    described = Described()
    described.describe = lambda: asked.variables
    store.go_back(store.upkeep.catalog.home(best)[5], described, 1)
    assert manifest.read(recent, 5) == asked
    assert manifest.read(tmp_path / "abandoned/1/recent", 5) == anew


def interrupt():
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("before", "error"),
    [(interrupt, KeyboardInterrupt), (lambda: None, MemoryError)],
    ids=["while the scalars are flushed", "while the state is packed"],
)
def test_a_save_that_was_never_begun_is_not_waited_for(tmp_path, before, error):
    saver = Saver(prepared(tmp_path), Described(), before=before)
    with pytest.raises(error), saver:
        saver.save(Draft(step=1, metrics={}, variables=()))
    assert saver.wait() is None
