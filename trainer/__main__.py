"""The program: `keepstep` where it is installed, `python -m trainer`, and `run.py`."""

from __future__ import annotations

import sys

from trainer.commands import cli, console
from trainer.config import options, shipped


def main(package: str = "") -> int:
    """Runs the command of `sys.argv`; gives the exit code.

    Args:
      package: where the registered tasks are; the shipped ones, if not given.
    """
    try:
        package = package or shipped.tasks_package()
        arguments = shipped.with_flagfiles(sys.argv, package)
    except options.ConfigError as error:
        console.say(f"{type(error).__name__}: {error}", error=True)
        return console.WRONG
    return cli.main(arguments, package=package)


if __name__ == "__main__":
    sys.exit(main())
