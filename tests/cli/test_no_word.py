"""No verb says a word to anyone: no socket to another machine is opened, by Python or by what it calls.

Python's own sockets are seen by an audit hook; those of C++ code, such as a runtime's telemetry, by looking at the
process's open files while it runs. Sockets of this machine (AF_UNIX, loopback) are allowed: Ray needs them.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

CHILD = """
import os, runpy, sys
def heard(event, args):
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        name = args[0]
        if name not in (None, "localhost", "127.0.0.1", "::1", "0.0.0.0"):
            os.write(3, f"{event} {args}\\n".encode())
    if event in ("socket.connect", "socket.sendto") and isinstance(args[1], tuple):
        if not str(args[1][0]).startswith(("127.", "::1", "0.0.0.0", "localhost")):
            os.write(3, f"{event} {args}\\n".encode())
    if event == "import" and args[0] == "onnxruntime" and os.environ.get("ORT_DISABLE_TELEMETRY") != "1":
        os.write(3, b"onnxruntime is imported with its telemetry\\n")
sys.addaudithook(heard)
sys.argv = ["hardy", *sys.argv[1:]]
runpy.run_module("hardy", run_name="__main__")
"""


def inet(process: int) -> set[str]:
    """The addresses that sockets of the process speak to, as the system lists them; empty where there is no /proc."""
    try:
        own = {os.readlink(file) for file in Path(f"/proc/{process}/fd").iterdir()}
        tables = [Path(f"/proc/{process}/net/{kind}").read_text() for kind in ("tcp", "tcp6", "udp", "udp6")]
    except OSError:
        return set()
    lines = [line.split() for table in tables for line in table.splitlines()[1:]]
    far = {line[2] for line in lines if f"socket:[{line[9]}]" in own}
    here = ("0100007F:", "00000000:", "0" * 24 + "01000000:", "0" * 32 + ":", "0" * 16 + "FFFF00000100007F:")
    return {address for address in far if not address.startswith(here)}


def listened(words, folder, **more):
    """Run ``hardy words``; what it said to anyone."""
    heard, other = os.pipe()
    environment = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"} | {"HOME": str(folder), **more}
    process = subprocess.Popen(
        ["bash", "-c", f'exec 3>&{other}; exec "$@"', "-", sys.executable, "-c", CHILD, *map(str, words)],
        pass_fds=(other,), env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    os.close(other)
    found: set[str] = set()
    while process.poll() is None:
        found |= inet(process.pid)
        time.sleep(0.02)
    assert process.returncode == 0, process.stdout.read()
    process.stdout.close()
    with os.fdopen(heard) as told:
        return found | set(told.read().splitlines())


@pytest.mark.parametrize("verb", ["train", "export", "bench"])
def test_no_word_to_anyone(verb, recipe, trained, town, tmp_path):
    words = {
        "train": ["train", recipe()],
        "export": ["export", trained, tmp_path / "x.onnx", "--size", "32x32"],
        "bench": ["bench", trained, "--size", "32x32", "--runs", "1"],
    }[verb]
    assert listened(words, tmp_path) == set()
    cache = tmp_path / ".cache"
    kept = {path.relative_to(cache).parts[0] for path in cache.rglob("*") if path.is_file()}
    assert kept <= {"hardy", "torch", "torch_extensions", "matplotlib"}, "an id of this device was kept"


def test_the_listener_hears_what_is_said(tmp_path):
    code = (
        "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(('192.0.2.1', 9));"
        "import time; time.sleep(0.5)"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    found: set[str] = set()
    while process.poll() is None:
        found |= inet(process.pid)
        time.sleep(0.02)
    if process.returncode == 0:  # a machine without any route refuses even this
        assert found == {"010200C0:0009"}


def test_an_explicit_wish_is_kept():
    code = "import os, hardy; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    for given, kept in (("", "1"), ("0", "0")):
        environment = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
        environment |= {"ORT_DISABLE_TELEMETRY": given} if given else {}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == kept
