"""An encoder of convolutions, norms and linear layers, and a head: every tuner has something to do.

Source: written for the tests.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from hardy.networks.base import Network, resize
from hardy.networks.building.weights import initialise
from hardy.types import Outputs

__all__ = ["TwoPart"]


class _FeedForward(nn.Module):
    """Linear, ReLU, linear, over the last axis."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.wide = nn.Linear(width, width + width // 2)
        self.narrow = nn.Linear(width + width // 2, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.narrow(self.wide(x).relu())


class _Mixed(nn.Module):
    """A norm and a feed-forward block over the channels of a map, as residual."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.mix = _FeedForward(width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mix(self.norm(x.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)


class TwoPart(Network):
    """Features: ``stage`` at stride 4.

    Args:
        labels: the classes predicted.
        width: channels of the encoder.
    """

    least_size = 8

    def __init__(self, label_space, *, width: int = 12) -> None:
        super().__init__(label_space)
        self.body = nn.Sequential(
            nn.Conv2d(3, width, 3, 2, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, 2, 1, bias=False),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
            nn.Sequential(_Mixed(2 * width), _Mixed(2 * width)),
        )
        self.middle = nn.Sequential(nn.Conv2d(2 * width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        self.head = nn.Conv2d(width, len(label_space), 1)
        initialise(self)

    def encoder(self) -> Sequence[nn.Module]:
        """The body."""
        return (self.body,)

    def outputs(self, images: Tensor) -> Outputs:
        """See `Network.outputs`."""
        stage = self.body(self.normalise(images))
        logits = self.head(self.middle(stage))
        return Outputs(resize(logits, images.shape[-2:]), {"stage": stage, "logits": logits})
