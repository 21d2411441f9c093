"""Batch norms folded into the layers around them, found by following values while the network runs.

In evaluation a batch norm is an affine map of each channel, ``a x + b`` with ``a = gamma / sqrt(var + eps)`` and
``b = beta - a mean``. It goes

- into what makes its input, if nothing else reads that: a convolution, a transposed convolution or a linear layer,
  whose weights are scaled along their outputs, or another batch norm;
- else into what reads its output, if all of that can take it: linear layers and convolutions without zero padding,
  whose weights are scaled along their inputs and whose bias takes ``W b``. At a zero-padded border that is not exact.

Averages whose weights sum to 1 (unpadded average pooling, bilinear and nearest resizing), what only moves values of a
channel (views, cropping, mirrored padding) and joining of channels pass an affine map on unchanged, so both ways lead
through them.

Source: Jacob et al., "Quantization and training of neural networks for efficient integer-arithmetic-only inference",
CVPR 2018, eq. 14, for a convolution before a batch norm; the other cases follow from the same identity.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights

from hardy.ops.axes import output_blocks, side_width
from hardy.ops.dataflow import Call, Dataflow

__all__ = ["Folded", "fold_norms"]


@dataclass(frozen=True)
class Folded:
    """The outcome for each batch norm.

    Attributes:
        folded: the names of those folded into other layers.
        left: the names of those that stayed, with the reason.
    """

    folded: tuple[str, ...]
    left: Mapping[str, str]


class _Stays(Exception):  # noqa: N818 - no error, an answer
    """This norm cannot be folded this way; the message says why."""


@dataclass(frozen=True)
class _Layer:
    """A layer that an affine map can go into, and the channels of it that the map is for."""

    module: nn.Module
    call: Call
    first: int
    count: int


@torch.no_grad()
def fold_norms(network: nn.Module, run: Callable[[], list[Tensor]]) -> Folded:
    """Fold the batch norms of ``network`` in place; it must be in evaluation mode, and is of no use for training after.

    A folded norm is replaced by the layers that it contains, such as the activation of timm's, or by an identity.

    Args:
        network: what is changed.
        run: runs the network on an example and returns the tensors that it returns.
    """
    flow = Dataflow(network)
    with flow:
        returned = run()
    work = _Work(flow, flow.outlives(returned))
    names = {module: name for name, module in network.named_modules() if isinstance(module, _BatchNorm)}
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
    return Folded(tuple(folded), left)


def _replace(network: nn.Module, norm: nn.Module) -> None:
    rest = nn.Sequential(*norm.children()) if list(norm.children()) else nn.Identity()
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if child is norm:
                setattr(parent, name, rest.eval())


class _Work:
    """The record of a run, with the norms that are folded taken out of it one by one."""

    def __init__(self, flow: Dataflow, kept: set[int]) -> None:
        self.flow = flow
        self.kept = kept
        self.gone: set[Call] = set()

    def norm_of(self, call: Call) -> _BatchNorm | None:
        """The batch norm that ``call`` is, if it is one with statistics of its own."""
        if call.name not in ("native_batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm"):
            return None
        module, _ = self.flow.held.get(call.given.get("running_mean", -1), (None, ""))
        return module if isinstance(module, _BatchNorm) else None

    def fold(self, norm: _BatchNorm, call: Call) -> None:
        """Put ``norm`` into the layers before or after it, in place.

        Raises:
            _Stays: with both reasons.
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
        """The layers whose outputs are channels ``first`` to ``first + count`` of a norm, all for ``value`` alone."""
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
        """As `before` behind a norm that is folded: its output is its input now."""
        if value in self.kept or len(self.flow.readers.get(value, ())) != 1:
            raise _Stays("its input, from a norm, is read elsewhere too")
        return self.before(call.given["input"], first, count)

    def after(self, value: int, first: int, count: int) -> list[_Layer]:
        """The layers that read ``value``, ``count`` channels of a norm which begin at their input channel ``first``."""
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
        """The layer that ``call`` is, if its weights are its own and read once.

        Raises:
            _Stays: when they are not.
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
            raise _Stays(f"the weights of the {call.name} beside it are no layer's own")
        assert module is not None
        if len(self.flow.readers[value]) > 1:
            raise _Stays("the layer beside it runs more than once")
        return module

    def passes(self, call: Call, made: int) -> bool:
        """Whether ``call`` makes of ``a x + b`` what it makes of ``x``, times ``a``, plus ``b``, channel by channel."""
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
"""What is a layer if its weights are a module's, and the argument that it takes in."""

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


def _affine(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """``a`` and ``b`` of a batch norm, (C,) each."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = torch.rsqrt(norm.running_var + norm.eps)
    scale = scale if norm.weight is None else scale * norm.weight
    shift = -norm.running_mean * scale
    return scale, shift if norm.bias is None else shift + norm.bias


def _into_outputs(layer: _Layer, norm: _BatchNorm) -> None:
    """Change a layer so that its output is that of ``norm``, in place."""
    module, chosen = layer.module, slice(layer.first, layer.first + layer.count)
    if isinstance(module, _BatchNorm):
        scale, shift = (part[chosen] for part in _affine(norm))
        own = torch.ones_like(scale) if module.weight is None else module.weight
        module.weight = nn.Parameter(own * scale)
        module.bias = nn.Parameter(shift if module.bias is None else module.bias * scale + shift)
        return
    assert norm.running_mean is not None
    assert norm.running_var is not None
    mean, var = norm.running_mean[chosen], norm.running_var[chosen]
    gamma = torch.ones_like(mean) if norm.weight is None else norm.weight[chosen]
    beta = torch.zeros_like(mean) if norm.bias is None else norm.bias[chosen]
    if isinstance(module, nn.Linear):
        module.weight, module.bias = fuse_linear_bn_weights(
            module.weight, module.bias, mean, var, norm.eps, gamma, beta
        )
        return
    assert isinstance(module, _ConvNd)
    bias = torch.zeros_like(mean) if module.bias is None else module.bias
    chunks = zip(
        *(each.chunk(output_blocks(module)) for each in (module.weight, bias, mean, var, gamma, beta)), strict=True
    )
    parts = [fuse_conv_bn_weights(w, b, m, v, norm.eps, g, s, module.transposed) for w, b, m, v, g, s in chunks]
    module.weight = nn.Parameter(torch.cat([weight for weight, _ in parts]))
    module.bias = nn.Parameter(torch.cat([each for _, each in parts]))


def _into_inputs(layer: _Layer, norm: _BatchNorm) -> None:
    """Change a layer so that it takes the input of ``norm``, in place."""
    module = layer.module
    assert isinstance(module, (_ConvNd, nn.Linear))
    groups = module.groups if isinstance(module, _ConvNd) else 1
    width = side_width(module, "in") * groups
    scale, shift = module.weight.new_ones(width), module.weight.new_zeros(width)
    chosen = slice(layer.first, layer.first + layer.count)
    scale[chosen], shift[chosen] = _affine(norm)
    # (groups, outputs of a group, its inputs, places)
    weight = module.weight.reshape(groups, module.weight.shape[0] // groups, module.weight.shape[1], -1)
    added = (weight * shift.reshape(groups, 1, -1, 1)).sum((2, 3)).flatten()
    module.weight = nn.Parameter((weight * scale.reshape(groups, 1, -1, 1)).reshape(module.weight.shape))
    module.bias = nn.Parameter(added if module.bias is None else module.bias + added)
