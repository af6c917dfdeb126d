"""A sample of the campaign of damage: what comes back is right, or a message does."""

import collections
import dataclasses
import importlib.util
import random
import sys

import processes
import pytest

from trainer.checkpoint import layout, manifest

SAMPLE = 60
ROUNDS = 4  # the same kinds of files and damages, by other chances


@pytest.fixture(scope="module")
def corruption():
    """The benchmark, which is no package."""
    path = processes.PROJECT / "benchmarks" / "corruption.py"
    spec = importlib.util.spec_from_file_location("corruption", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(scope="module")
def campaign(corruption, tmp_path_factory):
    return corruption.Campaign(tmp_path_factory.mktemp("campaign"))


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_no_damage_is_restored_in_silence(campaign, corruption, seed):
    chance = random.Random(seed)
    counts = collections.Counter()
    for _ in range(SAMPLE // ROUNDS):
        which, how, outcome = campaign.trial(chance)
        assert outcome in corruption.OUTCOMES[:3], (which, how)
        counts[outcome] += 1
    assert len(counts) > 1, "it did harm, and not only harm"


def test_the_campaign_notices_what_is_silently_wrong(corruption, tmp_path):
    """A checkpoint of other values under a sound manifest: what no user must meet."""
    campaign = corruption.Campaign(tmp_path)
    recent = campaign.run_dir / "recent"
    forge(recent, layout.steps(recent)[-1])
    outcomes = {campaign.trial(random.Random(seed))[2] for seed in range(5)}
    assert any(outcome.startswith("SILENT") for outcome in outcomes)


def forge(recent, step):
    """The data of the step before, and a manifest that is right about it."""
    for suffix in ("index", "data-00000-of-00001"):
        other = recent / f"ckpt-{step - 1}.{suffix}"
        (recent / f"ckpt-{step}.{suffix}").write_bytes(other.read_bytes())
    mark = manifest.read(recent, step)
    files = manifest.measure(recent, step)
    manifest.write(recent, dataclasses.replace(mark, files=files))
