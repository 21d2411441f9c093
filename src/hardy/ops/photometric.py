"""Photometric changes of images: brightness, contrast, saturation, hue and an affine map of each channel.

All five are affine maps of RGB, so a single 3 x 3 matrix and offset per image applies them together. The result is
clamped to [0, 1] at the end. Hue is a rotation about the grey axis: a third of a turn maps red to green, green to blue
and blue to red. Grey is defined as in ITU-R BT.601.

Source: the usual photometric distortions (Howard, arXiv:1312.5402, section 2), written as matrices.
"""

import math

import torch
from torch import Tensor

__all__ = ["photometric", "recolour"]

_GREY = (0.299, 0.587, 0.114)


def photometric(images: Tensor, strength: float = 1.0) -> Tensor:
    """``images`` (B, 3, H, W) in [0, 1], each with its own random colours, drawn from torch's CPU generator.

    Args:
        images: the images; they are not changed.
        strength: scales the ranges. With 1, the factors of brightness, contrast and saturation are from 0.4 to 1.6, hue
            is turned by up to a tenth of a turn in either direction, and each channel gets a gain from 0.7 to 1.3 and
            an offset from -0.1 to 0.1. Factors are never below 0.
    """
    draws = torch.rand(len(images), 10).to(images)

    def around(column: slice, middle: float, width: float) -> Tensor:
        return middle + strength * width * (2 * draws[:, column] - 1)

    factors = around(slice(0, 3), 1, 0.6).clamp(min=0)
    return recolour(
        images,
        brightness=factors[:, 0],
        contrast=factors[:, 1],
        saturation=factors[:, 2],
        hue=around(slice(3, 4), 0, 0.1)[:, 0],
        gain=around(slice(4, 7), 1, 0.3).clamp(min=0),
        offset=around(slice(7, 10), 0, 0.1),
    )


def recolour(
    images: Tensor,
    *,
    brightness: Tensor,
    contrast: Tensor,
    saturation: Tensor,
    hue: Tensor,
    gain: Tensor,
    offset: Tensor,
) -> Tensor:
    """``images`` (B, 3, H, W) with changed colours, clamped to [0, 1]; the changes are applied in the order below.

    Args:
        images: the images; they are not changed.
        brightness: (B,) factor of all channels.
        contrast: (B,) factor of the distance to the image's mean grey.
        saturation: (B,) factor of the distance to the pixel's grey.
        hue: (B,) turns about the grey axis.
        gain: (B, 3) factor of each channel.
        offset: (B, 3) added to each channel.
    """
    grey = images.new_tensor(_GREY)
    one = torch.eye(3, dtype=images.dtype, device=images.device)
    to_grey = grey.expand(3, 3)  # its rows are the weights of grey
    mean_grey = images.mean((2, 3)) @ grey
    shift = ((1 - contrast) * brightness * mean_grey).unsqueeze(1).expand(-1, 3)
    saturated = _each(saturation) * one + (1 - _each(saturation)) * to_grey
    turned = gain.unsqueeze(2) * (_turn(hue) @ saturated)
    matrix = _each(brightness * contrast) * turned
    shift = (turned @ shift.unsqueeze(2)).squeeze(2) + offset
    mixed = torch.baddbmm(shift.unsqueeze(2), matrix, images.flatten(2))
    return mixed.view_as(images).clamp(0, 1)


def _each(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1)


def _turn(turns: Tensor) -> Tensor:
    """(B, 3, 3) rotations about the axis (1, 1, 1) (Rodrigues)."""
    angle = 2 * math.pi * turns
    third = torch.full((3, 3), 1 / 3, dtype=turns.dtype, device=turns.device)
    cross = turns.new_tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / math.sqrt(3)
    one = torch.eye(3, dtype=turns.dtype, device=turns.device)
    return third + _each(angle.cos()) * (one - third) + _each(angle.sin()) * cross
