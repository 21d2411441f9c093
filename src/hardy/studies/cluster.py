"""Parallel runs of the command line on Ray: on this machine, or on a cluster at an address.

Each run is a process, started by a Ray task that reserves its share of cores and GPUs. It sees only the GPU that Ray
assigned to it. All machines of a cluster must have the same files under the same paths.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hardy.engine.stop import LEASH, stop_signal
from hardy.errors import InputError
from hardy.studies.order import Order

__all__ = ["Job", "Left", "Share", "StoppedStudy", "cluster", "environment", "run", "share", "slots"]

STORE_BYTES = 100 * 2**20
"""Size of Ray's object store: only short texts are transferred."""

POLL = 0.25
"""Seconds between two checks of a run."""


class StoppedStudy(Exception):  # noqa: N818 - not an error: the user asked for it
    """A study stopped because of signal number ``signal_number``; the checkpoints of its cells are written."""

    def __init__(self, signal_number: int) -> None:
        super().__init__("stopped; the same command resumes from there")
        self.signal_number = signal_number


@dataclass(frozen=True)
class Job:
    """One run: the words of its command line, and the file for its output."""

    words: tuple[str, ...]
    log: Path


@dataclass(frozen=True)
class Share:
    """The resources of one run: cores, and GPUs or a part of one."""

    cpus: float
    gpus: float


Left = Literal["done", "failed", "stopped"]
"""How a run ended."""

Ended = Callable[[str, Left, int, str], None]
"""A function ``ended(name, state, exit code, reason)`` that is called after a run."""


def share(cpus: float, gpus: float, resources: Mapping[str, float]) -> Share:
    """The share of a run on a machine with these resources; without a GPU if the machine has none.

    Raises:
        InputError: if the resources are too small for one run.
    """
    here = Share(cpus, gpus if resources.get("GPU", 0) else 0)
    if slots(here, resources) < 1:
        has = f"{resources.get('CPU', 0):g} cores and {resources.get('GPU', 0):g} GPUs"
        raise InputError(
            f"study.cpus, study.gpus: a cell needs {here.cpus:g} cores and {here.gpus:g} GPUs; there are {has}"
        )
    return here


def slots(one: Share, resources: Mapping[str, float]) -> int:
    """The number of runs that fit at a time. A fraction of a GPU is on a single GPU, so 0.4 fits twice on each."""
    cores = int(resources.get("CPU", 0) / one.cpus + 1e-9)
    gpus = resources.get("GPU", 0)
    if not one.gpus:
        return cores
    return min(cores, int(gpus) * int(1 / one.gpus + 1e-9) if one.gpus < 1 else int(gpus / one.gpus + 1e-9))


@contextmanager
def cluster(address: str | None, cores: int | None = None) -> Iterator[Any]:
    """Ray, connected to ``address`` or started on this machine with ``cores`` (default: all).

    It is disconnected at the end of the block, unless the calling program had already connected it.

    Raises:
        InputError: if Ray is not installed, does not answer at ``address``, or does not start on this machine.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")  # hides all GPUs from a run without one
    if address is None:  # with this only the local machine is used, and no port is open to others
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    try:
        import ray
    except ImportError:
        raise InputError("this needs Ray, which is not installed; pip install 'hardy[bulk]'") from None
    if ray.is_initialized():  # by the calling program; it stays connected
        yield ray
        return
    quiet: Any = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        if address is None:
            with _no_reporter():
                ray.init(
                    address="local",
                    num_cpus=cores,
                    include_dashboard=False,
                    object_store_memory=STORE_BYTES,
                    **quiet,
                )
        else:
            _knock(address)
            ray.init(address=address, **quiet)
    except Exception as error:  # Ray raises a bare Exception when a process of its own does not start in time
        why = (str(error) or type(error).__name__).splitlines()[0]
        if address is None:
            raise InputError(
                f"Ray did not start on this machine ({why}); free some memory and cores, and run the command again: "
                "finished cells stay finished"
            ) from None
        raise InputError(
            f"--address {address}: no Ray cluster answers ({why}); start one with ray start "
            "--head, set RAY_AUTH_MODE=token if it needs a token, or leave --address out"
        ) from None
    try:
        yield ray
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Connect to ``address`` once; without an answer Ray itself tries for a quarter of an hour.

    ``auto`` is the address of a cluster that runs on this machine or that the environment names.

    Raises:
        OSError: if nothing answers within ten seconds.
    """
    place: str | None = address.removeprefix("ray://")
    if place == "auto":
        try:
            from ray._private.services import canonicalize_bootstrap_address

            place = canonicalize_bootstrap_address(place)
        except (ImportError, AttributeError):  # another version of Ray
            return
    host, _, port = (place or "").rpartition(":")
    if host and port.isdecimal() and int(port) < 2**16:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


