"""Gradient checkpointing: a block keeps its input for the backward pass, which computes what is inside it again.

The blocks are those of the encoder (`hardy.tuning._blocks`). Dropout and drop path draw the same again, batch norms
update their statistics once, so that all results have the same bits as without.

Source: Chen, Xu, Zhang and Guestrin, "Training deep nets with sublinear memory cost", arXiv 1604.06174, 2016,
section 4.
"""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.checkpoint import checkpoint

from hardy.errors import InputError
from hardy.networks.base import Network
from hardy.tuning._blocks import stages_in

__all__ = ["blocks_of", "checkpointed"]


def blocks_of(networks: Iterable[Network], key: str = "run.gradient_checkpointing: true") -> list[nn.Module]:
    """The blocks of the encoders of ``networks``; a network without any gives none.

    Raises:
        InputError: when there is none at all, naming ``key``, which needs them, and the class of the first network.
    """
    several = tuple(networks)
    found = [net.get_submodule(name) for net in several for stage in stages_in(net) for name in stage.names]
    if not found:
        raise InputError(
            f"{key} has no effect: {type(several[0]).__name__} has no encoder with blocks; "
            "leave it out, or take encoder_decoder with a transformer, ConvNeXt, ResNet or MobileNet"
        )
    return found


@contextmanager
def checkpointed(blocks: Iterable[nn.Module]) -> Iterator[None]:
    """Inside the block: each of ``blocks`` keeps only its input where gradients are needed. No name and no module
    changes."""
    several = tuple(blocks)
    for block in several:
        vars(block)["forward"] = MethodType(_forward, block)
    try:
        yield
    finally:
        for block in several:
            vars(block).pop("forward")


def _forward(block: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """What the class of ``block`` computes; see the module."""
    compute = partial(type(block).forward, block)
    if not torch.is_grad_enabled():
        return compute(*args, **kwargs)
    contexts = partial(_contexts, block)
    return checkpoint(compute, *args, use_reentrant=False, context_fn=contexts, **kwargs)


def _contexts(block: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """For the forward pass, and for when it is computed again."""
    return nullcontext(), _Apart(block)


class _Apart(AbstractContextManager[None]):
    """Inside it the statistics of the norms of ``block`` are copies, so that they are not updated twice. It may be
    entered again, as when gradients are computed twice."""

    def __init__(self, block: nn.Module) -> None:
        self._block = block
        self._kept: list[tuple[nn.Module, dict[str, Any]]] = []

    def __enter__(self) -> None:
        norms = [module for module in self._block.modules() if isinstance(module, _NormBase) and module.training]
        self._kept = [(norm, dict(norm._buffers)) for norm in norms]
        for norm, buffers in self._kept:
            norm._buffers.update({name: None if value is None else value.clone() for name, value in buffers.items()})

    def __exit__(self, *error: object) -> None:
        for norm, buffers in self._kept:
            norm._buffers.update(buffers)
