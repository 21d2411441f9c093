"""Runs of the command line side by side on Ray: on this machine, or on a cluster by its address.

Each run is a process of its own, started by a Ray task that holds its share of cores and cards; it sees only the card
that Ray assigned to it. All machines of a cluster must see the same files under the same paths.
"""

import os
import signal
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

__all__ = ["Job", "Left", "Share", "StoppedStudy", "cluster", "run", "share", "slots"]

STORE_BYTES = 100 * 2**20
"""Size of Ray's object store: nothing but short texts travels."""

POLL = 0.25
"""Seconds between two looks at a run."""


class StoppedStudy(Exception):  # noqa: N818 - not an error: it did as it was asked
    """A study stopped because signal number ``signal_number`` asked; its cells' checkpoints are written."""

    def __init__(self, signal_number: int) -> None:
        super().__init__("stopped; the same command resumes from there")
        self.signal_number = signal_number


@dataclass(frozen=True)
class Job:
    """One run: the words of its command line, and the file that takes what it prints."""

    words: tuple[str, ...]
    log: Path


@dataclass(frozen=True)
class Share:
    """What one run holds: cores, and cards or a part of one."""

    cpus: float
    gpus: float


Left = Literal["done", "failed", "stopped"]
"""How a run ended."""

Ended = Callable[[str, Left, int, str], None]
"""``ended(name, state, exit code, reason)``."""


def share(cpus: float, gpus: float, resources: Mapping[str, float]) -> Share:
    """The share of a run on a machine with these resources; no card where the machine has none.

    Raises:
        InputError: when not even one run fits.
    """
    here = Share(cpus, gpus if resources.get("GPU", 0) else 0)
    if slots(here, resources) < 1:
        has = f"{resources.get('CPU', 0):g} cores and {resources.get('GPU', 0):g} cards"
        raise InputError(
            f"study.cpus, study.gpus: a cell takes {here.cpus:g} cores and {here.gpus:g} cards; there are {has}"
        )
    return here


def slots(one: Share, resources: Mapping[str, float]) -> int:
    """How many runs fit at a time; a part of a card lies on one card, so 0.4 fits twice on each."""
    cores = int(resources.get("CPU", 0) / one.cpus + 1e-9)
    cards = resources.get("GPU", 0)
    if not one.gpus:
        return cores
    return min(cores, int(cards) * int(1 / one.gpus + 1e-9) if one.gpus < 1 else int(cards / one.gpus + 1e-9))


@contextmanager
def cluster(address: str | None, cores: int | None = None) -> Iterator[Any]:
    """Ray, connected to ``address`` or started on this machine with ``cores`` (else all), and disconnected at the end.

    Raises:
        InputError: when Ray is not installed or nothing answers at ``address``.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")  # a run without a card sees none
    if address is None:  # Ray's name for: this machine alone, so that no port is open to others
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    try:
        import ray
    except ImportError:
        raise InputError("hardy study needs Ray, which is not installed; pip install 'hardy[bulk]'") from None
    if ray.is_initialized():  # by the program that called; it stays connected
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
            ray.init(address=address, **quiet)
    except (ConnectionError, ValueError, RuntimeError) as error:
        if address is None:
            raise
        raise InputError(
            f"--address {address}: no Ray cluster answers ({str(error).splitlines()[0]}); start one with ray start "
            "--head, set RAY_AUTH_MODE=token where it asks for a token, or leave --address out"
        ) from None
    try:
        yield ray
    finally:
        ray.shutdown()


@contextmanager
def _no_reporter() -> Iterator[None]:
    """Inside, Ray starts no process for reports of its use: even where they are off it asks cloud providers by name."""
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
    starts: Callable[[str], None],
    ended: Ended,
    tick: Callable[[], None],
) -> None:
    """Run ``jobs`` as ``order`` lets them, as many at a time as fit, or ``limit``.

    Args:
        ray: from `cluster`.
        jobs: name -> job.
        order: the states, which are kept up to date.
        one: what each run holds.
        limit: the most runs at a time.
        going: a file; runs stop when it is deleted.
        starts, ended, tick: called before a run starts, after it has ended, and a few times a second.

    Raises:
        StoppedStudy: after Ctrl-C or SIGTERM, when all runs have stopped.
    """
    submit = _submitter(ray, one, going)
    under_way: dict[Any, str] = {}
    try:
        with stop_signal() as stop:
            while True:
                room = 0 if stop.asked else (limit or slots(one, ray.cluster_resources())) - len(under_way)
                for name in list(order.ready())[: max(0, room)]:
                    starts(name)
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


def _submitter(ray: Any, one: Share, going: Path) -> Callable[[Job], Any]:
    """A function that starts a job as a Ray task and returns the task's reference; see `run`."""
    task = ray.remote(num_cpus=one.cpus, num_gpus=one.gpus, max_retries=0)(_run)
    environment = _environment(max(1, int(one.cpus)))

    def submit(job: Job) -> Any:
        return task.remote(job.words, str(job.log.absolute()), os.getcwd(), str(going.absolute()), environment)

    return submit


def _environment(cores: int) -> dict[str, str]:
    """What a run's environment holds besides that of its machine."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(cores))
    ours = {name: value for name, value in os.environ.items() if name.startswith("HARDY_") or name == "PYTHONPATH"}
    return {**ours, **threads, "OMP_WAIT_POLICY": "PASSIVE", "PYTHONUNBUFFERED": "1"}


def _run(words: tuple[str, ...], log: str, folder: str, going: str, environment: Mapping[str, str]) -> int:
    """Run the command line in ``folder`` while the file ``going`` exists, inside a Ray task; returns the exit code."""
    if not Path(going).exists():
        return -signal.SIGTERM
    there, here = os.pipe()  # nothing is written to it: it closes when this worker is killed, and then the run stops
    with Path(log).open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - our own command line
            [sys.executable, "-m", "hardy", *words],
            cwd=folder,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=(there,),
            env={**os.environ, **environment, LEASH: str(there)},
        )
        os.close(there)
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
            os.close(here)
    return process.returncode


def _outcome(ray: Any, reference: Any, log: Path, asked: int) -> tuple[Left, int, str]:
    """How the run of ``reference`` ended: the state, the exit code, and the reason in one line."""
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
    """Why a run failed: the last line it printed, or the signal that killed it."""
    if code < 0:
        return f"killed by {signal.Signals(-code).name}{' (out of memory?)' if code == -signal.SIGKILL else ''}"
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return (lines[-1] if lines else f"exit code {code} without a word").removeprefix("hardy: ")
