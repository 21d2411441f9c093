"""Statistics of norm layers while a network predicts: they are recorded, or replaced in batch norms.

The statistics of a norm are ``b = [mu; var]`` (2, C): mean and biased variance of its input for each channel, over all
other axes. `install` wraps every norm of a network in a module of this file. Such a batch norm normalises by one of

    source     its running statistics, as in evaluation
    batch      b; with a momentum, the running statistics also move towards b, as in training
    mixed      (1 - a) running + a b, for mean and variance; a is given, or n / (count + n) for n values per channel;
               other statistics can replace the running ones
    given      a given tensor

If a batch has a single value per channel (n = 1), such as one image after global pooling, ``batch`` uses the running
statistics, and ``mixed`` those that it would mix with the batch's; these are recorded. A layer norm always normalises
as before; it can only be recorded. torch's fast path of transformer layers, which does not run their norms, is off
while layer norms are recorded.

Source: Li, Wang, Shi, Liu and Hou, "Revisiting batch normalization for practical domain adaptation", arXiv:1603.04779,
2016 (batch); Schneider et al., "Improving robustness against common corruptions by covariate shift adaptation",
NeurIPS 2020, eq. 1 (mixed by count); You, Li and Zhao, "Test-time batch statistics calibration for covariate shift",
arXiv:2110.04065, 2021 (mixed by a constant).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from timm import layers
from timm.layers.norm import LayerNormExp2d
from timm.layers.norm_act import SyncBatchNormAct
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.backends import mha
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from hardy.errors import InputError

__all__ = [
    "AdaptiveNorm",
    "Norm",
    "RecordedNorm",
    "batch_norms",
    "install",
    "moments",
    "recording",
    "use_batch",
    "use_given",
    "use_mixed",
    "use_source",
]

_AND_CHILDREN = {layers.BatchNormAct2d.forward, SyncBatchNormAct.forward}
"""Forward passes of batch norms that then call the children, such as an activation."""

_CHANNELS_FIRST = {
    kind.forward
    for kind in (
        layers.LayerNorm2d,
        layers.LayerNorm2dFp32,
        layers.LayerNormAct2d,
        layers.LayerNormAct2dFp32,
        LayerNormExp2d,
    )
}
_CHANNELS_LAST = {
    kind.forward
    for kind in (nn.LayerNorm, layers.LayerNorm, layers.LayerNormFp32, layers.LayerNormAct, layers.LayerNormActFp32)
}


def _of_norm(name: str) -> Any:
    """An attribute of the wrapped norm, which other modules read: torch's transformer layers read ``eps``."""
    return property(lambda wrapper: getattr(wrapper.norm, name), doc=f"``{name}`` of the norm.")


