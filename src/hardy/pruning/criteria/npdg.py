"""NPDG: sparse training with a penalty on the scales of style-sensitive channels; removes the smallest scales.

The network trains on every batch and on copies in styles from a trained D-VAE and AdaIN decoder (DSP). The style vector
epsilon of each copy takes gradient ascent steps on the objective that the network minimises,

    L_NPDG = L_task + beta sum_i w_i |gamma_i|,      w = lambda wU + (1 - lambda) wB,

where wU and wB are a channel's unary and binary style sensitivity (`hardy.pruning.sensitivity`), normalised within its
layer and averaged over the steps. In the ascent the scales are constant and w depends on epsilon; in the network's step
w is constant. The score of a channel is |gamma|. The criterion is designed for the pruning schedule ``sparse``.

Source: Luo, Liu and Yang, "Domain generalization for semantic segmentation by pruning", IJCV 2024,
doi 10.1007/s11263-024-02194-5; the ascent: Luo, Liu, Guan, Yu and Yang, "Adversarial style mining for one-shot
unsupervised domain adaptation", NeurIPS 2020. Choices that the papers do not specify are options.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from hardy.errors import InputError, within
from hardy.networks.base import Network, PixelLoss
from hardy.networks.styles.dsp import load_dsp
from hardy.ops.dsp import ascend
from hardy.ops.norms import statistics_kept
from hardy.pruning.activations import Activations, Seen
from hardy.pruning.coupled import Unit
from hardy.pruning.criteria.base import Criterion
from hardy.pruning.restyled import together
from hardy.pruning.scales import Scales
from hardy.pruning.sensitivity import Scale, binary, deviations, normalised, unary, whitened_variance
from hardy.types import Batch, Terms

__all__ = ["NPDG"]

_MOMENTUM = 0.9
"""The momentum of the moving average of the weights over the steps; the average starts at the first weights."""


class NPDG(Criterion):
    """The absolute value of each scale after training with a style-sensitive penalty.

    Args:
        network: the network to prune.
        units: its units; an attention head gets a separate factor, trained from 1.
        pixel_loss: the loss of one output head.
        style: folder of a run of the algorithm ``style_vae``.
        copies: number K of restyled copies of every image.
        climb: (rate, limit) of an ascent step: an epsilon moves by rate / L times its gradient, where L is the
            objective, at most by ``limit`` times its length. If one of them is 0, epsilon stays random.
        unary: lambda, the weight of the unary sensitivity, in [0, 1]; None gives every channel the weight 1 (DSP only).
        binary: what the binary sensitivity sums: correlations, covariances, or the variance over styles of the
            instance-whitened covariance (``"whitened"``).
        normalise: how sensitivities become weights, see `hardy.pruning.sensitivity.normalised`: within each layer, or
            with the prefix ``global_`` over all layers.
        gates: shrink the gammas of norm layers where they exist (``"norm"``), or a separate factor everywhere
            (``"separate"``).
        read: standardise activations by the batch or by running statistics, or by the batch and the scale; see
            `hardy.pruning.activations.Read`.

    Raises:
        InputError: for a value out of range, or a ``style`` that is not the folder of such a run.
    """

    sparse = True

    def __init__(
        self,
        network: Network,
        units: Sequence[Unit],
        pixel_loss: PixelLoss,
        *,
        style: str = "",
        copies: int = 2,
        climb: tuple[float, float] = (20.0, 1.0),
        unary: float | None = 0.4,
        binary: Literal["correlation", "covariance", "whitened"] = "correlation",
        normalise: Literal[
            "mean", "sum", "minmax", "softmax", "global_mean", "global_sum", "global_minmax", "global_softmax"
        ] = "mean",
        gates: Literal["norm", "separate"] = "norm",
        read: Literal["batch", "running", "scaled"] = "batch",
    ) -> None:
        super().__init__(network, units, pixel_loss)
        for number in climb:
            within("NPDG.climb", number, 0)
        if copies < 1 or not (unary is None or 0 <= unary <= 1):
            raise InputError(f"NPDG: copies {copies} must be at least 1 and unary {unary} in [0, 1]")
        if not style:
            raise InputError(
                "NPDG.style: name the folder of a run of the algorithm style_vae, such as style: runs/style"
            )
        self.dsp = load_dsp(style)
        self.copies, self.climb, self.unary = copies, tuple(climb), unary
        self._binary = binary
        self._scale: Scale = normalise.removeprefix("global_")  # type: ignore[assignment]
        self._together = normalise.startswith("global_")
        self._scales = Scales(network, units, separate=gates == "separate")
        self._activations = Activations(network, units, read, attached=False)
        self._climbing = Activations(network, units, read)
        self.weights: dict[str, Tensor] = {}
        """For each unit's name its averaged weights w (n,)."""

    def observe(self, batch: Batch) -> Terms:
        """The loss terms over the images of ``batch`` and their copies; also updates the weights."""
        self.dsp.to(batch.images.device)
        joint = together(batch, [batch.images, *self._copies(batch)])
        if self.unary is None:
            return self._terms(joint)
        with self._activations:
            terms = self._terms(joint)
        with torch.no_grad():
            fresh = self._sensitivities(self._activations, 1 + self.copies)
        for name, weight in fresh.items():
            before = self.weights.get(name, weight)
            self.weights[name] = _MOMENTUM * before + (1 - _MOMENTUM) * weight
        self._activations.forget()
        return terms

    def penalty(self) -> Tensor:
        """See `Criterion.penalty`: ``sum w |scale|``."""
        return self._scales.penalty(self.weights)

    def scores(self) -> dict[str, Tensor]:
        """See `Criterion.scores`: |scale|."""
        return self._scales.sizes()

    def release(self) -> None:
        """See `Criterion.release`."""
        self._scales.fold()

    def _terms(self, batch: Batch) -> Terms:
        return self.network.losses(self.network.outputs(batch.images), batch.labels, self.pixel_loss)

    def _copies(self, batch: Batch) -> list[Tensor]:
        """K restyled copies (B, 3, H, W) of the images; copy k has taken k ascent steps.

        Without an ascent each copy has a random style.
        """
        with torch.no_grad():
            content = self.dsp.content(batch.images)
        if not all(self.climb):
            return [self._drawn(batch, content, self.dsp.sample(len(batch))) for _ in range(self.copies)]
        epsilon, before = self.dsp.sample(len(batch)), list[Tensor]()
        for _ in range(self.copies):
            epsilon, copies = self._climbed(batch, content, epsilon)
            before.append(copies)
        return [*before[1:], self._drawn(batch, content, epsilon)]  # the first ascent step starts at a random style

    @torch.no_grad()
    def _drawn(self, batch: Batch, content: Tensor, epsilon: Tensor) -> Tensor:
        return self.dsp.redraw(content, epsilon, batch.images.shape[-2:])

    def _climbed(self, batch: Batch, content: Tensor, epsilon: Tensor) -> tuple[Tensor, Tensor]:
        """``epsilon`` (B, E) after one ascent step on L_NPDG, and the copies (B, 3, H, W) before it."""
        epsilon = epsilon.detach().requires_grad_(True)
        copies = self.dsp.redraw(content, epsilon, batch.images.shape[-2:])
        pair = together(batch, [batch.images, copies])
        with statistics_kept(self.network), self._climbing:
            objective = torch.stack(list(self._terms(pair).values())).sum()
        if self.unary is not None and self.strength:
            sizes = {name: size.to(epsilon) for name, size in self.scores().items()}
            fresh = self._sensitivities(self._climbing, 2)
            penalty = torch.stack([(weight * sizes[name]).sum() for name, weight in fresh.items()]).sum()
            objective = objective + self.strength * penalty
        (gradient,) = torch.autograd.grad(objective, epsilon)
        self._climbing.forget()
        rate, limit = self.climb
        return ascend(epsilon.detach(), gradient, objective.detach(), rate=rate, limit=limit)[0], copies.detach()

    def _sensitivities(self, activations: Activations, styles: int) -> dict[str, Tensor]:
        """For each unit's name its weights w (n,) from the activations of one forward pass."""
        assert self.unary is not None, "without sensitivities every weight is 1"
        names, unaries, binaries = [], [], []
        for unit in self.units:
            pairs = [self._pair(seen, styles) for seen in activations.of(unit)]
            if pairs:
                names.append(unit.name)
                unaries.append(torch.stack([u for u, _ in pairs]).mean(0))
                binaries.append(torch.stack([b for _, b in pairs]).mean(0))
        both = zip(self._weighed(unaries), self._weighed(binaries), strict=True)
        return {n: self.unary * u + (1 - self.unary) * b for n, (u, b) in zip(names, both, strict=True)}

    def _weighed(self, values: list[Tensor]) -> list[Tensor]:
        return normalised(values, self._scale, together=self._together)

    def _pair(self, seen: Seen, styles: int) -> tuple[Tensor, Tensor]:
        """Unary and binary sensitivity (n,) at one gate site."""
        values = seen.values.unflatten(0, (styles, -1))
        apart = deviations(values)
        if self._binary == "whitened":
            return unary(apart, seen.factor), whitened_variance(values)
        return unary(apart, seen.factor), binary(apart, self._binary, seen.factor)
