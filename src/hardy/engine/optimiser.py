"""The optimiser: which weights learn at which rate and decay, and the rate over time."""

import logging
import math
from collections.abc import Callable

import torch
from torch import nn

from hardy.algorithms.base import Algorithm
from hardy.errors import InputError
from hardy.recipe import Optim

__all__ = ["build", "rate", "set_rate", "trained"]

_log = logging.getLogger("hardy")

_NORMS = (
    nn.modules.batchnorm._NormBase,
    nn.LayerNorm,
    nn.GroupNorm,
)


def rate(optim: Optim, step: int) -> float:
    """The learning rate's factor in [0, 1] for step number ``step`` (the first is 0): a linear warm-up, then the
    schedule over all of ``optim.steps``.

    Poly is ``(1 - step / steps) ** power``; cosine is Loshchilov and Hutter, ICLR 2017, eq. 5 with one period.
    """
    if step < optim.warm_up:
        return (step + 1) / (optim.warm_up + 1)
    done = min(step / optim.steps, 1.0)
    shapes: dict[str, Callable[[], float]] = {
        "poly": lambda: (1 - done) ** optim.power,
        "cosine": lambda: (1 + math.cos(math.pi * done)) / 2,
        "constant": lambda: 1.0,
    }
    return shapes[optim.schedule]()


def set_rate(optimiser: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's learning rate in place to its base rate times ``factor``."""
    for group in optimiser.param_groups:
        group["lr"] = group["base_lr"] * factor


def trained(algorithm: Algorithm) -> list[nn.Parameter]:
    """The parameters of ``algorithm``, in order, less those that optimisers of its own hold."""
    own = {id(p) for one in algorithm.optimisers().values() for group in one.param_groups for p in group["params"]}
    return [parameter for parameter in algorithm.parameters() if id(parameter) not in own]


def build(algorithm: Algorithm, optim: Optim) -> torch.optim.Optimizer:
    """An optimiser over all `trained` parameters of ``algorithm`` in up to four groups: encoder or not, decayed or not.

    Norms, biases and depthwise weights are not decayed (Sandler et al., CVPR 2018; Poudel et al., BMVC 2019). The
    encoder's rate is ``optim.lr * optim.encoder_rate``; a warning says where there is no pre-trained encoder.
    ``optim.momentum`` is the first beta of Adam and AdamW.

    Raises:
        InputError: when nothing in ``algorithm`` is trained.
    """
    pretrained = algorithm.network.encoder() if algorithm.network.pretrained else ()
    encoder = {id(p) for module in pretrained for p in module.parameters()}
    if optim.encoder_rate != 1 and not encoder:
        name = type(algorithm.network).__name__
        _log.warning(
            "optim.encoder_rate %g: %s has no pre-trained encoder, so all learns at optim.lr", optim.encoder_rate, name
        )
    spared = _spared(algorithm)
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in trained(algorithm):
        if parameter.requires_grad:
            groups.setdefault((id(parameter) in encoder, id(parameter) in spared), []).append(parameter)
    settings = [
        {
            "params": parameters,
            "base_lr": optim.lr * (optim.encoder_rate if in_encoder else 1.0),
            "weight_decay": 0.0 if bare else optim.weight_decay,
        }
        for (in_encoder, bare), parameters in groups.items()
    ]
    if not settings:
        raise InputError(f"{type(algorithm.network).__name__} has no parameter that is trained: all are frozen")
    if optim.name == "sgd":
        return torch.optim.SGD(settings, lr=optim.lr, momentum=optim.momentum)
    if optim.name == "rmsprop":  # smoothing 0.9 and a denominator of at least 1, as the networks trained by it have it
        return torch.optim.RMSprop(settings, lr=optim.lr, momentum=optim.momentum, alpha=0.9, eps=1.0)
    kind = torch.optim.Adam if optim.name == "adam" else torch.optim.AdamW
    return kind(settings, lr=optim.lr, betas=(optim.momentum, 0.999))


def _spared(algorithm: Algorithm) -> set[int]:
    """The ids of parameters without weight decay."""
    spared = {id(p) for name, p in algorithm.named_parameters() if p.ndim <= 1 or name.endswith("bias")}
    for module in algorithm.modules():
        if isinstance(module, _NORMS):
            spared |= {id(p) for p in module.parameters(recurse=False)}
        if isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1:
            spared.add(id(module.weight))
    return spared
