"""What in a traced graph keeps channels from being pruned.

Torch-Pruning takes every operation it does not know for one that leaves channels alone. Here only those known to do
so are allowed; a split, a reshape, a grouped convolution, a norm over channels, a parameter used outside a layer and
the network's output are each a reason why the channels that reach them cannot go.
"""

from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.modules.conv import _ConvNd
from torch_pruning.ops import OPTYPE

__all__ = ["is_depthwise", "obstacle", "origins"]

CHANNELWISE = frozenset(
    [
        "Abs",
        "Add",
        "AdaptiveAvgPool2D",
        "AdaptiveMaxPool2D",
        "Alias",
        "AvgPool2D",
        "Clamp",
        "ClampMax",
        "ClampMin",
        "Clone",
        "ConstantPadNd",
        "CudnnBatchNorm",
        "Div",
        "Elu",
        "Exp",
        "FusedDropout",
        "Gelu",
        "Hardsigmoid",
        "Hardswish",
        "Hardtanh",
        "LeakyRelu",
        "MaxPool2DWithIndices",
        "Maximum",
        "Minimum",
        "MiopenBatchNorm",
        "Mish",
        "Mul",
        "NativeBatchNorm",
        "NativeDropout",
        "Neg",
        "Pow",
        "ReflectionPad2D",
        "Relu",
        "ReplicationPad2D",
        "Sigmoid",
        "Silu",
        "Softplus",
        "Sqrt",
        "Sub",
        "Tanh",
        "ToCopy",
        "UpsampleBicubic2D",
        "UpsampleBicubic2DAa",
        "UpsampleBilinear2D",
        "UpsampleBilinear2DAa",
        "UpsampleNearest2D",
    ]
)
"""Operations, as autograd names them, that keep every channel to itself."""

SATURATING = ("Hardsigmoid", "Sigmoid")
"""Operations that turn a zero into something else: what goes through them weighs channels and does not make them."""


def is_depthwise(module: nn.Module) -> bool:
    """True for a convolution with one filter for each of its channels (two at least)."""
    return isinstance(module, _ConvNd) and module.groups == module.in_channels == module.out_channels > 1


def obstacle(node: Any, names: Mapping[nn.Module, str]) -> str | None:
    """Why channels that reach this node of the graph cannot be removed; None when they can."""
    module = node.module
    name = names.get(module, "") if isinstance(module, nn.Module) else ""
    if isinstance(module, (_ConvNd, nn.Linear, _NormBase, nn.PReLU)):
        return _layer(module, name)
    checks = {
        OPTYPE.CONCAT: _concatenation,
        OPTYPE.RESHAPE: _reshape,
        OPTYPE.SLICE: _slice,
        OPTYPE.ELEMENTWISE: _mixing,
    }
    if node.type == OPTYPE.OUTPUT:
        return "reaches the network's output"
    if node.type not in checks:
        return f"{name or OPTYPE(node.type).name.lower()} cannot be pruned"
    return checks[node.type](node)


def _layer(module: nn.Module, name: str) -> str | None:
    if isinstance(module, _ConvNd) and module.groups > 1 and not is_depthwise(module):
        return f"{name} is a grouped convolution"
    if isinstance(module, _BatchNorm) and not module.affine:
        return f"{name} is a norm without scale and shift"
    return None


def _slice(node: Any) -> str | None:
    return None if node.module.dim in (2, 3) else "a slice along the channels"


def _mixing(node: Any) -> str | None:
    operation = _operation(node)
    if operation in CHANNELWISE or not node.inputs:  # without inputs: the transposed weight of a linear layer
        return None
    if operation == "Mean" and node.grad_fn.name() == "MeanBackward1":
        rank = len(node.grad_fn._saved_self_sym_sizes)
        axes = {_axis(axis, rank) for axis in node.grad_fn._saved_dim}
        return None if axes <= {2, 3} else "a mean over channels"
    return f"the operation {operation} may mix channels"


def _concatenation(node: Any) -> str | None:
    """Only along the channels, and only of parts that are all known."""
    offsets = node.module.offsets
    known = all(function is not None for function, _ in node.grad_fn.next_functions)
    told_apart = known and offsets is not None and _axis(node.grad_fn._saved_dim, 4) == 1
    return None if told_apart else "a concatenation whose parts cannot be told apart"


def _reshape(node: Any) -> str | None:
    """Only (B, C, h, w) -> (B, C h w) in front of linear layers."""
    sizes = node.grad_fn._saved_self_sym_sizes
    if len(sizes) != 4:
        return "a reshape that mixes channels"
    ends, stack = [], list(node.outputs)
    while stack:
        after = stack.pop()
        if after.type == OPTYPE.ELEMENTWISE:
            stack += after.outputs
        else:
            ends.append(after)
    flat = int(sizes[1]) * int(sizes[2]) * int(sizes[3])
    flattens = all(isinstance(end.module, nn.Linear) and end.module.in_features == flat for end in ends)
    return None if flattens else "a reshape that mixes channels"


def origins(node: Any) -> list[Any]:
    """The nodes before ``node`` that make its channels: not what merely weighs them (squeeze and excitation)."""
    if isinstance(node.module, nn.Module) and node.type == OPTYPE.ELEMENTWISE:
        operation = _operation(node)
        if operation in SATURATING:
            return []
        if operation == "Mul" and len(node.inputs) == 2:
            sizes = [node.grad_fn._saved_self.numel(), node.grad_fn._saved_other.numel()]
            return [before for before, size in zip(node.inputs, sizes, strict=True) if size == max(sizes)]
    return list(node.inputs)


def _operation(node: Any) -> str:
    """``Relu`` for ReluBackward0."""
    return str(node.grad_fn.name()).rstrip("0123456789").removesuffix("Backward")


def _axis(saved: int, rank: int) -> int:
    """A dimension as autograd saved it (an unsigned 64-bit number), counted from the front."""
    return (saved - 2**64 if saved >= 2**63 else saved) % rank
