"""The weights in a checkpoint file, by the name that people know, for other networks.

    >>> import pathlib
    >>> from trainer.checkpoint import manifest
    >>> from trainer.model import weights
    >>> mark = manifest.read(pathlib.Path("runs/line/recent"), 20)
    >>> values = weights.read("runs/line/recent/ckpt-20", mark.variables, ["model"])
    >>> {path: value.shape for path, value in values.items()}
    {'model/sequential/dense/kernel': (1, 1), 'model/sequential/dense/bias': (1,)}

Of a run with moving averages these are the weights, for by these it was judged.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from trainer.checkpoint import manifest
from trainer.checkpoint.reader import Reader
from trainer.model import ema, names
from trainer.model.state import State


@dataclasses.dataclass(frozen=True)
class Match:
    """Which weights came from another checkpoint, by path.

    Attributes:
      taken: these did.
      fresh: these keep their initial values.
      unused: these the checkpoint has, and no network takes them.
    """

    taken: tuple[str, ...]
    fresh: tuple[str, ...]
    unused: tuple[str, ...]


def read(
    prefix: str, saved: Sequence[manifest.Variable], networks: Iterable[str]
) -> dict[str, Any]:
    """Arrays by path, in the order of `network.variables`.

    Args:
      prefix: of the checkpoint.
      saved: what its manifest lists; where that is nothing, the paths are numbers.
      networks: of which; `model` is the one of a task with a single one.
    """
    reader = Reader(prefix)
    saved = saved or _numbered(reader, networks)
    values: dict[str, Any] = {}
    for network in networks:
        paths = [one.path for one in saved if one.path.startswith(f"{network}/")]
        listed = reader.listed(names.variables_part(network)) if paths else []
        values |= dict(zip(paths, listed, strict=True))
    averaged = [one.path for one in saved if one.path.startswith(f"{ema.NAME}/")]
    averages = reader.listed(ema.NAME) if averaged else []
    for path, average in zip(averaged, averages, strict=True):
        of = path.removeprefix(f"{ema.NAME}/")
        if of in values:
            values[of] = average
    return values


def _numbered(reader: Reader, networks: Iterable[str]) -> list[manifest.Variable]:
    """The variables in a file, for which no manifest has names."""
    parts = {network: names.variables_part(network) for network in networks}
    parts = {network: part for network, part in parts.items() if reader.has(part)}
    found = [
        manifest.Variable(f"{network}/{number}", array.shape, array.dtype.name)
        for network, part in parts.items()
        for number, array in enumerate(reader.listed(part))
    ]
    if not reader.has(ema.NAME):
        return found
    # Averages are of the floating-point ones, in the same order.
    averaged = [one for one in found if "float" in one.dtype]
    return found + [
        dataclasses.replace(one, path=f"{ema.NAME}/{one.path}") for one in averaged
    ]


def take(current: State, values: Mapping[str, Any]) -> Match:
    """Gives the networks of a state the values that fit by path, shape and dtype."""
    here = {k: v for k, v in current.variables().items() if current.of_network(k)}
    fitting = [
        path
        for path, variable in here.items()
        if path in values
        and values[path].shape == variable.shape
        and values[path].dtype == variable.dtype.as_numpy_dtype
    ]
    for path in fitting:
        here[path].assign(values[path])
    current.averages.reset()
    return Match(
        taken=tuple(fitting),
        fresh=tuple(path for path in here if path not in fitting),
        unused=tuple(path for path in values if path not in fitting),
    )
