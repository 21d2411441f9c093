"""The short form of the kill script: a few events of every story, others for each seed."""

import re
import subprocess
import sys
from pathlib import Path


def test_kills_leave_nothing_and_change_no_bit():
    words = [sys.executable, str(Path(__file__).parent), "--share", "0.04", "--seed", "5"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    told = re.findall(r"^(\w+): (\d+) file events, (\d+) kills, 0 not as", done.stdout, flags=re.MULTILINE)
    assert [name for name, _, _ in told] == ["train", "prune", "study", "export"]
    assert sum(int(kills) for _, _, kills in told) >= 4, done.stdout
