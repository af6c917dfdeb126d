"""A property of all histories: deaths, damage and restarts in any order.

Whatever happened, the next start restores the newest checkpoint that is sound, the best
directory holds the best of those, and nothing sound is deleted but what the rules name.
"""

import math
import random

import histories
import pytest

from trainer.checkpoint import layout, retention
from trainer.checkpoint.store import NoUsableCheckpointError

RULES = {"keep_recent": 2, "save_every_steps": 3}


def started(run_dir):
    house, held = histories.store(run_dir, "loss:min", **RULES), histories.tree()
    house.prepare()
    return house, held


def newest_sound(run_dir):
    homes = [run_dir / "recent", run_dir / "best/loss"]
    return max((step for home in homes for step in histories.sound(home)), default=None)


def chosen(chance, run_dir):
    paths = sorted(run_dir.glob("*/**/ckpt-*.data-*"))
    return chance.choice(paths) if paths else None


@pytest.mark.parametrize("seed", range(12))
def test_whatever_happens_the_newest_sound_one_is_restored(tmp_path, seed):
    chance = random.Random(seed)
    losses, step = {}, 0
    for _ in range(14):
        expected = newest_sound(tmp_path)
        staged = histories.sound(tmp_path / "recent/staging")
        expected = max([*staged, expected or -1]) if staged else expected
        house, held = started(tmp_path)
        try:
            found = house.restore(held)
        except NoUsableCheckpointError:
            assert expected is None
            return
        assert (found.step if found else None) == expected
        if found:
            assert held.tree.value.numpy().tolist() == [float(found.step)] * 3
        before = histories.picture(tmp_path)
        again, other = started(tmp_path)
        again.restore(other)
        assert histories.picture(tmp_path) == before, "a second start changes nothing"
        step = found.step + 1 if found else 1
        losses[step] = float(chance.randrange(20))
        histories.save(house, held, step, {"loss": losses[step]})
        check_best(tmp_path, losses)
        with histories.death(chance.randrange(1, 90)):
            for _ in range(chance.randrange(1, 4)):
                step += 1
                loss = chance.choice([math.nan, math.inf, *range(20)])
                losses[step] = float(loss)
                histories.save(house, held, step, {"loss": loss})
        if chance.random() < 0.4 and (path := chosen(chance, tmp_path)):
            if chance.random() < 0.7:
                histories.flip(path, chance.randrange(1 << 16))
            else:
                path.unlink()


def check_best(run_dir, losses):
    """One is there, and no sound one anywhere is better."""
    best = histories.sound(run_dir / "best/loss")
    recent = histories.sound(run_dir / "recent")
    rule = retention.Best.parse("loss:min")
    values = {step: mark.metrics["loss"] for step, mark in (best | recent).items()}
    assert all(same(losses[step], value) for step, value in values.items())
    assert list(best) == rule.top(values, held=best)
    assert len(recent) <= 3
    listed = run_dir / "best/loss" / layout.LIST
    assert listed.exists() == bool(best)


def same(one, other):
    return one == other or (math.isnan(one) and math.isnan(other))
