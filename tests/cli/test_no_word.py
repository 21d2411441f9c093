"""No verb says a word to anyone: no socket to another machine is opened, by Python or by what it calls.

Python's own sockets are seen by an audit hook; those of C++ code, such as a runtime's telemetry, by looking at the open
files of the process and of those it starts, while it runs. Sockets of this machine (AF_UNIX, loopback) are allowed: Ray
needs them. One process runs the verbs one after another, each named on its pipe before it begins.
"""

import json
import os
import subprocess
import sys
import threading
import time
from itertools import count
from pathlib import Path

import pytest
import torch
import yaml
from published_names import espnet, values
from typer.main import get_command

from hardy.cli import app

CHILD = """
import contextlib, functools, json, os, sys
def heard(event, args):
    if event in ("socket.getaddrinfo", "socket.gethostbyname"):
        if args[0] not in (None, "localhost", "127.0.0.1", "::1", "0.0.0.0"):
            os.write(3, f"{event} {args}\\n".encode())
    if event in ("socket.connect", "socket.sendto") and isinstance(args[1], tuple):
        if not str(args[1][0]).startswith(("127.", "::1", "0.0.0.0", "localhost")):
            os.write(3, f"{event} {args[1:]}\\n".encode())
    if event == "import" and args[0] == "onnxruntime" and os.environ.get("ORT_DISABLE_TELEMETRY") != "1":
        os.write(3, b"onnxruntime is imported with its telemetry\\n")
sys.addaudithook(heard)
import torch
torch.set_num_threads(1)
from hardy.cli import main
from hardy.timing import layer_times, targets
layer_times._SECONDS = targets._SECONDS = 0.02  # how exactly a search measures says nothing to anyone
from torch.onnx._internal.exporter._registration import ONNXRegistry
ONNXRegistry.from_torchlib = staticmethod(functools.cache(ONNXRegistry.from_torchlib))  # read once, as in conftest.py
for verb, words in json.loads(sys.argv[1]).items():
    os.write(3, f"verb {verb}\\n".encode())
    sys.argv = ["hardy", "--json", *words]
    with open(f"{verb}.out", "w") as out, contextlib.redirect_stdout(out):
        try:
            main()
        except SystemExit as left:
            code = left.code
    os.write(3, f"code {code or 0}\\n".encode())
"""
HERE = ("0100007F:", "00000000:", "0" * 24 + "01000000:", "0" * 32 + ":", "0" * 16 + "FFFF00000100007F:")
"""How the system writes the addresses of this machine: 127.0.0.1, none, ::1, none, ::ffff:127.0.0.1."""


