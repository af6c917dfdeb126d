"""The root of what Keepstep raises: `except trainer.KeepstepError` catches all of it.

Each error lives where it is raised and is a standard one as well, such as `ValueError`.
Its message says what happened, what was expected and what to do.
"""

from __future__ import annotations


class KeepstepError(Exception):
    """What Keepstep refuses, or could not do."""
