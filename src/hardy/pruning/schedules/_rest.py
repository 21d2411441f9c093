"""Scores a network without training it: weights, gradients and batch statistics are restored afterwards."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice

import torch
from torch import Tensor

from hardy.pruning.gates import gate_parameters, gate_sites
from hardy.pruning.schedules.base import Work
from hardy.seed import seeded
from hardy.types import Batch

__all__ = ["score_at_rest"]


def score_at_rest(work: Work, batches: int) -> dict[str, Tensor]:
    """Return the criterion's scores of the network in its present mode, over the first ``batches`` of ``work.batches``.

    A criterion that needs no data reads no batch.

    Raises:
        InputError: raised by the criterion, for example when there is no batch.
    """
    if work.criterion.needs_data:
        _observe(work, islice(work.batches, batches))
    return work.criterion.scores()


def _observe(work: Work, batches: Iterable[Batch]) -> None:
    work.criterion.reset()
    with _at_rest(work):
        for number, batch in enumerate(batches):
            work.network.zero_grad(set_to_none=True)
            with seeded(0, "one-shot", number):
                terms = work.criterion.observe(batch)
                torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
            work.criterion.collect()


@contextmanager
def _at_rest(work: Work) -> Iterator[None]:
    """Inside only the gates' parameters get gradients; buffers, gradients and ``requires_grad`` are restored."""
    network = work.network
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    before = [(parameter, parameter.requires_grad, parameter.grad) for parameter in network.parameters()]
    network.requires_grad_(False)
    for parameter in gate_parameters(gate_sites(network, work.units)):
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter, trainable, gradient in before:
            parameter.requires_grad_(trainable)
            parameter.grad = gradient
        for name, buffer in network.named_buffers():
            buffer.copy_(buffers[name])
