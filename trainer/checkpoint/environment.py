"""What makes the numbers besides the code and the choices: versions, the machine."""

from __future__ import annotations

import platform

import keras
import tensorflow as tf

import trainer


def versions() -> dict[str, str]:
    """Of what makes the numbers."""
    return {
        "keepstep": trainer.__version__,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "python": platform.python_version(),
    }


def machine() -> dict[str, str]:
    """Of the machine: nothing that is compared yet."""
    return {}
