"""Checkpoints read into a state that is built: all of it, or the networks alone.

    >>> import pathlib
    >>> from line import Line
    >>> from trainer.checkpoint import catalog
    >>> from trainer.model import loading, parts
    >>> (entry,) = catalog.read_entry(pathlib.Path("runs/line/recent"), 20)
    >>> sources = Line().sources()
    >>> _, current, _ = parts.build(Line(), sources, batch_size=4, seed=0, ema=0.0)
    >>> loading.load_networks(entry, current)        # to evaluate, predict, export
    >>> loading.load_all(entry, current)             # to train
    >>> int(current.step)
    20

Every byte is verified first; no file is changed.
"""

from __future__ import annotations

from trainer.checkpoint import compatibility, selection
from trainer.checkpoint.catalog import Entry
from trainer.model import weights
from trainer.model.contract import network_items
from trainer.model.state import State


def load_networks(entry: Entry, current: State) -> None:
    """Restores the networks of a checkpoint: the averages, where the run keeps them.

    Raises:
      selection.DamagedCheckpointError: the files are not what was committed.
      compatibility.IncompatibleCheckpointError: the networks are other ones.
    """
    mark = selection.verified(entry)
    built, saved = (
        tuple(one for one in every if current.of_evaluation(one.path))
        for every in (current.describe(), mark.variables)
    )
    source, advice = str(entry.prefix), current.advice
    if mark.variables:
        compatibility.check(built, saved, source=source, advice=advice)
    current.restore_networks(str(entry.prefix))


def load_all(entry: Entry, current: State) -> None:
    """Restores everything.

    Raises:
      selection.DamagedCheckpointError: the files are not what was committed.
      compatibility.IncompatibleCheckpointError: it is of another state.
    """
    selection.verified(entry)
    compatibility.check_entry(entry, current)
    current.restore(str(entry.prefix))


def load_weights(entry: Entry, current: State) -> weights.Match:
    """Takes the weights that fit, by path and shape.

    Raises:
      selection.DamagedCheckpointError: the files are not what was committed.
    """
    saved = selection.verified(entry).variables
    networks = network_items(current.networks)
    return weights.take(current, weights.read(str(entry.prefix), saved, networks))
