"""DSP: the network is trained on every image and on copies of it in adversarial styles.

Each copy starts from a random style epsilon ~ N(0, I) and takes ``ascent`` gradient ascent steps on the loss of the
copies (`hardy.ops.dsp`). Then the network is trained on originals and copies in one batch, with their mean loss. The
ascent steps leave no gradients in the network. In these steps batch norms use the statistics of their batch and do not
change their running statistics. The running statistics are updated once per training step, from originals and copies
together.

Source: Luo, Liu and Yang, "Domain generalization for semantic segmentation by pruning", IJCV 2024, doi
10.1007/s11263-024-02194-5 (the rows with DSP alone); the ascent of epsilon: Luo, Liu, Guan, Yu and Yang, "Adversarial
style mining for one-shot unsupervised domain adaptation", NeurIPS 2020, algorithm 1 and the authors' code.
"""

import logging

import torch
from torch import Tensor

from hardy.algorithms.base import Algorithm
from hardy.errors import InputError, within
from hardy.networks.base import Network, PixelLoss
from hardy.networks.styles.dsp import load_dsp
from hardy.ops.dsp import Perturbation, ascend
from hardy.ops.frozen import Frozen
from hardy.ops.norms import statistics_kept
from hardy.types import Batch, Terms

__all__ = ["DSP"]

_log = logging.getLogger("hardy")


class DSP(Algorithm):
    """Minimise the mean loss of images and of their copies in other styles.

    Args:
        network: what is trained.
        pixel_loss: the loss of one head.
        style: folder of a run of the algorithm ``style_vae``.
        copies: number of restyled copies of every image.
        ascent: number of ascent steps of each copy's epsilon; with 0 it stays random.
        rate: the step is ``rate / loss`` times the gradient.
        limit: the largest change of an epsilon in one step, as a share of its length.

    Raises:
        InputError: for a number out of range, a ``rate`` or ``limit`` without effect, or a ``style`` that is not the
            folder of such a run.
    """

    def __init__(
        self,
        network: Network,
        pixel_loss: PixelLoss,
        *,
        style: str = "",
        copies: int = 1,
        ascent: int = 2,
        rate: float = 20.0,
        limit: float = 1.0,
    ) -> None:
        super().__init__(network)
        within("DSP.copies", copies, 1)
        within("DSP.ascent", ascent, 0)
        within("DSP.rate", rate, 0)
        within("DSP.limit", limit, 0)
        if not ascent and (rate, limit) != (20.0, 1.0):
            raise InputError("DSP: without ascent, rate and limit have no effect; leave them out")
        if not style:
            raise InputError("DSP.style: name the folder of a run of the algorithm style_vae, such as runs/style")
        self._dsp = Frozen(load_dsp(style))
        self.pixel_loss = pixel_loss
        self.copies, self.ascent, self.rate, self.limit = copies, ascent, rate, limit

    @property
    def dsp(self) -> Perturbation:
        """The style perturbation that makes the copies."""
        assert isinstance(self._dsp.module, Perturbation), "it was put there"
        return self._dsp.module

    def forward(self, batch: Batch) -> Terms:
        """The network's loss terms over the images of ``batch`` and their copies."""
        again = _repeated(batch, self.copies)
        with torch.no_grad():
            content = self.dsp.content(batch.images).repeat(self.copies, 1, 1, 1)
        epsilon = self.dsp.sample(len(again)).to(content)
        for _ in range(self.ascent):
            epsilon = self._climbed(again, content, epsilon)
        with torch.no_grad():
            copies = self.dsp.redraw(content, epsilon, batch.images.shape[-2:]).to(batch.images)
        images = torch.cat([batch.images, copies])
        return self._terms(images, torch.cat([batch.labels, again.labels]))

    def _terms(self, images: Tensor, labels: Tensor) -> Terms:
        return self.network.losses(self.network.outputs(images), labels, self.pixel_loss)

    def _climbed(self, batch: Batch, content: Tensor, epsilon: Tensor) -> Tensor:
        """``epsilon`` (B, C) after one ascent step on the loss of the copies of ``batch`` in these styles."""
        epsilon = epsilon.detach().requires_grad_(True)
        with torch.enable_grad(), statistics_kept(self.network):
            copies = self.dsp.redraw(content, epsilon, batch.images.shape[-2:]).to(batch.images)
            loss = torch.stack(list(self._terms(copies, batch.labels).values())).sum()
            (gradient,) = torch.autograd.grad(loss, epsilon)
        moved, share = ascend(epsilon.detach(), gradient, loss.detach(), rate=self.rate, limit=self.limit)
        if _log.isEnabledFor(logging.DEBUG):
            _log.debug("epsilon moved by %.2f of its length at a loss of %.4g", float(share.mean()), float(loss))
        return moved


def _repeated(batch: Batch, times: int) -> Batch:
    """``batch`` repeated ``times`` times."""
    labels = batch.labels.repeat(times, *[1] * (batch.labels.ndim - 1))
    return Batch(batch.images.repeat(times, 1, 1, 1), labels, batch.domains.repeat(times))
