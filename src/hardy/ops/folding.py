"""Folds batch norms into adjacent layers, which are found by following values while the network runs.

In evaluation a batch norm is an affine map of each channel, ``a x + b`` with ``a = gamma / sqrt(var + eps)`` and
``b = beta - a mean``. It is folded

- into the layer that makes its input, if nothing else reads that input: a convolution, a transposed convolution or a
  linear layer, whose weights are scaled along their outputs, or another batch norm;
- otherwise into the layers that read its output, if all of them allow it: linear layers and convolutions without zero
  padding, whose weights are scaled along their inputs, and ``W b`` is added to their bias. At a zero-padded border this
  would not be exact.

Some operations commute with an affine map: averages whose weights sum to 1 (unpadded average pooling, bilinear and
nearest resizing), operations that only move values of a channel (views, cropping, mirrored padding), and concatenation
of channels. The search continues through these in both directions.

Source: Jacob et al., "Quantization and training of neural networks for efficient integer-arithmetic-only inference",
CVPR 2018, eq. 14, for a convolution before a batch norm; the other cases follow from the same identity.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights

from hardy.errors import InputError
from hardy.ops.axes import output_blocks, side_width
from hardy.ops.dataflow import Call, Dataflow

__all__ = ["Folded", "fold_norms", "fold_structure"]


@dataclass(frozen=True)
class Folded:
    """The outcome for each batch norm.

    Attributes:
        folded: the names of the batch norms that were folded into other layers.
        left: the names of the batch norms that were not folded, with the reason.
        biased: the names of the layers that had no bias (batch norms: no scale and shift) and have one now.
    """

    folded: tuple[str, ...]
    left: Mapping[str, str]
    biased: tuple[str, ...]


class _Stays(Exception):  # noqa: N818 - an answer, not an error
    """This norm cannot be folded in this direction; the message says why."""


@dataclass(frozen=True)
class _Layer:
    """A layer that an affine map can be folded into, and its channels that the map applies to."""

    module: nn.Module
    call: Call
    first: int
    count: int


@torch.no_grad()
def fold_norms(network: nn.Module, run: Callable[[], list[Tensor]]) -> Folded:
    """Fold the batch norms of ``network`` in place. It must be in evaluation mode and cannot be trained afterwards.

    A folded norm is replaced by the layers that it contains, such as the activation of a norm of timm, or by an
    identity.

    Args:
        network: the network to change.
        run: runs the network on an example and returns the network's output tensors.
    """
    flow = Dataflow(network)
    with flow:
        returned = run()
    work = _Work(flow, flow.outlives(returned))
    names = {module: name for name, module in network.named_modules() if isinstance(module, _BatchNorm)}
    plain = {module: name for name, module in network.named_modules() if _lacks_bias(module)}
    folded = []
    left = {
        name: "does not run in evaluation mode" if module.running_mean is not None else "keeps no running statistics"
        for module, name in names.items()
    }
    for call in flow.calls:
        norm = work.norm_of(call)
        if norm is None:
            continue
        try:
            work.fold(norm, call)
        except _Stays as reason:
            left[names[norm]] = str(reason)
        else:
            folded.append(names[norm])
            del left[names[norm]]
            _replace(network, norm)
    present = set(network.modules())
    biased = (name for module, name in plain.items() if module in present and not _lacks_bias(module))
    return Folded(tuple(folded), left, tuple(biased))


@torch.no_grad()
def fold_structure(network: nn.Module, folded: Collection[str], biased: Collection[str]) -> None:
    """Give ``network`` the structure that `fold_norms` gave to an equal network, in place; no weight is computed.

    Args:
        network: has the structure of the other network before it was folded.
        folded: see `Folded`; these batch norms are removed.
        biased: see `Folded`; these layers get a bias of zeros.

    Raises:
        InputError: for names that are not batch norms, or not layers without a bias; then nothing is changed.
    """
    modules = dict(network.named_modules())
    norms, layers = [modules.get(name) for name in folded], [modules.get(name) for name in biased]
    for name, module in zip(folded, norms, strict=True):
        if not isinstance(module, _BatchNorm):
            raise InputError(f"the network has no batch norm {name!r} to fold: it was made from another network")
    for name, module in zip(biased, layers, strict=True):
        if module is None or not _lacks_bias(module):
            raise InputError(f"{name!r} is not a layer without a bias: it was made from another network")
    for module in layers:
        assert isinstance(module, (_ConvNd, nn.Linear, _BatchNorm))
        weight = module.weight if module.weight is not None else torch.ones_like(module.running_mean)
        _set(module, weight, weight.new_zeros(side_width(module, "out")))
    for norm in norms:
        assert norm is not None
        _replace(network, norm)


def _lacks_bias(module: nn.Module) -> bool:
    """Whether `fold_norms` may give ``module`` a bias that it lacks."""
    return isinstance(module, (_ConvNd, nn.Linear, _BatchNorm)) and module.bias is None


def _replace(network: nn.Module, norm: nn.Module) -> None:
    rest = nn.Sequential(*norm.children()) if list(norm.children()) else nn.Identity()
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if child is norm:
                setattr(parent, name, rest.eval())


class _Work:
    """The record of a run, from which folded norms are removed one by one."""

    def __init__(self, flow: Dataflow, kept: set[int]) -> None:
        self.flow = flow
        self.kept = kept
        self.gone: set[Call] = set()

    def norm_of(self, call: Call) -> _BatchNorm | None:
        """The batch norm module that ``call`` runs, if it has running statistics; else None."""
        if call.name not in ("native_batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm"):
            return None
        module, _ = self.flow.held.get(call.given.get("running_mean", -1), (None, ""))
        return module if isinstance(module, _BatchNorm) else None

    def fold(self, norm: _BatchNorm, call: Call) -> None:
        """Fold ``norm`` into the layers before or after it, in place.

        Raises:
            _Stays: if neither is possible; the message has both reasons.
        """
        if call.given.get("training", False):
            raise _Stays("uses the statistics of its batch")
        if len(self.flow.readers[call.given["running_mean"]]) > 1:
            raise _Stays("runs more than once")
        count = norm.num_features
        try:
            layers = self.before(call.given["input"], 0, count)
            put = _into_outputs
        except _Stays as above:
            try:
                layers = self.after(call.makes[0], 0, count)
            except _Stays as below:
                raise _Stays(f"{above}; {below}") from None
            put = _into_inputs
        for layer in layers:
            put(layer, norm)
        self.gone.add(call)

    def before(self, value: int, first: int, count: int) -> list[_Layer]:
        """The layers that make ``value``, the channels ``first`` to ``first + count`` of a norm's input.

        Raises:
            _Stays: if the norm cannot be folded into them.
        """
        call = self.flow.maker.get(value)
        if call is None:
            raise _Stays("its input is given to the network")
        if call in self.gone:
            return self.before_gone(call, value, first, count)
        if value in self.kept or len(self.flow.readers.get(value, ())) != 1:
            raise _Stays(f"its input, from {call.name}, is read elsewhere too")
        if self.norm_of(call) is not None or call.name in _LAYERS:
            return [_Layer(self.layer_of(call), call, first, count)]
        if call.name == "cat" and call.given.get("dim", 0) == 1:
            found, start = [], first
            for part in call.given["tensors"]:
                width = self.flow.shapes[part][1]
                found += self.before(part, start, width)
                start += width
            return found
        if self.passes(call, value):
            return self.before(call.reads[0], first, count)
        raise _Stays(f"its input comes from {call.name}")

    def before_gone(self, call: Call, value: int, first: int, count: int) -> list[_Layer]:
        """As `before`, for a value that a folded norm made: the search continues with the input of that norm."""
        if value in self.kept or len(self.flow.readers.get(value, ())) != 1:
            raise _Stays("its input, from a norm, is read elsewhere too")
        return self.before(call.given["input"], first, count)

    def after(self, value: int, first: int, count: int) -> list[_Layer]:
        """The layers that read ``value``, the ``count`` channels of a norm, as input channels from ``first`` on.

        Raises:
            _Stays: if the norm cannot be folded into them.
        """
        readers = self.flow.readers.get(value, ())
        if value in self.kept or not readers:
            raise _Stays("its output leaves the network")
        found = []
        for call in readers:
            if call in self.gone:
                found += self.after(call.makes[0], first, count)
            elif call.name in _LAYERS and call.given[_LAYERS[call.name]] == value:
                if call.name == "convolution" and (call.given["transposed"] or any(call.given["padding"])):
                    raise _Stays("its output goes into a padded or transposed convolution")
                found.append(_Layer(self.layer_of(call), call, first, count))
            elif call.name == "cat" and call.given.get("dim", 0) == 1:
                parts = call.given["tensors"]
                start = sum(self.flow.shapes[part][1] for part in parts[: parts.index(value)])
                if parts.count(value) > 1:
                    raise _Stays("its output is joined with itself")
                found += self.after(call.makes[0], first + start, count)
            elif self.passes(call, call.makes[0]):
                found += self.after(call.makes[0], first, count)
            else:
                raise _Stays(f"its output goes into {call.name}")
        return found

    def layer_of(self, call: Call) -> nn.Module:
        """The layer that ``call`` runs, if a single layer holds its weights and they are read once.

        Raises:
            _Stays: if that is not the case.
        """
        norm = self.norm_of(call)
        if norm is not None:
            value = call.given["running_mean"]
        elif call.name == "convolution":
            value = call.given["weight"]
        else:
            weight = self.flow.maker.get(call.given["mat2"])
            value = weight.reads[0] if weight is not None and weight.name == "t" else -1
        module, name = self.flow.held.get(value, (None, ""))
        if norm is None and (not isinstance(module, (_ConvNd, nn.Linear)) or name != "weight"):
            raise _Stays(f"the weights of the {call.name} next to it belong to no layer")
        assert module is not None
        if len(self.flow.readers[value]) > 1:
            raise _Stays("the layer next to it runs more than once")
        return module

    def passes(self, call: Call, made: int) -> bool:
        """Whether ``call`` commutes with an affine map of each channel: ``f(a x + b) = a f(x) + b``."""
        if len(call.makes) != 1 or not call.reads:
            return False
        before, after = self.flow.shapes[call.reads[0]], self.flow.shapes[made]
        if before[:2] != after[:2]:
            return False
        if call.name == "avg_pool2d":
            padded = any(call.given.get("padding", ())) and call.given.get("count_include_pad", True)
            return not padded and call.given.get("divisor_override") is None
        if call.name in ("mean", "slice"):
            chosen = call.given.get("dim")
            dims = chosen if isinstance(chosen, list) else [chosen]
            return all(dim is not None and dim % len(before) > 1 for dim in dims)
        return call.name in _PASSING


_LAYERS = {"convolution": "input", "addmm": "mat1", "mm": "self"}
"""The operations of layers, and the name of their input argument."""

_PASSING = {
    "_adaptive_avg_pool2d",
    "upsample_bilinear2d",
    "upsample_nearest2d",
    "_upsample_nearest_exact2d",
    "reflection_pad2d",
    "replication_pad2d",
    "view",
    "_unsafe_view",
    "clone",
}
"""Averages with weights that sum to 1, and operations that move values; channel counts are checked elsewhere."""


def _set(module: _ConvNd | nn.Linear | _BatchNorm, weight: Tensor, bias: Tensor) -> None:
    """Set weight and bias, in place.

    Each requires a gradient if the old one does; a new bias requires one if the weight does."""
    trained = module.weight is None or module.weight.requires_grad
    also = trained if module.bias is None else module.bias.requires_grad
    module.weight = nn.Parameter(weight.detach(), requires_grad=trained)
    module.bias = nn.Parameter(bias.detach(), requires_grad=also)


def _affine(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """``a`` and ``b`` of a batch norm, (C,) each."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = torch.rsqrt(norm.running_var + norm.eps)
    scale = scale if norm.weight is None else scale * norm.weight
    shift = -norm.running_mean * scale
    return scale, shift if norm.bias is None else shift + norm.bias


