"""Everything that must survive a kill, by name; `steps` shows it at work.

TensorFlow doesn't reach all that training changes by itself: not the seeds of dropout
layers, nor layers in a plain list. So each network is saved twice over, as an object
and as the plain list of all its variables; a shared variable is stored once.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any, final

import keras
import tensorflow as tf

from trainer.checkpoint import manifest
from trainer.checkpoint.reader import Reader
from trainer.compat.networks import global_seed_state
from trainer.model import learning_rates, names, optimizers, tables
from trainer.model.contract import network_items
from trainer.model.ema import NAME, Averages, averaged
from trainer.model.norms import Norms
from trainer.model.optimizers import Given
from trainer.model.progress import Progress
from trainer.model.tree_parts import add, check_shapes, metrics, own_parts

_LATER = "norms"  # since 0.2.0


@final
class State:
    """One tree of everything that training changes. Use `building.build`.

    Attributes:
      step: int64 variable; training steps done.
      skipped: int64 variable; steps whose data was passed over by rewinds.
      networks: what `task.networks()` gave, built.
      optimizers: by name, built for the variables that each trains.
      trained: by optimizer, the variables that it trains.
      norms: of the gradients that each optimizer applied since the last report.
      totals: float64 variables: the sum of each training value since the last report,
        of its weights where it has any, and under `examples` over how many.
      metrics: in the task's own state; an evaluation begins them anew.
      averages: moving averages of the networks' variables; none without `ema`.
      progress: what lives in Python; JSON in the checkpoint.
      tree: the `tf.train.Checkpoint` of all this.
    """

    def __init__(
        self,
        *,
        networks: Any,
        given: Mapping[str, Given],
        sum_names: Iterable[str],
        extra: Mapping[str, Any],
        iterator: Any = None,
        ema: float = 0.0,
    ) -> None:
        items = network_items(networks)
        self._network_names = tuple(items)
        self.networks = networks
        self.optimizers = {name: one.optimizer for name, one in given.items()}
        self.trained = {
            name: optimizers.variables(name, one.over, items, extra)
            for name, one in given.items()
        }
        for name, optimizer in self.optimizers.items():
            optimizer.build(self.trained[name])
        self.learning_rates = {
            k: learning_rates.constant(o) for k, o in self.optimizers.items()
        }
        self.step = tf.Variable(0, dtype=tf.int64, name="step")
        self.skipped = tf.Variable(0, dtype=tf.int64, name="skipped")
        self.totals = {
            name: tf.Variable(0.0, dtype=tf.float64, name=name) for name in sum_names
        }
        self.norms = Norms(self.optimizers)
        self.averages = Averages(items, decay=ema)
        self.progress = Progress()
        self.metrics = metrics(extra)
        self._packed = tf.Variable("{}", dtype=tf.string, name="progress")
        self.tree = self._make_tree(items, extra, iterator)
        for node in tf.train.TrackableView(self.tree).descendants():
            tables.save_sorted(node)
        check_shapes(self._named)

    def _make_tree(
        self, items: Mapping[str, keras.Model], extra: Mapping[str, Any], iterator: Any
    ) -> tf.train.Checkpoint:
        children = self._own_parts(extra, iterator)
        own = set(children)
        for name, network in items.items():
            add(children, names.variables_part(name), list(network.variables))
            add(children, name, network)
        self._network_parts = {k: v for k, v in children.items() if k not in own}
        for name, optimizer in self.optimizers.items():
            add(children, names.optimizer_part(name), optimizer)
        self._children = children
        return tf.train.Checkpoint(**children)

    def _own_parts(self, extra: Mapping[str, Any], iterator: Any) -> dict[str, Any]:
        """What is neither a network nor an optimizer."""
        children: dict[str, Any] = {
            "step": self.step,
            "skipped": self.skipped,
            "progress": self._packed,
            "random": tf.random.get_global_generator(),
            # What keras.random draws from where no seed is given.
            "keras_random": global_seed_state(),
            "totals": self.totals,
            _LATER: self.norms.variables,
            "task": own_parts(extra),
        }
        self._evaluated_parts = {
            "random": children["random"],
            "keras_random": children["keras_random"],
            "task": own_parts(extra, metrics_too=False),
        }
        if self.averages.variables:
            children[NAME] = list(self.averages.variables.values())
        if iterator is not None:
            children["input"] = iterator
        return children

    @property
    def advice(self) -> str:
        """For the user whose task doesn't fit the checkpoint."""
        return (
            "The task builds another state than the one that was saved: start with the "
            "same flags (config.json in the run directory) and the same code, or give "
            "another --run_dir."
        )

    @property
    def later(self) -> tuple[str, ...]:
        """The beginnings of names that checkpoints of earlier releases don't have."""
        return (f"{_LATER}/",)

    def pack(self) -> None:
        """Puts what lives in Python into the tree; call it before each save."""
        self._packed.assign(self.progress.to_json())
        # The manager adds one. So the counter, too, depends on the step alone.
        self.tree.save_counter.assign(self.step - 1)

    def restore(self, prefix: str) -> None:
        """Puts the saved values into every variable of the tree.

        Raises:
          AssertionError: something in the tree or in the checkpoint has no match.
          tf.errors.DataLossError, ...: the bytes are damaged.
        """
        tree = self.tree
        if not Reader(prefix).has(_LATER):
            kept = {k: one for k, one in self._children.items() if k != _LATER}
            tree = tf.train.Checkpoint(**kept)
            self.norms.take()
        tree.restore(prefix).assert_consumed()
        self.progress = Progress.from_json(self._packed.numpy())

    def restore_networks(self, prefix: str) -> None:
        """Puts the saved values into all that an evaluation or a prediction reads.

        The networks, with their averages if there are any, the random generators and
        the task's own state without its metrics, which begin anew.

        Raises:
          AssertionError: a variable of a network has no match in the checkpoint.
        """
        others = tf.train.Checkpoint(**self._evaluated_parts)
        others.read(prefix).expect_partial()
        reader = tf.train.Checkpoint(**self._network_parts)
        reader.read(prefix).assert_existing_objects_matched().expect_partial()
        saved = Reader(prefix)
        if saved.has(NAME):
            live = averaged(network_items(self.networks))
            averages = saved.listed(NAME)
            for variable, average in zip(live.values(), averages, strict=True):
                variable.assign(average)

    def current_learning_rates(self) -> dict[str, float]:
        """By tag: `learning_rate`, or `learning_rate/<optimizer>` for several."""
        return learning_rates.current(self.optimizers)

    def variables(self) -> dict[str, tf.Variable]:
        """Every variable of the tree by its name for people, the networks' first."""
        return dict(self._named)

    @functools.cached_property
    def _named(self) -> dict[str, tf.Variable]:
        """Found once: the tree does not change its structure."""
        return names.of_all(
            networks=network_items(self.networks),
            optimizers=self.optimizers,
            averages=self.averages.variables,
            tree=self.tree,
        )

    def of_network(self, path: str) -> bool:
        """Whether a variable of that name belongs to a network."""
        return path.startswith(tuple(f"{name}/" for name in self._network_names))

    def of_evaluation(self, path: str) -> bool:
        """Whether `restore_networks` restores a variable of that name, by name."""
        own = tuple(f"task/{name}" for name in self._evaluated_parts["task"])
        return self.of_network(path) or path.startswith(own)

    def describe(self) -> tuple[manifest.Variable, ...]:
        """The variables as a manifest lists them."""
        return self._described

    @functools.cached_property
    def _described(self) -> tuple[manifest.Variable, ...]:
        return tuple(
            manifest.Variable(name, tuple(v.shape.as_list()), v.dtype.name)
            for name, v in self._named.items()
        )
