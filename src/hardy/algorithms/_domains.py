"""Shared by the algorithms that compare domains: outputs and loss terms of each domain, from one forward pass."""

from collections.abc import Sequence

import torch

from hardy.algorithms.base import Algorithm
from hardy.errors import InputError
from hardy.networks.base import PixelLoss
from hardy.pruning.risk import domain_outputs
from hardy.types import Batch, Outputs, Terms

__all__ = ["domain_terms", "refuse_fewer", "weighted"]


def domain_terms(algorithm: Algorithm, batch: Batch, pixel_loss: PixelLoss) -> tuple[list[Outputs], list[Terms]]:
    """The outputs and the network's loss terms of each domain in ``batch``, by ascending domain index.

    Raises:
        InputError: when the batch has fewer domains than ``algorithm`` needs.
    """
    parts, _ = domain_outputs(algorithm.network, batch)
    refuse_fewer(algorithm, len(parts))
    terms = [algorithm.network.losses(outputs, labels, pixel_loss) for outputs, labels in parts]
    return [outputs for outputs, _ in parts], terms


def refuse_fewer(algorithm: Algorithm, domains: int) -> None:
    """Raise `InputError` when a batch has fewer ``domains`` than ``algorithm`` needs."""
    if domains < algorithm.needs_domains:
        raise InputError(
            f"{type(algorithm).__name__} compares domains, and a batch holds images of {domains}; raise optim.batch "
            "or name more data.sources"
        )


def weighted(terms: Sequence[Terms], weights: Sequence[float]) -> Terms:
    """``sum_i w_i terms_i`` for each name; all of ``terms`` have the same names."""
    return {
        name: torch.stack([weight * one[name] for weight, one in zip(weights, terms, strict=True)]).sum()
        for name in terms[0]
    }
