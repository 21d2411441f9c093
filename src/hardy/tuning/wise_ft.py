"""WiSE-FT: trains all weights, then averages them with the weights before training; inserts nothing.

    theta = (1 - alpha) theta_0 + alpha theta_1          theta_0 before and theta_1 after training

The average is computed once, after the last step, from the weights that the run selected. By default only the encoder
is averaged; decoder and heads are those of theta_1, because an average with a randomly initialised decoder is
meaningless. ``decoder`` averages them too, for a network whose decoder was trained before. Running means and variances
of batch norms are averaged with the same formula, not re-estimated; batch counters are those of theta_1.

Source: Wortsman, Ilharco, Kim, Li, Kornblith, Roelofs, Gontijo Lopes, Hajishirzi, Farhadi, Namkoong and Schmidt,
"Robust fine-tuning of zero-shot models", CVPR 2022, section 3.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from hardy.errors import within
from hardy.networks.base import Network
from hardy.tuning.base import Tuner, encoder_of

__all__ = ["WiSEFT"]


class WiSEFT(Tuner):
    """For networks with an encoder; with ``decoder``, for all networks.

    Args:
        alpha: the share of the trained weights, in [0, 1]; 1 is the tuner `full`, 0 the weights before training.
        decoder: also average decoder and heads.

    Raises:
        InputError: for an alpha outside [0, 1].
    """

    def __init__(self, *, alpha: float = 0.5, decoder: bool = False) -> None:
        within("tuner.alpha", alpha, 0, 1)
        self.alpha, self.decoder = alpha, decoder

    def attach(self, network: Network) -> None:
        """See `Tuner.attach`: nothing is frozen."""
        if not self.decoder:
            encoder_of(network)
        network.requires_grad_(True)

    def remembered(self, network: Network) -> frozenset[str]:
        """See `Tuner.remembered`: the entries that are averaged."""
        names = {module: name for name, module in network.named_modules()}
        roots = [""] if self.decoder else [f"{names[module]}." for module in encoder_of(network)]
        return frozenset(
            name
            for name, value in network.state_dict().items()
            if value.is_floating_point() and name.startswith(tuple(roots))
        )

    @torch.no_grad()
    def finish(self, network: Network, start: Mapping[str, Tensor]) -> None:
        """See `Tuner.finish`."""
        state = network.state_dict()
        for name, before in start.items():
            state[name].copy_(torch.lerp(before.to(state[name].device), state[name], self.alpha))

    def merge(self, network: Network) -> None:
        """See `Tuner.merge`: nothing was inserted, so there is nothing to merge."""
