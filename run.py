"""Trains, evaluates and looks after runs: `python run.py --help`."""

import sys

from trainer.__main__ import main

if __name__ == "__main__":
    sys.exit(main(package="models"))