class AdaptiveNorm(nn.Module):
    """A batch norm whose statistics can be replaced. An activation in it, as in timm's `BatchNormAct2d`, is kept.

    Args:
        norm: the batch norm, with running statistics, which becomes the submodule ``norm``.

    Attributes:
        mode: ``source``, ``batch``, ``mixed`` or ``given``; set it with the functions of this file.
        alpha: the weight of the batch in ``mixed``; None to compute it from ``count``.
        count: the weight of the source's statistics in ``mixed``, in values per channel.
        momentum: in ``batch``, the weight of the batch in the update of the running statistics; 0 for no update.
        given: the statistics (2, C) of ``given``, or those that replace the running ones in ``mixed``. Neither a
            parameter nor a buffer: set them before each forward pass.
        records: whether statistics are recorded, and with gradients; see `recording`.
        left: the norms that still have to run before the forward pass ends; None to run the whole network.
    """

    eps, weight, bias, num_features = map(_of_norm, ("eps", "weight", "bias", "num_features"))
    running_mean, running_var = map(_of_norm, ("running_mean", "running_var"))

    def __init__(self, norm: _BatchNorm) -> None:
        super().__init__()
        self.norm = norm
        self.mode = "source"
        self.alpha: float | None = None
        self.count = 0.0
        self.momentum = 0.0
        self.given: Tensor | None = None
        self.records: tuple[bool, bool] = (False, False)
        self.recorded: Tensor | None = None
        self.left: set[nn.Module] | None = None

    @property
    def source(self) -> Tensor:
        """The running statistics (2, C)."""
        norm = self.norm
        assert norm.running_mean is not None
        assert norm.running_var is not None
        return torch.stack((norm.running_mean, norm.running_var))

    def forward(self, x: Tensor) -> Tensor:
        """The normalised ``x`` (B, C, ...), with the activation of the norm if it has one."""
        single = x.numel() == x.shape[1]
        mode = self.mode
        if single and mode in ("batch", "mixed"):
            mode = "source" if self.given is None else "given"
        own = out = None
        if self.records[0] and mode == "batch" and not self.momentum:  # the norm computes these statistics itself
            out, own = _normalised_by_own(x, self.norm, self.records[1])
            self.recorded = own
        elif self.records[0]:
            still = self.source if self.given is None else self.given.to(self.source)
            own = self.recorded = still if single else _noted(x, 1, self.records[1])
        if self.left is not None:
            _ended(self, self.left)
        if mode == "mixed" and (own is None or torch.is_grad_enabled() != self.records[1]):
            own = moments(x)
        x = self._normalised(x, mode, own) if out is None else out
        if type(self.norm).forward in _AND_CHILDREN:
            for after in self.norm.children():
                x = after(x)
        return x

    def _normalised(self, x: Tensor, mode: str, own: Tensor | None) -> Tensor:
        norm = self.norm
        if mode == "batch":
            running = (norm.running_mean, norm.running_var) if self.momentum else (None, None)
            return F.batch_norm(x, *running, norm.weight, norm.bias, True, self.momentum, norm.eps)
        if mode == "given":
            assert self.given is not None
            mean, var = self.given.to(norm.running_mean)
        elif mode == "mixed":
            assert own is not None
            values = x.numel() // x.shape[1]
            alpha = values / (self.count + values) if self.alpha is None else self.alpha
            past = self.source if self.given is None else self.given
            mean, var = torch.lerp(past, own.to(past), alpha)
            if torch.is_grad_enabled():  # F.batch_norm has no gradient for the statistics that it is given
                return _affine(x, mean, var, norm)
            mean, var = mean.to(norm.running_mean), var.to(norm.running_var)
        else:
            mean, var = norm.running_mean, norm.running_var  # type: ignore[assignment]
        return F.batch_norm(x, mean, var, norm.weight, norm.bias, training=False, eps=norm.eps)


class RecordedNorm(nn.Module):
    """A layer norm over channels whose input can be recorded.

    Args:
        norm: the layer norm, which becomes the submodule ``norm``.
    """

    eps, weight, bias, normalized_shape = map(_of_norm, ("eps", "weight", "bias", "normalized_shape"))

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.norm = norm
        self.records: tuple[bool, bool] = (False, False)
        self.recorded: Tensor | None = None
        self.left: set[nn.Module] | None = None

    @property
    def source(self) -> Tensor:
        """(2, C): mean 0 and variance 1. A layer norm keeps no statistics."""
        where = next((value.device for value in self.norm.parameters()), None)
        zeros = torch.zeros(self.norm.normalized_shape, device=where)
        return torch.stack((zeros, zeros + 1))

    def forward(self, x: Tensor) -> Tensor:
        """The output of the norm."""
        if self.records[0]:
            channel = _channel_axis(self.norm, x)
            single = x.numel() == x.shape[channel]
            self.recorded = self.source if single else _noted(x, channel, self.records[1])
        if self.left is not None:
            _ended(self, self.left)
        out: Tensor = self.norm(x)
        return out


Norm = AdaptiveNorm | RecordedNorm


