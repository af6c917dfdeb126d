"""What a run depends on besides its choices: the data, the code and the machine.

Each is recorded at the first start and compared at each later one, so that a difference
is refused or told before the first step.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from absl import logging

from trainer import data
from trainer.checkpoint import environment
from trainer.checkpoint.layout import RunDirectory
from trainer.checkpoint.manifest import Manifest
from trainer.checkpoint.prepared_file import FACT
from trainer.compat.datasets import chain, functions
from trainer.config.options import ConfigError
from trainer.config.run_record import Record
from trainer.data import fingerprint, specs
from trainer.data.adapt import Adapted
from trainer.data.inputs import Input
from trainer.data.prepared import Prepared
from trainer.data.several import Several
from trainer.data.stream import Stream
from trainer.model import preparation
from trainer.model.fingerprint import digest
from trainer.model.state import State
from trainer.model.steps import TrainLoop
from trainer.task import Task

_MOST_OF_A_RECIPE = 1_000_000  # it is in a file that is written at each record


def of_data(sources: Any, examples: Any) -> dict[str, Any]:
    """The outline of the training data, and what can be told of each split; JSON.

    Args:
      sources: of the task, by split.
      examples: the split `train`.
    """
    if isinstance(examples, Several):
        outline = examples.outline()
    elif isinstance(examples, Adapted):
        outline = examples.outline
    else:
        outline = f"{len(examples)} examples"
    return {"train_data": outline, "data": fingerprint.fingerprint(sources)}


def with_prepared(
    record: Record, task: Task, sources: Mapping[str, Any], directory: RunDirectory
) -> tuple[Task, Record]:
    """The task with what it learns from its data: now, or when the run began.

    Raises:
      prepared_file.PreparedError: that is lost, and can't be made again.
      task.TaskError: it gives what no file can hold.
    """
    task, digest = preparation.begun(
        task,
        sources,
        directory.prepared,
        digest=record.choices["facts"].get(FACT, ""),
        seed=record.choices["seed"],
    )
    if not digest:
        return task, record
    told = "what is learned from the data before training is another one"
    return task, record.with_fact(FACT, digest, allowed=True, problem=told, allow="")


def with_batches(record: Record, training: Any, examples: Any, task: Task) -> Record:
    """The record with the outlines from which networks are built without the data.

    Args:
      record: of the run.
      training: the outline of a batch.
      examples: of an evaluation.
      task: of the run.
    """
    if isinstance(examples, Several):  # then there is no evaluation
        return dataclasses.replace(record, batches=None)
    evaluated = data.ordered(examples, 1, task)
    outlines = {"training": training, "evaluated": evaluated.element_spec[0]}
    found = {name: specs.written(one) for name, one in outlines.items()}
    whole = None if None in found.values() else found
    return dataclasses.replace(record, batches=whole)


def with_recipe(record: Record, sources: Mapping[str, Any]) -> Record:
    """The record with how images or tables are read, for `predict --data`."""
    examples = sources.get("valid", sources["train"])
    recipe = getattr(examples, "recipe", None)
    try:
        text = json.dumps(recipe)
    except (TypeError, ValueError):  # categories that are dates, for one
        text = "null"
    if len(text) > _MOST_OF_A_RECIPE:
        logging.info(
            "the categories of the data are too many to be recorded (%d bytes of at "
            "most %d): --data takes what the networks take",
            len(text),
            _MOST_OF_A_RECIPE,
        )
        text = "null"
    recipe = json.loads(text)
    return dataclasses.replace(record, recipe=recipe)


def with_stream(record: Record, inputs: Input, *, allowed: bool) -> Record:
    """Opens a training stream and compares its first examples.

    Raises:
      stream.StreamError: its position can't be saved.
      options.ConfigError: they are other ones, and that is not allowed.
    """
    if not isinstance(inputs, Stream):
        return record
    return record.with_fact(
        "first_examples",
        inputs.check(),
        allowed=allowed,
        problem="the training stream begins with other examples (if a utility shuffles "
        "its files, give it seed=1, or shuffle=False)",
        allow="data",
    )


def with_code(
    record: Record,
    train_loop: TrainLoop,
    inputs: Input,
    state: State,
    *,
    allowed: bool,
) -> Record:
    """Compares the traced train loop and input and the optimizers' settings.

    Raises:
      options.ConfigError: they are other ones, and that is not allowed.
    """
    ahead = chain(inputs.dataset) if isinstance(inputs, Prepared) else ()
    prepared = [function for one in ahead for function in functions(one)]
    return record.with_fact(
        "code",
        digest(train_loop.traced, state.optimizers, *prepared),
        allowed=allowed,
        problem="the task's code or constants changed: it traces another graph (a "
        "constant that is drawn, or read from the clock or the environment, is another "
        "one at each start)",
        allow="code",
    )


def check_machine(record: Record, found: Manifest | None, *, required: bool) -> Record:
    """Tells what of the machine and the versions is different since a checkpoint.

    Args:
      record: of the run.
      found: the checkpoint that the run goes on from.
      required: whether nothing may be different.

    Raises:
      options.ConfigError: something is, and nothing may be.
    """
    if found is None:
        return record
    different = environment.differences(found.versions, found.machine)
    if not different:
        return record
    lines = "\n".join(f"  {k}: {v[0]} then, {v[1]} now" for k, v in different.items())
    text = f"the machine is not the one that saved step {found.step}:\n{lines}"
    if required:
        raise ConfigError(
            f"{text}\nThe same bits need the same one (--require_same_machine). Go "
            "back to it, or leave the option out to go on here."
        )
    logging.warning("%s\nFrom here on the bits may be other ones.", text)
    return record.noted(machine={k: list(v) for k, v in different.items()})
