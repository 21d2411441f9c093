"""Which channels of which modules follow each other: the dependency graph of a network, checked.

The graph and its groups are Torch-Pruning's (`DependencyGraph`; its pruner classes are never used). What it can be
trusted with is decided in `hardy.pruning.obstacles`; the rest is reported as the reason why channels cannot be pruned.

A channel of a side of a module is an atom ``(module, "out" | "in", index)``. Groups are taken from every layer that
makes channels; atoms that follow the same root channel are joined across groups, so that a layer added to a
concatenation splits into the parts that go with each piece.
"""

import copy
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch_pruning as tp
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from hardy.errors import InputError
from hardy.networks.base import Network
from hardy.pruning.obstacles import is_depthwise, obstacle, origins
from hardy.seed import seeded

__all__ = ["Atom", "Trace", "trace"]

Atom = tuple[str, str, int]
"""(module name, ``"out"`` or ``"in"``, channel)."""


@dataclass(frozen=True)
class Trace:
    """What the trace of a network found.

    Attributes:
        order: the names of all modules, in the network's order.
        channels: for each channel the atoms that must go together.
        blocked: for atoms that cannot go, the reason.
        makers: the names of the layers that make channels: linear layers and convolutions, not depthwise ones.
        nodes: the graph's node of each module that it reached.
    """

    order: tuple[str, ...]
    channels: Sequence[list[Atom]]
    blocked: Mapping[Atom, str]
    makers: frozenset[str]
    nodes: Mapping[str, Any]

    def gates(self, members: set[str], consumers: Sequence[str]) -> tuple[str, ...]:
        """The gate places of the unit whose channels pass ``members`` and are taken by ``consumers``: see `units`."""
        names = {id(node): name for name, node in self.nodes.items()}
        found: set[str] = set()
        seen: set[int] = set()
        stack = [before for consumer in consumers for before in origins(self.nodes[consumer])]
        while stack:
            node = stack.pop()
            if id(node) in seen:
                continue
            seen.add(id(node))
            name = names.get(id(node))
            if name is None:
                stack += origins(node)
            elif name in members:
                if isinstance(node.module, nn.PReLU) or is_depthwise(node.module):
                    stack += origins(node)
                else:
                    found.add(name)
        return tuple(name for name in self.order if name in found)


def trace(network: nn.Module, example: Tensor | None = None) -> Trace:
    """Trace a copy of ``network`` in training mode, auxiliary heads included; the network itself is not touched.

    Raises:
        InputError: when ``network`` is no `Network` and no ``example`` is given.
    """
    twin = copy.deepcopy(network).cpu().requires_grad_(True)
    if example is None:
        if not isinstance(network, Network):
            raise InputError(f"{type(network).__name__} is no Network: give an example input to trace it with")
        side = 2 * max(network.least_size, 64)
        example = torch.rand(2, 3, side, side, dtype=network.mean.dtype, generator=torch.Generator().manual_seed(0))
    with seeded(0, "trace"):
        shipped = _modules_that_run(twin, example)
        # fresh containers on every call: Torch-Pruning keeps its defaults between calls
        fresh: dict[str, Any] = {"customized_pruners": {}, "ignored_layers": [], "ignored_params": []}
        build: Any = tp.DependencyGraph
        graph = build().build_dependency(twin, example_inputs=example, forward_fn=_forward, verbose=False, **fresh)
    names = {module: name for name, module in twin.named_modules()}
    joined = _Joined()
    reasons: list[tuple[Atom, str]] = []
    for group in _groups(graph, twin, names):
        reason = next((r for item in group if (r := obstacle(item.dep.target, names))), None)
        atoms = [(root, atom) for item in group for root, atom in _atoms(graph, item, names)]
        if all(twin.get_submodule(m) not in shipped for _, (m, side, _) in atoms if side == "out"):
            reason = "runs only while training"
        outside = next((m for _, (m, side, i) in atoms if i >= _width(twin.get_submodule(m), side)), None)
        if outside is not None:
            reason = reason or f"{outside} is tied to it in a way that cannot be followed"
            atoms = [(root, (m, s, i)) for root, (m, s, i) in atoms if i < _width(twin.get_submodule(m), s)]
        first: dict[int, Atom] = {}
        for root, atom in atoms:
            joined.join(first.setdefault(root, atom), atom)
            if reason is not None:
                reasons.append((atom, reason))
    nodes = {names[m]: node for m, node in graph.module2node.items() if m in names}
    makers = frozenset(n for m, n in names.items() if isinstance(m, (_ConvNd, nn.Linear)) and not is_depthwise(m))
    return Trace(tuple(names.values()), joined.sets(), dict(reversed(reasons)), makers, nodes)


