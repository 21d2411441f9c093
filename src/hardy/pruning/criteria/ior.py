"""IoR: scores how much a channel changes the mean of the domain risks and their variance.

For each gate z = 1 the score is (dRbar/dz)^2 + alpha (dVar{R_1..R_D}/dz)^2 over the risks of the batch's domains.
Both derivatives are exact and cost one forward and at most two backward passes, however many domains there are:

- with batch statistics the samples interact. So the variance needs a separate backward pass, with gradients for the
  gates' parameters only; the caller's backward pass gives the mean;
- with all batch norms frozen, or a separate forward pass per domain, dVar/dz = (2/D) sum_i (R_i - Rbar) dR_i/dz is a
  weighted sum of the gradients of single samples, which the caller's backward pass gives too.

The square of dVar/dz shrinks with Var(R). The domain risks of a converged network are similar, so the second term is
then negligible. ``scale="risk"`` divides it by Var(R). Since dVar = 2 sigma dsigma, where sigma is the standard
deviation of the risks, it becomes 4 alpha (dsigma/dz)^2, and both terms scale with the square of the risk.

Source: Cai, Li and Kot, "Toward domain generalized pruning by scoring out-of-distribution importance", NeurIPS 2022
workshop on distribution shifts, arXiv:2210.13810, eq. 4; the division of ``skip="nvidia"`` is that of the code of
Molchanov et al., CVPR 2019, which it builds on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from hardy.errors import InputError, within
from hardy.networks.base import Network, PixelLoss
from hardy.ops.norms import running_statistics
from hardy.pruning.coupled import Unit
from hardy.pruning.criteria._domain_sums import DomainSums
from hardy.pruning.criteria._observed import Observed, Squares, placed, too_few
from hardy.pruning.criteria.base import Criterion, Halves
from hardy.pruning.gates import gate_gradients, samples_interact
from hardy.pruning.risk import domain_risks
from hardy.pruning.samples import SampleGradients
from hardy.types import Batch, Terms

__all__ = ["IoR"]


class IoR(Criterion):
    """Squared first-order effect of each gate on the mean and on the variance of the domain risks.

    Args:
        network: the network to prune.
        units: its units.
        pixel_loss: the loss of one output head.
        alpha: weight of the square of the variance's derivative; 0 gives `Taylor`.
        variance: the variance over the D domains of a batch divides by D (``"population"``) or D - 1 (``"sample"``).
        square: square the gradients of each batch and then average (``"before"``), or average and then square
            (``"after"``).
        skip: the gradient of a gate with several sites (a residual stream) is a sum over the sites. Both squares are
            divided by 1 (``"none"``), by the number of sites (``"places"``), or by the number n of residual blocks,
            which is the number of sites minus 1 (``"blocks"``). ``"nvidia"`` is ``"blocks"``, with 3 for a gate with a
            single site.
        passes: ``"two"``: two backward passes after one forward pass. ``"jacobian"``: the gradients of all risks in one
            batched backward pass. ``"per_domain"``: one forward pass per domain, so batch statistics are those of one
            domain. ``"frozen"``: all batch norms use their running statistics. The last two need one backward pass,
            also in training. ``"auto"``: one pass if all batch norms use running statistics already, else two.
        gates: one for each channel that can be cut out (``"unit"``), or those of the paper (``"paper"``): after every
            batch norm of a residual block and at the output of each block, see `hardy.pruning.residual`; a ratio then
            counts these gates.
        scale: ``"risk"`` divides the second square by the variance of the batch's risks.
        accumulate: average the risks and their gradients over this many batches, domain by domain, before mean,
            variance and squares. The gradients of all risks are then computed, as with ``passes="jacobian"``. If
            batches are left over at the end of a round, they are not used.

    Raises:
        InputError: for a negative ``alpha``, or an ``accumulate`` below 1.
    """

    needs_domains = 2

    def __init__(
        self,
        network: Network,
        units: Sequence[Unit],
        pixel_loss: PixelLoss,
        *,
        alpha: float = 1.0,
        variance: Literal["population", "sample"] = "population",
        square: Literal["before", "after"] = "before",
        skip: Literal["none", "places", "blocks", "nvidia"] = "none",
        passes: Literal["auto", "two", "jacobian", "per_domain", "frozen"] = "auto",
        gates: Literal["unit", "paper"] = "unit",
        scale: Literal["none", "risk"] = "none",
        accumulate: int = 1,
    ) -> None:
        units = placed(network, units, gates)
        super().__init__(network, units, pixel_loss)
        if not alpha >= 0:
            raise InputError(f"IoR.alpha: {alpha} must be 0 or more")
        within("IoR.accumulate", accumulate, 1)
        self.alpha = alpha
        self.variance = variance
        self.skip = skip
        self.passes = passes
        self._observed = Observed(network, units)
        self._squares = Squares(square)
        self._spreads: list[Tensor] = []
        self._samples: list[tuple[Tensor, SampleGradients]] = []
        self._scaled = scale == "risk"
        self._accumulate = accumulate
        self._sums = DomainSums()
        self._summed = 0
        self._jacobians: list[_Jacobian] = []
        self._variances: list[Tensor] = []

    def observe(self, batch: Batch) -> Terms:
        """The mean of the domain risks of ``batch``.

        Raises:
            InputError: if the batch holds only one domain, or ``passes`` does not work for this network or batch.
        """
        if len(batch.domains.unique()) < self.needs_domains:
            raise InputError("ior needs batches of two domains or more: with one the variance of the risks is 0")
        with self._observed.gates_applied():
            return self._observed_by(batch)

    def _observed_by(self, batch: Batch) -> Terms:
        """`observe` with the chosen ``passes``."""
        if self.passes == "per_domain":
            return self._per_domain(batch)
        if self.passes == "frozen":
            with running_statistics(self.network, "ior.passes: frozen", "two"):
                return self._single(batch)
        if self.passes == "auto" and not samples_interact(self.network):
            return self._single(batch)
        risks, _ = domain_risks(self.network, batch, self.pixel_loss)
        terms = {"risk": self._observed.expect(risks.mean())}
        if self._accumulate > 1:
            self._jacobians.append(_Jacobian(batch.domains.unique(), risks.detach(), self._rows(risks)))
            return terms
        self._variances.append(self._variance(risks))
        self._spreads.append(self._batched(risks) if self.passes == "jacobian" else self._second(risks))
        return terms

    def collect(self) -> None:
        """See `Criterion.collect`."""
        scale = self._observed.scale()
        mean = self._observed.gradients(scale)
        if self._accumulate > 1:
            self._accumulated(scale)
            return
        spread = torch.zeros_like(mean)
        if self._spreads:
            spread = spread + torch.stack(self._spreads).mean(0)
        for weights, samples in self._samples:
            spread = spread + weights.double() @ samples.rows / scale
        self._drop()
        self._squares.add(mean, spread)

    def reset(self) -> None:
        """See `Criterion.reset`."""
        self._observed.forget()
        self._drop()
        self._squares.reset()
        self._sums.reset()
        self._summed = 0
        self._variances.clear()

    def scores(self) -> dict[str, Tensor]:
        """See `Criterion.scores`.

        Raises:
            InputError: if nothing was collected, or fewer than ``accumulate`` batches.
        """
        if self._summed and not self._variances:
            raise too_few(self._summed, self._accumulate)
        return self._squares.scores(self.units, (1.0, self.alpha), self.skip)

    def measured(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """The domains (D,) of ``batch``, their risks R (D,) and dR/dz (D, G) float64, in the network's mode.

        Nothing is collected: `add` does that, also for criteria with other options.
        """
        with self._observed.gates_applied():
            risks, _ = domain_risks(self.network, batch, self.pixel_loss)
            return batch.domains.unique(), risks.detach(), self._rows(risks)

    def add(self, domains: Tensor, risks: Tensor, rows: Tensor) -> None:
        """Collect what `measured` returned for the batch of one step, in place of `observe`, backward and `collect`."""
        self._sums.add(domains, risks, rows)
        self._end_step()

    def halves(self) -> Halves | None:
        """See `Criterion.halves`."""
        return self._squares.halves(self.units, (1.0, self.alpha), self.skip)

    def rivals(self) -> dict[str, dict[str, Tensor]]:
        """See `Criterion.rivals`: the first square alone, which is `Taylor`'s score."""
        return {"taylor": self._squares.scores(self.units, (1.0, 0.0), self.skip)}

    def readings(self) -> dict[str, float]:
        """See `Criterion.readings`.

        Returns:
            ``variance_share``, the median over the gates of the second term's share of the score, in [0, 1]; and
            ``risk_variance``, the mean over batches of Var(R).
        """
        mean, spread = self._squares.rows() * torch.tensor([[1.0], [self.alpha]]).to(self._squares.rows())
        total = mean + spread
        shares = (spread / total)[total > 0]
        found = {"risk_variance": float(torch.stack(self._variances).mean())}
        return found | ({"variance_share": float(shares.median())} if len(shares) else {})

    def _second(self, risks: Tensor) -> Tensor:
        """dVar/dz (G,) from a separate backward pass."""
        parameters = self._observed.parameters
        spread = risks.var(correction=self._correction)
        found = torch.autograd.grad(spread, parameters, retain_graph=True, allow_unused=True)
        sites, count = self._observed.sites, self._observed.count
        return self._factor(risks) * gate_gradients(sites, dict(zip(parameters, found, strict=True)), count)

    def _batched(self, risks: Tensor) -> Tensor:
        """dVar/dz (G,) from the Jacobian of the risks."""
        return self._weights(risks).double() @ self._rows(risks)

    def _rows(self, risks: Tensor) -> Tensor:
        """dR_i/dz (D, G) float64, in one batched backward pass."""
        parameters = self._observed.parameters
        found = torch.autograd.grad(
            risks,
            parameters,
            torch.eye(len(risks), dtype=risks.dtype, device=risks.device),
            retain_graph=True,
            allow_unused=True,
            is_grads_batched=True,
        )
        sites, count = self._observed.sites, self._observed.count
        rows = [
            gate_gradients(
                sites, {p: None if g is None else g[row] for p, g in zip(parameters, found, strict=True)}, count
            )
            for row in range(len(risks))
        ]
        return torch.stack(rows)

    def _accumulated(self, scale: Tensor) -> None:
        """Add the risks of a step."""
        for one in self._jacobians:
            self._sums.add(one.domains, one.risks, one.gradients(scale))
        self._jacobians.clear()
        self._end_step()

    def _end_step(self) -> None:
        """After ``accumulate`` steps add the squares of mean and variance."""
        self._summed += 1
        if self._summed % self._accumulate:
            return
        risks, rows = self._sums.means()
        self._sums.reset()
        if len(risks) < self.needs_domains:
            return
        self._variances.append(self._variance(risks))
        self._squares.add(rows.mean(0), self._weights(risks) @ rows)

    def _single(self, batch: Batch) -> Terms:
        """One pass for samples that do not interact: the variance from the gradients of single samples."""
        with self._watched(batch) as samples:
            risks, rows = domain_risks(self.network, batch, self.pixel_loss)
        if self._accumulate > 1:
            self._jacobians.append(_Jacobian(batch.domains.unique(), risks.detach(), None, [(rows, samples)]))
            return {"risk": self._observed.expect(risks.mean())}
        self._variances.append(self._variance(risks))
        # the loss is the mean risk, so the gradient of a sample is 1/D of its part in the risk of its domain
        self._samples.append((len(risks) * self._weights(risks)[rows], samples))
        return {"risk": self._observed.expect(risks.mean())}

    def _per_domain(self, batch: Batch) -> Terms:
        """A forward pass for each domain, and one backward pass."""
        parts = [batch.where(batch.domains == domain) for domain in batch.domains.unique()]
        if samples_interact(self.network) and min(map(len, parts)) < 2:
            raise InputError(
                "ior.passes: per_domain takes batch statistics per domain, and a batch has one image of a domain; "
                "raise optim.batch"
            )
        found: list[Tensor] = []
        watched = []
        for part in parts:
            with self._watched(part) as samples:
                found.append(domain_risks(self.network, part, self.pixel_loss)[0][0])
            watched.append(samples)
        risks = torch.stack(found)
        if self._accumulate > 1:
            places = [torch.full((len(part),), place) for place, part in enumerate(parts)]
            pairs = list(zip(places, watched, strict=True))
            self._jacobians.append(_Jacobian(batch.domains.unique(), risks.detach(), None, pairs))
            return {"risk": self._observed.expect(risks.mean())}
        self._variances.append(self._variance(risks))
        weights = len(risks) * self._weights(risks)
        self._samples += [(w.expand(len(p)), s) for w, p, s in zip(weights, parts, watched, strict=True)]
        return {"risk": self._observed.expect(risks.mean())}

    def _watched(self, batch: Batch) -> SampleGradients:
        return SampleGradients(self._observed.sites, self._observed.count, len(batch))

    def _weights(self, risks: Tensor) -> Tensor:
        """w (D,) with dVar/dz = sum_i w_i dR_i/dz; they sum to zero, so the derivative of the mean cancels.

        With ``scale="risk"`` these are the weights of dVar/dz / sqrt(Var).
        """
        apart = risks.detach() - risks.detach().mean()
        return self._factor(risks) * (2 / (len(risks) - self._correction) * apart)

    def _variance(self, risks: Tensor) -> Tensor:
        return risks.detach().double().var(correction=self._correction)

    def _factor(self, risks: Tensor) -> float:
        """The factor of dVar/dz: 1, or 1 over the standard deviation of the risks (0 if all risks are equal)."""
        if not self._scaled:
            return 1.0
        variance = float(self._variance(risks))
        return variance**-0.5 if variance > 0 else 0.0

    @property
    def _correction(self) -> int:
        return 0 if self.variance == "population" else 1

    def _drop(self) -> None:
        self._spreads.clear()
        self._samples.clear()
        self._jacobians.clear()


@dataclass(frozen=True)
class _Jacobian:
    """The risks of a batch and their gate gradients, which are known now or after the backward pass.

    Attributes:
        domains: (D,) the domains of the risks.
        risks: (D,).
        rows: (D, G) dR_i/dz; None if they come from ``samples``.
        samples: for each forward pass the index in ``risks`` of each sample (B,), and the gradients of the samples.
    """

    domains: Tensor
    risks: Tensor
    rows: Tensor | None
    samples: Sequence[tuple[Tensor, SampleGradients]] = ()

    def gradients(self, scale: Tensor) -> Tensor:
        """(D, G) dR_i/dz. The loss was ``scale`` times the mean risk."""
        if self.rows is not None:
            return self.rows
        count = len(self.risks)
        total = sum(one_hot(places, count).T.to(each.rows) @ each.rows for places, each in self.samples)
        assert isinstance(total, Tensor), "a batch has images"
        return count * total / scale
