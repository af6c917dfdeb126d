"""The options of one start of a run, of which nothing is recorded.

>>> from trainer.config import start
>>> start.StartOptions(allow_change=("learning_rate",)).resume
'auto'
"""

from __future__ import annotations

import dataclasses

from trainer.config.fields import COMMAND, Checked, option


@dataclasses.dataclass(frozen=True, kw_only=True)
class StartOptions(Checked):
    """What one start of a run is told; nothing of it is recorded."""

    # fmt: off
    resume: str = option(
        "auto", COMMAND, "",
        "Resume from the newest good checkpoint if there is one (auto), refuse to "
        "start if there is one (never), or if there is none (require).",
        choices=("auto", "never", "require")
    )
    allow_change: tuple[str, ...] = option(
        (), COMMAND, "NAME",
        "Option or hyperparameter that may differ from the one recorded by the run. "
        "Repeatable."
    )
    checkpoint: str = option(
        "", COMMAND, "CHECKPOINT",
        "Checkpoint to go back to: best, best:METRIC, latest, step:N or a path. Later "
        "ones are moved to abandoned/.", absent="resume from the newest"
    )
    require_same_machine: bool = option(
        False, COMMAND, "",
        "Refuse to resume where the kind of CPU, the devices or the versions of the "
        "libraries are not those that saved the checkpoint."
    )
    hook: tuple[str, ...] = option(
        (), COMMAND, "NAME",
        "Listener outside the training: csv, command(LINE), package.module:Class or "
        "path/to/file.py:Class, an argument in parentheses. Repeatable."
    )
    # fmt: on
