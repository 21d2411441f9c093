"""Follows channels through a running network: the results of every operation below autograd get tags from its inputs.

`Flow` watches a forward pass. Operations that only move elements are applied to the tags as to the data. Elementwise
operations join the channels of their operands. Products and convolutions read channels and produce others. Reductions,
softmax and unknown operations block channels that they may mix. Norm layers over channels are followed as modules. Some
rules are assumptions, for example that the last axis may change after a view that splits channels. So
`hardy.pruning.tracing.trial` tests the result.
"""

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.hooks import RemovableHandle

from hardy.pruning.norms import CHANNEL_NORMS, channel_axis, norm_width
from hardy.pruning.tracing import movement, products
from hardy.pruning.tracing.atom_sets import lifted, varying
from hardy.pruning.tracing.carried import Carried
from hardy.pruning.tracing.tables import LIKE, MOVES, POINTWISE, REDUCTIONS, SATURATING, SOFTMAXES, SPATIAL

__all__ = ["Flow"]


@dataclass(frozen=True)
class Call:
    """One operation: its name, arguments, input tensors with their shapes before the call, and result."""

    name: str
    func: Any
    args: tuple[Any, ...]
    given: Mapping[str, Any]
    read: list[Tensor]
    shapes: Mapping[int, tuple[int, ...]]
    out: Any


