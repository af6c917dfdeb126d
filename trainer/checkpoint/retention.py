"""Which checkpoints are worth keeping.

Pure rules over what is known of each checkpoint. Nothing here touches a file, so
every rule is tested with a table; `upkeep` alone deletes.

    >>> from trainer.checkpoint import retention
    >>> rule = retention.Best.parse("loss:min:2")
    >>> rule.top({100: 0.5, 200: 0.3, 300: 0.4})           # the steps, best first
    [200, 300]
"""

from __future__ import annotations

import bisect
import dataclasses
import math
import re
from collections.abc import Collection, Iterable, Mapping

_RULE = re.compile(r"([A-Za-z0-9][\w.\-]*):(min|max)(?::([1-9]\d{0,5}))?")


@dataclasses.dataclass(frozen=True)
class Best:
    """Keep the `count` checkpoints with the smallest or the largest `metric`.

    What is to take the place of another must be better by more than `min_delta`.
    """

    metric: str
    mode: str
    count: int = 1
    min_delta: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Best:
        """Reads `name:min|max[:count]`, e.g. `accuracy:max:3`.

        Raises:
          ValueError: `text` does not have that form.
        """
        match = _RULE.fullmatch(text)
        if not match:
            raise ValueError(
                f"{text!r} does not say what is best. "
                "Expected name:min|max[:count], such as accuracy:max or loss:min:3."
            )
        return cls(match[1], match[2], int(match[3] or 1))

    def __str__(self) -> str:
        return f"{self.metric}:{self.mode}:{self.count}"

    def improves(self, value: float, record: float | None) -> bool:
        """Whether `value` beats `record` by more than `min_delta`.

        NaN and infinities never do, nor do ties.
        """
        if not math.isfinite(value):
            return False
        if record is None:
            return True
        gain = record - value if self.mode == "min" else value - record
        return gain > self.min_delta

    def top(self, values: Mapping[int, float], held: Collection[int] = ()) -> list[int]:
        """The steps to keep, best first.

        Values that are not finite never count; of equal ones the earlier step wins.

        Args:
          values: of the metric, by step.
          held: the steps that have a place already, which others must win from them.
        """
        sign = 1.0 if self.mode == "min" else -1.0

        def rank(step: int) -> tuple[float, int]:
            return sign * values[step], step

        finite = sorted(step for step, value in values.items() if math.isfinite(value))
        kept = sorted((step for step in finite if step in held), key=rank)[: self.count]
        for step in finite:
            if step in held:
                continue
            if len(kept) == self.count:
                if not self.improves(values[step], values[kept[-1]]):
                    continue
                kept.pop()
            bisect.insort(kept, step, key=rank)
        return kept


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rules:
    """Which checkpoints of a run are kept.

    Attributes:
      keep_recent: how many of the newest.
      keep_every_steps: multiples of this are kept for good; 0: none.
      save_every_steps: the newest multiple of this is kept, too, so that one saved in
        between, at a stop or by the clock, doesn't push it out; 0: none.
      best: which others.
    """

    keep_recent: int = 3
    keep_every_steps: int = 0
    save_every_steps: int = 0
    best: tuple[Best, ...] = ()

    def recent(self, steps: Iterable[int]) -> list[int]:
        """The steps of the rolling checkpoints to keep, in rising order."""
        ordered = sorted(steps)
        for_good = [s for s in ordered if is_multiple(s, self.keep_every_steps)]
        scheduled = [s for s in ordered if is_multiple(s, self.save_every_steps)]
        return sorted({*for_good, *scheduled[-1:], *ordered[-self.keep_recent :]})


def is_multiple(step: int, every: int) -> bool:
    """Whether what happens `every` so many steps happens at `step`; 0: never."""
    return every > 0 and step % every == 0
