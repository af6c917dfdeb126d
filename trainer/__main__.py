"""The program, installed: `keepstep`, or `python -m trainer`."""

from __future__ import annotations

import sys

from trainer.commands import cli


def main() -> int:
    """Runs the command of `sys.argv`; gives the exit code."""
    return cli.main(sys.argv)


if __name__ == "__main__":
    sys.exit(main())
