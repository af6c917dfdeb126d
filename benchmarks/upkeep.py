"""What keeping many checkpoints costs: upkeep per save, and judging a step.

    python benchmarks/upkeep.py

Real directories with manifests of real size and data of a few bytes. Upkeep is what
follows a commit, `Upkeep.settle`: promotion, pruning, TensorFlow's list. Judging is
`Saver.is_best`, on the training thread, which may read no file. Start is the one time
that every manifest is read. Medians and min-max of 20 saves; a value that is not what
is owed has a `!`.
"""

from __future__ import annotations

import functools
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable

from rich import console
from rich import table as tables

from trainer.checkpoint import layout, manifest, plan
from trainer.checkpoint.catalog import Entry
from trainer.checkpoint.layout import RunDirectory
from trainer.checkpoint.manifest import Draft, Manifest, Variable
from trainer.checkpoint.retention import Best, Rules
from trainer.checkpoint.upkeep import Upkeep

_SAVES = 20
# Checkpoints kept, variables each, rules, and the milliseconds that are owed.
_CASES = [
    (2_000, 100, ("loss:min",), 50.0),
    (9, 2_000, ("loss:min:3", "accuracy:max:3"), 20.0),
    (200, 100, ("loss:min",), 50.0),
]


def main() -> int:
    """Measures each case in turn."""
    table = tables.Table(box=None)
    for name in ("kept", "variables", "rules", "start", "upkeep", "judging", "owed"):
        table.add_column(name, justify="right")
    for kept, variables, rules, owed in _CASES:
        with tempfile.TemporaryDirectory() as directory:
            table.add_row(
                *_measure(pathlib.Path(directory), kept, variables, rules, owed)
            )
    console.Console(width=120).print(table)
    return 0


def _measure(
    root: pathlib.Path, kept: int, variables: int, rules: tuple[str, ...], owed: float
) -> list[str]:
    directory = RunDirectory(root)
    directory.recent.mkdir()
    for step in range(1, kept + 1):
        _commit(directory.recent, step, variables)
    best = tuple(map(Best.parse, rules))
    upkeep = Upkeep(directory, Rules(keep_recent=3, keep_every_steps=1, best=best))
    if kept < 100:
        upkeep = Upkeep(directory, Rules(keep_recent=kept, best=best))
    start = _timed(upkeep.prepare)
    upkeep.settle()
    settled, judged = [], []
    for step in range(kept + 1, kept + 1 + _SAVES):
        mark = _commit(directory.recent, step, variables)
        judge = functools.partial(plan.is_best, upkeep.catalog, upkeep.rules)
        judged.append(_timed(functools.partial(judge, step, mark.metrics)))
        upkeep.added(Entry(directory.recent, step, mark))
        settled.append(_timed(upkeep.settle))
    late = statistics.median(settled) > owed
    return [
        f"{kept}",
        f"{variables}",
        f"{len(rules)}",
        f"{start:.0f} ms",
        f"{_shown(settled)}{'!' if late else ''}",
        _shown(judged),
        f"{owed:g} ms",
    ]


def _commit(home: pathlib.Path, step: int, variables: int) -> Manifest:
    for suffix in ("index", "data-00000-of-00001"):
        layout.prefix(home, step).with_suffix(f".{suffix}").write_bytes(b"x" * step)
    draft = Draft(
        step=step,
        metrics={"loss": 1 / step, "accuracy": step % 7},
        variables=tuple(
            Variable(f"model/layer_{n}/kernel", (64, 64), "float32")
            for n in range(variables)
        ),
    )
    mark = draft.committed(manifest.measure(home, step), time.time())
    manifest.write(home, mark)
    return mark


def _timed(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return 1e3 * (time.perf_counter() - began)


def _shown(values: list[float]) -> str:
    middle = statistics.median(values)
    return f"{middle:.1f} ({min(values):.1f}-{max(values):.1f}) ms"


if __name__ == "__main__":
    sys.exit(main())
