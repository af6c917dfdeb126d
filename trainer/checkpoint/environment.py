"""What decides the bits besides the code and the choices: versions and the machine.

    >>> from trainer.checkpoint import environment
    >>> environment.use_threads(environment.threads())     # before TensorFlow begins
    >>> list(environment.differences({"python": "3.9.1"}, environment.machine()))
    ['python']

The same run gives the same bits with the same number of threads per op, whatever the
number of cores. Other versions, another kind of CPU and other devices may give others.
"""

from __future__ import annotations

import functools
import os
import pathlib
import platform
import re
from collections.abc import Mapping

import keras
import numpy as np
import tensorflow as tf

from trainer.base import version
from trainer.base.errors import KeepstepError

# The instruction sets for which the libraries below TensorFlow have code of their own.
_INSTRUCTIONS = re.compile(
    r"sse4_2|avx(2|_vnni|512(f|bw|vl|_vnni|_bf16|_fp16))?|fma|amx_(tile|bf16|int8)"
    r"|asimd(dp)?|sve|bf16|i8mm"
)


class ThreadsError(KeepstepError, RuntimeError):
    """TensorFlow has begun already, with another number of threads."""


def cores() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0))


def use_threads(count: int) -> None:
    """Has TensorFlow use so many threads per op, from its beginning.

    Raises:
      ThreadsError: it has begun with another number.
    """
    try:
        tf.config.threading.set_intra_op_parallelism_threads(count)
    except RuntimeError:
        now = threads()
        if now != count:
            raise ThreadsError(
                f"TensorFlow has begun in this process with {now} threads per op, and "
                f"this run needs {count}: the bits depend on it. Call "
                f"tf.config.threading.set_intra_op_parallelism_threads({count}) before "
                "anything else of TensorFlow, or start a process of its own."
            ) from None


def threads() -> int:
    """The threads per op."""
    return tf.config.threading.get_intra_op_parallelism_threads() or cores()


@functools.cache
def versions() -> dict[str, str]:
    """Of the libraries that make the numbers."""
    return {
        "keepstep": version.__version__,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


@functools.cache
def machine() -> dict[str, str]:
    """Of the machine, what may decide the bits."""
    return {
        "cpu": _cpu_entry("model name") or platform.processor() or platform.machine(),
        "instructions": _instructions(),
        "onednn": os.environ.get("TF_ENABLE_ONEDNN_OPTS", "default"),
        "threads": str(threads()),
        "devices": ", ".join(_devices()),
    }


def differences(
    saved_versions: Mapping[str, str], saved_machine: Mapping[str, str]
) -> dict[str, tuple[str, str]]:
    """What is different now: by name, then and now; only what was recorded then."""
    pairs = [(saved_versions, versions()), (saved_machine, machine())]
    return {
        name: (then[name], now[name])
        for then, now in pairs
        for name in now
        if name in then and name != "keepstep" and then[name] != now[name]
    }


def _devices() -> list[str]:
    found = []
    for device in tf.config.list_logical_devices():
        if device.device_type == "GPU":
            physical = tf.config.list_physical_devices("GPU")[0]
            details = tf.config.experimental.get_device_details(physical)
            found.append(str(details.get("device_name", "GPU")))
        else:
            found.append(device.device_type)
    return found


def _instructions() -> str:
    there = (_cpu_entry("flags") or _cpu_entry("Features")).split()
    return " ".join(sorted(name for name in there if _INSTRUCTIONS.fullmatch(name)))


def _cpu_entry(name: str) -> str:
    """A line of what Linux says of the first processor."""
    try:
        text = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return ""
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""
