"""The gate placement of the authors of "Importance estimation" in residual networks.

Hardy has one gate for each channel that can be cut out. A channel of a residual stream has one gate, with gate sites
at the last norm layer of each block that adds to the stream and of the stem or shortcut at its start. The authors use
more gates:

- one gate after the batch norm of every convolution of a block, except a 1x1 convolution that adds to the stream (the
  third of a bottleneck, a shortcut). So the second batch norm of a basic block, before the sum, has gates too;
- one gate for each channel of a stage, at the output of each of its blocks, after the activation (skip gate);
- no gate after the stem.

ResNet-18 has 4,800 of these gates (and 2,880 of Hardy's), ResNet-50 has 11,392. A channel of a batch norm that adds to
a stream cannot be cut out alone. `refined` makes separate units of these channels: they are masked, and cut out
together with the channel of the stream.

A gate in front of a layer that filters each channel by itself and has a batch norm (a depthwise convolution) would have
no gradient in training mode: the norm divides by the standard deviation that the gate multiplied. There the unit keeps
Hardy's gate, which is behind that norm.

Source: Molchanov, Mallya, Tyree, Frosio and Kautz, "Importance estimation for neural network pruning", CVPR 2019, and
the placement in the authors' code; Cai, Li and Kot, arXiv:2210.13810, prune with it.
"""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.utils._python_dispatch import TorchDispatchMode

from hardy.errors import InputError
from hardy.networks.base import Network
from hardy.pruning.coupled import Member, Unit
from hardy.pruning.mask import mask
from hardy.pruning.silent import silent
from hardy.pruning.tracing.trace import example_for, outputs_of, twin_of

__all__ = ["refined"]


def refined(network: Network, units: Sequence[Unit]) -> list[Unit]:
    """The units of ``network`` with the authors' gates; without residual blocks the units do not change.

    Args:
        network: the network; it does not change.
        units: as `hardy.pruning.units.find_units` returns them.

    Returns:
        The units without that of the stem. The unit of a stream has its gates at the outputs of its blocks. The units
        ``within`` it follow: batch norms that add to the stream and have their own gates.

    Raises:
        InputError: if the network does not run on its example.
    """
    look = _Look(network)
    order = {name: place for place, (name, _) in enumerate(network.named_modules())}
    found: list[Unit] = []
    for unit in units:
        ends = {block: norms for block in look.blocks if (norms := _ends(unit, block, network))}
        outputs = tuple(Member(block, "out", ends[block][-1].channels) for block in look.carrying(unit, ends))
        if outputs and not _undone(unit, outputs, network, order):
            found.append(replace(unit, gates=(), outputs=outputs))
            parts = (
                _branch(unit, member.module, norm, network, order) for member in outputs for norm in ends[member.module]
            )
            found += [part for part in parts if part is not None]
        elif not _is_stem(unit, look.blocks[0] if look.blocks else None, network, order):
            found.append(unit)
    return found


def _undone(unit: Unit, outputs: Sequence[Member], network: nn.Module, order: Mapping[str, int]) -> bool:
    """Whether all that follows the blocks ``outputs`` is behind a batch norm of the unit's own channels."""
    blocks = [member.module for member in outputs]
    behind = [m for m in unit.members if order[m.module] > max(order[block] for block in blocks)]
    norms = [
        order[m.module]
        for m in behind
        if isinstance(network.get_submodule(m.module), _BatchNorm)
        and not any(_inside(m.module, block) for block in blocks)
    ]
    mixing = [order[m.module] for m in unit.members if m.side == "in"]
    return bool(norms) and min(norms) < min(mixing, default=math.inf)


def _ends(unit: Unit, block: str, network: nn.Module) -> list[Member]:
    """The batch norms of ``block`` that are members of ``unit``; none if all channels of the unit stay inside it."""
    if unit.kind != "filters" or all(_inside(member.module, block) for member in unit.members):
        return []
    left = (member for member in unit.members if member.side == "out" and _inside(member.module, block))
    return [member for member in left if isinstance(network.get_submodule(member.module), _BatchNorm)]


