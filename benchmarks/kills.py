"""The campaign of kills: every shipped task under many SIGKILLs, compared bit for bit.

    python benchmarks/kills.py --kills=200

Each task that has a flagfile in models/ is proven by `run.py prove` with its share of
the kills. Prints one table, and exits with 1 if anything differed. Allow ten seconds a
kill. What comes after `--` is given to every `prove`, e.g. `-- --steps=300`.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import subprocess
import sys
from collections import Counter

ROOT = pathlib.Path(__file__).resolve().parents[1]


def main() -> int:
    """Proves each task in turn."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=200, help="over all tasks")
    parser.add_argument("arguments", nargs="*", help="for each `prove`")
    choices = parser.parse_args()
    flagfiles = sorted((ROOT / "models").glob("*.flags"))
    share = -(-choices.kills // len(flagfiles))
    kills: Counter[str] = Counter()
    failed = False
    for number, flagfile in enumerate(flagfiles):
        command = [sys.executable, ROOT / "run.py", "prove", f"--flagfile={flagfile}"]
        command += [f"--kills={share}", f"--seed={number}", "--format=json"]
        done = subprocess.run(
            [*command, *choices.arguments],
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        if not done.stdout:
            return done.returncode
        verdict = json.loads(done.stdout)
        kills.update(verdict["kills"])
        print(f"{flagfile.stem}: {verdict['compared']}")
        for difference in verdict["differences"]:
            failed = True
            print(f"  {difference}")
    for phase, count in kills.items():
        print(f"{count:6} kills in {phase}")
    print(f"{kills.total():6} kills, {'NOT EXACT' if failed else '0 differences'}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
