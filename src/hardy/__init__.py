"""Hardy makes small segmentation networks that are robust in domains they have never seen.

Importing `hardy` is fast: each public name is imported when it is first used.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hardy import counts as counts
    from hardy.commands.adapt import adapt
    from hardy.commands.bench import bench
    from hardy.commands.evaluate import evaluate
    from hardy.commands.export import export
    from hardy.commands.predict import predict
    from hardy.commands.prune import prune
    from hardy.commands.quantize import quantize
    from hardy.commands.stream import stream
    from hardy.commands.train import train
    from hardy.engine.artefact import load, save
    from hardy.engine.changes import merge
    from hardy.networks.building.create import create
    from hardy.networks.building.importing import import_weights
    from hardy.networks.building.wrapped import wrap

# onnxruntime's wheel reports its use over the network unless this is set before it is imported, here, by other
# libraries or in worker processes. Set the variable to 0 to allow the reports.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# A thread that waits for another at the end of an operation sleeps. By default it spins, and if other processes use the
# cores, it then blocks the thread that it waits for. OpenMP reads this when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"

__all__ = [
    "adapt",
    "bench",
    "create",
    "evaluate",
    "export",
    "import_weights",
    "load",
    "merge",
    "predict",
    "prune",
    "quantize",
    "save",
    "stream",
    "train",
    "wrap",
]

_HOMES = {
    "create": "hardy.networks.building.create",
    "import_weights": "hardy.networks.building.importing",
    "load": "hardy.engine.artefact",
    "merge": "hardy.engine.changes",
    "save": "hardy.engine.artefact",
    "wrap": "hardy.networks.building.wrapped",
}


def __getattr__(name: str) -> Any:
    if name == "counts":  # a module, for ``hardy.counts.read(folder)``
        return import_module("hardy.counts")
    if name not in __all__:
        raise AttributeError(f"module 'hardy' has no attribute {name!r}")
    return getattr(import_module(_HOMES.get(name, f"hardy.commands.{name}")), name)


def __dir__() -> list[str]:
    return [*__all__, "counts", "__version__"]
