"""What a process has one of: Keras' names and seeds, TensorFlow's, op determinism.

>>> import random
>>> from trainer.compat import session
>>> before = random.getstate()
>>> with session.borrowed():
...     random.seed(5)                    # begin anew as you like
>>> random.getstate() == before           # and so are names, seeds and generators
True
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import tensorflow as tf
from keras.src.backend.common import global_state
from tensorflow.python.eager import context
from tensorflow.python.framework import config

from trainer.compat import networks

RNG = "_rng"
_TRACKER = "GLOBAL_STATE_TRACKER"


@contextlib.contextmanager
def borrowed() -> Iterator[None]:
    """Puts back, in the end, what the block changes for the whole process.

    Private: Keras' `global_state.GLOBAL_STATE_TRACKER` and `GLOBAL_SETTINGS_TRACKER`;
    of TensorFlow's context the attributes `_seed` and `_rng`; of its `config`
    `is_op_determinism_enabled` and `disable_op_determinism`.

    Reason: a run begins names and seeds anew, and the other models of a notebook go on
    with theirs. Risk: if a name goes, `trainer.train` fails; the commands don't use it.
    Public alternative: seeds can be set, not read; names can be begun anew only.
    """
    trackers = (_TRACKER, "GLOBAL_SETTINGS_TRACKER")
    keras_state = [getattr(global_state, name) for name in trackers]
    python_state, numpy_state = random.getstate(), np.random.get_state()
    generator = tf.random.get_global_generator()
    eager = context.context()
    # There is no `_rng` before the first seed is set.
    seed, numbers = eager._seed, getattr(eager, RNG, None)
    deterministic = config.is_op_determinism_enabled()
    try:
        yield
    finally:
        for name, state in zip(trackers, keras_state, strict=True):
            setattr(global_state, name, state)
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        tf.random.set_global_generator(generator)
        eager._seed = seed
        if numbers is not None:
            eager._rng = numbers
        if not deterministic:
            config.disable_op_determinism()


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Puts back, in the end, what the next random numbers depend on.

        >>> import numpy as np
        >>> from trainer.compat import session
        >>> np.random.seed(3)
        >>> with session.undisturbed():
        ...     _ = np.random.rand(9)
        >>> float(np.random.rand())
        0.5507979025745755

    Those of Python, NumPy, TensorFlow and Keras, with Keras' policies. It costs a tenth
    of a millisecond, so it can stand around calls of foreign code.

    Private, reason, risk and public alternative: as of `borrowed`.
    """
    generator = tf.random.get_global_generator()
    # That of Keras is made, and drawn, when it is first asked for.
    variables = (generator.state, networks.global_seed_state().value)
    tracker = getattr(global_state, _TRACKER)
    attributes = dict(vars(tracker))
    values = [variable.numpy() for variable in variables]
    eager = context.context()
    seed, numbers = eager._seed, getattr(eager, RNG, None)
    drawn = numbers.getstate() if numbers is not None else None
    python_state, numpy_state = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        setattr(global_state, _TRACKER, tracker)
        vars(tracker).clear()
        vars(tracker).update(attributes)
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        tf.random.set_global_generator(generator)
        for variable, value in zip(variables, values, strict=True):
            if variable.numpy().tobytes() != value.tobytes():
                variable.assign(value)
        eager._seed = seed
        if numbers is not None:
            numbers.setstate(drawn)
            eager._rng = numbers
