"""A `Network` around a module that was not wrapped, so that it can be pruned like a network."""

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from hardy.data.label_spaces import LabelSpace
from hardy.networks.base import Network, resize
from hardy.ops.returned import logits_of, tensors_in
from hardy.types import Outputs

__all__ = ["Adapted"]


class Adapted(Network):
    """A network around any module and an example input; it does not normalise and has no class names.

    It takes the module's inputs, with any channels and size, and returns its outputs; only logits (B, K, h, w) are
    resized to the size of the input. It is not saved: callers keep the module.

    Args:
        module: takes one tensor; it is shared, not copied, and keeps its mode.
        example: an input of the module.
    """

    part: ClassVar[str] = "module"
    least_size = 1

    def __init__(self, module: nn.Module, example: Tensor) -> None:
        super().__init__(LabelSpace("logits", ("0",), ((0, 0, 0),)))
        self.module = module
        self._example = example.detach()
        self.train(module.training)

    def outputs(self, images: Tensor) -> Outputs:
        """See `Network.outputs`.

        Raises:
            InputError: if the module returns no logits.
        """
        logits = logits_of(self.module(images), "a module that is scored on data")
        return Outputs(resize(logits, images.shape[-2:]) if logits.ndim == 4 else logits)

    def read(self, images: Tensor) -> list[Tensor]:
        """All tensors that the module returns, unchanged."""
        return tensors_in(self.module(images))

    def example(self, side: int = 64, count: int = 2) -> Tensor:
        """The given example, repeated to at least ``count`` samples."""
        example = self._example.cpu()
        return torch.cat([example] * math.ceil(count / len(example))) if len(example) < count else example
