"""Convolutions, products and batch norms: what takes channels in and makes others."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from hardy.ops.axes import weight_axes
from hardy.pruning.tracing.carried import Carried
from hardy.pruning.tracing.labels import lifted, varying

__all__ = ["PRODUCTS"]

TAKES = "is taken by a layer of fixed width"
FEEDS = "is fed by a fixed number of channels"


def _contracted(carried: Carried, left: Tensor, right: Tensor) -> list[Tensor]:
    """The layers of a product (b, m, k) x (b, k, n), or without b: the channels along k are taken in."""
    first = [lifted(layer, 3) for layer in carried.of(left)]
    second = [lifted(layer, 3) for layer in carried.of(right)]
    taken = [layer for layer in first if 2 in varying(layer)]
    taking = [layer for layer in second if 1 in varying(layer)]
    for layer in taken:
        if not taking or 1 in varying(layer):
            carried.fix([layer], TAKES)
        for other in taking:
            met = carried.labels.join(layer[:, :1].transpose(1, 2), other[:, :, :1], carried.reason(TAKES))
            carried.labels.take(met)
    if not taken:
        carried.fix(taking, FEEDS)
    made = [layer[:, :, :1] for layer in first] + [layer[:, :1] for layer in second]
    return [layer if left.ndim == 3 else layer[0] for layer in made]


def _mm(carried: Carried, args: tuple[Any, ...], given: Mapping[str, Any], out: Tensor) -> None:
    carried.put(out, _contracted(carried, args[0], args[1]))


def _addmm(carried: Carried, args: tuple[Any, ...], given: Mapping[str, Any], out: Tensor) -> None:
    made = _contracted(carried, args[1], args[2])
    bias = [lifted(layer, out.ndim) for layer in carried.of(args[0])]
    for layer in bias:
        for axis in varying(layer):
            if not any(axis in varying(other) for other in made):
                carried.fix([layer], TAKES)
    carried.put(out, made + bias)


def _convolution(carried: Carried, args: tuple[Any, ...], given: Mapping[str, Any], out: Tensor) -> None:
    source, weight, bias = args[:3]
    transposed, groups = args[6], args[8]
    outof, into = weight_axes(transposed, groups)
    for layer in carried.of(source):
        if any(axis > 1 for axis in varying(layer)):
            carried.fix([layer], "is mixed as pixels")
    fed = [layer for layer in carried.of(source) if varying(layer) == [1]]
    made = [layer.transpose(outof, 0) for layer in carried.of(weight) if varying(layer) == [outof]]
    own = [layer for layer in carried.of(weight) if varying(layer) == [into]]
    made = [layer.flatten() for layer in made]
    if groups == 1:
        _taken(carried, [layer.flatten() for layer in fed], [layer.flatten() for layer in own])
    elif own:
        _placed(carried, [layer.flatten() for layer in fed], [layer.flatten() for layer in own], made, groups)
    else:
        made = [_grouped(carried, [layer.flatten() for layer in fed], layer, groups, transposed) for layer in made]
        if not made:
            carried.fix(fed, TAKES)
    made += [carried.labels.sourced(layer) for layer in carried.of(bias)]
    shape = (1, -1, *(1,) * (out.ndim - 2))
    kept = [layer for layer in carried.of(source) if varying(layer) == [0]]
    carried.put(out, [layer.reshape(shape) for layer in made] + kept)


def _taken(carried: Carried, fed: list[Tensor], own: list[Tensor]) -> None:
    for layer in fed:
        if not own:
            carried.fix([layer], TAKES)
        for other in own:
            carried.labels.take(carried.labels.join(layer, other, carried.reason(TAKES)))
    if not fed:
        carried.fix(own, FEEDS)


def _grouped(carried: Carried, fed: list[Tensor], made: Tensor, groups: int, transposed: bool) -> Tensor:
    """A group's channels, what it takes in and what it makes, go together; a depthwise filter passes its gate on."""
    if not fed or (transposed and groups != made.numel()):
        carried.fix([made, *fed], "is a grouped convolution that cannot be followed")
        return made
    carried.labels.tie(made.reshape(groups, -1), 0)
    for layer in fed:
        carried.labels.tie(layer.reshape(groups, -1), 0)
        ends = layer.reshape(groups, -1)[:, :1], made.reshape(groups, -1)
        text = carried.reason("is tied to a fixed number of channels")
        if layer.numel() == groups == made.numel():
            return carried.labels.join(layer, carried.labels.sourced(made), text)
        carried.labels.join(*ends, text)
    return made


def _placed(carried: Carried, fed: list[Tensor], own: list[Tensor], made: list[Tensor], groups: int) -> None:
    """The same places of every group go together."""
    for layer in (*fed, *made):
        carried.labels.tie(layer.reshape(groups, -1), 1)
    _taken(carried, [layer.reshape(groups, -1) for layer in fed], [layer.reshape(1, -1) for layer in own])


def _batch_norm(carried: Carried, args: tuple[Any, ...], given: Mapping[str, Any], out: Any) -> None:
    source, weight = args[:2]
    result = out[0] if isinstance(out, (list, tuple)) else out
    shape = (1, -1, *(1,) * (source.ndim - 2))
    scales = carried.of(weight) if isinstance(weight, Tensor) else []
    found = []
    for layer in carried.of(source):
        own = carried.weighs(layer, source)
        if own and (varying(layer) != [1] or not scales):
            found.append(layer)
        elif varying(layer) != [1]:
            carried.fix([layer], "is normalised with others")
        elif not scales:
            carried.fix([layer], "is normalised by a norm without scale and shift")
        else:
            text = carried.reason("is tied to a fixed number of channels")
            found.append(carried.labels.join(scales[0].reshape(shape), layer, text, keep=own))
    carried.put(result, found)


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
