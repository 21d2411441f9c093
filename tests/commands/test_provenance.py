"""The commit of Hardy's own source tree is recorded, of no other, and nothing in a repository is touched."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from hardy.engine import provenance as module
from hardy.engine.provenance import commit, provenance

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="there is no git here")


def git(folder: Path, *words: str) -> str:
    own = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "init.defaultBranch=main")
    done = subprocess.run(["git", "-C", folder, *own, *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """``src/hardy`` in a repository with one commit."""
    folder = tmp_path / "src" / "hardy"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("x = 1\n")
    (tmp_path / ".gitignore").write_text("venv\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "one")
    return folder


def test_the_commit_of_the_source_tree_and_whether_files_differ_from_it(package):
    short = git(package, "rev-parse", "--short", "HEAD")
    assert commit(package) == short
    (package / "__init__.py").write_text("x = 2\n")
    assert commit(package) == f"{short}-dirty"


def test_an_installed_package_has_no_commit_whatever_repository_lies_around_it(package, tmp_path):
    installed = tmp_path / "venv" / "lib" / "hardy"
    untracked = tmp_path / "other" / "src" / "hardy"
    for folder in (installed, untracked):
        shutil.copytree(package, folder)
        assert commit(folder) == "unknown"
    git(tmp_path / "other", "init", "-q")
    assert commit(untracked) == "unknown"


def test_the_index_stays_as_it_is(package, tmp_path):
    os.utime(package / "__init__.py", (1, 1))  # what a plain git status writes into the index
    index = tmp_path / ".git" / "index"
    before = (index.read_bytes(), index.stat().st_mtime_ns)
    assert not commit(package).endswith("-dirty")
    assert (index.read_bytes(), index.stat().st_mtime_ns) == before
    git(tmp_path, "status")
    assert index.read_bytes() != before[0], "git itself would have written it"


def test_the_repository_of_a_hook_is_not_ours(package, tmp_path, monkeypatch):
    git(tmp_path, "init", "-q", "elsewhere")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere" / ".git"))
    assert commit(package) != "unknown"


def test_without_git_the_commit_is_unknown(package, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commit(package) == "unknown"
    monkeypatch.setattr(module, "_own_commit", module._own_commit.__wrapped__)  # not the one read before
    assert provenance()["commit"] == "unknown"


def test_a_process_reads_its_own_commit_once(monkeypatch):
    first = provenance()["commit"]
    monkeypatch.setattr(module, "_git", lambda *_: "other")
    assert provenance()["commit"] == first
