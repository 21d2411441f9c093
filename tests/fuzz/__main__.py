"""Mutated inputs through the real commands: ``python tests/fuzz --cases 5000 --seed 0 --only artefacts``.

Each kind runs in a process of its own; where that dies of a signal, the case in hand is counted and the next process
goes on after it. Exit code 1 if a case ended in any other way than clean or refused in one line.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
sys.path.insert(0, str(Path(__file__).parent))

from _harness import GOOD, Kind, kinds


def work(name: str, seed: int, first: int, count: int) -> None:
    """Run cases ``first`` to ``count`` of one kind; a JSON line before each and one after it."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HARDY_CACHE"] = f"{folder}/cache"
        kind = Kind(kinds()[name], Path(folder) / name, seed)
        for number in range(first, count):
            print(json.dumps({"begins": number}), flush=True)
            ended = kind.run(number)
            print(json.dumps({"number": number, "how": ended.how, "note": ended.note, "said": ended.said}), flush=True)


def supervise(name: str, seed: int, first: int, count: int, *, minutes: float, show: bool) -> Counter[str]:
    """The ends of all cases of one kind, by how, or of those in so many minutes; defects are printed as they come."""
    ends: Counter[str] = Counter()
    until = time.monotonic() + 60 * minutes
    while first < count:
        words = [sys.executable, __file__, "--work", name, "--seed", str(seed), "--first", str(first)]
        process = subprocess.Popen([*words, "--cases", str(count)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        begun = first - 1
        for line in process.stdout:
            result = json.loads(line)
            if "begins" in result:
                begun = result["begins"]
                continue
            first = result["number"] + 1
            ends[result["how"]] += 1
            if show or result["how"] not in GOOD:
                print(
                    f"{name} {result['number']}: {result['how']}: {result['note']}\n    {result['said'][-2000:]}",
                    flush=True,
                )
            if time.monotonic() > until:
                process.kill()
                process.wait()
                return ends
        code = process.wait()
        if first < count:
            if code == 0 or begun < first:
                sys.exit(f"{name}: its worker ended with {code} and ran no case")
            sign = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            print(f"{name} {begun}: signal: {sign}", flush=True)
            ends["signal"] += 1
            first = begun + 1
    return ends


def main() -> int:
    """Run the kinds asked for and print how their cases ended."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--cases", type=int, default=300, help="of each kind")
    words.add_argument("--seed", type=int, default=0)
    words.add_argument("--minutes", type=float, default=60, help="of each kind at most")
    words.add_argument("--first", type=int, default=0, help="number of the first case")
    words.add_argument("--only", action="append", choices=sorted(kinds()), help="this kind; repeat for several")
    words.add_argument("--show", action="store_true", help="print every case, not only defects")
    words.add_argument("--work", help=argparse.SUPPRESS)
    given = words.parse_args()
    if given.work:
        work(given.work, given.seed, given.first, given.cases)
        return 0
    total: Counter[str] = Counter()
    for name in given.only or kinds():
        ends = supervise(name, given.seed, given.first, given.cases, minutes=given.minutes, show=given.show)
        total += ends
        print(f"{name:12} {sum(ends.values()):6} cases: " + ", ".join(f"{n} {how}" for how, n in sorted(ends.items())))
    print(f"{'all':12} {total.total():6} cases: " + ", ".join(f"{n} {how}" for how, n in sorted(total.items())))
    return int(any(how not in GOOD for how in total))


if __name__ == "__main__":
    sys.exit(main())
