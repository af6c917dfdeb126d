"""What the store saves and restores: any tree, whatever it is made of."""

from __future__ import annotations

from typing import Any, Protocol

from trainer.checkpoint.manifest import Variable


class Saveable(Protocol):
    """What a checkpoint is made of, and restored into."""

    @property
    def tree(self) -> Any:
        """The `tf.train.Checkpoint` of everything."""

    @property
    def advice(self) -> str:
        """For the user whose objects don't fit the checkpoint."""

    @property
    def later(self) -> tuple[str, ...]:
        """The beginnings of names that checkpoints of earlier releases don't have."""

    def describe(self) -> tuple[Variable, ...]:
        """Its variables as a manifest lists them."""

    def pack(self) -> None:
        """Puts what lives in Python into the tree; called before each save."""

    def restore(self, prefix: str) -> None:
        """Puts the saved values into every variable of the tree.

        Raises:
          Exception: they don't fit, or the bytes are damaged.
        """