def moments(x: Tensor, channel: int = 1) -> Tensor:
    """(2, C): mean and biased variance of each channel of ``x``, in float32 or wider.

    Args:
        x: (B, C, ...), or another tensor with its channels on the axis ``channel``.
        channel: the channel axis, from 0.
    """
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    if torch.is_grad_enabled() and x.requires_grad:
        found: Tensor = _Moments.apply(x, channel)  # type: ignore[no-untyped-call]
        return found
    return _moments(x, channel)


def install(network: nn.Module) -> dict[str, Norm]:
    """Wrap every batch norm with running statistics and every layer norm over channels of ``network``, in place.

    Returns the wrappers by name, in the order of `torch.nn.Module.named_modules`. The network computes the same as
    before. Its parameters stay the same objects; their names get an additional ``.norm``. Batch norms without running
    statistics are not wrapped: they always use the batch. Norms that are already wrapped are not wrapped again.

    Raises:
        InputError: for a batch norm of a class with its own forward pass, before anything changes; not if the class
            sets ``only_normalises = True``.
    """
    made: dict[nn.Module, Norm] = {}
    found: dict[str, Norm] = {}
    for name, module in list(network.named_modules()):
        if isinstance(module, Norm):
            made[module.norm] = module
            found[name] = module
        elif module not in made and name and _fits(name, module):
            found[name] = made[module] = _installed(module)
    for parent in list(network.modules()):
        if isinstance(parent, Norm):
            continue
        for name, child in list(parent.named_children()):
            if child in made:
                setattr(parent, name, made[child])
    return found


def batch_norms(norms: Mapping[str, Norm], method: str) -> dict[str, AdaptiveNorm]:
    """The batch norms among ``norms``.

    Raises:
        InputError: if there is none; the message names the ``method`` that needs them.
    """
    found = {name: norm for name, norm in norms.items() if isinstance(norm, AdaptiveNorm)}
    if not found:
        raise InputError(
            f"{method} adapts batch norms with running statistics, and the network has none; use a network whose "
            "batch norms are not folded or frozen, or a method that adapts other layers; for a device, "
            "hardy export --statistics observed"
        )
    return found


def use_source(norms: Iterable[Norm]) -> None:
    """Let the batch norms normalise by their running statistics, in place."""
    for norm in _adaptive(norms):
        norm.mode, norm.given = "source", None


def use_batch(norms: Iterable[Norm], *, momentum: float = 0.0) -> None:
    """Let the batch norms normalise by the batch, in place.

    Args:
        norms: the norms; layer norms among them do not change.
        momentum: in [0, 1]; above 0, each forward pass also updates the running statistics with this weight of the
            batch, with the unbiased variance, as torch does in training.
    """
    for norm in _adaptive(norms):
        norm.mode, norm.given, norm.momentum = "batch", None, momentum


def use_mixed(
    norms: Sequence[Norm],
    *,
    alpha: float | None = None,
    count: float = 0.0,
    past: Iterable[Tensor | None] | None = None,
) -> None:
    """Let the batch norms normalise by a mixture of their running statistics and the batch's, in place.

    Args:
        norms: the norms; layer norms among them do not change.
        alpha: the weight of the batch in [0, 1]; None for n / (``count`` + n), with n values per channel in the batch.
        count: the weight of the running statistics, in values per channel, above 0.
        past: for each of ``norms`` the statistics (2, C), without gradient, that replace the running ones, or None.
    """
    for norm, one in zip(norms, [None] * len(norms) if past is None else past, strict=True):
        if isinstance(norm, AdaptiveNorm):
            norm.mode, norm.given, norm.alpha, norm.count = "mixed", one, alpha, count


def use_given(norms: Sequence[Norm], statistics: Iterable[Tensor]) -> None:
    """Let the batch norms normalise by ``statistics``, in place.

    Args:
        norms: the norms; layer norms among them do not change.
        statistics: (2, C) for each of ``norms``, without gradient.
    """
    for norm, one in zip(norms, statistics, strict=True):
        if isinstance(norm, AdaptiveNorm):
            norm.mode, norm.given = "given", one


