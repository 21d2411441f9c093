"""Experiment trackers such as TensorBoard, MLflow and Weights & Biases, through Accelerate; everything stays local.

What is logged: the settings of the recipe, the loss terms and the source validation of each stage, and at its last step
every number that is recorded. A tracker starts with the first number. TensorBoard writes into ``hardy`` in the run's
folder, Weights & Biases offline into ``wandb``, MLflow into ``hardy-mlflow.db``; ``WANDB_MODE`` and
``MLFLOW_TRACKING_URI`` in the environment name another place.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker, get_available_trackers

from hardy.device import accelerator
from hardy.errors import InputError, nearest
from hardy.recipe import Recipe

__all__ = ["Tracking", "tracking"]

_DATABASE = "hardy-mlflow.db"


class Tracking:
    """The trackers of a run: `log` and `scores` go to each of them, and do nothing without trackers.

    Args:
        names: of the trackers, such as ``tensorboard``.
        folder: the run's; they write into it.
        settings: the settings of the recipe, nested.
    """

    def __init__(self, names: Sequence[str] = (), folder: Path = Path(), settings: Mapping[str, Any] | None = None):
        self._names, self._folder, self._settings = names, folder, settings or {}
        self._started: dict[str, GeneralTracker] = {}
        self._steps: dict[str, int] = {}

    def log(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        """Log ``values`` of a ``step`` of ``stage`` as ``stage/name``."""
        if self._names and not self._started:
            self._started = {name: _start(name, self._folder) for name in self._names}
            for tracker in self._started.values():
                tracker.store_init_configuration(dict(_flat(self._settings)))
        self._steps.setdefault(stage, 0)
        self._steps[stage] = max(step, self._steps[stage])
        before = sum(last for other, last in self._steps.items() if other != stage)
        for kind, tracker in self._started.items():
            onward = before if kind == "wandb" else 0  # it drops steps that go back
            tracker.log({f"{stage}/{name}": value for name, value in values.items()}, step=onward + step)

    def scores(self, stage: str, values: Iterable[tuple[str, str, float | None]]) -> None:
        """Log the recorded (target, metric, value) of ``stage`` as ``stage/target/metric`` at its last step."""
        named = {f"{target}/{metric}": value for target, metric, value in values if value is not None}
        self.log(stage, self._steps.get(stage, 0), named)

    def close(self) -> None:
        """Write all that is pending and close the trackers."""
        for tracker in self._started.values():
            tracker.finish()


@contextmanager
def tracking(recipe: Recipe, folder: Path, main: bool) -> Iterator[Tracking]:
    """Inside the block: the trackers that ``recipe`` names; they log on the ``main`` process only.

    Raises:
        InputError: for a tracker that is not known or not installed.
    """
    names = recipe.run.trackers
    usable = [str(tracker.value) for tracker in get_available_trackers()] if names else []
    for name in names:
        if name not in usable:
            known = sorted(LOGGER_TYPE_TO_CLASS)
            raise InputError(
                f"run.trackers: {name!r} is not installed or not known{nearest(name, known)}; known are "
                f"{', '.join(known)}; installed here: {', '.join(usable) or 'none'}"
            )
    if names:
        accelerator(recipe.run.device, recipe.run.precision)  # the log of accelerate's trackers needs its state
    made = Tracking(names if main else (), folder, recipe.model_dump(mode="json"))
    try:
        yield made
    finally:
        made.close()


def _start(name: str, folder: Path) -> GeneralTracker:
    """The tracker ``name``, started, which writes into ``folder``."""
    kind: Any = LOGGER_TYPE_TO_CLASS[name]
    make: dict[str, Callable[[], Any]] = {
        "wandb": lambda: kind("hardy", dir=str(folder), name=folder.name, **_offline()),
        "mlflow": lambda: kind("hardy", run_name=folder.name),
    }
    if name == "mlflow":
        given = os.environ.get("MLFLOW_TRACKING_URI", "")
        if not given or given.endswith(f"/{_DATABASE}"):  # mlflow sets the variable itself to what an earlier run chose
            import_module("mlflow").set_tracking_uri(f"sqlite:///{folder.resolve() / _DATABASE}")
    plain = (lambda: kind("hardy", folder)) if kind.requires_logging_directory else (lambda: kind("hardy"))
    tracker: GeneralTracker = make.get(name, plain)()
    tracker.start()
    return tracker


def _offline() -> dict[str, str]:
    return {} if "WANDB_MODE" in os.environ else {"mode": "offline"}


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, bool | int | float | str]]:
    """(dotted key, value) of nested settings; a list is its JSON, and what is not set is left out."""
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, bool | int | float | str):
            yield f"{prefix}{name}", value
        elif value is not None:
            yield f"{prefix}{name}", json.dumps(value)
