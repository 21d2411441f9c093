"""Shared by the methods that train the weights and biases of norm layers: these parameters and their optimiser."""

from collections.abc import Iterator

import torch
from torch import nn

from hardy.errors import InputError
from hardy.networks.base import Network
from hardy.ops.batch_statistics import install, use_batch
from hardy.ops.norms import NORMS
from hardy.ops.weight_steps import refuse_narrow

__all__ = ["learn_norms", "momentum_descent"]


def learn_norms(network: Network, method: str, *, leave: float = 0.0) -> list[nn.Parameter]:
    """Freeze ``network`` except for the weights and biases of its norm layers, in place, and return these parameters.

    Afterwards its batch norms normalise by the batch, or by their running statistics if the batch has one value per
    channel. The running statistics do not change. Layer, group and other norms are trained too and normalise as before.

    Args:
        network: the copy that adapts.
        method: the name of the method, for the message.
        leave: the share of the encoder's norms, counted from the last, that stay frozen; of all norms if the network
            names no encoder. Rounded down.

    Raises:
        InputError: for a network without such parameters, or with 16-bit parameters; the message says what to do.
    """
    use_batch(install(network).values())
    network.requires_grad_(False)
    roots = network.encoder() if leave else ()
    inside = [norm for root in (roots or (network,)) for norm in _norms(root)]
    left = set(inside[len(inside) - int(leave * len(inside)) :])
    learned = [value for norm in _norms(network) if norm not in left for value in norm.parameters(recurse=False)]
    if left and not learned:
        raise InputError(f"adapt: {method}: leave {leave} leaves no norm layer to learn; give a smaller share")
    if not learned:
        raise InputError(
            f"adapt: {method} trains the weights and biases of norm layers, and {type(network).__name__} has none; if "
            "they were folded into convolutions or frozen, load the network as it was before: hardy.load of its run, "
            "or use torch.nn.BatchNorm2d instead of the frozen norms; for a device, hardy export --statistics observed"
        )
    refuse_narrow(learned, method)
    for value in learned:
        value.requires_grad_(True)
    return learned


def momentum_descent(learned: list[nn.Parameter], lr: float) -> torch.optim.SGD:
    """Stochastic gradient descent with Nesterov's momentum of 0.9, without weight decay."""
    return torch.optim.SGD(learned, lr=lr, momentum=0.9, nesterov=True)


def _norms(root: nn.Module) -> Iterator[nn.Module]:
    return (module for module in root.modules() if isinstance(module, NORMS))
