"""SSF: scales and shifts the outputs of the encoder's layers and norms, channel by channel; the encoder is frozen.

    y = gamma * layer(x) + beta          gamma ~ N(1, 0.02^2) and beta ~ N(0, 0.02^2) of each channel are trained

It acts on every linear layer, convolution and norm layer. Merging is exact: weight and bias become ``gamma * W`` and
``gamma * b + beta``. A layer without bias gets no beta, because beta could not be merged into it. In timm's norms with
an activation, scale and shift are applied before the activation.

Source: Lian, Zhou, Feng and Wang, "Scaling & shifting your features: a new baseline for efficient model tuning",
NeurIPS 2022.
"""

import torch
from timm import layers
from timm.layers.norm import LayerNormExp2d
from torch import Tensor, nn

from hardy.errors import InputError
from hardy.networks.base import Network
from hardy.ops.around import Around
from hardy.ops.norms import NORMS
from hardy.tuning._layers import is_plain, replace, unwrap, within
from hardy.tuning.base import Tuner, freeze_encoder

__all__ = ["SSF"]

_DEVIATION = 0.02

_WITH_ACTIVATION = (
    layers.BatchNormAct2d,
    layers.GroupNormAct,
    layers.GroupNorm1Act,
    layers.LayerNormAct,
    layers.LayerNormAct2d,
)
"""Norms that hold a module ``drop`` and then an activation."""

_LAST = (nn.Linear, nn.LayerNorm, nn.RMSNorm, layers.RmsNorm, layers.SimpleNorm)
"""Layers whose channel axis is the last one, except for those in `_MAPS`. For all other layers it is axis 1."""

_MAPS = (layers.LayerNorm2d, layers.LayerNorm2dFp32, LayerNormExp2d, layers.LayerNormAct2d)


class SSF(Tuner):
    """For every encoder."""

    def attach(self, network: Network) -> None:
        """See `Tuner.attach`."""
        found = [module for _, module in within(network) if _can_be_merged(module)]
        if not found:
            raise InputError(f"tuner: the encoder of {type(network).__name__} has no layer to scale")
        freeze_encoder(network)
        for module in found:
            if isinstance(module, _WITH_ACTIVATION):
                module.drop = _BeforeActivation(module.drop, module).train(module.training)
        replace(network, {m: _ScaledShifted(m) for m in found if not isinstance(m, _WITH_ACTIVATION)})

    def merge(self, network: Network) -> None:
        """See `Tuner.merge`."""
        for module in network.modules():
            if isinstance(module, _WITH_ACTIVATION) and isinstance(module.drop, _BeforeActivation):
                module.drop = module.drop.merged_into(module)
        unwrap(network, _ScaledShifted)


def _can_be_merged(module: nn.Module) -> bool:
    """Whether a scale of the output of ``module`` can be merged into its weight."""
    if isinstance(module, _WITH_ACTIVATION) and not isinstance(module.drop, nn.Identity):
        return False
    norm = isinstance(module, NORMS) and "weight" in module._parameters and module.weight is not None
    return is_plain(module) or norm


def _drawn(layer: nn.Module) -> tuple[nn.Parameter, nn.Parameter | None]:
    """New scales and shifts for the outputs of ``layer``; no shifts for a layer without bias."""
    weight: Tensor = layer.weight  # type: ignore[assignment]
    gamma = torch.empty(len(weight), dtype=weight.dtype, device=weight.device).normal_(1, _DEVIATION)
    has_bias = "bias" in layer._parameters and layer.bias is not None
    beta = torch.empty_like(gamma).normal_(0, _DEVIATION) if has_bias else None
    return nn.Parameter(gamma), None if beta is None else nn.Parameter(beta)


class _ScaledShifted(Around):
    """``gamma * layer(x) + beta``."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__(layer)
        self.gamma, self.beta = _drawn(layer)
        self.last = isinstance(layer, _LAST) and not isinstance(layer, _MAPS)

    def forward(self, x: Tensor) -> Tensor:
        shape = (-1,) if self.last else (-1, *(1,) * (x.ndim - 2))
        out: Tensor = self.layer(x) * self.gamma.reshape(shape)
        return out if self.beta is None else out + self.beta.reshape(shape)

    def effective(self) -> tuple[Tensor, Tensor | None]:
        """See `Around.effective`."""
        return _scaled(self.layer, self.gamma, self.beta)


class _BeforeActivation(nn.Module):
    """``gamma * x + beta``, between a norm and its activation. ``layer`` is the identity that it replaces."""

    def __init__(self, layer: nn.Module, norm: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.gamma, self.beta = _drawn(norm)
        self.last = isinstance(norm, _LAST) and not isinstance(norm, _MAPS)

    def forward(self, x: Tensor) -> Tensor:
        shape = (-1,) if self.last else (-1, *(1,) * (x.ndim - 2))
        out = x * self.gamma.reshape(shape)
        return out if self.beta is None else out + self.beta.reshape(shape)

    @torch.no_grad()
    def merged_into(self, norm: nn.Module) -> nn.Module:
        """Merge scale and shift into ``norm``, in place; returns the identity that this module replaced."""
        weight, bias = _scaled(norm, self.gamma, self.beta)
        norm.weight.copy_(weight)  # type: ignore[operator,union-attr]
        if bias is not None:
            norm.bias.copy_(bias)  # type: ignore[operator,union-attr]
        return self.layer


def _scaled(layer: nn.Module, gamma: Tensor, beta: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """The weight and bias of the layer that computes ``gamma * layer(x) + beta``."""
    weight: Tensor = layer.weight  # type: ignore[assignment]
    bias: Tensor | None = layer.bias if "bias" in layer._parameters else None  # type: ignore[assignment]
    scaled = gamma.reshape(-1, *(1,) * (weight.ndim - 1)) * weight
    return scaled, bias if bias is None or beta is None else gamma * bias + beta
