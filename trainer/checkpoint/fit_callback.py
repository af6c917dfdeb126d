"""A callback for `model.fit`: resumes at the epoch, and keeps the best across restarts.

Run the same script again after a kill and it goes on after the last epoch that was
saved. It takes the place of `ModelCheckpoint` and `BackupAndRestore` together.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf
from absl import logging

from trainer.base.errors import KeepstepError
from trainer.checkpoint.keeper import Keeper
from trainer.compat.networks import begin_at_epoch, global_seed_state


class NotBuiltError(KeepstepError, ValueError):
    """A model has no variables yet."""


class KeeperCallback(keras.callbacks.Callback):  # type: ignore[misc]
    """Saves model, optimizer and random seeds after each epoch, and resumes there.

    The number of a checkpoint is the count of epochs that are done. Resumed exactly are
    weights, optimizer, metrics' best values, the seeds of dropout and of other random
    layers. Not resumed, since Keras keeps it elsewhere: the order in which `fit`
    shuffles (give `shuffle=False`, or a dataset whose order is the same in each epoch,
    to end with the same bits), the history of earlier epochs, the state of other
    callbacks such as `EarlyStopping`, and an epoch that was not finished: it is done
    again.

        >>> import keras, numpy as np
        >>> from trainer import KeeperCallback
        >>> model = keras.Sequential([keras.layers.Input([1]), keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> callback = KeeperCallback("runs/mine", best="loss:min", keep_recent=3)
        >>> x = np.ones([8, 1])
        >>> _ = model.fit(x, x, epochs=2, callbacks=[callback], verbose=0)
        >>> model.fit(x, x, epochs=5, callbacks=[callback], verbose=0).epoch
        [2, 3, 4]

    Args:
      directory: of the run; made if it is not there.
      best: `name:min|max[:count]` of the epoch's logs, or several; the first counts.
      keep_recent: how many of the newest to keep.
      restore_best: whether the model has the best weights when `fit` ends.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        best: str | Sequence[str] = (),
        keep_recent: int = 3,
        restore_best: bool = False,
    ) -> None:
        super().__init__()
        self._directory = directory
        self._best = best
        self._keep_recent = keep_recent
        self._restore_best = restore_best
        self._keeper: Keeper | None = None

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Restores the newest good checkpoint, and goes on at its epoch.

        Raises:
          NotBuiltError: the model has no variables yet.
          locks.LockedError: another process trains there.
          store.NoUsableCheckpointError: there are checkpoints, and all are damaged.
          compatibility.IncompatibleCheckpointError: they are of another model.
        """
        del logs
        if not self.model.built:
            raise NotBuiltError(
                f"the model {self.model.name!r} is not built when fit() begins: it has "
                "no variables yet that a checkpoint could be restored into. Give it an "
                "Input layer, or call model.build(input_shape) before model.fit()."
            )
        if not self.model.optimizer.built:
            self.model.optimizer.build(self.model.trainable_variables)
        checkpoint = tf.train.Checkpoint(
            model=self.model,
            optimizer=self.model.optimizer,
            keras_random=global_seed_state(),
        )
        self._keeper = Keeper(
            self._directory,
            checkpoint,
            best=self._best,
            keep_recent=self._keep_recent,
        )
        found = self._keeper.restore()
        begin_at_epoch(self.model, found.step if found else None)
        if found is not None:
            logging.info(
                "resumed %s after epoch %d: %s",
                self._directory,
                found.step,
                ", ".join(f"{k} {v:.4g}" for k, v in found.metrics.items()),
            )

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Saves, behind the training.

        Raises:
          store.SaveError: the last two saves failed.
        """
        if self._keeper is not None:
            measured = {name: float(value) for name, value in (logs or {}).items()}
            self._keeper.save(epoch + 1, measured)

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Waits for the last save.

        Raises:
          store.SaveError: it failed.
        """
        del logs
        begin_at_epoch(self.model, None)
        keeper, self._keeper = self._keeper, None
        if keeper is None:
            return
        with keeper:
            keeper.wait()
            if self._restore_best:
                keeper.restore("best")
