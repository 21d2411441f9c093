"""The parts of a multi-path architecture whose times are added: convolutions, resizes, first and last steps.

They are computed from the architecture without building the network, for one architecture or for the complete space, so
that all parts can be measured before the search. Concatenation is not a part: the line that `hardy.timing.priced` fits
to measured networks includes its time.

Source: the look-up table of Chen et al., "FasterSeg", ICLR 2020, section 3.3, which holds the times of complete ops.
"""

from collections.abc import Iterator, Sequence
from itertools import product

from hardy.blocks.sizes import nearest_multiples
from hardy.networks.architectures.multipath import OPS, WIDTHS, Architecture
from hardy.networks.fasterseg import FasterSeg
from hardy.pruning.shapes import Shape
from hardy.searching.space import Space

__all__ = ["every_part", "parts"]

Size = tuple[int, int]

_NARROWED = 256
"""A segmentation head with more input channels than this has half as many inside."""


def parts(architecture: Architecture, size: Sequence[int], classes: int) -> list[Shape]:
    """The parts of the network that ``architecture`` describes, for one image of ``size`` (height, width).

    Args:
        architecture: the architecture.
        size: (height, width) of the image.
        classes: the number of classes K.
    """
    grids = _grids(size)
    shapes = [*_ends(size, grids, classes), *_stem(architecture, architecture.stem_width, grids)]
    stem = architecture.channels(8, architecture.stem_width)
    cells, routes = architecture.shared()
    for before, layer in cells:
        channels = cells[before][1].channels if before >= 0 else stem
        shapes += _cell(layer.op, channels, layer.channels, layer.stride, grids[layer.scale - layer.stride + 4])
    for route in routes:
        beside = {0: stem} | {cells[place][1].scale: cells[place][1].channels for place in route}
        for scale in range(max(beside)):
            shapes += _climb(architecture, architecture.head_width, scale, beside[scale], grids)
    return shapes + list(_head(architecture, architecture.head_width, len(routes), grids, classes))


def every_part(space: Space, size: Sequence[int], classes: int) -> list[Shape]:
    """All different parts of the architectures of ``space``; see `parts`."""
    grids, some = _grids(size), space.largest()
    wide = [[some.channels(8 * 2**scale, width) for width in WIDTHS] for scale in range(3)]
    shapes = [*_ends(size, grids, classes)]
    for width in WIDTHS:
        shapes += _stem(some, width, grids)
        for count in range(1, space.branches + 1):
            shapes += _head(some, width, count, grids, classes)
        for scale in range(2):
            for beside in wide[scale]:
                shapes += _climb(some, width, scale, beside, grids)
    for op, scale in product(OPS, range(3)):
        for given, made in product(wide[scale], wide[scale]):
            shapes += _cell(op, given, made, 1, grids[scale + 3])
        for given, made in product(wide[scale], wide[scale + 1] if scale < 2 else ()):
            shapes += _cell(op, given, made, 2, grids[scale + 3])
    return list(dict.fromkeys(shapes))


def _grids(size: Sequence[int]) -> list[Size]:
    """The map's size at strides 1, 2, 4, 8, 16, 32 of the size that the layers see of an image of ``size``."""
    grids = [nearest_multiples(size, FasterSeg.multiple)]
    for _ in range(5):
        grids.append(_half(grids[-1]))
    return grids


def _half(size: Size, least: int = 1) -> Size:
    return max(least, (size[0] + 1) // 2), max(least, (size[1] + 1) // 2)


def _conv(inputs: int, outputs: int, at: Size, *, kernel: int = 3, stride: int = 1) -> Shape:
    border = (kernel // 2, kernel // 2)
    return Shape("convolution", inputs, outputs, *at, (kernel, kernel), (stride, stride), border)


def _resize(channels: int, at: Size, to: Size) -> Shape:
    return Shape("resize", channels, channels, *at, extra=(to[0] - at[0], to[1] - at[1]))


def _ends(size: Sequence[int], grids: Sequence[Size], classes: int) -> Iterator[Shape]:
    """At the start the resize of an image of ``size``, if it is needed, and the normalisation; at the end the resize of
    the logits to full size and the argmax."""
    whole = (size[0], size[1])
    if whole != grids[0]:
        yield _resize(3, whole, grids[0])
    yield Shape("normalise", 3, 3, *grids[0])
    yield _resize(classes, grids[3], whole)
    yield Shape("argmax", classes, classes, *whole)


def _stem(architecture: Architecture, width: int, grids: Sequence[Size]) -> Iterator[Shape]:
    half, full = architecture.channels(4, width), architecture.channels(8, width)
    yield _conv(3, half, grids[0], stride=2)
    yield _conv(half, full, grids[1], stride=2)
    yield _conv(full, full, grids[2])
    yield _conv(full, full, grids[2], stride=2)
    yield _conv(full, full, grids[3])


def _cell(op: str, inputs: int, outputs: int, stride: int, at: Size) -> Iterator[Shape]:
    double = op.startswith("conv_2x")
    if not op.endswith("_downup"):
        yield _conv(inputs, outputs, at, stride=stride)
        if double:
            yield _conv(outputs, outputs, _half(at) if stride == 2 else at)
        return
    small = _half(at, 2 if stride == 1 else 1)
    yield _resize(inputs, at, small)
    yield _conv(inputs, outputs, small)
    if double:
        yield _conv(outputs, outputs, small)
    if stride == 1:
        yield _resize(outputs, small, at)


def _climb(architecture: Architecture, width: int, scale: int, beside: int, grids: Sequence[Size]) -> Iterator[Shape]:
    """The step from ``scale + 1`` to ``scale``, where the branch's last map has ``beside`` channels."""
    deep, fine = grids[scale + 4], grids[scale + 3]
    above, narrow = (architecture.channels(8 * 2**s, width) for s in (scale + 1, scale))
    yield _conv(above, narrow, deep, kernel=1)
    if deep != fine:
        yield _resize(narrow, deep, fine)
    yield _conv(narrow + beside, narrow, fine)


def _head(
    architecture: Architecture, width: int, branches: int, grids: Sequence[Size], classes: int
) -> Iterator[Shape]:
    fused = architecture.channels(8, width) * branches
    narrowed = fused if fused <= _NARROWED else fused // 2
    yield _conv(fused, fused, grids[3], kernel=1)
    yield _conv(fused, narrowed, grids[3])
    yield _conv(narrowed, classes, grids[3], kernel=1)