def _forward(twin: nn.Module, example: Tensor) -> list[Tensor]:
    """What the loss reads, with one more operation behind it: so even a last convolution has an output to end in."""
    twin.train()
    if not isinstance(twin, Network):
        out = twin(example)
        tensors = [out] if isinstance(out, Tensor) else list(out)
    else:
        outputs = twin.outputs(example)
        tensors = [outputs.logits, *(value for name, value in outputs.extras.items() if name.startswith("aux_"))]
    return [tensor * 1.0 for tensor in tensors]


def _modules_that_run(twin: nn.Module, example: Tensor) -> set[nn.Module]:
    """The modules that take part in evaluation mode."""
    seen: set[nn.Module] = set()
    twin.eval()
    handles = [m.register_forward_hook(lambda module, *_: seen.add(module)) for m in twin.modules()]
    with torch.no_grad():
        twin(example)
    for handle in handles:
        handle.remove()
    return seen


def _groups(graph: Any, twin: nn.Module, names: Mapping[nn.Module, str]) -> Iterator[list[Any]]:
    """The group of every layer that makes channels and that no earlier group covers whole."""
    covered: dict[nn.Module, set[int]] = defaultdict(set)
    for module in twin.modules():
        if module not in graph.module2node or not isinstance(module, (_ConvNd, nn.Linear)) or is_depthwise(module):
            continue
        width = _width(module, "out")
        if len(covered[module]) == width:
            continue
        pruner = graph.get_pruner_of_module(module)
        group = list(graph.get_pruning_group(module, pruner.prune_out_channels, list(range(width))))
        for item in group:
            if item.dep.target.module in names and _side(graph, item.dep) == "out":
                covered[item.dep.target.module].update(item.idxs)
        yield group


def _atoms(graph: Any, item: Any, names: Mapping[nn.Module, str]) -> Iterator[tuple[int, Atom]]:
    """(root channel, atom) for each channel of a group's item that belongs to a module with channels."""
    module = item.dep.target.module
    if isinstance(module, (_ConvNd, nn.Linear, _NormBase, nn.PReLU)):
        side = _side(graph, item.dep)
        for root, index in zip(item.root_idxs, item.idxs, strict=True):
            yield root, (names[module], side, index)


def _side(graph: Any, dependency: Any) -> str:
    module = dependency.target.module
    if isinstance(module, (_NormBase, nn.PReLU)) or is_depthwise(module):
        return "out"
    return "out" if graph.is_out_channel_pruning_fn(dependency.handler) else "in"


def _width(module: nn.Module, side: str) -> int:
    """How many channels a side of a module has."""
    if isinstance(module, _ConvNd):
        return module.out_channels if side == "out" else module.in_channels
    if isinstance(module, nn.Linear):
        return module.out_features if side == "out" else module.in_features
    if isinstance(module, _NormBase):
        return module.num_features
    return module.num_parameters if isinstance(module, nn.PReLU) and module.num_parameters > 1 else 2**31


class _Joined:
    """Disjoint sets of atoms."""

    def __init__(self) -> None:
        self._above: dict[Atom, Atom] = {}

    def _top(self, atom: Atom) -> Atom:
        path = []
        while (above := self._above.setdefault(atom, atom)) != atom:
            path.append(atom)
            atom = above
        for passed in path:
            self._above[passed] = atom
        return atom

    def join(self, one: Atom, other: Atom) -> None:
        self._above[self._top(other)] = self._top(one)

    def sets(self) -> list[list[Atom]]:
        found: dict[Atom, list[Atom]] = defaultdict(list)
        for atom in self._above:
            found[self._top(atom)].append(atom)
        return list(found.values())
