"""Style sensitivity: how strongly the channels of a layer depend on the style of an image and not on its content.

For P images in S styles each, A (S, P, n, L) are the activations of n channels at L positions, and
``D = A - mean over the styles of A`` is the part that changes with the style. Both sensitivities use its covariance:

    Sigma_ij = mean over styles, images and positions of D_i D_j
    unary     u_i = Sigma_ii                                      the variance caused by style
    binary    b_i = sum_{j != i} |Sigma_ij| / sqrt(Sigma_ii Sigma_jj)    the correlation with the other channels

If the factors scale each channel to unit variance over the complete batch, u_i is the share of the variance caused by
style, in [0, 1] (law of total variance).

Source: Luo, Liu and Yang, "Domain generalization for semantic segmentation by pruning", IJCV 2024,
doi 10.1007/s11263-024-02194-5; the whitened form: Choi et al., "RobustNet", CVPR 2021, eq. 8 to 10.
"""

from typing import Literal

import torch
from torch import Tensor

__all__ = ["Binary", "Scale", "binary", "deviations", "normalised", "unary", "whitened_variance"]

Binary = Literal["correlation", "covariance", "whitened"]
Scale = Literal["mean", "sum", "minmax", "softmax"]

_TINY = 1e-12
_CLIP = 5.0
"""The largest normalised weight; with ``"mean"`` it is 5 times the mean."""


def deviations(activations: Tensor) -> Tensor:
    """D (n, R) of activations (S, P, n, L): for each channel R deviations that are caused by style."""
    if len(activations) == 2:  # the second deviation is the negative of the first
        apart = (activations[0] - activations[1]) / 2
    else:
        apart = (activations - activations.mean(0, keepdim=True)).flatten(0, 1)  # (S P, n, L)
    return apart.transpose(0, 1).flatten(1)


def unary(apart: Tensor, factor: Tensor | None = None) -> Tensor:
    """u (n,) of the deviations D (n, R), each channel multiplied by its ``factor`` (n,)."""
    variance = apart.square().mean(1)
    return variance if factor is None else variance * factor.square()


def binary(
    apart: Tensor, kind: Literal["correlation", "covariance"] = "correlation", factor: Tensor | None = None
) -> Tensor:
    """b (n,) of the deviations D (n, R): the row sums of |Sigma| without its diagonal.

    ``kind`` chooses correlations, which do not depend on the ``factor`` (n,) of each channel, or covariances.
    """
    if kind == "correlation":
        rows = apart * apart.square().sum(1, keepdim=True).clamp_min(_TINY).rsqrt()
    else:
        rows = apart * len(apart[0]) ** -0.5 if factor is None else apart * (factor * len(apart[0]) ** -0.5)[:, None]
    return (rows @ rows.T).abs().sum(1) - rows.square().sum(1)


def whitened_variance(activations: Tensor) -> Tensor:
    """b (n,) of activations (S, P, n, L), from the instance-whitened covariance of each image.

    Its variance over styles is averaged over images; b are the row sums of the result without the diagonal.
    """
    mean = activations.mean(-1, keepdim=True)
    deviation = activations.var(-1, keepdim=True, correction=0).clamp_min(_TINY).sqrt()
    whitened = (activations - mean) / deviation
    each = whitened @ whitened.transpose(-1, -2) / whitened.shape[-1]  # (S, P, n, n)
    spread = each.var(0, correction=0).mean(0)
    return spread.sum(1) - spread.diagonal()


def normalised(values: list[Tensor], scale: Scale = "mean", *, together: bool = False) -> list[Tensor]:
    """The weights of each layer: its values (n,), normalised and then clipped at 5.

    Values are divided by their ``mean`` or ``sum``, scaled to [0, 1] (``minmax``), or passed through a ``softmax``.
    With ``together`` all layers share one mean, sum, range or softmax.
    """
    if together:
        return list(torch.split(_normalised(torch.cat(values), scale), [len(value) for value in values]))
    return [_normalised(value, scale) for value in values]


def _normalised(values: Tensor, scale: Scale) -> Tensor:
    if scale == "softmax":
        found = values.softmax(0)
    elif scale == "minmax":
        low, high = values.min(), values.max()
        found = (values - low) / (high - low).clamp_min(_TINY)
    else:
        total = values.mean() if scale == "mean" else values.sum()
        found = values / total.clamp_min(_TINY)
    return found.clamp_max(_CLIP)
