"""A folder is held by one process at a time, and by none once that process is gone."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hardy.errors import InputError
from hardy.lock import Lock

HOLD = "import sys, time; from pathlib import Path; from hardy.lock import Lock; Lock(Path(sys.argv[1])).acquire(); "


@pytest.fixture
def holder(tmp_path: Path):
    """Another process that holds the folder and has a child of its own, forked after that."""
    code = HOLD + "import os; time.sleep(60) if os.fork() else (print('held', flush=True), time.sleep(3))"
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"  # from the child: from now on it does not keep the lock
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_another_process_sees_who_holds_the_folder(holder, tmp_path):
    with pytest.raises(InputError) as caught, Lock(tmp_path, who="hardy run", advice="wait for it"):
        pass
    line = f"{tmp_path}: another hardy run works in this folder (process {holder.pid}); wait for it"
    assert str(caught.value) == line


def test_a_killed_process_holds_nothing_though_its_child_lives(holder, tmp_path):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / ".lock").exists()
    with Lock(tmp_path):
        assert (tmp_path / ".lock").read_text() == f"{os.getpid()}\n"
    assert list(tmp_path.iterdir()) == []


def test_one_process_does_not_hold_a_folder_twice(tmp_path):
    with Lock(tmp_path / "run"):
        with pytest.raises(InputError, match="this process itself"), Lock(tmp_path / "run"):
            pass
        with pytest.raises(InputError, match="this process itself"), Lock(tmp_path / "x" / ".." / "run"):
            pass
    with Lock(tmp_path / "run"):
        shutil.rmtree(tmp_path / "run")  # whoever made it may remove it
    assert not (tmp_path / "run").exists()
    with Lock(tmp_path / "run") as held:
        held.release()
        held.release()
        with Lock(tmp_path / "run"):
            pass


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OSError, match="file"), Lock(tmp_path / "file" / "run"):
        pass
