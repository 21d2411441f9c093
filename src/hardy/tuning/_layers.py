"""Shared by several tuners: the layers of an encoder that they change, and the replacement of these layers."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import islice

import torch
from timm import layers
from timm.models import swin_transformer_v2
from timm.models.swin_transformer_v2_cr import WindowMultiHeadAttention
from torch import Tensor, nn

from hardy.errors import InputError
from hardy.networks.base import Network
from hardy.ops.around import Around
from hardy.tuning.base import encoder_of, freeze_encoder

__all__ = [
    "Layer",
    "attention_of",
    "check_rank",
    "check_share",
    "factors",
    "is_bias",
    "is_plain",
    "last_of",
    "layers_of",
    "product",
    "replace",
    "train_only",
    "unwrap",
    "within",
]

Layer = nn.Linear | nn.Conv2d


def within(network: Network) -> Iterator[tuple[str, nn.Module]]:
    """All modules in the encoder of ``network``, with their names in the network, in order.

    Raises:
        InputError: for a network without an encoder.
    """
    inside = {module for root in encoder_of(network) for module in root.modules()}
    return ((name, module) for name, module in network.named_modules() if module in inside)


def is_plain(module: nn.Module) -> bool:
    """Whether ``module`` is a linear layer or a convolution that uses its stored weight directly.

    A layer that standardises or parametrises its weight is not."""
    forward = type(module).forward
    known = (nn.Linear.forward, nn.Conv2d.forward, layers.Linear.forward, layers.Conv2dSame.forward)
    return isinstance(module, Layer) and forward in known and "weight" in module._parameters


def is_bias(module: nn.Module, name: str) -> bool:
    """Whether the parameter ``name`` of ``module`` is a bias, also one that is stored outside of its layer."""
    value: nn.Parameter = getattr(module, name)
    return value.ndim == 1 and (name == "bias" or name.endswith("_bias"))


def layers_of(network: Network, *, pointwise: bool) -> dict[str, Layer]:
    """The linear layers in the blocks of the encoder, by name, in order: those of attention and MLPs.

    A block is an element of a sequence (`nn.Sequential`, `nn.ModuleList`), or one of several sibling modules of the
    same class. So patch embeddings and pooling heads are left out. The small networks that compute position biases are
    left out too.

    Args:
        network: a network before `Tuner.attach`.
        pointwise: also include 1x1 convolutions with one group.

    Raises:
        InputError: for a network without an encoder, and for an encoder without such layers.
    """
    blocks = {inner for _, module in within(network) for block in _blocks_of(module) for inner in block.modules()}
    for _, module in within(network):
        for kind, part in _POSITIONS.items():
            blocks -= set(module.get_submodule(part).modules()) if isinstance(module, kind) else set()
    found = {}
    for name, module in within(network):
        if not (is_plain(module) and module in blocks):
            continue
        if isinstance(module, nn.Linear) or (pointwise and isinstance(module, nn.Conv2d) and _is_pointwise(module)):
            found[name] = module
    if not found:
        kinds = "linear layer or 1x1 convolution" if pointwise else "linear layer"
        hint = "" if pointwise else "; pointwise: true also uses 1x1 convolutions"
        raise InputError(f"tuner: the encoder of {type(network).__name__} has no {kinds} in its blocks{hint}")
    return found


def last_of(found: Mapping[str, Layer], frozen_share: float) -> dict[str, Layer]:
    """``found`` without the first ``frozen_share`` of its layers, rounded; at least one layer is left."""
    first = min(round(len(found) * frozen_share), len(found) - 1)
    return dict(islice(found.items(), first, None))


def check_share(frozen_share: float) -> None:
    """Check that the share is in [0, 1).

    Raises:
        InputError: if it is not.
    """
    if not 0 <= frozen_share < 1:
        raise InputError(f"tuner.frozen_share: {frozen_share} is out of range; it must be at least 0 and below 1")


_POSITIONS = {swin_transformer_v2.WindowAttention: "cpb_mlp", WindowMultiHeadAttention: "meta_mlp"}
"""The submodule that computes position biases, for each class of attention."""


def _blocks_of(module: nn.Module) -> list[nn.Module]:
    """The children of ``module`` that are blocks; see `layers_of`."""
    children = list(module.children())
    if isinstance(module, (nn.Sequential, nn.ModuleList)):
        return children
    kinds = Counter(type(child) for child in children if next(child.children(), None) is not None)
    return [child for child in children if kinds[type(child)] > 1]


def attention_of(network: Network, found: Mapping[str, Layer], *, output: bool) -> dict[str, Layer]:
    """The layers of ``found`` that belong to attention: linear children of a module with an int ``num_heads``.

    The last of these children is the output layer.

    Args:
        network: see `layers_of`.
        found: the result of `layers_of`.
        output: also include the output layers.

    Raises:
        InputError: for an encoder without such layers.
    """
    chosen: set[nn.Module] = set()
    for _, module in within(network):
        layers = [child for child in module.children() if isinstance(child, nn.Linear)]
        if isinstance(getattr(module, "num_heads", None), int):
            chosen |= set(layers if output else layers[:-1])
    kept = {name: layer for name, layer in found.items() if layer in chosen}
    if not kept:
        raise InputError(
            f"tuner.targets: the encoder of {type(network).__name__} has no attention of linear layers; use all"
        )
    return kept


def _is_pointwise(layer: nn.Conv2d) -> bool:
    return layer.kernel_size == (1, 1) and layer.groups == 1 and not any(layer._reversed_padding_repeated_twice)


def check_rank(found: Mapping[str, Layer], rank: int) -> None:
    """Check that the rank is at least 1 and at most the width of the narrowest of the layers ``found``.

    Raises:
        InputError: if it is not; the message names the narrowest layer.
    """
    name, layer = min(found.items(), key=lambda item: min(item[1].weight.shape[:2]))
    least = min(layer.weight.shape[:2])
    if not 1 <= rank <= least:
        raise InputError(f"tuner.rank is {rank}, but {name} is {least} channels wide; choose 1 to {least}")


def replace(network: Network, made: Mapping[nn.Module, nn.Module]) -> None:
    """Replace each module that is a key of ``made`` by its value, everywhere in ``network``, in place.

    The new module gets the training mode of the old one."""
    for old, new in made.items():
        new.train(old.training)
    for parent in list(network.modules()):
        for name, child in list(parent._modules.items()):
            if child is not None and child in made:
                setattr(parent, name, made[child])


def unwrap(network: Network, kind: type[Around]) -> None:
    """Merge every ``kind`` in ``network`` into its layer, in place."""
    replace(network, {module: module.merged() for module in network.modules() if isinstance(module, kind)})


def train_only(network: Network, chosen: Callable[[nn.Module, str], bool], what: str) -> None:
    """Freeze the encoder except for the parameters that ``chosen`` selects, in place.

    Args:
        network: see `Tuner.attach`.
        chosen: takes a module and the name of one of its own parameters; True to train it.
        what: the name of these parameters in the message.

    Raises:
        InputError: for an encoder without such parameters.
    """
    values = [
        value
        for _, module in within(network)
        for name, value in module.named_parameters(recurse=False)
        if chosen(module, name)
    ]
    if not values:
        raise InputError(f"tuner: the encoder of {type(network).__name__} has no {what} to train")
    freeze_encoder(network)
    for value in values:
        value.requires_grad_(True)


def factors(layer: Layer, rank: int, *, outputs: int | None = None) -> tuple[Layer, Layer]:
    """Two new layers without bias, with the inputs and outputs of ``layer`` and ``rank`` channels between them.

    Args:
        layer: a linear layer or a 1x1 convolution.
        rank: the number of channels between the two layers.
        outputs: the number of outputs; None for that of ``layer``.
    """
    outputs = len(layer.weight) if outputs is None else outputs
    down: Layer
    up: Layer
    if isinstance(layer, nn.Linear):
        down = nn.Linear(layer.in_features, rank, bias=False)
        up = nn.Linear(rank, outputs, bias=False)
    else:
        down = nn.Conv2d(layer.in_channels, rank, 1, layer.stride, bias=False)  # type: ignore[arg-type]
        up = nn.Conv2d(rank, outputs, 1, bias=False)
    return down.to(layer.weight), up.to(layer.weight)


def product(up: nn.Module, down: nn.Module) -> Tensor:
    """The weight of a single layer that computes ``up(down(x))``, for the two layers of `factors`."""
    first: Tensor = down.weight  # type: ignore[assignment]
    second: Tensor = up.weight  # type: ignore[assignment]
    made: Tensor = torch.tensordot(second.flatten(1), first, dims=1)
    return made