@contextmanager
def recording(norms: Sequence[Norm], *, gradient: bool = False, end: bool = False) -> Iterator[list[Tensor]]:
    """Record the statistics of ``norms`` in the forward pass inside the block; then the list has (2, C) for each norm.

    If a norm runs more than once, the statistics of the last run are recorded. If it does not run, they are those of
    the source.

    Args:
        norms: the norms to record.
        gradient: whether gradients flow through the statistics.
        end: end the block as soon as all of ``norms`` have run, without running the rest of the network.
    """
    left: set[nn.Module] | None = set(norms) if end else None
    found: list[Tensor] = []
    for norm in norms:
        norm.records, norm.left = (True, gradient), left
    fast = mha.get_fastpath_enabled()
    mha.set_fastpath_enabled(fast and not any(isinstance(norm, RecordedNorm) for norm in norms))
    try:
        with suppress(_AllRan):
            yield found
        found += [norm.source if norm.recorded is None else norm.recorded for norm in norms]
    finally:
        mha.set_fastpath_enabled(fast)
        for norm in norms:
            norm.records, norm.recorded, norm.left = (False, False), None, None


def _moments(x: Tensor, channel: int) -> Tensor:
    axes = [axis for axis in range(x.ndim) if axis != channel]
    mean = x.mean(axes, keepdim=True)  # two passes are 8 times as fast as torch.var_mean on a CPU, and as exact
    return torch.stack((mean.flatten(), (x - mean).square_().mean(axes)))


class _Moments(torch.autograd.Function):
    """`_moments` with its gradient, ``(dL/dmu + 2 (x - mu) dL/dvar) / n``, in one pass that keeps only ``x``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, channel: int) -> Tensor:
        found = _moments(x, channel)
        ctx.save_for_backward(x, found[0])
        ctx.channel = channel
        return found

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        x, mean = ctx.saved_tensors
        shape = [1] * x.ndim
        shape[ctx.channel] = -1
        scale = gradient[1] * (2 * len(mean) / x.numel())
        shift = gradient[0] * (len(mean) / x.numel()) - scale * mean
        return torch.addcmul(shift.view(shape), x, scale.view(shape)), None


def _normalised_by_own(x: Tensor, norm: _BatchNorm, gradient: bool) -> tuple[Tensor, Tensor]:
    """``x`` (B, C, ...) normalised by its batch, and its statistics (2, C), computed in the same pass."""
    found: tuple[Tensor, Tensor] = _OwnNorm.apply(x, norm.weight, norm.bias, norm.eps)  # type: ignore[no-untyped-call]
    return found[0], found[1] if gradient else found[1].detach()


class _OwnNorm(torch.autograd.Function):
    """A batch norm with batch statistics that also returns these statistics, with the gradients of both.

    The variance is the one that the norm uses, ``1 / invstd^2 - eps``.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
        out, mean, invstd = torch.native_batch_norm(x, weight, bias, None, None, True, 0.0, eps)
        ctx.save_for_backward(x, weight, mean, invstd)
        ctx.eps = eps
        return out, torch.stack((mean, invstd.pow(-2).sub_(eps).clamp_min_(0)))

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, of_out: Tensor, of_statistics: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, invstd = ctx.saved_tensors
        wanted = [ctx.needs_input_grad[0], ctx.needs_input_grad[1], ctx.needs_input_grad[2]]
        of_x, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            of_out, x, weight, None, None, mean, invstd, True, ctx.eps, wanted
        )
        if wanted[0]:
            shape = (1, -1, *(1,) * (x.ndim - 2))
            scale = of_statistics[1] * (2 * len(mean) / x.numel())
            shift = of_statistics[0] * (len(mean) / x.numel()) - scale * mean
            of_x = of_x.addcmul_(x, scale.to(x).view(shape)).add_(shift.to(x).view(shape))
        return of_x, of_weight, of_bias, None


