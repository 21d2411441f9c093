"""Norms over channels (layer norm, group norm, RMS norm), and what they compute while some channels are masked.

A channel set to zero still counts in the mean and the variance over channels. So masking replaces the norm's class in
place by one that normalises the kept channels only and gives zeros for the others: parameters, names and state dict
stay what they were, and the masked network computes what the pruned one will.
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

__all__ = ["CHANNEL_NORMS", "channel_axis", "mask_norm", "norm_width", "unmask"]

CHANNEL_NORMS = (
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
    layers.RmsNorm,
    layers.RmsNorm2d,
    layers.SimpleNorm,
    layers.SimpleNorm2d,
)
"""Norms whose statistics run over channels."""

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
"""Those that take maps (B, C, h, w); the others take channels last."""


def channel_axis(module: nn.Module) -> int:
    """The axis of the channels in what a norm over channels, a convolution or a linear layer takes and makes."""
    last = isinstance(module, (nn.Linear, *CHANNEL_NORMS)) and not isinstance(module, _MAPS)
    return -1 if last else 1


def norm_width(module: nn.Module) -> int | None:
    """How many channels a norm has; None when its statistics run over several axes of its input."""
    if not isinstance(module, nn.GroupNorm):
        shape: Sequence[int] = module.normalized_shape  # type: ignore[assignment]
        if len(shape) != 1:
            return None
    return width(module, "out")


class _Masked:
    """Mixed into a norm's class: only the channels ``kept`` are normalised."""

    kept: Tensor

    def forward(self, x: Tensor) -> Tensor:
        module: Any = self
        axis = channel_axis(module)
        (narrow,) = vars(module)["narrow"]
        parameters = {name: getattr(module, name).index_select(0, self.kept) for name, _ in narrow.named_parameters()}
        out = functional_call(narrow, parameters, (x.index_select(axis, self.kept),))
        return torch.zeros_like(x, dtype=out.dtype).index_copy(axis % x.ndim, self.kept, out)


def mask_norm(module: nn.Module, gone: Sequence[int]) -> None:
    """Make a norm over channels leave out the channels ``gone``, in place; all others count again."""
    unmask(module)
    narrow = copy.deepcopy(module)
    if parametrize.is_parametrized(narrow):  # its class was made for both; to take a parametrization away changes it
        shared = type(narrow)
        members = {name: value for name, value in vars(shared).items() if name not in ("__dict__", "__weakref__")}
        narrow.__class__ = type(shared.__name__, shared.__bases__, members)
    for name in ("weight", "bias"):
        if parametrize.is_parametrized(narrow, name):
            parametrize.remove_parametrizations(narrow, name, leave_parametrized=True)
    count = width(module, "out")
    kept = [channel for channel in range(count) if channel not in set(gone)]
    cut(narrow, "out", kept)
    device = next((p.device for p in module.parameters()), None)
    module.register_buffer("kept", torch.tensor(kept, device=device), persistent=False)
    module.narrow = (narrow,)  # type: ignore[assignment]  # in a tuple: it is no part of the network
    kind = type(module)
    module.__class__ = type(f"Masked{kind.__name__}", (_Masked, kind), {"__module__": kind.__module__})


def unmask(module: nn.Module) -> None:
    """Undo `mask_norm`, in place; other modules stay as they are."""
    if isinstance(module, _Masked):
        module.__class__ = type(module).__mro__[2]  # type: ignore[assignment]
        del module.kept, module.narrow
