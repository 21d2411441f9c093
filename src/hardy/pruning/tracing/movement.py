"""Operations that move elements: the tags move with the elements.

If a view splits channels over several axes, all but one of these axes must keep their size. The last one is assumed to
be the one that may change. The parts of an even split (`chunk`) keep equal widths.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from hardy.pruning.tracing.atom_sets import NONE, varying
from hardy.pruning.tracing.carried import Carried

__all__ = ["tag_joined", "tag_moved"]

VIEWS = frozenset(["_reshape_alias", "_unsafe_view", "reshape", "view"])
PICKS = {"flip": 1, "gather": 1, "index": 1, "index_select": 1, "narrow": 1, "roll": 2, "select": 1, "unfold": 1}
"""Operations that choose elements along axes, with the index of the axes among their arguments."""


def tag_moved(
    carried: Carried, name: str, func: Any, args: tuple[Any, ...], given: Mapping[str, Any], out: Any
) -> None:
    """Set the tags of the results of an operation that moves the elements of its first argument."""
    source: Tensor = args[0]
    results = list(out) if isinstance(out, (list, tuple)) else [out]
    found: list[list[Tensor]] = [[] for _ in results]
    for tag in carried.of(source):
        known = carried.here in carried.trusted
        reason = None if known else _picked(name, tag, source, args, given)
        if reason is not None:
            carried.fix([tag], reason)
            continue
        full = tag if name == "constant_pad_nd" else tag.expand(source.shape)
        parts = _applied(name, func, full, args, given, results)
        if name in ("split", "split_with_sizes", "unsafe_split") and not (
            _tie_even_parts(carried, parts, tag, args, given) or known
        ):
            carried.fix([tag], "a split along the channels")
            continue
        for place, part in enumerate(parts):
            if (rectangular := _tie_axes(carried, part, name)) is not None:
                found[place].append(rectangular)
    for result, tags in zip(results, found, strict=True):
        carried.put(result, tags)


def _applied(
    name: str, func: Any, full: Tensor, args: tuple[Any, ...], given: Mapping[str, Any], results: list[Any]
) -> list[Tensor]:
    if name in VIEWS:
        return [full.reshape(results[0].shape)]
    if name in ("_to_copy", "alias", "clone", "contiguous", "detach", "lift_fresh"):
        return [full]
    if name == "constant_pad_nd":
        ends = [(end if full.shape[-1 - place // 2] > 1 else 0) for place, end in enumerate(args[1])]
        return [torch.nn.functional.pad(full, ends, value=NONE)]
    made = func(full, *args[1:], **given)
    return list(made) if isinstance(made, (list, tuple)) else [made]


def _axes(chosen: Any, rank: int) -> set[int]:
    return {axis % rank for axis in ([chosen] if isinstance(chosen, int) else chosen)}


def _picked(name: str, tag: Tensor, source: Tensor, args: tuple[Any, ...], given: Mapping[str, Any]) -> str | None:
    """The reason why an operation that selects elements blocks their channels; None if it does not."""
    rank, along = source.ndim, set(varying(tag))
    if name == "slice":
        axis = (args[1] if len(args) > 1 else 0) % rank
        start, end = [*args[2:4], None, None][:2]
        everything = (start or 0) == 0 and (end is None or end >= source.shape[axis]) and (args[4:5] or (1,))[0] == 1
        return "a slice along the channels" if axis in along and not everything else None
    if name == "unbind":
        return "a split along the channels" if (args[1] if len(args) > 1 else 0) % rank in along else None
    if name == "index":
        axes = {axis for axis, chosen in enumerate(args[1]) if chosen is not None}
    elif name in PICKS:
        place = PICKS[name]
        axes = _axes(args[place] if len(args) > place else given.get("dims", given.get("dim", 0)), rank)
    else:
        return None
    return f"{name} along the channels" if axes & along else None


def _tie_even_parts(
    carried: Carried, parts: list[Tensor], tag: Tensor, args: tuple[Any, ...], given: Mapping[str, Any]
) -> bool:
    """Join the parts of an even split with each other; False for an uneven split along the channels."""
    axis = (args[2] if len(args) > 2 else given.get("dim", 0)) % tag.ndim
    if axis not in varying(tag):
        return True
    if len({tuple(part.shape) for part in parts}) > 1:
        return False
    first = carried.sets.compressed(parts[0])
    for part in parts[1:]:
        other = carried.sets.compressed(part)
        if first is not None and other is not None:
            carried.sets.join(first, other, carried.reason("a split along the channels"))
    return True


def _tie_axes(carried: Carried, tag: Tensor, name: str) -> Tensor | None:
    """``tag`` compressed; if its channels vary along several axes, they are joined along all but one of them."""
    found = carried.sets.compressed(tag)
    if found is None or len(axes := varying(found)) < 2:
        return found
    carried.sets.tie(found, axes[-1] if name in VIEWS else axes[0])
    return carried.sets.compressed(found)


def tag_joined(
    carried: Carried, args: tuple[Any, ...], given: Mapping[str, Any], out: Tensor, *, stacked: bool
) -> None:
    """Set the tags of a concatenation: concatenate tags along its axis, and join tags along other axes."""
    parts: list[Tensor] = [part for part in args[0] if part.ndim > 1 or part.numel()]
    axis = (args[1] if len(args) > 1 else given.get("dim", 0)) % out.ndim
    held = [[tag.unsqueeze(axis) if stacked else tag for tag in carried.of(part)] for part in parts]
    beside = [next((tag for tag in tags if axis in varying(tag)), None) for tags in held]
    found: list[Tensor] = []
    if any(tag is not None for tag in beside):
        found.append(_beside(beside, [1 if stacked else part.shape[axis] for part in parts], axis, out.ndim))
    for tag in (one for tags in held for one in tags if axis not in varying(one)):
        if any(all(along not in varying(other) for other in tags) for tags in held for along in varying(tag)):
            carried.fix([tag], "a concatenation with a tensor of fixed width")
        else:
            found.append(tag)
    carried.put(out, found)


def _beside(tags: list[Tensor | None], sizes: list[int], axis: int, rank: int) -> Tensor:
    """The concatenation of ``tags`` along ``axis``; a part without a tag has no channels."""
    shape = [1] * rank
    for known in (one for one in tags if one is not None):
        shape = [max(size, other) for size, other in zip(shape, known.shape, strict=True)]
    filled = []
    for tag, size in zip(tags, sizes, strict=True):
        shape[axis] = size
        filled.append(torch.full(shape, NONE) if tag is None else tag.expand(shape))
    return torch.cat(filled, axis)
