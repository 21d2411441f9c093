"""Hardy elsewhere: as a wheel without git, compiler or home; and without what only POSIX systems have."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

EVERY_MODULE = """
import importlib, os, pkgutil, signal, sys

def read():
    package = importlib.import_module("hardy")
    names = [module.name for module in pkgutil.walk_packages(package.__path__, "hardy.")]
    for name in names:
        importlib.import_module(name)
    return len(names)

before = read()  # what other packages import here is loaded then
for name in [name for name in sys.modules if name.split(".")[0] == "hardy"]:
    del sys.modules[name]
for name in ("fcntl", "grp", "pty", "pwd", "readline", "resource", "syslog", "termios", "tty"):
    sys.modules[name] = None
missing = {
    signal: ("SIGALRM", "SIGHUP", "SIGKILL", "SIGQUIT", "alarm", "pause"),
    os: ("O_CLOEXEC", "fork", "geteuid", "getloadavg", "getuid", "killpg", "pread", "sched_getaffinity", "setsid"),
}
for module, names in missing.items():
    for name in names:
        vars(module).pop(name, None)
after = read()
print(before, after)
"""


@pytest.mark.costly
def test_every_module_can_be_imported_without_posix():
    done = subprocess.run([sys.executable, "-c", EVERY_MODULE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    before, after = map(int, done.stdout.split())
    assert before == after > 500


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The content of a wheel that was built from this repository."""
    pytest.importorskip("hatchling", reason="the wheel is built by hatchling: pip install -e '.[test]'")
    work = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(work)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = work.glob("*.whl")
    with zipfile.ZipFile(wheel) as content:
        content.extractall(work / "site")
    return work / "site"


@pytest.fixture
def alone(installed: Path, tmp_path: Path):
    """Call Python with the wheel in an empty folder, with nothing on the path and a home that cannot be made."""
    (tmp_path / "file").touch()
    (tmp_path / "here").mkdir()
    environment = {
        "HOME": str(tmp_path / "file" / "home"),
        "OMP_NUM_THREADS": "1",
        "PATH": str(tmp_path / "file"),
        "PYTHONPATH": str(installed),
    }

    def call(*words: str) -> str:
        where = {"cwd": tmp_path / "here", "env": environment}
        done = subprocess.run([sys.executable, *words], **where, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return call


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_package(installed):
    def files(folder: Path) -> set[str]:
        found = (file for file in (folder / "hardy").rglob("*") if file.is_file())
        return {str(file.relative_to(folder)) for file in found if "__pycache__" not in file.parts}

    assert files(installed) == files(ROOT / "src")


VERBS = """
import sys
from hardy.cli import app

for line in sys.argv[1].splitlines():
    app(args=line.split("|"), standalone_mode=False)
"""


@pytest.mark.costly
def test_the_wheel_works_without_git_compiler_and_home(alone, tmp_path):
    here = tmp_path / "here"
    (here / "recipe.yaml").write_text((ROOT / "recipes" / "streets_dense.yaml").read_text())
    streets = "data.datasets={streets: {size: [32, 64], train: 4, val: 1, test: 1}}"
    quick = "data.crop=[32, 64]|optim.steps=2|optim.batch=2|evaluate.every=2|run.folder=runs/a"
    verbs = (
        "list|algorithm",
        "init|--to|first",
        f"train|recipe.yaml|{streets}|data.unseen=[streets/night]|{quick}",
        "report|runs|--out|page.html",
    )
    said = alone("-c", VERBS, "\n".join(verbs))
    assert all(part in said for part in ("erm", "wrote first/recipe.yaml", "worst unseen", "page.html: 1 network"))
    assert (here / "runs" / "a" / "network.safetensors").is_file()
    assert "everything works" in alone("-m", "hardy", "doctor")
