"""Batch norms that normalise by the statistics of the predicted images; no weight is trained.

s = (mu, var) are the source statistics of a norm, b those of the batch (biased variance), n the values per channel:

    batch   b
    alpha   (1 - alpha) s + alpha b
    count   (count s + n b) / (count + n): n is small in deep layers, so these use more of s
    ema     s <- (1 - momentum) s + momentum b, with the unbiased variance and kept from batch to batch; predict with s

``ema`` takes two forward passes per batch (the first normalises by b), the others one. A norm that has one value per
channel in a batch uses its source statistics.

Source: Li, Wang, Shi, Liu and Hou, "Revisiting batch normalization for practical domain adaptation", arXiv:1603.04779,
2016 (batch); You, Li and Zhao, "Test-time batch statistics calibration for covariate shift", arXiv:2110.04065, 2021
(alpha); Schneider et al., "Improving robustness against common corruptions by covariate shift adaptation", NeurIPS
2020, eq. 1 (count).
"""

from typing import ClassVar, Literal

import torch
from torch import Tensor

from hardy.adaptation.base import TestTimeAdaptation
from hardy.errors import InputError
from hardy.networks.base import Network
from hardy.ops.batch_statistics import batch_norms, install, use_batch, use_mixed, use_source

__all__ = ["BNStats"]


class BNStats(TestTimeAdaptation):
    """Batch norms with the statistics of the batch, alone or mixed with those of the source.

    Args:
        network: a copy of it adapts.
        mix: ``batch``, ``alpha``, ``count`` or ``ema``.
        alpha: the weight of the batch in [0, 1], for ``alpha``.
        count: the weight of the source's statistics, in values per channel, above 0, for ``count``.
        momentum: the weight of each batch in (0, 1], for ``ema``.

    Raises:
        InputError: for a network without batch norms, or a number outside its range.
    """

    predicts: ClassVar[Literal["before", "after"]] = "after"

    def __init__(
        self,
        network: Network,
        *,
        mix: Literal["batch", "alpha", "count", "ema"] = "batch",
        alpha: float = 0.1,
        count: float = 4096.0,
        momentum: float = 0.1,
    ) -> None:
        super().__init__(network)
        for name, value, fits in (
            ("alpha", alpha, 0 <= alpha <= 1),
            ("count", count, 0 < count < float("inf")),
            ("momentum", momentum, 0 < momentum <= 1),
        ):
            if not fits:
                raise InputError(f"bn_stats: {name} is {value}; give a number in {_RANGES[name]}")
        self.mix = mix
        self.momentum = momentum
        self._norms = list(batch_norms(install(self.network), "bn_stats").values())
        if mix == "batch":
            use_batch(self._norms)
        elif mix != "ema":
            use_mixed(self._norms, alpha=alpha if mix == "alpha" else None, count=count)

    @torch.no_grad()
    def adapt(self, images: Tensor) -> Tensor:
        """See `TestTimeAdaptation.adapt`."""
        if self.mix == "ema":
            before = [norm.source for norm in self._norms]
            use_batch(self._norms, momentum=self.momentum)
            try:
                self.network(images)
            except BaseException:
                for norm, statistics in zip(self._norms, before, strict=True):
                    norm.running_mean.copy_(statistics[0])
                    norm.running_var.copy_(statistics[1])
                raise
            finally:
                use_source(self._norms)
        logits: Tensor = self.network(images)
        return logits


_RANGES = {"alpha": "[0, 1]", "count": "(0, inf)", "momentum": "(0, 1]"}