class _AllRan(BaseException):
    """All recorded norms have run. Not an `Exception`, because a network that explains errors would catch it."""


def _ended(norm: nn.Module, left: set[nn.Module]) -> None:
    """Remove ``norm`` from ``left``, in place, and end the forward pass if it was the last."""
    left.discard(norm)
    if not left:
        raise _AllRan


def _adaptive(norms: Iterable[Norm]) -> Iterator[AdaptiveNorm]:
    return (norm for norm in norms if isinstance(norm, AdaptiveNorm))


def _fits(name: str, module: nn.Module) -> bool:
    """Whether the norm ``module`` is wrapped.

    Raises:
        InputError: for a batch norm of a class with its own forward pass, which statistics cannot be replaced in.
    """
    if not isinstance(module, _BatchNorm):
        return isinstance(module, nn.LayerNorm) and len(module.normalized_shape) == 1
    if module.running_mean is None:
        return False
    owner = next(kind for kind in type(module).__mro__ if "forward" in vars(kind))
    known = owner in (_BatchNorm, nn.SyncBatchNorm) or vars(owner)["forward"] in _AND_CHILDREN
    if not known and not vars(owner).get("only_normalises"):
        raise InputError(
            f"the batch norm {name!r} is of the class {type(module).__name__}, whose own forward pass may do more than "
            "to normalise; use torch.nn.BatchNorm2d and a module of its own for the rest, or set only_normalises = "
            "True in the class"
        )
    return True


def _installed(module: Any) -> Norm:
    kind = AdaptiveNorm if isinstance(module, _BatchNorm) else RecordedNorm
    return kind(module).train(module.training)


def _channel_axis(norm: nn.LayerNorm, x: Tensor) -> int:
    """The axis of ``x`` that ``norm`` normalises over.

    A class with its own forward pass takes channels first or last. The sizes of ``x`` decide; if both axes fit, the one
    that the norm needs does: without an entry of the other axis it still runs.

    Raises:
        InputError: if this does not decide.
    """
    own, last, (size,) = type(norm).forward, x.ndim - 1, norm.normalized_shape
    if own in _CHANNELS_LAST or own in _CHANNELS_FIRST:
        return 1 if own in _CHANNELS_FIRST else last
    fits = [axis for axis in sorted({1, last}) if x.shape[axis] == size]
    if len(fits) == 2:
        fits = [axis for axis in fits if _runs(norm, x.detach().narrow(1 + last - axis, 0, size - 1).clone())]
    if len(fits) != 1:
        raise InputError(
            f"the layer norm {type(norm).__name__} over {size} channels got {tuple(x.shape)}: which axis holds the "
            "channels cannot be told; use torch.nn.LayerNorm for channels last, timm.layers.LayerNorm2d for first"
        )
    return fits[0]


@torch.no_grad()
def _runs(norm: nn.LayerNorm, x: Tensor) -> bool:
    """Whether ``norm`` takes ``x``."""
    try:
        return bool(norm(x).shape == x.shape)
    except (RuntimeError, ValueError, IndexError, AssertionError):
        return False


def _noted(x: Tensor, channel: int, gradient: bool) -> Tensor:
    if gradient:
        return moments(x, channel)
    with torch.no_grad():
        return moments(x.detach(), channel)


def _affine(x: Tensor, mean: Tensor, var: Tensor, norm: _BatchNorm) -> Tensor:
    """The norm as a scale and a shift of ``x`` (B, C, ...), with gradients through mean and variance (C,)."""
    scale = torch.rsqrt(var + norm.eps)
    scale = scale if norm.weight is None else scale * norm.weight
    shift = -mean * scale if norm.bias is None else norm.bias - mean * scale
    shape = (1, -1, *(1,) * (x.ndim - 2))
    return (x * scale.view(shape) + shift.view(shape)).to(x.dtype)
