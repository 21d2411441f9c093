"""D-VAE and AdaIN decoder: learns the styles of images, and to redraw an image in any of these styles.

The network itself is not changed. The style perturbation is also written to the run's folder; the algorithm ``dsp`` and
the criterion ``npdg`` load it. E is the frozen encoder and D the decoder. s = (mu, sigma) of E(x) is the style of an
image x, and s_hat its reconstruction by the D-VAE. With t = AdaIN(E(x_content), s_hat) and g = D(t), the loss is

    L = MSE(E(g), t) + a sum_l [MSE(mu_l(g), mu_l(x)) + MSE(sigma_l(g), sigma_l(x))] + b KL + c MSE(s_hat, s)

over the feature maps l of the encoder. Only the first two terms train the decoder; only the last two train the D-VAE.
The image term is added to L: MSE(D(E(x)), x) plus the mean squared excess of g outside [0, 1]. It fixes the colours,
which the feature maps of a small encoder do not determine.

Source: Luo, Liu, Guan, Yu and Yang, "Adversarial style mining for one-shot unsupervised domain adaptation", NeurIPS
2020, section 3.2, and the authors' code for weights and routing; Luo, Liu and Yang, IJCV 2024, doi
10.1007/s11263-024-02194-5, figure 1. The image term is Hardy's, after the identity loss of Park and Lee, CVPR 2019.
"""

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from hardy.algorithms.base import Algorithm
from hardy.data.decoding import read_image
from hardy.data.finding import files
from hardy.data.sources import beside_data
from hardy.errors import InputError, within
from hardy.networks.base import Network, PixelLoss
from hardy.networks.styles.dsp import first_layers, load_vgg, save_dsp
from hardy.networks.styles.first_layers import FirstLayers
from hardy.ops.dsp import Moments, Perturbation
from hardy.ops.frozen import Frozen
from hardy.ops.style import adain
from hardy.ops.style_vae import DVAE, divergence, mirror, style_of
from hardy.ops.vgg import VGG19
from hardy.types import Batch, Terms

__all__ = ["StyleVAE"]


