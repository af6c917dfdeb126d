"""What `--plateau` says: when the learning rates are lowered, and how far.

    >>> from trainer.config.plateau_rule import PlateauRule
    >>> rule = PlateauRule.parse("0.5:3:1e-5")
    >>> rule
    PlateauRule(factor=0.5, patience=3, minimum=1e-05)
    >>> [rule.lowered(0.25, reductions) for reductions in (0, 1, 30)]
    [0.25, 0.125, 1e-05]

No TensorFlow.
"""

from __future__ import annotations

import dataclasses
import math

from trainer.config.fields import ConfigError


@dataclasses.dataclass(frozen=True)
class PlateauRule:
    """Multiplies the rates after a number of evaluations in a row that were no better.

    Attributes:
      factor: above 0 and below 1.
      patience: how many evaluations.
      minimum: the rates are not lowered any further.
    """

    factor: float
    patience: int
    minimum: float = 0.0

    @classmethod
    def parse(cls, text: str) -> PlateauRule:
        """Reads `FACTOR:PATIENCE[:MIN]`.

        Raises:
          ConfigError: it does not have that form, or a number is out of range.
        """
        words = text.split(":")
        try:
            factor, patience, minimum = [*words, "0"] if len(words) == 2 else words
            rule = cls(float(factor), int(patience), float(minimum))
        except ValueError:
            raise ConfigError(
                f"--plateau={text}: expected FACTOR:PATIENCE or FACTOR:PATIENCE:MIN, "
                "such as 0.5:3 or 0.5:3:1e-6."
            ) from None
        if not 0 < rule.factor < 1:
            raise ConfigError(
                f"--plateau={text}: the factor {factor} is out of range: expected more "
                "than 0 and less than 1, such as 0.5, for it is multiplied with."
            )
        if rule.patience < 1 or not 0 <= rule.minimum < math.inf:
            raise ConfigError(
                f"--plateau={text}: expected a patience of 1 or more evaluations, and "
                "a smallest learning rate of 0 or more."
            )
        return rule

    def lowered(self, configured: float, reductions: int) -> float:
        """What a configured rate is after so many lowerings."""
        rate = max(configured * self.factor**reductions, self.minimum)
        return min(configured, rate)
