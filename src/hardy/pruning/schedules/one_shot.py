"""Scores a network that stands still, and removes once.

Weights, gradients and batch statistics are after the scoring what they were before it.

Source: "prune once and retrain" of Li, Kadav, Durdanovic, Samet and Graf, "Pruning filters for efficient ConvNets",
ICLR 2017, section 3.4.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice

import torch

from hardy.errors import InputError
from hardy.pruning.gates import gate_parameters, gate_places
from hardy.pruning.goal import choose
from hardy.pruning.schedules.base import Pruned, Schedule, Work, finished
from hardy.seed import seeded
from hardy.types import Batch

__all__ = ["OneShot"]


class OneShot(Schedule):
    """Score a network as it stands, in the mode it is in, and remove once.

    Args:
        batches: how many batches are looked at; none by a criterion that needs no data.

    Raises:
        InputError: for ``batches`` below 1.
    """

    trains = False

    def __init__(self, *, batches: int = 30) -> None:
        if batches < 1:
            raise InputError(f"schedule: batches {batches} must be at least 1")
        self.batches = batches

    def run(self, work: Work) -> Pruned:
        """See `Schedule.run`."""
        if work.criterion.needs_data:
            self._observe(work, islice(work.batches, self.batches))
        scores = work.criterion.scores()
        removed = choose(scores, work.units, work.goal, {}, work.limits)
        return finished(work, removed, scores, 1, self.batches if work.criterion.needs_data else 0)

    def _observe(self, work: Work, batches: Iterable[Batch]) -> None:
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
    """Only the gates' parameters get gradients inside; buffers, gradients and ``requires_grad`` are put back after."""
    network = work.network
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    before = [(parameter, parameter.requires_grad, parameter.grad) for parameter in network.parameters()]
    network.requires_grad_(False)
    for parameter in gate_parameters(gate_places(network, work.units)):
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter, trainable, gradient in before:
            parameter.requires_grad_(trainable)
            parameter.grad = gradient
        for name, buffer in network.named_buffers():
            buffer.copy_(buffers[name])
