"""AutoGraph converts the Python of tasks, and not the framework's own.

    >>> import tensorflow as tf
    >>> from trainer.compat import autograph
    >>> def halved(x):
    ...     while x > 1:
    ...         x = x / 2
    ...     return x
    >>> traced = tf.function(autograph.converted(halved), autograph=False)
    >>> float(traced(tf.constant(6.0)))
    0.75

An `if` or a `for` over tensors works in a task as in any `tf.function`. The framework
itself is written without them, except for its train loop; to convert the rest, too,
made every start of a run slower by two seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import tensorflow as tf

_F = TypeVar("_F", bound=Callable[..., object])

# Private: the class attribute by which an exception passes through converted code as
# it is. Reason: AutoGraph makes another exception of the same class from the message
# alone, or, where the constructor takes more, one of another class. Risk: if the name
# goes, messages of `TaskError` gain a traceback of generated code; nothing breaks.
# Public alternative: none.
PASS_THROUGH = "ag_pass_through"


def unconverted(function: _F) -> _F:
    """The function as it stands, with all that it calls, also in converted code.

    Public: `tf.autograph.experimental.do_not_convert`.
    """
    result: _F = tf.autograph.experimental.do_not_convert(function)
    return result


def converted(function: _F) -> _F:
    """The function converted, with all that it calls, also in unconverted code.

    Private: `tf.__internal__.autograph.tf_convert`, `control_status_ctx` and the
    class of what that gives.

    Reason: what calls a task is unconverted, and conversion begins at the task.
    Risk: if a name goes, nothing can be traced; the first test says so.
    Public alternative: `tf.autograph.to_graph` maps no error back to the user's file
    and line, and refuses what AutoGraph leaves as it is: objects that can be called,
    functions without source.
    """
    autograph = tf.__internal__.autograph
    context = autograph.control_status_ctx()
    enabled = type(context)(status=type(context.status).ENABLED)
    result: _F = autograph.tf_convert(function, enabled)
    return result
