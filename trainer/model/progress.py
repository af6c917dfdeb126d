"""What lives in Python and must survive a kill: what was done at which step.

    >>> from trainer.checkpoint import retention
    >>> from trainer.model.progress import Progress
    >>> rule = retention.Best.parse("loss:min")
    >>> progress = Progress().evaluated_at(300, {"loss": 0.5}, records={})
    >>> progress = progress.counted(rule, 300, min_delta=0.0)
    >>> Progress.from_json(progress.to_json()) == progress
    True

Never changed in place, so a resumed run judges as if nothing had happened. No
TensorFlow.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from trainer.checkpoint.retention import Best


@dataclasses.dataclass(frozen=True)
class Patience:
    """How long a metric has not got better, for early stopping.

    Attributes:
      metric: that is looked at.
      value: the best one, if there was a number.
      stale: evaluations in a row that were no better.
      step: of the best value.
    """

    metric: str = ""
    value: float | None = None
    stale: int = 0
    step: int | None = None

    def after(self, rule: Best, step: int, value: float) -> Patience:
        """Counts one more evaluation; another metric begins anew."""
        known = self if self.metric == rule.metric else Patience(rule.metric)
        if rule.improves(value, known.value):
            return Patience(rule.metric, value, 0, step)
        return dataclasses.replace(known, stale=known.stale + 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Progress:
    """What was done at which step; a part of every checkpoint.

    Attributes:
      reported: the step of the last report.
      evaluated: the step of the last evaluation.
      metrics: of that evaluation.
      records: the best values at that time, by metric `{"mode", "step", "value"}`. Told
        to readers of the checkpoint; what is best, the checkpoints themselves say.
      patience: for early stopping.
      rewinds: how often the run went back from a bad loss.
      plateau: for lowering the learning rates.
      reductions: how often they were lowered.
    """

    reported: int | None = None
    evaluated: int | None = None
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)
    records: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    patience: Patience = Patience()
    rewinds: int = 0
    plateau: Patience = Patience()
    reductions: int = 0

    @classmethod
    def from_json(cls, text: str) -> Progress:
        """Reads what `to_json` wrote, and what releases since 0.1.0 did."""
        body: dict[str, Any] = json.loads(text)
        return cls(
            reported=body.get("reported"),
            evaluated=body.get("evaluated"),
            metrics=body.get("metrics", {}),
            records=body.get("records", {}),
            patience=Patience(**body.get("patience", {})),
            rewinds=body.get("rewinds", 0),
            plateau=Patience(**body.get("plateau", {})),
            reductions=body.get("reductions", 0),
        )

    def to_json(self) -> str:
        """The same progress always gives the same text, that of 0.1.0."""
        body: dict[str, Any] = {}
        if self.reported is not None:
            body["reported"] = self.reported
        if self.evaluated is not None:
            body["evaluated"] = self.evaluated
            body |= {"metrics": dict(self.metrics), "records": dict(self.records)}
        if self.patience.metric:
            body["patience"] = dataclasses.asdict(self.patience)
            if self.patience.step is None:
                del body["patience"]["step"]
        if self.rewinds:
            body["rewinds"] = self.rewinds
        if self.plateau.metric:
            body["plateau"] = dataclasses.asdict(self.plateau)
            body["reductions"] = self.reductions
        return json.dumps(body, sort_keys=True)

    def metrics_at(self, step: int) -> dict[str, float]:
        """Of the evaluation at this very step, if there was one."""
        return dict(self.metrics) if self.evaluated == step else {}

    def reported_at(self, step: int) -> Progress:
        """After the report of a step."""
        return dataclasses.replace(self, reported=step)

    def evaluated_at(
        self,
        step: int,
        metrics: Mapping[str, float],
        records: Mapping[str, Mapping[str, Any]],
    ) -> Progress:
        """After the evaluation of a step."""
        return dataclasses.replace(
            self, evaluated=step, metrics=dict(metrics), records=records
        )

    def counted(self, rule: Best, step: int, *, min_delta: float) -> Progress:
        """After one more evaluation has counted for early stopping.

        Args:
          rule: which metric, and whether less or more of it is better.
          step: of the evaluation.
          min_delta: minimum improvement that counts.
        """
        strict = dataclasses.replace(rule, min_delta=min_delta)
        patience = self.patience.after(strict, step, self.metrics[rule.metric])
        return dataclasses.replace(self, patience=patience)

    def counted_for_plateau(self, rule: Best, step: int) -> Progress:
        """After one more evaluation has counted for lowering the learning rates."""
        plateau = self.plateau.after(rule, step, self.metrics[rule.metric])
        return dataclasses.replace(self, plateau=plateau)

    def lowered(self) -> Progress:
        """After the learning rates were lowered; the evaluations count anew."""
        plateau = dataclasses.replace(self.plateau, stale=0)
        return dataclasses.replace(
            self, plateau=plateau, reductions=self.reductions + 1
        )

    def rewound(self, rewinds: int) -> Progress:
        """With another count of rewinds."""
        return dataclasses.replace(self, rewinds=rewinds)
