"""The short form of the kill script: a few events of pruning, which trains first; `python tests/kill` has all."""

import re
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.costly
@pytest.mark.parametrize("story", [pytest.param("train", marks=pytest.mark.exhaustive), "prune"])
def test_kills_leave_nothing_and_change_no_bit(story):
    words = [sys.executable, str(Path(__file__).parent), "--story", story]
    done = subprocess.run([*words, "--share", "0.03", "--seed", "10"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    reports = re.findall(r"^(\w+): (\d+) file events, (\d+) kills, 0 not as", done.stdout, flags=re.MULTILINE)
    assert [name for name, _, _ in reports] == [story]
    assert all(int(kills) >= (2 if story == "prune" else 1) for _, _, kills in reports), done.stdout
