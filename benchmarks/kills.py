"""The campaign of kills: every shipped task under many SIGKILLs, compared bit for bit.

    python benchmarks/kills.py --kills=500

Each task that has a flagfile in models/ is proven as `run.py prove` does it, with its
share of the kills. Its processes are forked from one that has imported TensorFlow, and
run `run.py` from its first line: that spares half of the time. Prints one table, and
exits with 1 if anything differed. Allow five seconds a kill. What comes after `--` is
given to every run, e.g. `-- --steps=100`.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import sys
import tempfile
from collections import Counter
from typing import Any

from absl import logging

from trainer.inspection import proof

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import forking  # noqa: E402


def start(command: list[str], *, stdout: Any, stderr: Any, env: Any) -> Any:
    """A process of `run.py`, as `subprocess.Popen` would start it."""
    line, files = [forking.PROGRAM, *command], {"stdout": stdout, "stderr": stderr}
    return forking.Process(line, ROOT, environment=env, **files)


def main() -> int:
    """Proves each task in turn."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=200, help="over all tasks")
    parser.add_argument("--task", help="of a flagfile in models/; all, if not given")
    parser.add_argument("arguments", nargs="*", help="for each run")
    choices = parser.parse_args()
    logging.set_verbosity(logging.INFO)
    flagfiles = sorted((ROOT / "models").glob(f"{choices.task or '*'}.flags"))
    share = -(-choices.kills // len(flagfiles))
    kills: Counter[str] = Counter()
    failed = False
    for number, flagfile in enumerate(flagfiles):
        command = ["train", f"--flagfile={flagfile}", *choices.arguments]
        with tempfile.TemporaryDirectory(prefix="keepstep-kills-") as directory:
            verdict = proof.prove(
                command, pathlib.Path(directory), kills=share, seed=number, start=start
            )
        kills.update(verdict.kills)
        print(f"{flagfile.stem}: {verdict.compared}")
        for difference in verdict.differences:
            failed = True
            print(f"  {difference}")
    for phase, count in kills.items():
        print(f"{count:6} kills in {phase}")
    print(f"{kills.total():6} kills, {'NOT EXACT' if failed else '0 differences'}")
    return int(failed)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.exit(main())
