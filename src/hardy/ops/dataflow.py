"""A graph of the operations of a network and the values between them, recorded while the network runs.

A value is the content of a tensor at one moment. An operation that writes into a tensor makes new values for it and for
every tensor that shares its memory. Parameters and buffers are values too, so the operation that reads a weight
identifies the layer.

Source: the static single assignment form of Cytron, Ferrante, Rosen, Wegman and Zadeck, TOPLAS 1991, here from one run.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["Call", "Dataflow"]


@dataclass(frozen=True, eq=False)
class Call:
    """One operation.

    Attributes:
        name: of the operation, without its overload: ``convolution``, ``native_batch_norm``, ``cat``.
        given: its arguments by name, with every tensor replaced by the number of its value; without defaults.
        reads: the values among the arguments, in order; a value that is passed twice occurs twice.
        makes: the values that it returns or overwrites.
    """

    name: str
    given: Mapping[str, Any]
    reads: Sequence[int]
    makes: Sequence[int]


class Dataflow(TorchDispatchMode):
    """Record the operations of a network inside the ``with`` block, below autograd.

    Every tensor is kept alive as long as the record, so use a small example.

    Args:
        network: the network; its parameters and buffers must not be replaced inside the block.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[Call] = []
        self.shapes: list[tuple[int, ...]] = []
        """The shape of every value."""
        self.maker: dict[int, Call] = {}
        """The call that made a value; parameters, buffers and the inputs of the network have none."""
        self.readers: dict[int, list[Call]] = {}
        """The calls that read a value, one entry per read."""
        self.held: dict[int, tuple[nn.Module, str]] = {}
        """The module that holds a parameter or buffer, and its name there; shared ones are left out."""
        self._value: dict[int, int] = {}
        self._alive: list[Tensor] = []
        self._sharing: dict[int, list[Tensor]] = {}
        self._name_held(network)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run ``func`` and record it."""
        kwargs = kwargs or {}
        reads = [self.value(t) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        schema = func._schema.arguments if isinstance(func, OpOverload) else ()
        names = [argument.name for argument in schema]
        given = {name: self._numbered(a) for name, a in {**dict(zip(names, args, strict=False)), **kwargs}.items()}
        made = func(*args, **kwargs)
        tensors = [t for t in tree_leaves(made) if isinstance(t, Tensor)]
        for argument in schema:
            if argument.alias_info is not None and argument.alias_info.is_write:
                place = names.index(argument.name)
                written = args[place] if place < len(args) else kwargs.get(argument.name)
                tensors += [t for leaf in tree_leaves(written) if isinstance(leaf, Tensor) for t in self._shared(leaf)]
        call = Call(func.name().partition("::")[2].partition(".")[0], given, reads, self._new(tensors))
        self.calls.append(call)
        for value in call.makes:
            self.maker[value] = call
        for value in reads:
            self.readers.setdefault(value, []).append(call)
        return made

    def value(self, tensor: Tensor) -> int:
        """The current value of ``tensor``; a new value for a tensor that was not seen before."""
        known = self._value.get(id(tensor))
        return self._new([tensor])[0] if known is None else known

    def outlives(self, tensors: Iterable[Tensor]) -> set[int]:
        """The current values of ``tensors``, the outputs of the network."""
        return {self.value(tensor) for tensor in tensors}

    def _name_held(self, network: nn.Module) -> None:
        twice = set()
        for module in network.modules():
            pairs = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
            for name, tensor in pairs:
                value = self.value(tensor)
                if value in self.held:
                    twice.add(value)
                self.held[value] = (module, name)
        for value in twice:
            del self.held[value]

    def _new(self, tensors: Sequence[Tensor]) -> list[int]:
        found = []
        for tensor in {id(t): t for t in tensors}.values():
            self._value[id(tensor)] = len(self.shapes)
            found.append(len(self.shapes))
            self.shapes.append(tuple(tensor.shape))
            self._alive.append(tensor)
            sharing = self._sharing.setdefault(tensor.untyped_storage().data_ptr(), [])
            if not any(other is tensor for other in sharing):
                sharing.append(tensor)
        return found

    def _shared(self, tensor: Tensor) -> list[Tensor]:
        """``tensor`` and all other tensors that share its memory."""
        return [tensor, *self._sharing.get(tensor.untyped_storage().data_ptr(), ())]

    def _numbered(self, argument: Any) -> Any:
        if isinstance(argument, Tensor):
            return self.value(argument)
        if isinstance(argument, (list, tuple)):
            return [self._numbered(part) for part in argument]
        return argument
