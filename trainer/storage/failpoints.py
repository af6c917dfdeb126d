"""Places where a test may kill the process: the moments that are hard to hit by chance.

`KEEPSTEP_KILL_AT=promotion@2` in the environment makes the process send itself SIGKILL
when it comes to the point `promotion` for the second time. `storage@17` counts every
`storage.*` point. `python run.py prove` and the tests use it; otherwise a point costs
one comparison.
"""

from __future__ import annotations

import os
import signal

VARIABLE = "KEEPSTEP_KILL_AT"
_name, _, _count = os.environ.get(VARIABLE, "").partition("@")
_left = int(_count or 1)


def point(name: str) -> None:
    """Dies here, without a chance to clean up, if this is the armed point."""
    global _left
    if not _name or not (name == _name or name.startswith(f"{_name}.")):
        return
    _left -= 1
    if _left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
