"""Norm layers over channels (layer norm, group norm, RMS norm) while some channels are masked.

A channel of zeros still changes the mean and variance over channels. A layer that standardises its weights over its
inputs (Qiao et al., "Micro-batch training with batch-channel normalization and weight standardization", arXiv
1903.10520, equation 11) has such a mean and variance too. So masking changes the class of both, in place, to one that
normalises over the kept channels only. Parameters, names and state dict do not change, and the masked network computes
the same as the pruned one.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from timm import layers
from timm.layers.norm import LayerNormExp2d
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import parametrize
from torchvision.models.convnext import LayerNorm2d

from hardy.pruning.cut import cut, width

__all__ = ["CHANNEL_NORMS", "channel_axis", "mask_inputs", "mask_norm", "norm_width", "unmask"]

CHANNEL_NORMS = (
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
    layers.RmsNorm,
    layers.RmsNorm2d,
    layers.SimpleNorm,
    layers.SimpleNorm2d,
)
"""Norm layers whose statistics are over channels."""

_MAPS = (
    LayerNorm2d,
    layers.LayerNorm2d,
    layers.LayerNorm2dFp32,
    LayerNormExp2d,
    layers.LayerNormAct2d,
    layers.RmsNorm2d,
    layers.SimpleNorm2d,
    nn.GroupNorm,
)
"""Norm layers with inputs (B, C, h, w); the others have the channels on the last axis."""


def channel_axis(module: nn.Module) -> int:
    """The channel axis of the inputs and outputs of a norm layer over channels, a convolution or a linear layer."""
    last = isinstance(module, (nn.Linear, *CHANNEL_NORMS)) and not isinstance(module, _MAPS)
    return -1 if last else 1


def norm_width(module: nn.Module) -> int | None:
    """The number of channels of a norm layer; None if its statistics are over several axes of its input."""
    if not isinstance(module, nn.GroupNorm):
        shape: Sequence[int] = module.normalized_shape  # type: ignore[assignment]
        if len(shape) != 1:
            return None
    return width(module, "out")


class _Masked:
    """A mixin for the class of a norm layer: only the channels ``kept`` are normalised."""

    kept: Tensor

    def forward(self, x: Tensor) -> Tensor:
        module: Any = self
        axis = channel_axis(module)
        (narrow,) = vars(module)["narrow"]
        parameters = {name: getattr(module, name).index_select(0, self.kept) for name, _ in narrow.named_parameters()}
        out = functional_call(narrow, parameters, (x.index_select(axis, self.kept),))
        return torch.zeros_like(x, dtype=out.dtype).index_copy(axis % x.ndim, self.kept, out)


class _MaskedInputs(_Masked):
    """A mixin for the class of a layer that standardises its weights: only the input channels ``kept`` are used."""

    def forward(self, x: Tensor) -> Tensor:
        module: Any = self
        (narrow,) = vars(module)["narrow"]
        parameters = {name: getattr(module, name) for name, _ in narrow.named_parameters()}
        parameters["weight"] = parameters["weight"].index_select(1, self.kept)
        return functional_call(narrow, parameters, (x.index_select(channel_axis(module), self.kept),))  # type: ignore[no-any-return]


def mask_inputs(module: nn.Module, gone: Sequence[int]) -> None:
    """Make a layer that standardises its weights leave out the input channels ``gone``, in place."""
    unmask(module)
    narrow = copy.deepcopy(module)
    kept = [channel for channel in range(width(module, "in")) if channel not in set(gone)]
    cut(narrow, "in", kept)
    _masked(module, narrow, kept, _MaskedInputs)


def mask_norm(module: nn.Module, gone: Sequence[int]) -> None:
    """Make a norm layer over channels leave out the channels ``gone``, in place; all other channels are used."""
    unmask(module)
    narrow = copy.deepcopy(module)
    if parametrize.is_parametrized(narrow):  # both share a generated class, which removing a parametrization changes
        shared = type(narrow)
        members = {name: value for name, value in vars(shared).items() if name not in ("__dict__", "__weakref__")}
        narrow.__class__ = type(shared.__name__, shared.__bases__, members)
    for name in ("weight", "bias"):
        if parametrize.is_parametrized(narrow, name):
            parametrize.remove_parametrizations(narrow, name, leave_parametrized=True)
    count = width(module, "out")
    kept = [channel for channel in range(count) if channel not in set(gone)]
    cut(narrow, "out", kept)
    _masked(module, narrow, kept, _Masked)


def _masked(module: nn.Module, narrow: nn.Module, kept: list[int], mixin: type[_Masked]) -> None:
    device = next((p.device for p in module.parameters()), None)
    module.register_buffer("kept", torch.tensor(kept, device=device), persistent=False)
    module.narrow = (narrow,)  # type: ignore[assignment]  # in a tuple, so that it is not a submodule
    kind = type(module)
    module.__class__ = type(f"Masked{kind.__name__}", (mixin, kind), {"__module__": kind.__module__})


def unmask(module: nn.Module) -> None:
    """Undo `mask_norm` and `mask_inputs`, in place; other modules do not change."""
    if isinstance(module, _Masked):
        module.__class__ = type(module).__bases__[1]  # type: ignore[assignment]
        del module.kept, module.narrow
