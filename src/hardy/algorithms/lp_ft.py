"""LP-FT: first only the head on a frozen encoder (linear probing), then all weights (fine-tuning), in one run.

For ``probe_share`` of the steps the encoder (`Network.encoder`) is frozen, including its norms. Then everything is
trained, at ``tuning_rate`` times the learning rate. The head is trained before the encoder changes, so the large
gradients of an untrained head do not distort the features. At the change the optimiser's moments are reset. One
learning-rate schedule covers both parts. With a tuner, the second part trains the parameters that the tuner trains.

Two runs can do the same with a schedule for each part: a run with the tuner ``frozen``, then a run with ``full`` that
starts from it.

Source: Kumar, Raghunathan, Jones, Ma and Liang, "Fine-tuning can distort pretrained features and underperform
out-of-distribution", ICLR 2022, section 3.4.
"""

import logging

import torch
from torch import Tensor, nn

from hardy.algorithms.base import Algorithm
from hardy.errors import InputError, within
from hardy.networks.base import Network, PixelLoss
from hardy.types import Batch, Terms

__all__ = ["LPFT"]

_log = logging.getLogger("hardy")


class LPFT(Algorithm):
    """Train decoder and heads, then everything; the loss is the network's own.

    Args:
        network: what is trained; it has an encoder.
        pixel_loss: the loss of one head.
        steps: the number of optimiser steps, of both parts together.
        probe_share: the share of the steps in which the encoder is frozen.
        tuning_rate: the learning-rate factor in the steps after that, in [0, 1].

    Raises:
        InputError: for an option out of range, and for a network without an encoder.
    """

    reaches_all = False

    def __init__(
        self,
        network: Network,
        pixel_loss: PixelLoss,
        steps: int,
        *,
        probe_share: float = 0.5,
        tuning_rate: float = 0.1,
    ) -> None:
        within("LPFT.probe_share", probe_share, 0, 1)
        within("LPFT.tuning_rate", tuning_rate, 0, 1)
        super().__init__(network)
        if not network.encoder():
            raise InputError(
                f"algorithm: lp_ft: {type(network).__name__} names no encoder (Network.encoder) to freeze at first; "
                "use erm, or a network with an encoder, such as encoder_decoder"
            )
        self.pixel_loss, self.tuning_rate = pixel_loss, tuning_rate
        self.change = round(probe_share * steps)
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.steps: Tensor
        self._modes: list[tuple[nn.Module, bool]] = []
        self._held: list[nn.Parameter] = []

    def restarts(self, step: int) -> bool:
        """See `Algorithm.restarts`: at the first step that trains everything."""
        return 0 < self.change == step - 1

    def rate_factor(self, step: int) -> float:
        """See `Algorithm.rate_factor`."""
        return 1.0 if step <= self.change else self.tuning_rate

    def forward(self, batch: Batch) -> Terms:
        """The network's loss terms of ``batch``."""
        if int(self.steps) < self.change:
            self._rest()
        outputs = self.network.outputs(batch.images)
        return self.network.losses(outputs, batch.labels, self.pixel_loss)

    def after_backward(self) -> None:
        """See `Algorithm.after_backward`: the encoder is again as it was before the step."""
        for value in self._held:
            value.requires_grad_(True)
        for module, mode in self._modes:
            module.training = mode
        self._modes, self._held = [], []

    def after_step(self, step: int) -> None:
        """See `Algorithm.after_step`."""
        self.steps.fill_(step)
        if step == self.change:
            _log.info("step %d: linear probing ends; now all weights, at %g of the rate", step, self.tuning_rate)

    def _rest(self) -> None:
        """Until `after_backward` the encoder gets no gradients and is in evaluation mode, also when a block is computed
        again in the backward pass."""
        if self._modes:  # a further part of the batch
            return
        inside = [module for root in self.network.encoder() for module in root.modules()]
        self._modes = [(module, module.training) for module in inside]
        self._held = [value for root in self.network.encoder() for value in root.parameters() if value.requires_grad]
        for value in self._held:
            value.requires_grad_(False)
        for module in inside:
            module.training = False