@contextmanager
def _no_reporter() -> Iterator[None]:
    """Inside the block Ray starts no usage reporter: even with reports off it contacts cloud providers."""
    try:
        from ray._private.node import Node

        node: Any = Node
        original = node.start_api_server
    except (ImportError, AttributeError):  # another version of Ray
        yield
        return
    node.start_api_server = lambda self, **options: None
    try:
        yield
    finally:
        node.start_api_server = original


def run(
    ray: Any,
    jobs: Mapping[str, Job],
    order: Order,
    one: Share,
    *,
    limit: int | None,
    going: Path,
    starts: Callable[[str], bool],
    ended: Ended,
    tick: Callable[[], None],
) -> None:
    """Run ``jobs`` in the order that ``order`` allows, as many at a time as fit, but at most ``limit``.

    Args:
        ray: from `cluster`.
        jobs: name -> job.
        order: the states; it is updated in place.
        one: the resources of each run.
        limit: the largest number of runs at a time; None for no limit.
        going: a file; runs stop when it is deleted.
        starts: called before a run starts; False if it is done already.
        ended, tick: called after a run has ended, and a few times per second.

    Raises:
        StoppedStudy: after Ctrl-C or SIGTERM, when all runs have stopped.
    """
    submit = _submitter(ray, one, going)
    under_way: dict[Any, str] = {}
    try:
        with stop_signal() as stop:
            while True:
                room = 0 if stop.asked else (limit or slots(one, ray.cluster_resources())) - len(under_way)
                for name in _ready(order, room, starts, ended):
                    order.start(name)
                    under_way[submit(jobs[name])] = name
                if not under_way:
                    break
                for reference in ray.wait(list(under_way), num_returns=1, timeout=POLL)[0]:
                    name = under_way.pop(reference)
                    outcome = _outcome(ray, reference, jobs[name].log, stop.asked)
                    order.end(name, outcome[0])
                    ended(name, *outcome)
                if stop.asked:
                    going.unlink(missing_ok=True)
                tick()
    finally:
        going.unlink(missing_ok=True)
    if stop.asked:
        raise StoppedStudy(stop.asked)


def _ready(order: Order, room: int, starts: Callable[[str], bool], ended: Ended) -> Iterator[str]:
    """At most ``room`` runs that may start; runs that are done already are ended."""
    while room > 0 and (name := next(order.ready(), None)):
        if starts(name):
            room -= 1
            yield name
        else:
            order.end(name, "done")
            ended(name, "done", 0, "")


def _submitter(ray: Any, one: Share, going: Path) -> Callable[[Job], Any]:
    """A function that starts a job as a Ray task and returns the task's reference; see `run`."""
    task = ray.remote(num_cpus=one.cpus, num_gpus=one.gpus, max_retries=0)(_run)
    variables = environment(max(1, int(one.cpus)))

    def submit(job: Job) -> Any:
        return task.remote(job.words, str(job.log.absolute()), os.getcwd(), str(going.absolute()), variables)

    return submit


def environment(cores: int) -> dict[str, str]:
    """Environment variables of a run, in addition to those of its machine."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(cores))
    ours = {name: value for name, value in os.environ.items() if name.startswith("HARDY_") or name == "PYTHONPATH"}
    return {**ours, **threads, "OMP_WAIT_POLICY": "PASSIVE", "PYTHONUNBUFFERED": "1"}


def _run(words: tuple[str, ...], log: str, folder: str, going: str, environment: Mapping[str, str]) -> int:
    """Run the command line in ``folder`` while the file ``going`` exists, inside a Ray task; returns the exit code."""
    if not Path(going).exists():
        return -signal.SIGTERM
    reader, writer = os.pipe()  # the pipe closes when this worker is killed, and then the run stops
    with Path(log).open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - our own command line
            [sys.executable, "-m", "hardy", *words],
            cwd=folder,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=(reader,),
            env={**os.environ, **environment, LEASH: str(reader)},
        )
        os.close(reader)
        asked = False
        try:
            while process.poll() is None:
                if not asked and not Path(going).exists():
                    process.terminate()
                    asked = True
                time.sleep(POLL)
        finally:
            if process.poll() is None:
                process.terminate()
            os.close(writer)
    return process.returncode


def _outcome(ray: Any, reference: Any, log: Path, asked: int) -> tuple[Left, int, str]:
    """The outcome of the run of ``reference``: the state, the exit code, and the reason in one line."""
    try:
        code = ray.get(reference)
    except ray.exceptions.RayError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return "failed", -1, f"its worker was lost: {lines[-1] if lines else type(error).__name__}"
    if code == 0:
        return "done", 0, ""
    if asked and code in (-signal.SIGTERM, -signal.SIGINT, 128 + signal.SIGTERM, 128 + signal.SIGINT):
        return "stopped", code, "stopped"
    return "failed", code, _reason(log, code)


def _reason(log: Path, code: int) -> str:
    """The reason why a run failed: its last line of output, or the signal that killed it."""
    if code < 0:
        return f"killed by {signal.Signals(-code).name}{' (out of memory?)' if code == -9 else ''}"
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return (lines[-1] if lines else f"exit code {code} without output").removeprefix("hardy: ")
