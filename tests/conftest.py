"""What the whole suite shares: finished runs, which no test changes."""

from __future__ import annotations

import dataclasses
import gc
import pathlib

import processes
import pytest

# The longest first, so that in the end no process waits long for the other.
LONGEST = [
    "run",
    "resume",
    "indexed",
    "best",
    "outside",
    "places",
    "conformance",
    "state",
    "export",
    "uses",
    "prepare",
    "stop",
    "proof",
    "fingerprint",
    "package",
    "trust",
    "stream",
    "machine",
    "steps",
    "api",
    "keeper",
    "ema",
    "space",
    "mnist",
    "crash",
]


def pytest_collection_modifyitems(items):
    """Files of tests go to two processes in this order."""
    ranks = {f"test_{name}": rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path.stem, len(ranks)))


def pytest_collection_finish():
    """Spares each collection of garbage what the imported libraries hold for ever.

    Every run that is built in a test clears Keras' session, which collects: a fifth of
    the time of such a run.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture
def forked_reloads():
    """Exports are loaded back in forks."""
    with processes.forked_reloads():
        yield


@dataclasses.dataclass(frozen=True)
class Reference:
    """A run that nobody interrupted.

    Attributes:
      arguments: repeat it elsewhere, with another `--run_dir`.
      directory: the run directory; it is called `run`.
      result: of the process that trained it.
    """

    arguments: tuple[str, ...]
    directory: pathlib.Path
    result: processes.Result


@pytest.fixture(scope="session")
def reference(tmp_path_factory):
    """Digits, a few epochs. Its largest loss is the first, older than all recent."""
    arguments = (
        processes.DIGITS,
        "--steps=120",
        "--evaluate_every_steps=20",
        "--save_every_steps=20",
        "--best=accuracy:max",
        "--best=loss:max",
    )
    cwd = tmp_path_factory.mktemp("reference")
    result = processes.run(*arguments, "--run_dir=run", cwd=cwd)
    assert result.code == 0, result.stderr
    return Reference(arguments, cwd / "run", result)