class StyleVAE(Algorithm):
    """Train a style perturbation beside ``network``.

    Args:
        network: its first layers are the encoder; it is not trained.
        pixel_loss: not used.
        encoder: ``"network"``, or a file with the weights of VGG-19 (see `hardy.networks.styles.dsp.load_vgg`).
        stride: of the network's map whose statistics are the style.
        pictures: a folder of images that give the styles: a path, or a folder beside the data sets. If empty, the
            training images give the styles.
        style: a.
        kl: b.
        reconstruction: c.
        reduction: whether the KL is a mean over its dimensions, as in the authors' code, or their sum.
        image: weight of the image term; None means 200 with the network's layers and 0 with VGG-19, as in the papers.

    Raises:
        InputError: for a weight below 0, an encoder that cannot be loaded, a ``stride`` without effect, or a folder
            without images.
    """

    trains_network = False
    reads_weights = True

    def __init__(
        self,
        network: Network,
        pixel_loss: PixelLoss,
        *,
        encoder: str = "network",
        stride: Literal[2, 4, 8] = 2,
        pictures: str = "",
        style: float = 1.0,
        kl: float = 1.0,
        reconstruction: float = 5.0,
        reduction: Literal["mean", "sum"] = "mean",
        image: float | None = None,
    ) -> None:
        super().__init__(network)
        if image is None:
            image = 200.0 if encoder == "network" else 0.0
        for name, value in (("style", style), ("kl", kl), ("reconstruction", reconstruction), ("image", image)):
            within(f"StyleVAE.{name}", value, 0)
        if encoder != "network" and stride != 2:
            raise InputError(f"StyleVAE.stride: {stride} has no effect with VGG-19 as encoder; leave it out")
        found = first_layers(network, stride) if encoder == "network" else load_vgg(encoder)
        self._encoder = Frozen(found)
        self.vae = DVAE(found.channels)
        self.decoder = mirror(found.channels, found.stride)
        self.moments = Moments(found.channels)
        self.weights = {"style": style, "kl": kl, "reconstruction": reconstruction, "image": image}
        self.reduction = reduction
        self.pictures = files(beside_data(pictures)) if pictures else []
        if pictures and not self.pictures:
            raise InputError(f"StyleVAE.pictures: {pictures} holds no images")

    @property
    def encoder(self) -> FirstLayers | VGG19:
        """The frozen encoder E; its parameters are not parameters of the algorithm."""
        assert isinstance(self._encoder.module, FirstLayers | VGG19), "it was put there"
        return self._encoder.module

    def forward(self, batch: Batch) -> Terms:
        """The four or five loss terms; also updates the moments of the codes, in place."""
        images = batch.images
        styled = self._drawn(len(images), images) if self.pictures else images
        with torch.no_grad():
            content = self.encoder(images)[-1]
            maps = self.encoder(styled)
            style = style_of(maps[-1])
        psi, xi = self.vae.encode(style)
        found = self.vae.decode(psi + torch.randn(psi.shape, device=psi.device) * xi)
        terms = {
            "kl": self.weights["kl"] * divergence(psi, xi, self.reduction),
            "reconstruction": self.weights["reconstruction"] * F.mse_loss(found, style),
        }
        self.moments.update(psi.detach(), xi.detach())
        partner = torch.arange(len(images), device=images.device) if self.pictures else _partners(batch.domains)
        wanted = [style_of(one[partner]) for one in maps]
        return terms | self._redrawing(images, content, found.detach()[partner], wanted)

    def keep(self, folder: Path) -> None:
        """Write the style perturbation to ``folder``."""
        centre, root = self.moments.whitening()
        save_dsp(Perturbation(self.encoder, deepcopy(self.vae.decoder), deepcopy(self.decoder), centre, root), folder)

    def _redrawing(self, images: Tensor, content: Tensor, found: Tensor, wanted: Sequence[Tensor]) -> Terms:
        """The terms of the decoder, which redraws ``content`` in the styles ``found`` (B, 2C).

        ``wanted`` are the target styles of the maps."""
        target = adain(content, *found.chunk(2, dim=1))
        redrawn = self._decoded(target, images)
        drawn = self.encoder(redrawn)
        terms = {"content": F.mse_loss(drawn[-1], target)}
        parts = [2 * F.mse_loss(style_of(one), style) for one, style in zip(drawn, wanted, strict=True)]
        terms["style"] = self.weights["style"] * torch.stack(parts).sum()
        if self.weights["image"]:
            outside = redrawn - redrawn.detach().clamp(0, 1)
            same = F.mse_loss(self._decoded(content, images), images)
            terms["image"] = self.weights["image"] * (same + outside.square().mean())
        return terms

    def _decoded(self, features: Tensor, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) of ``features``, cut to the size of ``images``; the encoder's strides round up."""
        decoded: Tensor = self.decoder(features)
        return decoded[..., : images.shape[-2], : images.shape[-1]]

    def _drawn(self, count: int, like: Tensor) -> Tensor:
        """``count`` random pictures, each resized to cover the size of ``like`` and cropped at a random position."""
        chosen = torch.randint(len(self.pictures), (count,)).tolist()
        return torch.stack([_covering(read_image(self.pictures[index]), like) for index in chosen])


def _covering(picture: np.ndarray, like: Tensor) -> Tensor:
    """``picture`` (h, w, 3) resized to cover ``like`` (..., H, W) and cropped at random: (3, H, W) in [0, 1]."""
    height, width = like.shape[-2:]
    resized = torch.from_numpy(picture).to(like.device, like.dtype).permute(2, 0, 1)[None] / 255
    factor = max(height / resized.shape[-2], width / resized.shape[-1])
    size = [max(least, round(factor * side)) for least, side in zip((height, width), resized.shape[-2:], strict=True)]
    resized = F.interpolate(resized, size=size, mode="bilinear", align_corners=False, antialias=True)[0].clamp(0, 1)
    top, left = (int(torch.randint(side - least + 1, ())) for side, least in zip(size, (height, width), strict=True))
    return resized[:, top : top + height, left : left + width]


def _partners(domains: Tensor) -> Tensor:
    """For each image of ``domains`` (B,) the index of a random other image, of another domain if there is one."""
    count = len(domains)
    order = torch.rand(count, count, device=domains.device)
    order = order + (domains[:, None] != domains[None]) * 2 - torch.eye(count, device=domains.device) * 2
    return order.argmax(1)
