"""A critic of score maps with spectral norm and self-attention, and the gradient penalty that keeps it 1-Lipschitz.

Source: the layers are those of the code of Liu et al., "Structured knowledge distillation for semantic segmentation",
CVPR 2019; spectral norm: Miyato et al., ICLR 2018; self-attention: Zhang et al., "Self-attention generative adversarial
networks", ICML 2019, eq. 1 to 3; the penalty: Gulrajani et al., "Improved training of Wasserstein GANs", NeurIPS 2017,
eq. 3.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

__all__ = ["Critic", "gradient_penalty"]

_WIDTHS = (64, 128, 256, 512)


class Critic(nn.Module):
    """Scores maps (B, C, s, s): a high score means that the critic takes the map for a teacher's.

    Four 4x4 convolutions of stride 2 with spectral norm and LeakyReLU 0.1, self-attention after the third and the
    fourth, and a convolution over the whole remaining map.

    The batch norm at the input always uses its running statistics, and only `observe` updates them. So the score of a
    map does not depend on the other maps of its batch, and the penalty is computed for the same function that is
    trained.

    Args:
        channels: C.
        size: s, 16 or more.
    """

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        layers: list[nn.Module] = []
        for index, width in enumerate(_WIDTHS):
            before = _WIDTHS[index - 1] if index else channels
            layers += [spectral_norm(nn.Conv2d(before, width, 4, 2, 1)), nn.LeakyReLU(0.1)]
            if index >= 2:
                layers.append(_Attention(width))
        self.layers = nn.Sequential(*layers, nn.Conv2d(_WIDTHS[-1], 1, size // 16))

    @torch.no_grad()
    def observe(self, maps: Tensor) -> None:
        """Update the running statistics of the input with those of ``maps`` (B, C, s, s), in place."""
        norm = self.norm
        F.batch_norm(maps, norm.running_mean, norm.running_var, training=True, momentum=0.1)

    def forward(self, maps: Tensor) -> Tensor:
        """The scores (B,) of ``maps`` (B, C, s, s)."""
        norm = self.norm
        x = F.batch_norm(maps, norm.running_mean, norm.running_var, norm.weight, norm.bias)
        scores: Tensor = self.layers(x)
        return scores.flatten()


class _Attention(nn.Module):
    """Self-attention between the positions of a map. Its result is added times a learned factor that starts at 0."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = nn.Conv2d(channels, channels // 8, 1)
        self.key = nn.Conv2d(channels, channels // 8, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (B, C, h, w) plus gamma times the attention-weighted mean of the values for each position."""
        query, key, value = (layer(x).flatten(2) for layer in (self.query, self.key, self.value))
        attention = (query.mT @ key).softmax(2)  # (B, n, n), rows sum to 1
        gathered = value @ attention.mT
        mixed: Tensor = x + self.gamma * gathered.view_as(x)
        return mixed


def gradient_penalty(critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor:
    """``E (|grad D(x)| - 1)^2`` at ``x = e real + (1 - e) fake``, with a random e in [0, 1) for each map.

    e is drawn from torch's CPU generator.

    Args:
        critic: D, from maps (B, C, s, s) to scores (B,); the score of a map must not depend on the other maps.
        real: (B, C, s, s); no gradient flows into it.
        fake: (B, C, s, s); no gradient flows into it.
    """
    share = torch.rand(len(real), 1, 1, 1).to(real)
    between = (share * real.detach() + (1 - share) * fake.detach()).requires_grad_()
    (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    length = torch.linalg.vector_norm(slope.flatten(1), dim=1)
    penalty: Tensor = (length - 1).square().mean()
    return penalty
