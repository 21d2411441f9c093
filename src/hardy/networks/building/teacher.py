"""A teacher: a frozen network from which another network learns."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Literal, Self

import torch
from torch import Tensor, nn

from hardy.data.labels import LabelSpace
from hardy.networks.base import Network
from hardy.ops.frozen import Frozen
from hardy.types import Outputs

__all__ = ["Precision", "Teacher"]

Precision = Literal["fp32", "bf16"]


class Teacher(nn.Module):
    """A frozen copy of ``network`` in evaluation mode that returns complete `Outputs`, without gradient.

    An algorithm gets one through the argument ``teacher`` before the ``*`` of its constructor, and may keep it as a
    submodule. It moves between devices with its parent. It has no parameters, buffers or state, so optimisers,
    checkpoints and parameter counts do not include it; `train`, `requires_grad_` and dtype changes do not affect it.

    Contract, tested by ``tests/contracts/test_teachers.py``.

    Args:
        network: the network to copy.
        precision: ``fp32`` computes in the dtype of the weights and ignores autocast, ``bf16`` computes under autocast
            to bfloat16; both return outputs in the dtype of the images. None follows the surrounding autocast.
    """

    def __init__(self, network: Network, precision: Precision | None = None) -> None:
        super().__init__()
        self._frozen = Frozen(network)
        self.precision = precision
        self.training = False

    @property
    def network(self) -> Network:
        """The copy, for reading its stages or its name."""
        return self._frozen.module  # type: ignore[return-value]

    @property
    def labels(self) -> LabelSpace:
        """The classes that it predicts."""
        return self.network.labels

    @property
    def image_level(self) -> bool:
        """True when it predicts one class per image."""
        return self.network.image_level

    @torch.no_grad()
    def outputs(self, images: Tensor) -> Outputs:
        """Logits, features and extras of ``images`` (B, 3, H, W) RGB in [0, 1], without a graph.

        A network from an ONNX file returns logits only.

        Raises:
            InputError: for images that the network does not take.
        """
        with self._precision(images.device.type):
            found = self.network.outputs(images.to(self.network.mean.dtype))
        return found if self.precision is None else _with_dtype(found, images.dtype)

    def forward(self, images: Tensor) -> Tensor:
        """The logits of `outputs`."""
        return self.outputs(images).logits

    def train(self, mode: bool = True) -> Self:
        """Do nothing."""
        return self

    def _precision(self, device: str) -> AbstractContextManager[object]:
        if self.precision is None:
            return nullcontext()
        return torch.autocast(device, torch.bfloat16, enabled=self.precision == "bf16")

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        device = fn(torch.empty(0, device=self.network.mean.device)).device
        self._frozen._apply(lambda value: value.to(device))  # only the device: its dtype does not change
        return self


def _with_dtype(outputs: Outputs, dtype: torch.dtype) -> Outputs:
    """``outputs`` with every floating tensor in ``dtype``."""

    def cast(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: value.to(dtype) if value.is_floating_point() else value for name, value in tensors.items()}

    logits = outputs.logits.to(dtype)
    return replace(outputs, logits=logits, features=cast(outputs.features), extras=cast(outputs.extras))
