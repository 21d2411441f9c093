"""Variance of gradients: how much the gradient of an image's score differs between two states of a network.

The score A of an image is the mean over its pixels of the logit of the class in a class map. G = dA / dx is its
gradient with respect to the normalised image, averaged over the colour channels. For two states (K = 2) and D = G_1 -
G_0:

    code       mean over pixels of sqrt( (1/K) sum_t (G_t - mean G)^2 )     = mean |D| / 2
    printed    mean over pixels of sqrt(1/K) sum_t (G_t - mean G)^2         = mean D^2 / (2 sqrt 2)

Source: Agarwal, D'souza and Hooker, "Estimating example difficulty using variance of gradients", CVPR 2022, eqs. 2 and
3; its released code has the first form. The score for segmentation is Hardy's reading.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["gradients", "variance"]


def gradients(
    forward: Callable[[Tensor], Tensor], images: Tensor, std: Tensor, classes: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """G (B, H, W) of each image, and the class map.

    Args:
        forward: a function from images to logits (B, K, H, W) or (B, K).
        images: (B, 3, H, W); they are not changed.
        std: the standard deviations (1, 3, 1, 1) by which the network divides images.
        classes: the class map, (B, H, W) or (B,) int64; None for the predicted classes.
    """
    with torch.enable_grad():
        given = images.detach().clone().requires_grad_()
        logits = forward(given)
        classes = logits.argmax(1) if classes is None else classes
        score = logits.gather(1, classes[:, None]).flatten(1).mean(1).sum()
        (gradient,) = torch.autograd.grad(score, given)
    return (gradient * std).mean(1), classes


def variance(first: Tensor, second: Tensor, form: str = "code") -> Tensor:
    """The variance of gradients (B,) of two states.

    Args:
        first: G (B, H, W) in one state.
        second: G (B, H, W) in the other state, for the same class map.
        form: ``code`` or ``printed``.
    """
    apart = (second - first).flatten(1)
    return (apart.abs() / 2 if form == "code" else apart.square() / (2 * math.sqrt(2))).mean(1)