def _into_outputs(layer: _Layer, norm: _BatchNorm) -> None:
    """Change a layer so that its output is the output of ``norm``, in place."""
    module, chosen = layer.module, slice(layer.first, layer.first + layer.count)
    if isinstance(module, _BatchNorm):
        scale, shift = (part[chosen] for part in _affine(norm))
        own = torch.ones_like(scale) if module.weight is None else module.weight
        _set(module, own * scale, shift if module.bias is None else module.bias * scale + shift)
        return
    assert norm.running_mean is not None
    assert norm.running_var is not None
    mean, var = norm.running_mean[chosen], norm.running_var[chosen]
    gamma = torch.ones_like(mean) if norm.weight is None else norm.weight[chosen]
    beta = torch.zeros_like(mean) if norm.bias is None else norm.bias[chosen]
    if isinstance(module, nn.Linear):
        _set(module, *fuse_linear_bn_weights(module.weight, module.bias, mean, var, norm.eps, gamma, beta))
        return
    assert isinstance(module, _ConvNd)
    bias = torch.zeros_like(mean) if module.bias is None else module.bias
    chunks = zip(
        *(each.chunk(output_blocks(module)) for each in (module.weight, bias, mean, var, gamma, beta)), strict=True
    )
    parts = [fuse_conv_bn_weights(w, b, m, v, norm.eps, g, s, module.transposed) for w, b, m, v, g, s in chunks]
    _set(module, torch.cat([weight for weight, _ in parts]), torch.cat([each for _, each in parts]))


def _into_inputs(layer: _Layer, norm: _BatchNorm) -> None:
    """Change a layer so that it can read the input of ``norm`` directly, in place."""
    module = layer.module
    assert isinstance(module, (_ConvNd, nn.Linear))
    groups = module.groups if isinstance(module, _ConvNd) else 1
    width = side_width(module, "in") * groups
    scale, shift = module.weight.new_ones(width), module.weight.new_zeros(width)
    chosen = slice(layer.first, layer.first + layer.count)
    scale[chosen], shift[chosen] = _affine(norm)
    # (groups, outputs of a group, inputs of a group, kernel positions)
    weight = module.weight.reshape(groups, module.weight.shape[0] // groups, module.weight.shape[1], -1)
    added = (weight * shift.reshape(groups, 1, -1, 1)).sum((2, 3)).flatten()
    scaled = (weight * scale.reshape(groups, 1, -1, 1)).reshape(module.weight.shape)
    _set(module, scaled, added if module.bias is None else module.bias + added)
