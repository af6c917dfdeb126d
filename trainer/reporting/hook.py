"""What listens to a run, outside its graph.

    >>> import trainer
    >>> from line import Line
    >>> class Best(trainer.Hook):
    ...     def on_best(self, step, name, value, path):
    ...         print(f"{name} {value:.3f} at step {step}: {path.name}")
    >>> choices = {"steps": 40, "evaluate_every_steps": 40, "progress": "none"}
    >>> _ = trainer.train(Line(), "runs/line", hooks=[Best()], **choices)
    loss ... at step 30: ckpt-30
    loss ... at step 40: ckpt-40

No TensorFlow.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any


class Hook:
    """Listens to a run. Override what you want to hear; the rest does nothing.

        >>> import trainer
        >>> from line import Line
        >>> class Losses(trainer.Hook):
        ...     def on_evaluation(self, step, metrics):
        ...         print(step, sorted(metrics))
        >>> hooks, choices = [Losses()], {"steps": 10, "progress": "none"}
        >>> _ = trainer.train(Line(), "runs/new", hooks=hooks, **choices)
        1 ['loss']
        2 ['loss']
        ...
        10 ['loss']

    On the command line: `--hook=package.module:Class`, or
    `--hook=path/to/file.py:Class`; in parentheses behind it, its one argument, a text.

    All methods are called on the training thread, in the order of what happens, so what
    they take is time of the run. They get copies of plain values. Whatever a hook draws
    at random, returns or raises, the training goes on with the same bits: the random
    states of Python, NumPy, TensorFlow and Keras are put back after each call; an error
    is logged once for each method, the hook is called again all the same, and the
    number of its errors is told at the end.

    A resumed run begins at its newest checkpoint, and trains the steps since then once
    more: these are told again, after an `on_begin` that says from where.
    """

    def on_begin(self, step: int, run_dir: pathlib.Path) -> None:
        """Training begins at `step`: at a start, a resume, and after each rewind.

        What was told of later steps has not happened.

        Args:
          step: 0 for a new run; of the checkpoint that the run goes on from.
          run_dir: of the run.
        """

    def on_report(self, step: int, scalars: Mapping[str, float]) -> None:
        """The means of the training values since the last report.

        Args:
          step: of the report.
          scalars: by the tags of TensorBoard: the values, `learning_rate`, and under
            `speed/` what depends on the clock.
        """

    def on_evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        """The metrics of an evaluation, by name."""

    def on_best(self, step: int, name: str, value: float, path: pathlib.Path) -> None:
        """There is a new best by one metric, and its checkpoint is durable.

        Args:
          step: of the checkpoint.
          name: of the metric.
          value: of the metric.
          path: of the checkpoint in `best/`; its files are `path.*`.
        """

    def on_commit(self, step: int, path: pathlib.Path) -> None:
        """A checkpoint is durable and in its place.

        Each is told at least once, before the next one is begun: one whose telling a
        kill prevented is told at the next start, which tells the checkpoint that it
        goes on from in any case.

        Args:
          step: of the checkpoint.
          path: what `tf.train.Checkpoint.read` takes; its files are `path.*`, and they
            stay for as long as `--keep_recent` says.
        """

    def on_end(self, outcome: Any) -> None:
        """The run ends here, complete or stopped, with everything saved.

        Args:
          outcome: as `trainer.train` returns it; None where an error ends the run.
        """


METHODS = {
    "on_begin": 2,
    "on_report": 2,
    "on_evaluation": 2,
    "on_best": 4,
    "on_commit": 2,
    "on_end": 1,
}
