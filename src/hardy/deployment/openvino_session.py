"""An ONNX file run by OpenVINO on the CPU, always in float32; by default OpenVINO takes bfloat16 on some processors."""

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hardy.errors import InputError

__all__ = ["OpenVINO", "check_installed"]


def check_installed() -> None:
    """Check that the package is installed.

    Raises:
        InputError: naming the extra.
    """
    _package()


class OpenVINO:
    """The graph of an ONNX file, ready to run on the CPU: ``session(images) -> classes or logits``.

    Args:
        path: the file.
        threads: threads per operation; None: as many as torch uses.

    Raises:
        InputError: if openvino is not installed.
    """

    def __init__(self, path: Path, threads: int | None = None) -> None:
        openvino = _package()
        settings = {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": str(threads or torch.get_num_threads()),
            "PERFORMANCE_HINT": "LATENCY",
        }
        runtime = openvino.Core()
        self._request = runtime.compile_model(runtime.read_model(str(path)), "CPU", settings).create_infer_request()

    def __call__(self, images: Tensor) -> Tensor:
        """The output of the graph for ``images`` (B, 3, H, W) float32 on the CPU."""
        return torch.from_numpy(self._request.infer({"images": images.contiguous().numpy()})[0].copy())


def _package() -> Any:
    """The package, imported without openvino_telemetry, which would report the import over the network."""
    loaded = "openvino_telemetry" in sys.modules
    if not loaded:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # its import fails, and a stub replaces it
    try:
        return import_module("openvino")
    except ModuleNotFoundError:
        raise InputError("openvino is not installed; it comes with: pip install 'hardy[openvino]'") from None
    finally:
        if not loaded:
            del sys.modules["openvino_telemetry"]
