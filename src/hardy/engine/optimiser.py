"""The optimiser: learning rate and weight decay of each group of weights, and the learning-rate schedule."""

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

_NORMALISATION = (
    nn.modules.batchnorm._NormBase,
    nn.LayerNorm,
    nn.GroupNorm,
)


def rate(optim: Optim, step: int) -> float:
    """The learning-rate factor in [0, 1] at step ``step`` (the first is 0): a linear warm-up, then the schedule over
    all of ``optim.steps``.

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
    """Set the learning rate of every group in place to its base rate times ``factor``."""
    for group in optimiser.param_groups:
        group["lr"] = group["base_lr"] * factor


def trained(algorithm: Algorithm) -> list[nn.Parameter]:
    """The parameters of ``algorithm``, in order, without those of its own optimisers."""
    own = {id(p) for one in algorithm.optimisers().values() for group in one.param_groups for p in group["params"]}
    return [parameter for parameter in algorithm.parameters() if id(parameter) not in own]


def build(algorithm: Algorithm, optim: Optim) -> torch.optim.Optimizer:
    """An optimiser over all `trained` parameters of ``algorithm`` in up to four groups: encoder or not, decayed or not.

    Normalisation layers, biases and depthwise weights have no weight decay (Sandler et al., CVPR 2018; Poudel et al.,
    BMVC 2019). The learning rate of a pre-trained encoder is ``optim.lr * optim.encoder_rate``; without one a warning
    is logged. ``optim.momentum`` is the first beta of Adam and AdamW.

    Raises:
        InputError: when ``algorithm`` has no trained parameter.
    """
    networks = (algorithm.network, *algorithm.peers().values())
    pretrained = [module for network in networks if network.pretrained for module in network.encoder()]
    encoder = {id(p) for module in pretrained for p in module.parameters()}
    if optim.encoder_rate != 1 and not encoder:
        name = type(algorithm.network).__name__
        _log.warning(
            "optim.encoder_rate %g: %s has no pre-trained encoder, so all its weights learn at optim.lr",
            optim.encoder_rate,
            name,
        )
    not_decayed = _not_decayed(algorithm)
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in trained(algorithm):
        if parameter.requires_grad:
            groups.setdefault((id(parameter) in encoder, id(parameter) in not_decayed), []).append(parameter)
    settings = [
        {
            "params": parameters,
            "base_lr": optim.lr * (optim.encoder_rate if in_encoder else 1.0),
            "weight_decay": 0.0 if without_decay else optim.weight_decay,
        }
        for (in_encoder, without_decay), parameters in groups.items()
    ]
    if not settings:
        raise InputError(f"{type(algorithm.network).__name__} has no trained parameter: all are frozen")
    if optim.name == "sgd":
        return torch.optim.SGD(settings, lr=optim.lr, momentum=optim.momentum)
    if (
        optim.name == "rmsprop"
    ):  # smoothing 0.9 and a denominator of at least 1, as in the papers of the networks trained by it
        return torch.optim.RMSprop(settings, lr=optim.lr, momentum=optim.momentum, alpha=0.9, eps=1.0)
    kind = torch.optim.Adam if optim.name == "adam" else torch.optim.AdamW
    return kind(settings, lr=optim.lr, betas=(optim.momentum, 0.999))


def _not_decayed(algorithm: Algorithm) -> set[int]:
    """The ids of parameters without weight decay; a module names more of its own in ``undecayed``."""
    not_decayed = {id(p) for name, p in algorithm.named_parameters() if p.ndim <= 1 or name.endswith("bias")}
    for module in algorithm.modules():
        if isinstance(module, _NORMALISATION):
            not_decayed |= {id(p) for p in module.parameters(recurse=False)}
        if isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1:
            not_decayed.add(id(module.weight))
        names = getattr(module, "undecayed", ())
        not_decayed |= {id(p) for name, p in module.named_parameters(recurse=False) if name in names}
    return not_decayed
