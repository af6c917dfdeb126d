"""Trains, evaluates and looks after runs: `python run.py --help`."""

import sys

from trainer.commands import cli

if __name__ == "__main__":
    sys.exit(cli.main(sys.argv, package="models"))
