"""The blocks of an encoder, by stage: a sequence of modules whose outputs have the same number of channels.

The blocks are found by their structure, not by name. A stage is an ``nn.Sequential``, an ``nn.ModuleList`` or a stage
of timm's RegNet in which each module holds at least two layers with weights, and all modules return the same number of
channels. The axes of channels, pixels and prefix tokens are found from the output shapes for two image sizes; no values
are computed. The last blocks of a transformer that a decoder has taken over belong to the transformer's stage.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from timm.models.regnet import RegStage
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from hardy.errors import InputError
from hardy.networks.base import Network
from hardy.networks.parts.stages import traced
from hardy.tuning.base import encoder_of

__all__ = ["BlockStage", "block_stages", "stages_in"]

_ROWS = (nn.Sequential, nn.ModuleList, RegStage)
"""The classes of modules that hold the blocks of a stage in their order."""

_Shapes = Sequence[tuple[int, ...]]
"""The shapes of one output for images (1, 3, H, W) and (1, 3, 2 H, 2 W)."""


@dataclass(frozen=True)
class BlockStage:
    """The blocks of one stage.

    Attributes:
        names: of the blocks in the network, in order.
        width: channels of their outputs.
        axis: the channel axis of their outputs: 1 for maps (B, C, h, w), 3 for (B, h, w, C), 2 for tokens (B, N, C).
        prefixes: for each block, the number of tokens at the start that belong to no patch.
    """

    names: tuple[str, ...]
    width: int
    axis: int
    prefixes: tuple[int, ...]


def block_stages(network: Network) -> list[BlockStage]:
    """The stages of the encoder of ``network``, in order; a plain transformer has one stage.

    Raises:
        InputError: for a network without an encoder, or one whose encoder has no blocks.
    """
    encoder_of(network)
    found = stages_in(network)
    if not found:
        raise InputError(
            f"tuner: the encoder of {type(network).__name__} has no blocks (a sequence of modules with the same number "
            "of channels) that could be tuned; use encoder_decoder with a transformer, ConvNeXt, ResNet or MobileNet"
        )
    return found


def stages_in(network: Network) -> list[BlockStage]:
    """As `block_stages`, but empty for a network without an encoder, or one whose encoder has no blocks."""
    return traced(network, _found) if network.encoder() else []


def _found(network: Network, image: Tensor) -> list[BlockStage]:
    """The result of `block_stages`, from a copy of the network without values (on the meta device)."""
    names = {module: name for name, module in network.named_modules()}
    shapes: dict[str, list[tuple[int, ...]]] = {}
    roots = list(network.encoder())
    for module in {inner for root in roots for inner in root.modules()}:
        module.register_forward_hook(partial(_note, shapes.setdefault(names[module], [])))
    sides = network.fitted(image.shape[-2:])
    for times in (1, 2):
        network.outputs(image.new_empty(1, 3, *(times * side for side in sides)))
    seen = {name: noted for name, noted in shapes.items() if len(noted) == 2}
    stages: list[BlockStage] = []
    for root in roots:
        for blocks, axis, width in _rows(root, names[root], seen):
            stage = BlockStage(blocks, width, axis, tuple(_prefix(network, name, seen[name], sides) for name in blocks))
            if isinstance(root, _ROWS) and stages:  # the root itself is a row: blocks that a decoder has taken over
                stages[-1:] = _continued(stages[-1], stage)
            else:
                stages.append(stage)
    return stages


def _continued(stage: BlockStage, taken: BlockStage) -> list[BlockStage]:
    """One stage of both if they are tokens of one width, as in a plain transformer; else both."""
    if (stage.width, stage.axis) != (taken.width, taken.axis) or stage.axis != 2:
        return [stage, taken]
    return [replace(stage, names=stage.names + taken.names, prefixes=stage.prefixes + taken.prefixes)]


def _note(shapes: list[tuple[int, ...]], module: nn.Module, given: object, value: object) -> None:
    shapes.append(tuple(value.shape) if isinstance(value, Tensor) else ())


def _rows(module: nn.Module, name: str, seen: Mapping[str, _Shapes]) -> Iterator[tuple[tuple[str, ...], int, int]]:
    """For each stage inside ``module``, or ``module`` itself: names of the blocks, channel axis, number of channels."""
    children = [(f"{name}.{child}".removeprefix("."), inner) for child, inner in module.named_children()]
    if isinstance(module, _ROWS):
        widths = {_width(inner, seen.get(child, ())) for child, inner in children}
        found = widths.pop() if len(widths) == 1 else None
        if found is not None:
            yield tuple(child for child, _ in children), *found
            return
    for child, inner in children:
        yield from _rows(inner, child, seen)


def _width(module: nn.Module, shapes: _Shapes) -> tuple[int, int] | None:
    """The channel axis and the number of channels of the outputs of a block; None for a module that is not a block."""
    weighted = sum(isinstance(inner, _ConvNd | nn.Linear) for inner in module.modules())
    if isinstance(module, _ROWS) or weighted < 2 or len(shapes) < 2:
        return None
    axis = _channel_axis(shapes)
    return None if axis is None else (axis, shapes[0][axis])


def _channel_axis(shapes: _Shapes) -> int | None:
    """The axis that does not grow with the image, in outputs of 3 or 4 axes; None if there is not exactly one."""
    if len(shapes[0]) not in (3, 4) or len(shapes[0]) != len(shapes[1]):
        return None
    same = [axis for axis in range(1, len(shapes[0])) if shapes[0][axis] == shapes[1][axis]]
    return same[0] if len(same) == 1 and same[0] in (1, len(shapes[0]) - 1) else None


def _prefix(network: nn.Module, name: str, shapes: _Shapes, sides: tuple[int, int]) -> int:
    """The number of tokens (1, N, C) of the block ``name`` that belong to no patch; 0 for maps.

    It follows from the two numbers of tokens if the ``sides`` of the smaller image are multiples of the patch;
    otherwise it is timm's ``num_prefix_tokens``.
    """
    if len(shapes[0]) != 3:
        return 0
    few, many = shapes[0][1], shapes[1][1]
    rest, odd = divmod(4 * few - many, 3)
    height, width = sides
    strides = (stride for stride in range(1, height + 1) if height % stride == width % stride == 0)
    if not odd and rest >= 0 and any(height * width == (few - rest) * stride**2 for stride in strides):
        return rest
    while name:
        name = name.rpartition(".")[0]
        count = getattr(network.get_submodule(name), "num_prefix_tokens", None)
        if isinstance(count, int):
            return count
    return 0