def _branch(unit: Unit, block: str, norm: Member, network: nn.Module, order: Mapping[str, int]) -> Unit | None:
    """The unit of the batch norm ``norm`` that adds to the stream ``unit``; None after a 1x1 convolution.

    Channels that an earlier pruning has masked are left out.
    """
    makers = [
        member
        for member in unit.members
        if member.side == "out"
        and _inside(member.module, block)
        and isinstance(network.get_submodule(member.module), _ConvNd)
        and order[member.module] < order[norm.module]
    ]
    if not makers:
        return None
    maker = max(makers, key=lambda member: order[member.module])
    convolution = network.get_submodule(maker.module)
    assert isinstance(convolution, _ConvNd)
    if max(convolution.kernel_size) == 1:
        return None
    quiet = silent(network).get(norm.module)
    left = [row for row, own in enumerate(norm.channels) if quiet is None or not quiet[list(own)].all()]
    parts = tuple(replace(one, channels=tuple(one.channels[row] for row in left)) for one in (maker, norm))
    return Unit(norm.module, len(left), parts, (norm.module,), unit.kind, within=unit.name) if left else None


def _is_stem(unit: Unit, first: str | None, network: nn.Module, order: Mapping[str, int]) -> bool:
    """Whether ``unit`` is produced before the ``first`` block and read by it."""
    if first is None or unit.kind != "filters":
        return False
    made = [m for m in unit.members if m.side == "out" and isinstance(network.get_submodule(m.module), _ConvNd)]
    taken = any(m.side == "in" and _inside(m.module, first) for m in unit.members)
    return taken and all(order[m.module] < order[first] for m in made)


def _inside(name: str, block: str) -> bool:
    return name.startswith(f"{block}.")


class _Sums(TorchDispatchMode):
    """Records the names of modules that add two maps while a network runs."""

    def __init__(self, running: Sequence[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._running = running
        self.found: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        maps = [arg for arg in args if isinstance(arg, Tensor) and arg.ndim > 2]
        adds = func in (torch.ops.aten.add.Tensor, torch.ops.aten.add_.Tensor)
        if adds and len(maps) == 2 and maps[0].shape == maps[1].shape and self._running:
            self.found.add(self._running[-1])
        return func(*args, **(kwargs or {}))


class _Look:
    """A copy of a network that runs on noise to find its additions and the outputs of its blocks.

    Attributes:
        blocks: the names of the residual blocks in order: modules in which two maps are added, and other modules of
            the same classes.
    """

    def __init__(self, network: Network) -> None:
        self._twin = twin_of(network).eval()
        self._example = example_for(network, None)
        with torch.no_grad():
            for name, value in self._twin.named_parameters():
                if name.endswith("bias"):  # so that only masked channels are zero
                    value.fill_(0.1)
        running: list[str] = []
        with _Sums(running) as sums:
            self._given = _run(self._twin, self._example, running)
        kinds = {type(self._twin.get_submodule(name)) for name in sums.found}
        self.blocks = [name for name, m in self._twin.named_modules() if type(m) in kinds and name in self._given]

    def carrying(self, unit: Unit, ends: Mapping[str, Sequence[Member]]) -> list[str]:
        """The blocks whose output holds the channels of ``unit``, at the indices of its batch norms.

        Every second channel is masked: in the output these must be zero, and the others must not.
        """
        if not ends:
            return []
        masked = copy.deepcopy(self._twin)
        mask(masked, [unit], {unit.name: list(range(0, unit.size, 2))})
        given = _run(masked, self._example, [])
        found = []
        for block, norms in ends.items():
            gone = [i for channel in norms[-1].channels[::2] for i in channel]
            left = [i for channel in norms[-1].channels[1::2] for i in channel]
            out = given[block]
            if max(gone + left) < out.shape[1] and not out[:, gone].any() and (out[:, left].any() or not left):
                found.append(block)
        return found


def _run(network: nn.Module, example: Tensor, running: list[str]) -> dict[str, Tensor]:
    """The output of each module that returns a map, by name; ``running`` holds the modules that run at the moment."""
    given: dict[str, Tensor] = {}

    def entering(name: str) -> Callable[..., None]:
        return lambda *_: running.append(name)

    def leaving(name: str) -> Callable[..., None]:
        def leave(_: nn.Module, __: Any, out: Any) -> None:
            running.pop()
            if isinstance(out, Tensor) and out.ndim > 2:
                given[name] = out.clone()

        return leave

    handles = []
    for name, module in network.named_modules():
        if name:
            handles += [module.register_forward_pre_hook(entering(name)), module.register_forward_hook(leaving(name))]
    try:
        with torch.no_grad():
            outputs_of(network, example)
    except Exception as error:  # foreign code may raise anything
        raise InputError(
            f"gates: paper looks for residual blocks with images of shape {tuple(example.shape)}, and the network does "
            f"not run on them ({type(error).__name__}: {' '.join(str(error).split())[:120]}); use gates: unit"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    return given
