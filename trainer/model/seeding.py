"""The random state and the names that a process begins with.

>>> import keras
>>> from trainer.model import seeding
>>> seeding.begin_anew(7)
>>> first = keras.random.uniform([]).numpy()
>>> seeding.begin_anew(7)
>>> bool(keras.random.uniform([]).numpy() == first)
True
"""

from __future__ import annotations

import keras
import tensorflow as tf


def begin_anew(seed: int) -> None:
    """Seeds every generator of the process, and lets Keras count its names anew.

    Names of layers count up in a process; begun anew, they are the same in each.
    """
    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    generator = tf.random.Generator.from_seed(seed, alg="philox")
    tf.random.set_global_generator(generator)
