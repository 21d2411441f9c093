"""Scores a network without training it: weights do not change, gradients and batch statistics are restored.

A schedule that trains scores the batches on which it trains, unless `Work.apart` is set.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import islice

import torch
from torch import Tensor

from hardy.ops.norms import running_statistics
from hardy.pruning.gates import gate_parameters, gate_sites
from hardy.pruning.schedules.base import Work, terms_of
from hardy.seed import seeded
from hardy.types import Batch

__all__ = ["score_without_training", "train_and_score"]

_BATCHES = 30
"""The number of batches for a scoring apart from training, if none is given."""


def train_and_score(work: Work, steps: int, after_step: Callable[[], None]) -> tuple[dict[str, Tensor], int]:
    """Train for ``steps`` steps, and return the criterion's scores and the number of steps with batches scored apart.

    Raises:
        InputError: raised by the criterion.
    """
    assert work.tune is not None, "the schedule trains"
    if work.apart is None:
        work.criterion.reset()
        work.tune(steps, terms_of(work), work.criterion.collect, after_step)
        return work.criterion.scores(), steps
    work.tune(steps, terms_of(work), lambda: None, after_step)
    batches = work.apart.batches or _BATCHES
    return score_without_training(work, batches), steps + batches


def score_without_training(work: Work, batches: int) -> dict[str, Tensor]:
    """The criterion's scores of the network in its current mode, over the next ``batches`` of ``work.batches``.

    A criterion that needs no data reads no batch.

    Raises:
        InputError: raised by the criterion, for example when there is no batch.
    """
    if work.criterion.needs_data:
        _observe(work, islice(work.batches, batches))
    return work.criterion.scores()


def _observe(work: Work, batches: Iterable[Batch]) -> None:
    work.criterion.reset()
    running = work.apart is not None and work.apart.running
    norms = running_statistics(work.network, "prune.scoring.norms: running", "batch") if running else nullcontext()
    with _unchanged(work), norms:
        for number, batch in enumerate(batches):
            work.network.zero_grad(set_to_none=True)
            with seeded(0, "one-shot", number):
                terms = work.criterion.observe(batch)
                torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
            work.criterion.collect()


@contextmanager
def _unchanged(work: Work) -> Iterator[None]:
    """Inside the block only the gates' parameters get gradients; buffers, gradients and ``requires_grad`` are restored
    at its end."""
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
