"""What a model author writes: the data, the networks, the optimizers and the losses."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import tensorflow as tf

from trainer.compat import autograph
from trainer.task import given
from trainer.task.given import Learned, TaskError
from trainer.task.protocols import Batch, Optimization


@dataclasses.dataclass(frozen=True)
class Task(abc.ABC):
    """What is learned. Subclasses are frozen dataclasses: fields are hyperparameters.

        >>> import dataclasses, keras, numpy as np, trainer
        >>> @dataclasses.dataclass(frozen=True)
        ... class Line(trainer.Task):
        ...     rate: float = 0.1                             # --set=rate=0.2
        ...     best = ("error:min",)
        ...     def sources(self):
        ...         x = np.linspace(0, 1, 50, dtype="float32")[:, None]
        ...         points = {"x": x, "y": 2 * x}
        ...         return {"train": points, "valid": points}
        ...     def networks(self):
        ...         return keras.Sequential([keras.layers.Dense(1)])
        ...     def optimizers(self):
        ...         return keras.optimizers.SGD(self.rate)
        ...     def values(self, networks, batch, training):  # one number per example
        ...         error = (networks(batch["x"]) - batch["y"])[:, 0]
        ...         return {"loss": error**2, "error": abs(error)}
        >>> outcome = trainer.train(Line(), "runs/mine", steps=9, progress="none")

    Attributes:
      best: how checkpoints are ranked, as `name:min|max[:count]`, if `--best` is not
        given; the first one is the one that counts.
      pad: what fills up examples whose first dimensions differ, by name:
        `{"tokens": 0}`. In a batch, `tokens_mask` (bool `[B, T]`) says what was there.
      pad_to: the length of a batch is rounded up to a multiple of it.
      prepared: what `prepare` gave when the run began, by name.
      labels: of predictions that are classes; `units`: of numbers, for exports.
      figures_at: `best`: figures show each new best; `evaluation`: each evaluation.
    """

    best: ClassVar[tuple[str, ...]] = ("loss:min",)
    pad: ClassVar[Mapping[str, Any]] = {}
    pad_to: ClassVar[int] = 1
    figures_at: ClassVar[str] = "best"
    labels: ClassVar[Mapping[str, Sequence[str]]] = {}
    units: ClassVar[Mapping[str, str]] = {}
    prepared: ClassVar[Mapping[str, Any]] = Learned()

    @abc.abstractmethod
    def sources(self) -> Mapping[str, Any]:
        """The examples of each split: `train`, `valid` if there is one, others.

        Each is a mapping of arrays `[N, ...]` by name, anything with `__len__` and
        `__getitem__`, a source of `trainer.data`, or a `tf.data.Dataset`. `train` may
        also be several sources by name, `data.Several`: then the batch and the seeds
        of `augment` are mappings by these names.
        """

    def prepare(self, sources: Mapping[str, Any]) -> Mapping[str, Any]:
        """What is learned from the data before training: a vocabulary, a mean.

        It runs once, at the first start of a run. The result is kept in the run
        directory and is `self.prepared` in every other method, then and in every later
        command, which need not read the data again for it.

        Args:
          sources: what `sources()` gave.

        Returns:
          By name: arrays, tensors, numbers, texts, lists and mappings of these, and
          adapted layers of Keras (`Normalization`, `TextVectorization`,
          `StringLookup`, `IntegerLookup`, `Discretization`).
        """
        del sources
        return {}

    @abc.abstractmethod
    def networks(self) -> Any:
        """A fresh `keras.Model`, or several by name."""

    @abc.abstractmethod
    def optimizers(self) -> Any:
        """A fresh `keras.optimizers.Optimizer`, or several by name.

        One optimizer minimises the value `loss` over every network. Of several, the
        one named `x` minimises `x_loss` over the network named `x`, or over what
        stands beside it: `{"x": (Adam(1e-3), [encoder, head])}`. These are networks,
        layers, variables, or names of networks or of parts of `state`. Where objects
        are needed, write `def optimizers(self, networks)`.
        """

    @abc.abstractmethod
    def values(self, networks: Any, batch: Batch, training: bool) -> Mapping[str, Any]:
        """Losses and metrics of a batch: by name, one number an example.

        Args:
          networks: what `networks()` gave.
          batch: tensors `[B, ...]` by name. In an evaluation, each example is in one
            batch and no other rows are, so the last batch may be smaller.
          training: whether this is a training step of the usual kind.

        Returns:
          Tensors `[B]` (or `[B, 1]`); their means over all examples are what a run
          reports, ranks and minimises. For a mean over words, pixels or samples that
          count differently, `(value, weight)`, both `[B]` or both `[B, ...]`: the mean
          is sum(value * weight) / sum(weight) over the split. Weights are at least 0.
          The networks' regularisation losses are added to every optimizer's loss.
        """

    @autograph.unconverted
    def step(
        self, networks: Any, batch: Batch, optimize: Optimization
    ) -> Mapping[str, Any]:
        """One step of training; this is the whole of the usual one.

        Write another where one loss per optimizer doesn't say it: critic steps, a
        gradient penalty, sharpness-aware minimisation. What passes through `optimize`
        is scaled, clipped, watched and resumed as here.

        Args:
          networks: what `networks()` gave.
          batch: tensors `[B, ...]` by name, augmented.
          optimize: takes and applies gradients, by the name of an optimizer.

        Returns:
          What training reports: as `values` gives it, or numbers `[]`.
        """
        with tf.GradientTape(persistent=len(optimize.names) > 1) as tape:
            values = optimize.values(batch)
            losses = optimize.losses(values)
        gradients = {
            name: optimize.gradients(tape, losses[name], name) for name in losses
        }
        for name in gradients:
            optimize.apply(gradients[name], name)
        return values

    @property
    def step_number(self) -> tf.Tensor:
        """Steps done (int64 scalar); evaluated: of the weights, and 0 in `decode`.

        Raises:
          TaskError: not asked in `values`, `step`, `augment`, `decode` of a source.
        """
        return given.step_number()

    def metrics(self) -> Mapping[str, Any]:
        """Fresh `keras.metrics.Metric`s that are no means of examples, such as AUC.

        `values` gives by the same names what they measure, the arguments of their
        `update_state`, anew at each evaluation: `{"auc": (batch["label"], scores)}`.
        """
        return {}

    def scores(
        self, examples: Mapping[str, Any], predictions: Mapping[str, Any]
    ) -> Mapping[str, float]:
        """Metrics of a whole split, such as an error rate of texts, in NumPy.

        Args:
          examples: arrays `[N, ...]` by name, the whole split.
          predictions: arrays `[N, ...]` by name, what `predictions` gave of them.
        """
        del examples, predictions
        return {}

    def predictions(self, networks: Any, batch: Batch) -> Mapping[str, Any]:
        """What the networks say of each example, for `predict` and `export`.

        Args:
          networks: what `networks()` gave, or a model that was loaded back.
          batch: tensors `[B, ...]` by name; what is looked up in it is an input.

        Returns:
          Tensors `[B, ...]` by name.
        """
        raise TaskError(
            f"{type(self).__name__} does not say what it predicts. Add to it: "
            'def predictions(self, networks, batch): return {"score": networks('
            'batch["x"], training=False)}'
        )

    def figures(
        self, examples: Mapping[str, Any], predictions: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """What TensorBoard shows of a new best, or see `figures_at`.

        Args:
          examples: arrays `[N, ...]` by name, the whole split `valid`.
          predictions: arrays `[N, ...]` by name, what `predictions` gave of them.

        Returns:
          By name: images (uint8 `[H, W, 3]`), texts (Markdown), numbers, and
          `figures.histogram(values)`; `trainer.figures` draws some.
        """
        del examples, predictions
        return {}

    @autograph.unconverted
    def decode(
        self, example: Mapping[str, Any], seed: tf.Tensor
    ) -> Mapping[str, tf.Tensor]:
        """What one example is to a network, before batches are made of them.

        It runs in parallel, ahead of training, in evaluations and predictions, too:
        `tf.io.decode_jpeg`, `tf.io.parse_single_example`, a random crop.

        Args:
          example: tensors by name, as the source gives them.
          seed: int32 `[2]`, for `tf.random.stateless_*`: another one for each example
            in each epoch; in an evaluation, one for each index, always the same.

        Returns:
          Tensors by name, of one shape in all examples, except for those in `pad`.
        """
        del seed
        return example

    @autograph.unconverted
    def augment(self, batch: Batch, seeds: tf.Tensor) -> Batch:
        """Changes a training batch at random, as a pure function of the seeds.

        Args:
          batch: as gathered from the source, and padded.
          seeds: int32 `[B, 2]`, one for each example: `data.uniform(seeds, ...)`, or
            any `tf.random.stateless_*` inside `tf.map_fn`.
        """
        del seeds
        return batch

    def state(self, networks: Any) -> Mapping[str, Any]:
        """What else must survive a kill: trackables (`tf.Variable`s, ...) by name."""
        del networks
        return {}

    def hyperparameters(self) -> dict[str, Any]:
        """Every field that a task is created with, by name."""
        fields = dataclasses.fields(self)
        return {field.name: getattr(self, field.name) for field in fields if field.init}