def family(process: int) -> set[int]:
    """``process`` and what it started, and what that started; empty where there is no /proc."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents.setdefault(int(entry.read_text().rpartition(")")[2].split()[1]), []).append(int(entry.parent.name))
        except OSError:
            continue
    found, new = set(), [process]
    while new:
        found.add(one := new.pop())
        new += parents.get(one, [])
    return found


def inet(processes: set[int]) -> set[str]:
    """The addresses that sockets of the processes speak to, as the system lists them; empty where there is no /proc."""
    own: set[str] = set()
    for process in processes:
        try:
            own |= {os.readlink(file) for file in Path(f"/proc/{process}/fd").iterdir()}
        except OSError:
            continue
    if not any(name.startswith("socket:") for name in own):
        return set()
    try:
        tables = [Path(f"/proc/net/{kind}").read_text() for kind in ("tcp", "tcp6", "udp", "udp6")]
    except OSError:
        return set()
    lines = [line.split() for table in tables for line in table.splitlines()[1:]]
    return {line[2] for line in lines if f"socket:[{line[9]}]" in own and not line[2].startswith(HERE)}


def listened(verbs, folder):
    """Run the verbs in one process; the exit code of each, what each said to anyone, and what they printed."""
    heard, other = os.pipe()
    environment = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"} | {"HOME": str(folder)}
    process = subprocess.Popen(
        ["bash", "-c", f'exec 3>&{other}; exec "$@"', "-", sys.executable, "-c", CHILD, json.dumps(verbs, default=str)],
        pass_fds=(other,),
        env=environment,
        cwd=folder,
        stdout=(folder / "printed").open("w"),
        stderr=subprocess.STDOUT,
    )
    os.close(other)
    now, codes, found = "start-up", {}, {}

    def read():
        nonlocal now
        with os.fdopen(heard) as pipe:
            for line in pipe:
                kind, _, rest = line.strip().partition(" ")
                if kind == "verb":
                    now = rest
                elif kind == "code":
                    codes[now] = int(rest)
                else:
                    found.setdefault(now, set()).add(line.strip())

    reader = threading.Thread(target=read)
    reader.start()
    for turn in count():
        if process.poll() is not None:
            break
        if turn % 10 == 0:
            running = family(process.pid)
        if far := inet(running):
            found.setdefault(now, set()).update(far)
        time.sleep(0.03)
    reader.join()
    return codes, found, (folder / "printed").read_text()


@pytest.fixture(scope="module")
def said(town, tmp_path_factory):
    """What `listened` found of all verbs, and the home folder that they had."""
    folder = tmp_path_factory.mktemp("silence")
    for name, sections in recipes(town).items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(sections))
    torch.save(values(espnet(12, 1, 1)), folder / "espnet.pth")
    return *listened(calls(town), folder), folder


def recipes(town):
    """The sections of the files that verbs read, by name."""
    common = {
        "network": {"name": "tiny", "width": 16, "classes": str(town)},
        "data": {"sources": ["folder/day"], "root": str(town), "crop": [32, 32]},
        "optim": {"steps": 1, "batch": 4},
        "evaluate": {"select": "last", "latency": False},
    }
    run = {"workers": 0, "device": "cpu"}
    cut = {"criterion": "l2", "schedule": "one_shot", "ratio": 0.5}
    least = {"evaluations": 1, "filters": 1, "layers": 3, "images": 1, "reestimate": 1}
    budget = {"budget_ms": 1000, "method": "random", **least}
    return {
        "train": {**common, "run": {**run, "folder": "run"}},
        "prune": {**common, "network": {"run": "run"}, "prune": cut, "run": {**run, "folder": "pruned"}},
        "search": {
            **common,
            "network": {"name": "fasterseg", "classes": str(town)},
            "evaluate": {"latency": False},
            "search": budget,
            "run": {**run, "folder": "found"},
        },
        "study": {
            "study": {"folder": "study"},
            "stages": {"dense": {"verb": "train", "recipe": "train.yaml"}},
            "grid": {"seed": {"stages": "dense", "key": "run.seed", "values": [0]}},
        },
    }


def calls(town):
    """The words of every verb, in an order in which each finds what it needs."""
    return {
        "list": ["list"],
        "doctor": ["doctor", "--no-test"],
        "init": ["init", "--to", "first"],
        "data": ["data", "folder", "--root", town],
        "import": ["import", "espnet.pth", "--classes", "camvid11", "--to", "imported"],
        "train": ["train", "train.yaml"],
        "prune": ["prune", "prune.yaml"],
        "evaluate": ["evaluate", "run", "folder/night", "--root", town],
        "predict": ["predict", "run", town / "images" / "night", "masks"],
        "search": ["search", "search.yaml"],
        "export": ["export", "run", "net.onnx", "--size", "32x32"],
        "fold": ["fold", "run", "folded", "--size", "32x32"],
        "bench": ["bench", "run", "--size", "32x32", "--runs", "1"],
        "runs": ["runs", "."],
        "report": ["report", "run"],
        "quantize": ["quantize", "run", "int8.onnx", "--size", "32x32", "--images", "1", "--limit", "100"],
        "push": ["push", "run", "shared/run"],
        "pull": ["pull", "shared/run", "pulled"],
    }


@pytest.mark.costly
@pytest.mark.parametrize(
    "verb",
    [pytest.param(verb, marks=[pytest.mark.exhaustive] * (verb not in ("train", "export"))) for verb in calls(Path())],
)
def test_no_word_to_anyone(verb, said):
    codes, found, printed, _ = said
    assert codes.get(verb) == 0, printed[-3000:]
    assert verb not in found


@pytest.mark.costly
def test_json_of_every_verb_is_one_document(said):
    folder = said[-1]
    assert {*calls(folder), "study", "demo", "app"} == set(get_command(app).commands)  # these have tests of their own
    for verb in calls(folder):
        report = json.loads((folder / f"{verb}.out").read_text())
        assert any(report.values()), f"{verb} --json holds nothing"


@pytest.mark.exhaustive  # the start of Ray takes as long as all other verbs together
def test_neither_a_study_nor_ray_says_a_word_to_anyone(town, tmp_path):
    pytest.importorskip("ray")
    for name in ("train", "study"):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(recipes(town)[name]))
    codes, found, printed = listened({"study": ["study", "study.yaml"]}, tmp_path)
    assert codes == {"study": 0}, printed[-3000:]
    assert not found
    report = json.loads((tmp_path / "study.out").read_text())
    assert "1/1 done: dense,seed=0" in report["lines"]
    assert report["records"]


@pytest.mark.costly
def test_start_up_is_silent_and_no_id_of_this_device_is_kept(said):
    _, found, _, home = said
    assert "start-up" not in found
    kept = {path.relative_to(home / ".cache").parts[0] for path in (home / ".cache").rglob("*") if path.is_file()}
    assert kept <= {"hardy", "torch", "torch_extensions", "matplotlib"}


def test_the_listener_hears_what_is_said():
    code = (
        "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(('192.0.2.1', 9));"
        "import sys; print(flush=True); sys.stdin.read()"
    )
    words = [sys.executable, "-c", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}])"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        connected = process.stdout.readline()
        found = inet(family(process.pid))
        process.stdin.close()
    if connected:  # a machine without any route refuses even this
        assert found == {"010200C0:0009"}


def test_an_explicit_wish_is_kept():
    code = "import os, hardy; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    for given, kept in (("", "1"), ("0", "0")):
        environment = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
        environment |= {"ORT_DISABLE_TELEMETRY": given} if given else {}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == kept
