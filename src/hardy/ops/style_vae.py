"""D-VAE: a variational auto-encoder of style statistics, and the decoder from features with a style to images.

Three linear layers map the style s = (mu, sigma) in R^2C of a feature map of C channels to psi and xi in R^C. A code is
drawn as e = psi + n xi with n ~ N(0, I), and three more layers map it back to a style. xi is the standard deviation;
its sign has no meaning, because n is symmetric. The divergence from N(0, I) is

    KL = 1/2 (psi^2 + xi^2 - log(xi^2 + 1e-5) - 1)     summed or averaged over the C dimensions.

Source: Luo, Liu, Guan, Yu and Yang, "Adversarial style mining for one-shot unsupervised domain adaptation", NeurIPS
2020, section 3.2 (RAIN), on which D-VAE of Luo, Liu and Yang, IJCV 2024, doi 10.1007/s11263-024-02194-5, is built; the
decoder: Huang and Belongie, ICCV 2017, section 6.1. The authors' code uses the mean over dimensions.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from hardy.ops.style import statistics

__all__ = ["DVAE", "divergence", "mirror", "style_of"]

MIRROR = {8: (1, 4, 2, 2), 4: (1, 2, 1), 2: (2, 1)}
"""The number of convolutions of the decoder at each size, coarsest first, by the encoder's stride. At 8 they mirror
VGG-19; at smaller strides there are few at full size, where they cost most."""


class DVAE(nn.Module):
    """Styles (B, 2C) to codes (B, C) and back.

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.encoder = _layers(2 * channels, 2 * channels)
        self.decoder = _layers(channels, 2 * channels)

    def encode(self, style: Tensor) -> tuple[Tensor, Tensor]:
        """psi and xi, each (B, C), of styles (B, 2C)."""
        psi, xi = self.encoder(style).chunk(2, dim=1)
        return psi, xi

    def decode(self, code: Tensor) -> Tensor:
        """Styles (B, 2C) of codes (B, C); a deviation among them may be negative."""
        style: Tensor = self.decoder(code)
        return style


def style_of(features: Tensor) -> Tensor:
    """The style (B, 2C) of ``features`` (B, C, h, w): means, then deviations."""
    return torch.cat(statistics(features), dim=1)


def divergence(psi: Tensor, xi: Tensor, reduction: Literal["mean", "sum"] = "mean") -> Tensor:
    """KL(N(psi, xi^2) || N(0, 1)) for psi, xi (B, C): mean or sum over the dimensions, mean over the batch."""
    each = 0.5 * (psi.square() + xi.square() - (xi.square() + 1e-5).log() - 1)
    return each.mean() if reduction == "mean" else each.sum(1).mean()


def mirror(channels: int, stride: int, *, least: int = 32) -> nn.Sequential:
    """The decoder for an encoder with ``channels`` at ``stride`` (2, 4 or 8): features (B, C, h, w) -> images
    (B, 3, stride h, stride w), not limited to [0, 1].

    3x3 convolutions with reflection padding and ReLU, and nearest-neighbour upsampling between sizes. The last
    convolution of a size halves the width, but not below ``least``. The last one of all has 3 outputs and no ReLU. For
    512 channels at stride 8 the widths are 512-256-256-256-256-128-128-64-64-3.
    """
    layers: list[nn.Module] = []
    width, counts = channels, MIRROR[stride]
    for place, count in enumerate(counts):
        after = 3 if place == len(counts) - 1 else max(width // 2, least)
        for number in range(1, count + 1):
            out = after if number == count else width
            layers += [nn.Conv2d(width, out, 3, padding=1, padding_mode="reflect"), nn.ReLU()]
            width = out
        layers.append(nn.Upsample(scale_factor=2, mode="nearest"))
    return _drawn(nn.Sequential(*layers[:-2]))


def _layers(inputs: int, outputs: int) -> nn.Sequential:
    """Three linear layers with ReLU between them; the hidden layers are as wide as the output."""
    first, second, third = nn.Linear(inputs, outputs), nn.Linear(outputs, outputs), nn.Linear(outputs, outputs)
    return _drawn(nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third))


def _drawn(layers: nn.Sequential) -> nn.Sequential:
    """``layers``, initialised in place as in He et al., ICCV 2015, eq. 10, by the fan-in; biases are 0."""
    for layer in layers:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return layers
