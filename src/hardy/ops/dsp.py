"""Differentiable style perturbation (DSP): images redrawn in a style given by a vector epsilon.

    stylise(x, eps) = D(AdaIN(E(x), s_hat)),    s_hat = decode(m + S^(1/2) eps),    eps ~ N(0, I)

The encoder E, the decoder D and the style decoder are frozen. m and S are mean and covariance of the codes of real
styles, so an eps from N(0, I) gives similar codes. Everything is differentiable with respect to eps. A step of gradient
ascent on a loss L is

    eps <- eps + alpha dL/deps,    alpha = 20 / L,    |change| <= |eps|.

Source: Luo, Liu and Yang, "Domain generalization for semantic segmentation by pruning", IJCV 2024, doi
10.1007/s11263-024-02194-5, figure 1; alpha: the authors' code of Luo, Liu, Guan, Yu and Yang, "Adversarial style
mining", NeurIPS 2020. The limit of a step and the whitening of the codes are Hardy's.
"""

from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hardy.ops.style import adain

__all__ = ["Moments", "Perturbation", "ascend"]


class Moments(nn.Module):
    """Running mean and covariance of the codes psi + n xi, with n ~ N(0, I), over all styles so far.

    It is the plain mean over the first batches, then an exponential moving average.

    Args:
        channels: C, the length of a code.
        share: the smallest weight of a new batch.
    """

    mean: Tensor
    square: Tensor
    batches: Tensor

    def __init__(self, channels: int, *, share: float = 0.01) -> None:
        super().__init__()
        self.share = share
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("square", torch.eye(channels))
        self.register_buffer("batches", torch.zeros(()))

    @torch.no_grad()
    def update(self, psi: Tensor, xi: Tensor) -> None:
        """Add the styles of a batch, psi and xi (B, C), in place; their codes e have E[ee'] = psi psi' + diag(xi^2)."""
        psi, xi = psi.float(), xi.float()
        self.batches += 1
        share = torch.clamp(1 / self.batches, min=self.share)
        self.mean.lerp_(psi.mean(0), share)
        self.square.lerp_(psi.T @ psi / len(psi) + xi.square().mean(0).diag(), share)

    def whitening(self) -> tuple[Tensor, Tensor]:
        """m (C,) and the symmetric S^(1/2) (C, C)."""
        covariance = (self.square - self.mean.outer(self.mean)).double()
        values, vectors = torch.linalg.eigh(covariance)
        root = vectors @ values.clamp_min(0).sqrt().diag() @ vectors.T
        return self.mean.clone(), root.to(self.mean.dtype)


class Perturbation(nn.Module):
    """A trained style perturbation; it stays frozen when the module that holds it is trained.

    Args:
        encoder: E, images (B, 3, H, W) RGB in [0, 1] -> feature maps, finest first; the last one gives the style.
        style_decoder: codes (B, C) -> styles (B, 2C), means before standard deviations.
        decoder: D, features (B, C, h, w) -> images.
        centre: m (C,).
        root: S^(1/2) (C, C).
    """

    centre: Tensor
    root: Tensor

    def __init__(
        self, encoder: nn.Module, style_decoder: nn.Module, decoder: nn.Module, centre: Tensor, root: Tensor
    ) -> None:
        super().__init__()
        self.encoder, self.style_decoder, self.decoder = encoder, style_decoder, decoder
        self.register_buffer("centre", centre)
        self.register_buffer("root", root)
        self.requires_grad_(False)
        super().train(False)

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode."""
        return self

    def sample(self, count: int) -> Tensor:
        """``count`` vectors epsilon (count, C) from N(0, I), on the device of the weights."""
        return torch.randn(count, len(self.centre), device=self.centre.device, dtype=self.centre.dtype)

    def style(self, epsilon: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation, each (B, C), of the style ``epsilon`` (B, C); a deviation may be negative."""
        mean, deviation = self.style_decoder(self.centre + epsilon @ self.root).chunk(2, dim=1)
        return mean, deviation

    def content(self, images: Tensor) -> Tensor:
        """The features (B, C, h, w) of ``images`` (B, 3, H, W) in [0, 1], as `redraw` needs them."""
        features: Tensor = self.encoder(images)[-1]
        return features

    def redraw(self, content: Tensor, epsilon: Tensor, size: torch.Size | tuple[int, int]) -> Tensor:
        """Images (B, 3, H, W) in [0, 1] of ``size`` (H, W) from the features of `content` and ``epsilon`` (B, C)."""
        drawn: Tensor = self.decoder(adain(content, *self.style(epsilon)))
        if drawn.shape[-2:] != size:  # the encoder's strides round up
            drawn = F.interpolate(drawn, size=tuple(size), mode="bilinear", align_corners=True)
        return drawn.clamp(0, 1)

    def stylise(self, images: Tensor, epsilon: Tensor) -> Tensor:
        """``images`` (B, 3, H, W) in [0, 1] in the styles of ``epsilon`` (B, C); same size and range."""
        with torch.no_grad():
            content = self.content(images)
        return self.redraw(content, epsilon, images.shape[-2:])


@torch.no_grad()
def ascend(
    epsilon: Tensor, gradient: Tensor, loss: Tensor, *, rate: float = 20.0, limit: float = 1.0
) -> tuple[Tensor, Tensor]:
    """One step of gradient ascent of each row of ``epsilon`` on the loss of its own image.

    The loss is a mean over images, so a row's gradient is multiplied by the number of images. The step of an image then
    does not depend on the size of the batch.

    Args:
        epsilon: (B, C).
        gradient: (B, C), of the mean loss over B images with respect to ``epsilon``.
        loss: the mean loss, a scalar above 0.
        rate: alpha is ``rate / loss``.
        limit: the largest change of a row, as a share of its length.

    Returns:
        the new epsilon (B, C), and the change of each row as a share of its length (B,).
    """
    change = gradient * (len(epsilon) * rate / loss.abs().clamp_min(1e-12))
    length = epsilon.norm(dim=1, keepdim=True).clamp_min(1e-12)
    share = change.norm(dim=1, keepdim=True) / length
    change = change * (limit / share.clamp_min(1e-12)).clamp_max(1)
    return epsilon + change, share.squeeze(1).clamp_max(limit)
