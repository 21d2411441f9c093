"""Gate gradients of single samples, from one backward pass.

Suppose that every sample has its own gate at each gate site. The gate of sample n multiplies the channel of this
sample only, so dL/dz_n is the sum over pixels of dL/dy_n times y_n. This holds for running and for batch statistics;
with batch statistics it includes the effect of the sample on the other samples in later batch norms. The sum over the
samples is the gradient of the shared gate.

y_n must be known in the backward pass, even if later layers change the output in place. For a batch norm the input is
stored, which its backward pass needs unchanged too, and y_n is computed from it. Elsewhere a copy of the output is
stored. A layer that works on windows must have the windows of one image as adjacent rows.

Source: the chain rule; per-sample gates as in method "Taylor FO-FG" of Molchanov et al., "Importance estimation for
neural network pruning", CVPR 2019.
"""

from collections.abc import Sequence
from types import TracebackType

import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.hooks import RemovableHandle

from hardy.errors import InputError
from hardy.pruning.gates import GateSite
from hardy.pruning.norms import channel_axis

__all__ = ["SampleGradients", "by_channel"]


def by_channel(module: nn.Module, values: Tensor) -> Tensor:
    """The output (or input) ``values`` of ``module`` as (B, C, L) with L positions."""
    values = values.movedim(channel_axis(module), 1)
    return values.flatten(2) if values.ndim > 2 else values.unsqueeze(2)


class SampleGradients:
    """dL/dz of every gate for each sample: one forward pass inside the ``with`` block, one backward pass after it.

    Args:
        sites: the gate sites.
        count: G, the number of gates.
        samples: B, the number of samples in the forward pass.
        mean: take the mean over the pixels of a site instead of the sum.

    Attributes:
        rows: (B, G) float64; zero before the backward pass.

    Raises:
        InputError: in the forward pass, for a layer whose output has no fixed number of rows for each sample; at the
            end of the block, for a site without a layer call, as in torch's own attention.
    """

    def __init__(self, sites: Sequence[GateSite], count: int, samples: int, *, mean: bool = False) -> None:
        self._sites = sites
        self._mean = mean
        self._handles: list[RemovableHandle] = []
        self._hooked: set[int] = set()
        device = sites[0].gates.device if sites else None
        self.rows = torch.zeros(samples, count, dtype=torch.float64, device=device)

    def __enter__(self) -> "SampleGradients":
        for site in self._sites:
            self._watch(site)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        missed = [site.module for site in self._sites if id(site.module) not in self._hooked]
        if kind is None and missed:
            raise InputError(
                f"a {type(missed[0]).__name__} runs without a call, as inside torch's own attention: its gate "
                "gradients cannot be separated by image; use taylor or l2, or leave heads out of prune.kinds"
            )

    def _watch(self, site: GateSite) -> None:
        module = site.module
        if site.side == "in":
            self._handles.append(module.register_forward_pre_hook(lambda _, args: self._hook_input(site, args[0])))
            return
        if not isinstance(module, _BatchNorm):
            self._handles.append(
                module.register_forward_hook(lambda _, __, out: self._hook_output(site, out, out.clone()))
            )
            return
        inputs: list[Tensor] = []

        def before(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            inputs.append(args[0])

        self._handles.append(module.register_forward_pre_hook(before))
        if isinstance(module, BatchNormAct2d):  # the output of its norm is the input of drop
            drop = module.drop.register_forward_pre_hook(lambda _, args: self._hook_output(site, args[0], inputs.pop()))
            self._handles.append(drop)
        else:
            self._handles.append(
                module.register_forward_hook(lambda _, __, out: self._hook_output(site, out, inputs.pop()))
            )

    def _hook_input(self, site: GateSite, value: Tensor) -> Tensor:
        """The input of a layer as a separate tensor, whose gradient comes from this layer only.

        It has a gradient even where nothing before the layer is trained.
        """
        own = value.view_as(value) if value.requires_grad else value.detach().requires_grad_(True)
        self._hook_output(site, own, value)
        return own

    def _hook_output(self, site: GateSite, output: Tensor, factor: Tensor) -> None:
        self._hooked.add(id(site.module))
        if output.shape[0] % len(self.rows):
            raise InputError(
                f"{type(site.module).__name__} outputs {output.shape[0]} rows for {len(self.rows)} images: its "
                "gate gradients cannot be separated by image; use taylor, or ior with passes two"
            )
        factor = factor.detach()
        batch_statistics = isinstance(site.module, _BatchNorm) and (
            site.module.training or site.module.running_mean is None
        )
        output.register_hook(  # type: ignore[no-untyped-call]
            lambda gradient: self._add(site, gradient.detach(), factor, batch_statistics)
        )

    def _add(self, site: GateSite, gradient: Tensor, factor: Tensor, batch_statistics: bool) -> None:
        module = site.module
        flat = by_channel(module, gradient)
        flat = flat.to(torch.promote_types(flat.dtype, torch.float32))
        factor = by_channel(module, factor).to(flat.dtype)
        products = torch.linalg.vecdot(flat, factor).double()
        if isinstance(module, _BatchNorm):
            scale, shift = _affine(module, factor, batch_statistics)
            products = scale * products + shift * flat.sum(2).double()
        if self._mean:
            products = products * (len(self.rows) / (flat.shape[0] * flat.shape[2]))
        products = products.unflatten(0, (len(self.rows), -1)).sum(1)  # the windows of an image are adjacent rows
        self.rows.index_add_(1, site.gates, products[:, site.channels])


@torch.no_grad()
def _affine(norm: _BatchNorm, inputs: Tensor, batch_statistics: bool) -> tuple[Tensor, Tensor]:
    """(C,) scale and (C,) shift that the batch norm applied to ``inputs`` (B, C, L)."""
    if batch_statistics:
        variance, mean = torch.var_mean(inputs, (0, 2), correction=0)
    else:
        assert norm.running_mean is not None
        assert norm.running_var is not None
        variance, mean = norm.running_var, norm.running_mean
    scale = norm.weight.double() / (variance.double() + norm.eps).sqrt()
    return scale, norm.bias.double() - mean.double() * scale
