"""Everything that must survive a kill, by name.

    current = state.build(task, batch, seed=0)    # networks and optimizers, built
    current.restore("runs/a/recent/ckpt-1200")    # all of it, or an error

What TensorFlow reaches by itself is not all that training changes: the seeds of dropout
layers, and layers in a plain list, are out of its sight. So each network is saved
twice over, as an object and as the plain list of all its variables; TensorFlow stores
a shared variable once.
"""

from __future__ import annotations

import collections
import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, final

import keras
import tensorflow as tf

from trainer.checkpoint import manifest
from trainer.checkpoint.reader import Reader
from trainer.compat import tracking
from trainer.compat.networks import global_seed_state
from trainer.model.ema import NAME, Averages, averaged
from trainer.model.progress import Progress
from trainer.task import (
    Batch,
    Task,
    TaskError,
    checked_values,
    loss_of,
    network_items,
    optimizer_items,
)


@final
class State:
    """One tree of everything that training changes. Use `build`.

    Attributes:
      step: int64 variable; training steps done.
      skipped: int64 variable; steps whose data was passed over by rewinds.
      networks: what `task.networks()` gave, built.
      optimizers: by name, built for the variables that each trains.
      trained: by optimizer, the variables that it trains.
      totals: float64 variables: the sum of each training value since the last report,
        and under `examples` over how many.
      averages: moving averages of the networks' variables; none without `ema`.
      progress: what lives in Python; JSON in the checkpoint.
      tree: the `tf.train.Checkpoint` of all this.
    """

    def __init__(
        self,
        *,
        networks: Any,
        optimizers: Mapping[str, keras.optimizers.Optimizer],
        value_names: Iterable[str],
        extra: Mapping[str, Any],
        iterator: Any = None,
        ema: float = 0.0,
    ) -> None:
        items = network_items(networks)
        self._network_names = tuple(items)
        self.networks = networks
        self.optimizers = dict(optimizers)
        self.trained = {k: _trained_by(k, items) for k in self.optimizers}
        for name, optimizer in self.optimizers.items():
            optimizer.build(self.trained[name])
        self.learning_rates = {k: _learning_rate(o) for k, o in optimizers.items()}
        self.step = tf.Variable(0, dtype=tf.int64, name="step")
        self.skipped = tf.Variable(0, dtype=tf.int64, name="skipped")
        self.totals = {
            name: tf.Variable(0.0, dtype=tf.float64, name=name)
            for name in (*value_names, "examples")
        }
        self.averages = Averages(items, decay=ema)
        self.progress = Progress()
        self._packed = tf.Variable("{}", dtype=tf.string, name="progress")
        children: dict[str, Any] = {
            "step": self.step,
            "skipped": self.skipped,
            "progress": self._packed,
            "random": tf.random.get_global_generator(),
            # What keras.random draws from where no seed is given.
            "keras_random": global_seed_state(),
            "totals": self.totals,
            "task": {name: _trackable(name, one) for name, one in extra.items()},
        }
        if ema:
            children[NAME] = list(self.averages.variables.values())
        if iterator is not None:
            children["input"] = iterator
        own = set(children)
        for name, network in items.items():
            _add(children, variables_part(name), list(network.variables))
            _add(children, name, network)
        self._network_parts = {k: v for k, v in children.items() if k not in own}
        for name, optimizer in self.optimizers.items():
            _add(children, _optimizer_part(name), optimizer)
        self.tree = tf.train.Checkpoint(**children)

    @property
    def advice(self) -> str:
        """For the user whose task doesn't fit the checkpoint."""
        return (
            "The task builds another state than the one that was saved: start with the "
            "same flags (config.json in the run directory) and the same code, or give "
            "another --run_dir."
        )

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
        self.tree.restore(prefix).assert_consumed()
        self.progress = Progress.from_json(self._packed.numpy())

    def restore_networks(self, prefix: str) -> None:
        """Puts the saved values into the networks alone, averages where there are any.

        Raises:
          AssertionError: a variable of a network has no match in the checkpoint.
        """
        reader = tf.train.Checkpoint(**self._network_parts)
        reader.read(prefix).assert_existing_objects_matched().expect_partial()
        saved = Reader(prefix)
        if saved.has(NAME):
            live = averaged(network_items(self.networks))
            averages = saved.listed(NAME)
            for variable, average in zip(live.values(), averages, strict=True):
                variable.assign(average)

    def apply_learning_rates(self) -> dict[str, tuple[float, float]]:
        """Gives the configured learning rates precedence over the restored ones.

        Returns:
          By optimizer, where they differ: the restored and the configured one.
        """
        changed = {}
        for name, configured in self.learning_rates.items():
            restored = _learning_rate(self.optimizers[name])
            if configured is not None and restored not in (None, configured):
                self.optimizers[name].learning_rate = configured
                changed[name] = (float(restored or 0), configured)
        return changed

    def current_learning_rates(self) -> dict[str, float]:
        """By tag: `learning_rate`, or `learning_rate/<optimizer>` for several."""
        alone = len(self.optimizers) == 1
        return {
            "learning_rate" if alone else f"learning_rate/{name}": float(
                tf.convert_to_tensor(optimizer.learning_rate).numpy()
            )
            for name, optimizer in self.optimizers.items()
        }

    def variables(self) -> dict[str, tf.Variable]:
        """Every variable of the tree by the name that people know it by.

        Those of the networks come first, in the order of `network.variables`.
        """
        return dict(self._named)

    @functools.cached_property
    def _named(self) -> dict[str, tf.Variable]:
        """Found once: the tree does not change its structure."""
        named: list[tuple[str, tf.Variable]] = []
        for network, one in network_items(self.networks).items():
            named += [(f"{network}/{v.path}", v.value) for v in one.variables]
        for optimizer, one in self.optimizers.items():
            part, prefix = _optimizer_part(optimizer), f"{one.name}/"
            named += [
                (f"{part}/{v.path.removeprefix(prefix)}", v.value)
                for v in one.variables
            ]
        averages = self.averages.variables.items()
        named += [(f"{NAME}/{name}", v) for name, v in averages]
        known = {id(variable) for _, variable in named}
        named += [(path, v) for path, v in _walk(self.tree) if id(v) not in known]
        found: dict[str, tf.Variable] = {}
        for name, variable in named:
            unique, count = name, 1
            while unique in found:
                count += 1
                unique = f"{name}#{count}"
            found[unique] = variable
        return found

    def of_network(self, path: str) -> bool:
        """Whether a variable of that name belongs to a network."""
        return path.startswith(tuple(f"{name}/" for name in self._network_names))

    def describe(self) -> tuple[manifest.Variable, ...]:
        """The variables as a manifest lists them."""
        return self._described

    @functools.cached_property
    def _described(self) -> tuple[manifest.Variable, ...]:
        return tuple(
            manifest.Variable(name, tuple(v.shape.as_list()), v.dtype.name)
            for name, v in self._named.items()
        )


