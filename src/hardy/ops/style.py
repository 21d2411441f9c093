"""Style statistics and AdaIN: the style of a feature map is the mean and the standard deviation of its channels.

    mu = mean over positions,   sigma = sqrt(var + 1e-5) with the unbiased variance,
    AdaIN(f, mu', sigma') = sigma' (f - mu(f)) / sigma(f) + mu'

Source: Huang and Belongie, "Arbitrary style transfer in real-time with adaptive instance normalization", ICCV 2017,
eq. 5 to 8.
"""

import torch
from torch import Tensor

__all__ = ["adain", "statistics"]

EPSILON = 1e-5
"""Added to the variance, as the authors do."""


def statistics(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation, each (B, C), of the channels of ``features`` (B, C, h, w) with two or more cells.

    They are in float32 or wider.
    """
    cells = features.flatten(2).to(torch.promote_types(features.dtype, torch.float32))
    variance, mean = torch.var_mean(cells, dim=2)
    return mean, (variance + EPSILON).sqrt()


def adain(features: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """``features`` (B, C, h, w) with their style replaced by ``mean`` and ``deviation``, each (B, C).

    A negative deviation flips the sign of a channel.
    """
    own_mean, own_deviation = statistics(features)
    scale = deviation / own_deviation
    return features * scale[..., None, None] + (mean - scale * own_mean)[..., None, None]
