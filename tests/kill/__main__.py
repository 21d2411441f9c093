"""Kill Hardy at every file event and see that it goes on as if nothing had been.

A file event is an open, a rename, a removal, the making or removing of a folder. For each event of a story (training,
from Python too, pruning, a study, an export, predicting) the story starts in a process of its own, which gets SIGKILL
just before that event; then the same command is given again. It must end well, leave the files that an undisturbed run
leaves and no other, and leave the same bits in weights and graphs and the same numbers in records. With ``--twice`` the
second process is killed too, at an event drawn by seed, before the third goes on.

    python tests/kill                      every event of every story
    python tests/kill --story prune        of one
    python tests/kill --share 0.1 --seed 3 a tenth of them, drawn
"""

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from _child import attempt
from _stories import STORIES, Story


def main() -> int:
    """Kill, restart, compare and print a line per story; 1 if anything was not as it must be."""
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--story", action="append", choices=[*STORIES], help="Only this one; repeat for several.")
    given.add_argument("--share", type=float, default=1.0, help="Share of the events at which to kill.")
    given.add_argument("--seed", type=int, default=0, help="Draws the events of a share, and those of --twice.")
    given.add_argument("--twice", action="store_true", help="Kill the process that goes on as well.")
    options = given.parse_args()
    faults = 0
    with tempfile.TemporaryDirectory() as place:
        tempfile.tempdir = place  # what libraries of a killed process leave in the system's place goes with it
        for name in options.story or STORIES:
            faults += report_of(STORIES[name], Path(place, name), options)
    return 1 if faults else 0


def report_of(story: Story, place: Path, options: argparse.Namespace) -> int:
    """Kill at the events of one story; how often that did harm."""
    began, rng = time.perf_counter(), random.Random(options.seed)
    story.prepare(place / "whole")
    whole = attempt(story, place / "whole")
    assert whole.code == 0, whole.said
    wanted, kills, faults = story.left(place / "whole"), 0, 0
    for event in range(1, whole.events + 1):
        if rng.random() >= options.share:
            continue
        folder = place / str(event)
        story.prepare(folder)
        killed = [attempt(story, folder, kill_at=event)]
        if options.twice:
            killed.append(attempt(story, folder, kill_at=rng.randint(1, whole.events)))
        kills += sum(one.code == -9 for one in killed)
        again = attempt(story, folder)
        fault = _fault(story, folder, wanted, again.code, again.said)
        if fault:
            faults += 1
            sys.stdout.write(f"{story.name}, killed before {killed[0].last}: {fault}\n")
    seconds = time.perf_counter() - began
    sys.stdout.write(
        f"{story.name}: {whole.events} file events, {kills} kills, {faults} not as they must be, {seconds:.0f} s\n"
    )
    sys.stdout.flush()
    return faults


def _fault(story: Story, folder: Path, wanted: dict[str, object], code: int, said: str) -> str:
    """What is wrong after the last attempt, or nothing."""
    if code:
        return f"the same command then ends with {code}: {said.strip()[-300:]}"
    found = story.left(folder)
    more, fewer = sorted(found.keys() - wanted.keys()), sorted(wanted.keys() - found.keys())
    if more or fewer:
        return f"left over: {', '.join(more) or 'nothing'}; missing: {', '.join(fewer) or 'nothing'}"
    return "".join(f"{name} differs; " for name in wanted if found[name] != wanted[name])


if __name__ == "__main__":
    sys.exit(main())