class Flow(TorchDispatchMode):
    """Follow channels while a network runs inside the ``with`` block.

    Args:
        carried: has the tags of the parameters; gets the tags of all results.

    Attributes:
        failed: the innermost module that was running when an error was raised.
    """

    def __init__(self, carried: Carried) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.carried = carried
        self.failed = ""
        self._paused = 0

    # running --------------------------------------------------------------------------------------------------------

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Inside the block forward passes are followed; attention is split into products and softmax."""
        handles: list[RemovableHandle] = []
        for name, module in self.carried.network.named_modules():
            handles.append(module.register_forward_pre_hook(self._entering(name, module)))
            handles.append(module.register_forward_hook(self._leaving(module)))
        fast = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), self:
                yield
        except Exception:
            self.failed = self.carried.here
            raise
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)
            for handle in handles:
                handle.remove()

    def _entering(self, name: str, module: nn.Module) -> Callable[..., None]:
        def enter(*_: Any) -> None:
            self.carried.running.append(name)
            self._paused += isinstance(module, CHANNEL_NORMS)

        return enter

    def _leaving(self, module: nn.Module) -> Callable[..., None]:
        def leave(_: nn.Module, args: tuple[Any, ...], out: Any) -> None:
            if isinstance(module, CHANNEL_NORMS):
                self._paused -= 1
                if not self._paused:
                    self._follow_norm(module, args[0], out)
            self.carried.running.pop()

        return leave

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """See `TorchDispatchMode`."""
        given = dict(kwargs or {})
        read = [t for t in tree_leaves((args, given)) if isinstance(t, Tensor)]
        before = {id(t): tuple(t.shape) for t in read}
        out = func(*args, **given)
        if not self._paused and any(self.carried.of(t) for t in read):
            for tag in (one for t in read for one in self.carried.of(t)):
                self.carried.sets.reach(tag)
            name = str(func.overloadpacket.__name__)
            self._follow(Call(name.rstrip("_") or name, func, args, given, read, before, out))
        return out

    def _follow(self, call: "Call") -> None:
        name = call.name
        rule = next((rule for names, rule in self._rules if name in names), None)
        if rule is not None:
            rule(call)
        elif name in POINTWISE or torch.Tag.pointwise in call.func.tags:
            self._follow_pointwise(call)
        elif isinstance(call.out, Tensor) and call.out.is_floating_point() and call.out.ndim:
            for tensor in call.read:
                self.carried.fix(self.carried.of(tensor), f"the operation {name} may mix channels")

    @property
    def _rules(self) -> tuple[tuple[Container[str], Callable[["Call"], None]], ...]:
        return (
            (
                ("cat", "stack"),
                lambda c: movement.tag_joined(self.carried, c.args, c.given, c.out, stacked=c.name == "stack"),
            ),
            (MOVES, lambda c: movement.tag_moved(self.carried, c.name, c.func, c.args, c.given, c.out)),
            (products.PRODUCTS, lambda c: products.PRODUCTS[c.name](self.carried, c.args, c.given, c.out)),
            (SOFTMAXES, self._follow_softmax),
            (REDUCTIONS, self._follow_reduction),
            (SPATIAL, self._follow_spatial),
            (LIKE, self._follow_shaped),
        )

    # kinds of operations --------------------------------------------------------------------------------------------

    def _follow_pointwise(self, call: "Call") -> None:
        """Elementwise: join the channels of the operands at each element."""
        read, out, name = call.read, call.out, call.name
        rank = out.ndim
        operands = [(self.carried.of(t), (1,) * (rank - len(call.shapes[id(t)])) + call.shapes[id(t)]) for t in read]
        biggest = max(t.numel() for t in read)
        found: list[Tensor] = []
        for place, (tags, _) in enumerate(operands):
            weighs = name in SATURATING or (name == "mul" and read[place].numel() < biggest)
            for tag in (lifted(one, rank) for one in tags):
                if any(
                    shape[axis] > 1 and not any(axis in varying(lifted(other, rank)) for other in others)
                    for axis in varying(tag)
                    for others, shape in operands
                ):
                    self.carried.fix([tag], "is coupled to a tensor of fixed width")
                else:
                    found.append(self.carried.sets.sourced(tag) if weighs else tag)
        self.carried.put(out, found)

    def _follow_softmax(self, call: "Call") -> None:
        axis = call.args[1] % call.out.ndim
        tags = self.carried.of(call.args[0])
        self.carried.fix([tag for tag in tags if axis in varying(tag)], "the operation Softmax mixes channels")
        self.carried.put(call.out, [tag for tag in tags if axis not in varying(tag)])

    def _follow_reduction(self, call: "Call") -> None:
        source: Tensor = call.args[0]
        gone = _reduced_axes(call, source.ndim)
        tags = self.carried.of(source)
        for tag in tags:
            self.carried.note_own_weight(tag, source)
        mixed = [tag for tag in tags if gone & set(varying(tag)) and not self._is_own_average(tag, source)]
        if (
            self.carried.here not in self.carried.trusted
        ):  # in a trusted module it is a mean of attention weights over heads, which may not be used
            self.carried.fix(mixed, f"a {call.name} over channels")
        kept = [tag for tag in tags if not gone & set(varying(tag))]
        for result in tree_leaves(call.out):
            if result.ndim:
                same = result.ndim == source.ndim
                self.carried.put(result, [tag if same else tag.squeeze(sorted(gone)) for tag in kept])

    def _is_own_average(self, tag: Tensor, source: Tensor) -> bool:
        """Whether a layer takes the mean or variance of its own weight over its inputs."""
        owners = self.carried.sets.owners(tag)
        return owners == {(self.carried.here, "in")} and self.carried.note_own_weight(tag, source)

    def _follow_spatial(self, call: "Call") -> None:
        source: Tensor = call.args[0]
        last = source.ndim - (1 if call.name.endswith("1d") else 2)
        tags = self.carried.of(source)
        mixed = [tag for tag in tags if any(axis >= last for axis in varying(tag))]
        self.carried.fix(mixed, f"the operation {call.name} may mix channels")
        for result in tree_leaves(call.out):
            self.carried.put(result, [tag for tag in tags if all(axis < last for axis in varying(tag))])

    def _follow_shaped(self, call: "Call") -> None:
        """An operation that returns a tensor in the shape of its argument, or its argument with new strides."""
        same = tuple(call.out.shape) == call.shapes[id(call.args[0])]
        strided = call.name == "as_strided"
        tags = self.carried.of(call.args[0])
        if strided and not same:
            self.carried.fix(tags, "the operation as_strided may mix channels")
        self.carried.put(call.out, [tag if strided else self.carried.sets.sourced(tag) for tag in tags if same])

    def _follow_norm(self, module: nn.Module, source: Tensor, out: Tensor) -> None:
        """A norm layer over channels: its channels are joined with those of its input, and it is their gate site."""
        own = next(iter(self.carried.of(module)), None)
        width = norm_width(module)
        axis = channel_axis(module) % source.ndim
        for tag in self.carried.of(source):
            self.carried.sets.reach(tag)
        if own is None or width is None:
            self.carried.fix(self.carried.of(source), "is normalised over several axes")
            return
        self.carried.sets.reach(own)
        passed = []
        for tag in self.carried.of(source):
            if axis not in varying(tag):
                passed.append(tag)
                continue
            shape = [1] * source.ndim
            shape[axis] = width
            text = self.carried.reason("is coupled to a fixed number of channels")
            passed.append(self.carried.sets.join(own.reshape(shape), tag, text, keep=not _scales(module)))
        if isinstance(module, nn.GroupNorm) and module.num_groups > 1:
            self.carried.sets.tie(own.reshape(module.num_groups, -1), 0)
        self.carried.put(out, passed)


def _scales(module: nn.Module) -> bool:
    return isinstance(vars(module)["_parameters"].get("weight"), nn.Parameter)


def _reduced_axes(call: Call, rank: int) -> set[int]:
    """The axes that a reduction removes."""
    first = 2 if call.name == "linalg_vector_norm" else 1
    given = [*call.args[first:], call.given.get("dim")]
    axes = next((a for a in given if isinstance(a, (list, tuple)) or type(a) is int), None)
    if axes is None or axes == []:
        return set(range(rank))
    return {axis % rank for axis in ([axes] if isinstance(axes, int) else axes)}
