"""Convolutions, products and batch norms: what takes channels in and makes others."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from hardy.pruning.tracing.labels import lifted, varying

if TYPE_CHECKING:
    from hardy.pruning.tracing.flow import Flow

__all__ = ["PRODUCTS"]

TAKES = "is taken by a layer of fixed width"
FEEDS = "is fed by a fixed number of channels"


def _contracted(flow: "Flow", left: Tensor, right: Tensor) -> list[Tensor]:
    """The layers of a product (b, m, k) x (b, k, n), or without b: the channels along k are taken in."""
    first = [lifted(layer, 3) for layer in flow.of(left)]
    second = [lifted(layer, 3) for layer in flow.of(right)]
    taken = [layer for layer in first if 2 in varying(layer)]
    taking = [layer for layer in second if 1 in varying(layer)]
    for layer in taken:
        if not taking or 1 in varying(layer):
            flow.fix([layer], TAKES)
        for other in taking:
            met = flow.labels.join(layer[:, :1].transpose(1, 2), other[:, :, :1], flow.reason(TAKES))
            flow.labels.take(met)
    if not taken:
        flow.fix(taking, FEEDS)
    made = [layer[:, :, :1] for layer in first] + [layer[:, :1] for layer in second]
    return [layer if left.ndim == 3 else layer[0] for layer in made]


def _mm(flow: "Flow", args: tuple[Any, ...], given: Mapping[str, Any], out: Tensor) -> None:
    flow.put(out, _contracted(flow, args[0], args[1]))


def _addmm(flow: "Flow", args: tuple[Any, ...], given: Mapping[str, Any], out: Tensor) -> None:
    made = _contracted(flow, args[1], args[2])
    bias = [lifted(layer, out.ndim) for layer in flow.of(args[0])]
    for layer in bias:
        for axis in varying(layer):
            if not any(axis in varying(other) for other in made):
                flow.fix([layer], TAKES)
    flow.put(out, made + bias)


def _convolution(flow: "Flow", args: tuple[Any, ...], given: Mapping[str, Any], out: Tensor) -> None:
    source, weight, bias = args[:3]
    transposed, groups = args[6], args[8]
    into, outof = (0, 1) if transposed and groups == 1 else (1, 0)
    for layer in flow.of(source):
        if any(axis > 1 for axis in varying(layer)):
            flow.fix([layer], "is mixed as pixels")
    fed = [layer for layer in flow.of(source) if varying(layer) == [1]]
    made = [layer.transpose(outof, 0) for layer in flow.of(weight) if varying(layer) == [outof]]
    own = [layer for layer in flow.of(weight) if varying(layer) == [into]]
    made = [layer.flatten() for layer in made]
    if groups == 1:
        _taken(flow, [layer.flatten() for layer in fed], [layer.flatten() for layer in own])
    elif own:
        _placed(flow, [layer.flatten() for layer in fed], [layer.flatten() for layer in own], made, groups)
    else:
        made = [_grouped(flow, [layer.flatten() for layer in fed], layer, groups, transposed) for layer in made]
        if not made:
            flow.fix(fed, TAKES)
    made += [flow.labels.sourced(layer) for layer in flow.of(bias)]
    shape = (1, -1, *(1,) * (out.ndim - 2))
    kept = [layer for layer in flow.of(source) if varying(layer) == [0]]
    flow.put(out, [layer.reshape(shape) for layer in made] + kept)


def _taken(flow: "Flow", fed: list[Tensor], own: list[Tensor]) -> None:
    for layer in fed:
        if not own:
            flow.fix([layer], TAKES)
        for other in own:
            flow.labels.take(flow.labels.join(layer, other, flow.reason(TAKES)))
    if not fed:
        flow.fix(own, FEEDS)


def _grouped(
    flow: "Flow", fed: list[Tensor], made: Tensor, groups: int, transposed: bool
) -> Tensor:  # fmt: skip
    """A group's channels, what it takes in and what it makes, go together; a depthwise filter passes its gate on."""
    if not fed or (transposed and groups != made.numel()):
        flow.fix([made, *fed], "is a grouped convolution that cannot be followed")
        return made
    flow.labels.tie(made.reshape(groups, -1), 0)
    for layer in fed:
        flow.labels.tie(layer.reshape(groups, -1), 0)
        ends = layer.reshape(groups, -1)[:, :1], made.reshape(groups, -1)
        text = flow.reason("is tied to a fixed number of channels")
        if layer.numel() == groups == made.numel():
            return flow.labels.join(layer, flow.labels.sourced(made), text)
        flow.labels.join(*ends, text)
    return made


def _placed(flow: "Flow", fed: list[Tensor], own: list[Tensor], made: list[Tensor], groups: int) -> None:
    """The same places of every group go together."""
    for layer in (*fed, *made):
        flow.labels.tie(layer.reshape(groups, -1), 1)
    _taken(flow, [layer.reshape(groups, -1) for layer in fed], [layer.reshape(1, -1) for layer in own])


def _batch_norm(flow: "Flow", args: tuple[Any, ...], given: Mapping[str, Any], out: Any) -> None:
    source, weight = args[:2]
    result = out[0] if isinstance(out, (list, tuple)) else out
    shape = (1, -1, *(1,) * (source.ndim - 2))
    scales = flow.of(weight) if isinstance(weight, Tensor) else []
    found = []
    for layer in flow.of(source):
        own = flow.weighs(layer, source)
        if own and (varying(layer) != [1] or not scales):
            found.append(layer)
        elif varying(layer) != [1]:
            flow.fix([layer], "is normalised with others")
        elif not scales:
            flow.fix([layer], "is normalised by a norm without scale and shift")
        else:
            text = flow.reason("is tied to a fixed number of channels")
            found.append(flow.labels.join(scales[0].reshape(shape), layer, text, keep=own))
    flow.put(result, found)


PRODUCTS: Mapping[str, Callable[..., None]] = {
    "_native_batch_norm_legit": _batch_norm,
    "_native_batch_norm_legit_no_training": _batch_norm,
    "addmm": _addmm,
    "baddbmm": _addmm,
    "batch_norm_with_update": _batch_norm,
    "bmm": _mm,
    "convolution": _convolution,
    "cudnn_batch_norm": _batch_norm,
    "mm": _mm,
    "native_batch_norm": _batch_norm,
}
"""Operations that take channels in and make others, by name."""
