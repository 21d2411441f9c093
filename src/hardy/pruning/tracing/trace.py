"""Finds which channels of which modules are coupled: a copy of the network runs, and its channels are followed.

A channel of a side of a module is an atom ``(module, side, index)``. Every parameter gets tags with the atoms along its
axes. The declared couplings of known modules are joined. `hardy.pruning.tracing.flow` joins atoms that meet while the
copy runs in evaluation mode and in training mode, with its auxiliary heads.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.dropout import _DropoutNd

from hardy.errors import InputError
from hardy.networks.base import Network
from hardy.ops.around import Around
from hardy.ops.axes import is_depthwise, making, parameter_axes, side_width, splits_groups
from hardy.ops.returned import tensors_in
from hardy.pruning.norms import CHANNEL_NORMS, norm_width
from hardy.pruning.tracing.atom_sets import Atom, AtomSets
from hardy.pruning.tracing.carried import Carried
from hardy.pruning.tracing.declared import check, declared
from hardy.pruning.tracing.flow import Flow
from hardy.pruning.weight_norm import duplicate, make_plain, unfollowed
from hardy.seed import seeded

__all__ = ["Atom", "Trace", "outputs_of", "trace", "twin_of"]

_log = logging.getLogger("hardy")


@dataclass(frozen=True)
class Trace:
    """The result of tracing a network.

    Attributes:
        order: the names of all modules, in the network's order.
        channels: for each channel the atoms that must be removed together.
        blocked: for atoms that cannot be removed, the reason.
        makers: the sides (module, side) that produce channels: outputs of linear layers and convolutions that are not
            depthwise, and the parameters that torch's own attention has instead.
        sources: for atoms that a layer reads, the modules at whose output their gate is.
        gates: by name of an attention block, the layer at whose input the gates of the heads are.
        standardised: the names of the layers that standardise their weights.
    """

    order: tuple[str, ...]
    channels: Sequence[list[Atom]]
    blocked: Mapping[Atom, str]
    makers: frozenset[tuple[str, str]]
    sources: Mapping[Atom, frozenset[str]]
    gates: Mapping[str, str]
    standardised: frozenset[str]


def trace(network: nn.Module, example: Tensor | None = None) -> Trace:
    """Trace a copy of ``network``; the network itself does not change.

    A grouped convolution loses complete groups with all their inputs. Where that is not possible (radix splits, channel
    shuffles), the network is traced again, and the convolution loses the same indices in each group.

    Raises:
        InputError: if ``network`` is not a `Network` and there is no ``example``, if it does not run on the example, or
            if a class declares a coupling that its module does not have.
    """
    example = example_for(network, example)
    twin = twin_of(network)
    fixed = {name: why for name, module in network.named_modules() if (why := unfollowed(module)) is not None}
    found = _trace_once(twin, example, fixed, frozenset())
    stuck = {name for atoms in found.channels for atom in atoms if atom in found.blocked for name, *_ in atoms}
    alike = frozenset(name for name, m in twin.named_modules() if name in stuck and splits_groups(m))
    return _trace_once(twin_of(network), example, fixed, alike) if alike else found


def _trace_once(twin: nn.Module, example: Tensor, fixed: Mapping[str, str], alike: frozenset[str]) -> Trace:
    """One trace.

    Args:
        twin: the copy of the network that runs.
        example: its input.
        fixed: the modules whose weights cannot be cut, with the reason.
        alike: the grouped convolutions that lose the same indices in each group.
    """
    sets = AtomSets()
    known, bases = _tag_parameters(twin, sets, alike)
    for (name, _), cells in bases.items():
        if name in fixed:
            sets.block(cells, f"{name} cannot be cut: {fixed[name]}")
    gates = _join_declared(twin, sets, bases)
    parted = frozenset(n for n, m in twin.named_modules() if any(c.side == "parts" for c in declared(m)))
    carried = Carried(twin, sets, known, trusted=parted.union(gates))
    flow = Flow(carried)
    with seeded(0, "trace"):
        _run(twin, flow, example, training=False)
        shipped = set(sets.reached)
        _run(twin, flow, example, training=True)
    makers = {
        (n, "out") for n, m in twin.named_modules() if isinstance(m, (_ConvNd, nn.Linear)) and not is_depthwise(m)
    }
    makers |= {(n, side) for n, m in twin.named_modules() for side in making(m)}
    return _traced_atoms(twin, sets, shipped, frozenset(makers), gates, frozenset(carried.standardised))


def twin_of(network: nn.Module) -> nn.Module:
    """A copy of ``network`` on the CPU with plain parameters, also if modules cache tensors."""
    try:
        twin = duplicate(network)
    except RuntimeError:  # a cached tensor in a graph: moving a module clears such caches
        twin = duplicate(network._apply(lambda value: value))
    make_plain(twin)
    return twin.cpu().requires_grad_(True)


def example_for(network: nn.Module, example: Tensor | None) -> Tensor:
    """``example`` on the CPU with at least two samples; noise for a `Network` without an example.

    Raises:
        InputError: if ``network`` is not a `Network` and there is no example.
    """
    if example is not None:
        example = example.detach().cpu()
        return example if len(example) > 1 else torch.cat([example, example])
    if not isinstance(network, Network):
        raise InputError(f"{type(network).__name__} is not a Network: give an example input to trace it")
    return network.example()


def outputs_of(network: nn.Module, example: Tensor) -> list[Tensor]:
    """The output tensors of ``network``; for a `Network` see `Network.read`."""
    return network.read(example) if isinstance(network, Network) else tensors_in(network(example))


def _run(twin: nn.Module, flow: Flow, example: Tensor, *, training: bool) -> None:
    twin.train(training)
    for module in twin.modules():
        if isinstance(module, _DropoutNd):
            module.eval()
    try:
        with flow.watching():
            outputs = outputs_of(twin, example)
    except InputError:
        raise
    except Exception as error:
        where = f" in {flow.failed}" if flow.failed else ""
        text = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        if not training:
            name = type(twin).__name__
            raise InputError(
                f"{name} does not run on an example of shape {tuple(example.shape)}{where}: {text}"
            ) from error
        _log.warning("layers that run only in training mode are not followed: training mode fails%s (%s)", where, text)
        return
    for output in outputs:
        for tag in flow.carried.of(output):
            flow.carried.sets.block(tag, "reaches the network's output")


def _tag_parameters(
    twin: nn.Module, sets: AtomSets, alike: frozenset[str]
) -> tuple[dict[Any, list[Tensor]], dict[tuple[str, str], Tensor]]:
    """The tags of every parameter, buffer and norm layer over channels, and the cells of every side of every module."""
    known: dict[Any, list[Tensor]] = {}
    bases: dict[tuple[str, str], Tensor] = {}
    for name, module in twin.named_modules():
        sides = _sides(name, module, sets, alike)
        bases.update({(name, side): cells for side, cells in sides.items()})
        if isinstance(module, CHANNEL_NORMS) and "out" in sides:
            known[module] = [sides["out"]]
        held = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
        for kind, value in held:
            tags = _tags_of(module, kind, value, sides)
            if value in known:
                for tag in (*known[value], *tags):
                    sets.block(tag, f"{name}.{kind} is shared with another module")
            else:
                known[value] = tags
    return known, bases


def _sides(name: str, module: nn.Module, sets: AtomSets, alike: frozenset[str]) -> dict[str, Tensor]:
    """Add atoms for every side of a module; returns their cells."""
    if isinstance(module, (_NormBase, nn.PReLU, *CHANNEL_NORMS)):
        return _norm_sides(name, module, sets)
    found = {}
    if isinstance(module, (_ConvNd, nn.Linear)):
        found["out"] = sets.new(name, "out", side_width(module, "out"), name)
        if isinstance(module, nn.Linear) or module.groups == 1 or name in alike:
            found["in"] = sets.new(name, "in", side_width(module, "in"))
    for kind, value in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
        if value.is_floating_point() and not ("out" in found and kind in ("weight", "bias")):
            for axis, size in enumerate(value.shape):
                if size > 1:
                    found[f"{kind}:{axis}"] = sets.new(name, f"{kind}:{axis}", size)
    return found


def _norm_sides(name: str, module: nn.Module, sets: AtomSets) -> dict[str, Tensor]:
    """Add atoms for a norm layer or an activation with parameters; returns their cells by side."""
    if isinstance(module, _NormBase):
        return {"out": sets.new(name, "out", module.num_features, name)}
    if isinstance(module, nn.PReLU):
        return {"out": sets.new(name, "out", module.num_parameters)} if module.num_parameters > 1 else {}
    count = norm_width(module)
    return {} if count is None else {"out": sets.new(name, "out", count, name)}


def _tags_of(module: nn.Module, kind: str, value: Tensor, sides: Mapping[str, Tensor]) -> list[Tensor]:
    """The tags of a parameter or buffer."""
    axes: dict[int, Tensor]
    if isinstance(module, (_ConvNd, nn.Linear)) and kind in ("weight", "bias"):
        held = [(side, place) for side in ("out", "in") if side in sides for place in parameter_axes(module, side)]
        axes = {axis: sides[side] for side, (name, axis) in held if name == kind}
    elif isinstance(module, (_NormBase, nn.PReLU, *CHANNEL_NORMS)):
        axes = {0: sides["out"]} if "out" in sides and value.ndim == 1 and len(value) == len(sides["out"]) else {}
    else:
        axes = {axis: sides[f"{kind}:{axis}"] for axis in range(value.ndim) if f"{kind}:{axis}" in sides}
    found = []
    for axis, cells in axes.items():
        shape = [1] * value.ndim
        shape[axis] = len(cells)
        if len(cells) > 1:
            found.append(cells.reshape(shape))
    return found


def _join_declared(twin: nn.Module, sets: AtomSets, bases: Mapping[tuple[str, str], Tensor]) -> dict[str, str]:
    """Join the declared couplings; returns, by name of an attention block, the layer that reads its heads.

    Raises:
        InputError: for a coupling with layers or channels that the module does not have.
    """
    gates = {}
    modules = dict(twin.named_modules())
    for name, module in modules.items():
        prefix = f"{name}." if name else ""
        for coupling in declared(module):
            check(coupling, module)
            if coupling.side == "heads":
                gates[name] = f"{prefix}{coupling.gate}"
            if not coupling.count:
                continue
            first = sets.new(name, coupling.side, coupling.count)
            sets.single.update([sets.number(first[0])] if coupling.count == 1 else [])
            for part, side, channels in coupling.ties:
                cells = bases.get((_layer_in(modules, prefix + part if part else name), side))
                if cells is None:  # a parameter of size 1, for the only head
                    continue
                for channel, rows in enumerate(channels):
                    sets.tie(torch.cat([first[channel : channel + 1], cells[list(rows)]]).unsqueeze(0), 0)
    return gates


def _layer_in(modules: Mapping[str, nn.Module], name: str) -> str:
    """The name of the wrapped layer, if ``name`` is that of a tuner's wrapper; else ``name``."""
    while isinstance(modules.get(name), Around):
        name = f"{name}.layer"
    return name


def _traced_atoms(
    twin: nn.Module,
    sets: AtomSets,
    shipped: set[int],
    makers: frozenset[tuple[str, str]],
    gates: dict[str, str],
    standardised: frozenset[str],
) -> Trace:
    """The trace: only the sets that a layer produces and that a forward pass uses."""
    channels: list[list[Atom]] = []
    blocked: dict[Atom, str] = {}
    for members in sets.groups():
        atoms = [sets.atom(number) for number in members]
        made = [n for n, atom in zip(members, atoms, strict=True) if atom[:2] in makers]
        if not made or not sets.reached & set(made):
            continue
        channels.append(atoms)
        reasons = [sets.blocked[n] for n in members if n in sets.blocked]
        if not shipped & set(made):
            reasons.insert(0, "runs only in training")
        if reasons:
            blocked[atoms[0]] = reasons[0]
    sources: dict[Atom, frozenset[str]] = {}
    for number, found in sets.taken:
        atom = sets.atom(number)
        sources[atom] = sources.get(atom, frozenset()) | found
    order = tuple(name for name, _ in twin.named_modules())
    return Trace(order, channels, blocked, makers, sources, gates, standardised)
