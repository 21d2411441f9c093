"""Convolutions, products and batch norms: operations that read channels and produce others."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from hardy.ops.axes import weight_axes
from hardy.pruning.tracing.atom_sets import lifted, varying
from hardy.pruning.tracing.carried import Carried

__all__ = ["PRODUCTS"]

TAKES = "is read by a layer of fixed width"
FEEDS = "reads a fixed number of channels"


def _contract(carried: Carried, left: Tensor, right: Tensor) -> list[Tensor]:
    """The tags of a product (b, m, k) x (b, k, n), or without b; it reads the channels along k."""
    first = [lifted(tag, 3) for tag in carried.of(left)]
    second = [lifted(tag, 3) for tag in carried.of(right)]
    taken = [tag for tag in first if 2 in varying(tag)]
    taking = [tag for tag in second if 1 in varying(tag)]
    for tag in taken:
        if not taking or 1 in varying(tag):
            carried.fix([tag], TAKES)
        for other in taking:
            met = carried.sets.join(tag[:, :1].transpose(1, 2), other[:, :, :1], carried.reason(TAKES))
            carried.sets.take(met)
    if not taken:
        carried.fix(taking, FEEDS)
    made = [tag[:, :, :1] for tag in first] + [tag[:, :1] for tag in second]
    return [tag if left.ndim == 3 else tag[0] for tag in made]


def _mm(carried: Carried, args: tuple[Any, ...], given: Mapping[str, Any], out: Tensor) -> None:
    carried.put(out, _contract(carried, args[0], args[1]))


def _addmm(carried: Carried, args: tuple[Any, ...], given: Mapping[str, Any], out: Tensor) -> None:
    made = _contract(carried, args[1], args[2])
    bias = [lifted(tag, out.ndim) for tag in carried.of(args[0])]
    for tag in bias:
        for axis in varying(tag):
            if not any(axis in varying(other) for other in made):
                carried.fix([tag], TAKES)
    carried.put(out, made + bias)


def _convolution(carried: Carried, args: tuple[Any, ...], given: Mapping[str, Any], out: Tensor) -> None:
    source, weight, bias = args[:3]
    transposed, groups = args[6], args[8]
    outof, into = weight_axes(transposed, groups)
    for tag in carried.of(source):
        if any(axis > 1 for axis in varying(tag)):
            carried.fix([tag], "is mixed like pixels")
    fed = [tag for tag in carried.of(source) if varying(tag) == [1]]
    made = [tag.transpose(outof, 0) for tag in carried.of(weight) if varying(tag) == [outof]]
    own = [tag for tag in carried.of(weight) if varying(tag) == [into]]
    made = [tag.flatten() for tag in made]
    if groups == 1:
        _take(carried, [tag.flatten() for tag in fed], [tag.flatten() for tag in own])
    elif own:
        _tie_positions(carried, [tag.flatten() for tag in fed], [tag.flatten() for tag in own], made, groups)
    else:
        made = [_tie_groups(carried, [tag.flatten() for tag in fed], tag, groups, transposed) for tag in made]
        if not made:
            carried.fix(fed, TAKES)
    made += [carried.sets.sourced(tag) for tag in carried.of(bias)]
    shape = (1, -1, *(1,) * (out.ndim - 2))
    kept = [tag for tag in carried.of(source) if varying(tag) == [0]]
    carried.put(out, [tag.reshape(shape) for tag in made] + kept)


def _take(carried: Carried, fed: list[Tensor], own: list[Tensor]) -> None:
    for tag in fed:
        if not own:
            carried.fix([tag], TAKES)
        for other in own:
            carried.sets.take(carried.sets.join(tag, other, carried.reason(TAKES)))
    if not fed:
        carried.fix(own, FEEDS)


def _tie_groups(carried: Carried, fed: list[Tensor], made: Tensor, groups: int, transposed: bool) -> Tensor:
    """Join the inputs and outputs of each group; a depthwise convolution passes its gate site on."""
    if not fed or (transposed and groups != made.numel()):
        carried.fix([made, *fed], "is a grouped convolution that cannot be followed")
        return made
    carried.sets.tie(made.reshape(groups, -1), 0)
    for tag in fed:
        carried.sets.tie(tag.reshape(groups, -1), 0)
        ends = tag.reshape(groups, -1)[:, :1], made.reshape(groups, -1)
        text = carried.reason("is coupled to a fixed number of channels")
        if tag.numel() == groups == made.numel():
            return carried.sets.join(tag, carried.sets.sourced(made), text)
        carried.sets.join(*ends, text)
    return made


def _tie_positions(carried: Carried, fed: list[Tensor], own: list[Tensor], made: list[Tensor], groups: int) -> None:
    """Join the same indices of all groups."""
    for tag in (*fed, *made):
        carried.sets.tie(tag.reshape(groups, -1), 1)
    _take(carried, [tag.reshape(groups, -1) for tag in fed], [tag.reshape(1, -1) for tag in own])


def _batch_norm(carried: Carried, args: tuple[Any, ...], given: Mapping[str, Any], out: Any) -> None:
    source, weight = args[:2]
    result = out[0] if isinstance(out, (list, tuple)) else out
    shape = (1, -1, *(1,) * (source.ndim - 2))
    scales = carried.of(weight) if isinstance(weight, Tensor) else []
    found = []
    for tag in carried.of(source):
        own = carried.note_own_weight(tag, source)
        if own and (varying(tag) != [1] or not scales):
            found.append(tag)
        elif varying(tag) != [1]:
            carried.fix([tag], "is normalised together with others")
        elif not scales:
            carried.fix([tag], "is normalised by a norm layer without scale and shift")
        else:
            text = carried.reason("is coupled to a fixed number of channels")
            found.append(carried.sets.join(scales[0].reshape(shape), tag, text, keep=own))
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
"""Operations that read channels and produce others, by name."""
