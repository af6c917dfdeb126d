"""What a task shows of its evaluations: `Task.figures`, run and checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from trainer import data, figures
from trainer.model import prediction
from trainer.task import Task, TaskError

_CHANNELS = (1, 3, 4)
_TIMES = ("best", "evaluation")


@dataclasses.dataclass(frozen=True)
class Figures:
    """The figures of a task.

    Attributes:
      draw: gives what the task shows of the networks as they are, by name: uint8
        `[H, W, C]`, str, float, `figures.Histogram`; None: it shows nothing.
      each: whether at each evaluation; else where there is a new best.
    """

    draw: Callable[[], Mapping[str, Any]] | None = None
    each: bool = False

    def due(self, new_best: bool) -> bool:
        """Whether an evaluation is to be shown."""
        return self.draw is not None and (self.each or new_best)

    def of(self, metrics: Mapping[str, float]) -> dict[str, Any]:
        """What is shown beside these metrics.

        Raises:
          TaskError: it can't be shown.
        """
        given = self.draw() if self.draw else {}
        if not isinstance(given, Mapping):
            raise TaskError(
                f"figures() gave {type(given).__name__}; expected a dict by name, such "
                'as {"confusion": image}.'
            )
        shown = {name: _checked(name, value) for name, value in given.items()}
        for name, value in shown.items():
            if isinstance(value, float) and name in metrics:
                raise TaskError(
                    f"figures() gave the number {name!r}, and a metric has that name: "
                    "TensorBoard would show one curve of both. Rename it, such as "
                    f'"own_{name}".'
                )
        return shown


def of(
    task: Task,
    valid: Any,
    networks: Any,
    batch_size: int,
) -> Figures:
    """The figures of a task, if it has any.

    Args:
      task: that draws them.
      valid: the split that they show, or None if there is none.
      networks: of the task.
      batch_size: examples per batch.

    Raises:
      TaskError: the task doesn't say when in words that are known.
    """
    times = type(task).figures_at
    if times not in _TIMES:
        raise TaskError(
            f"{type(task).__name__}.figures_at is {times!r}; expected "
            f'{" or ".join(map(repr, _TIMES))}: figures_at = "evaluation".'
        )
    if valid is None or type(task).figures is Task.figures:
        return Figures()
    batches = data.ordered(valid, batch_size, task)
    predictor = prediction.Predictor(task, networks, batches.element_spec[0])

    def draw() -> Mapping[str, Any]:
        examples, predicted = zip(*predictor.run(batches), strict=True)
        return task.figures(prediction.joined(examples), prediction.joined(predicted))

    return Figures(draw, each=times == "evaluation")


def _checked(name: Any, value: Any) -> Any:
    if isinstance(value, str | figures.Histogram):
        return value
    if not isinstance(value, list | tuple | Mapping) and value is not None:
        array = np.asarray(value)
        if array.ndim == 0 and array.dtype.kind in "bifu":
            return float(array)
        image = array.ndim == 3 and array.size and array.shape[2] in _CHANNELS
        if image and array.dtype == np.uint8:
            return array
        value = array
    raise TaskError(
        f"figures() gave {name!r} as {_told(value)}; expected an image (uint8 "
        "[H, W, 3]), a text (str), a number, or figures.histogram(values) of an array."
    )


def _told(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype}, shape {list(value.shape)}"
    return type(value).__name__