def build(
    task: Task,
    batch: Callable[[tf.Tensor], Batch],
    *,
    seed: int,
    iterator: Any = None,
    ema: float = 0.0,
) -> State:
    """Builds networks, then optimizers, then the tree: the order that loses nothing.

    Args:
      task: gives the parts.
      batch: the training input, from a step (int64 scalar); traced, not run.
      seed: of the initial weights and of every random generator.
      iterator: of the input, where that is a stream.
      ema: the decay of a moving average of the weights; 0: none is kept.

    Raises:
      task.TaskError: the task doesn't keep its side of the contract.
    """
    # Names of layers count up in a process; begun anew, they are the same in each.
    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    generator = tf.random.Generator.from_seed(seed, alg="philox")
    tf.random.set_global_generator(generator)
    networks = task.networks()

    def trace(step: tf.Tensor) -> dict[str, tf.Tensor]:
        return checked_values(task, networks, batch(step), True)

    # Builds every layer by tracing alone: no random state moves.
    spec = tf.TensorSpec([], tf.int64)
    concrete = tf.function(trace, autograph=False).get_concrete_function(spec)
    value_names = sorted(concrete.structured_outputs)
    optimizers = optimizer_items(task.optimizers())
    for name in optimizers:
        if loss_of(name) not in value_names:
            raise TaskError(
                f"{type(task).__name__}.values() gives no {loss_of(name)!r}, "
                f"which the optimizer {name!r} minimises; it gives "
                f"{', '.join(value_names)}."
            )
    return State(
        networks=networks,
        optimizers=optimizers,
        value_names=value_names,
        extra=task.state(networks),
        iterator=iterator,
        ema=ema,
    )


@contextlib.contextmanager
def unmoved(function: Any) -> Iterator[None]:
    """Puts back, in the end, what a concrete function may have moved.

    Such as the state of a recurrent layer, or of a generator. It costs no memory, but
    for what is moved.
    """
    variables = function.graph.variables
    before = [variable.read_value() for variable in variables]
    try:
        yield
    finally:
        for variable, value in zip(variables, before, strict=True):
            variable.assign(value)


def variables_part(network: str) -> str:
    """The part of the tree that is the plain list of a network's variables."""
    return "variables" if network == "model" else f"{network}_variables"


def _optimizer_part(name: str) -> str:
    return name if name == "optimizer" else f"{name}_optimizer"


def _trained_by(optimizer: str, networks: Mapping[str, keras.Model]) -> list[Any]:
    if optimizer == "optimizer":
        return [v for one in networks.values() for v in one.trainable_variables]
    if optimizer not in networks:
        raise TaskError(
            f"there is no network for the optimizer {optimizer!r}; the networks are "
            f"{', '.join(networks)}. Give both one name."
        )
    return list(networks[optimizer].trainable_variables)


def _learning_rate(optimizer: keras.optimizers.Optimizer) -> float | None:
    """A constant one as a number; a schedule is a function of the step, so None."""
    rate = optimizer.learning_rate
    return float(rate) if isinstance(rate, keras.Variable) else None


def _trackable(name: str, given: Any) -> Any:
    """A task's own state as what `tf.train.Checkpoint` can save."""
    if isinstance(given, keras.metrics.Metric):
        return list(given.variables)
    if isinstance(given, list | tuple):
        return [_trackable(name, one) for one in given]
    if not tracking.is_trackable(given):
        raise TaskError(
            f"state() gives {name!r} as {type(given).__name__}, which no checkpoint "
            "can hold; give variables, layers, metrics or other trackables."
        )
    return given


def _add(children: dict[str, Any], name: str, child: Any) -> None:
    if name in children:
        raise TaskError(
            f"a network or optimizer can't be called {name!r}: the state has a part of "
            f"that name already; taken are {', '.join(children)}."
        )
    children[name] = child


def _walk(tree: tf.train.Checkpoint) -> Iterable[tuple[str, tf.Variable]]:
    """Every variable of the tree once, with the shortest path to it."""
    tree.save_counter  # noqa: B018  made at first use; part of every checkpoint
    view = tf.train.TrackableView(tree)
    queue, seen = collections.deque([("", tree)]), {id(tree)}
    while queue:
        path, node = queue.popleft()
        if isinstance(node, keras.Variable):
            yield path, node.value
            continue
        if isinstance(node, tf.Variable):
            yield path, node
        for name, child in view.children(node).items():
            if id(child) not in seen:
                seen.add(id(child))
                queue.append((f"{path}/{name}".lstrip("/"), child))
