"""Which operations a network runs and which values pass between them: a graph recorded while the network runs.

A value is what a tensor held at one moment: an operation that writes into a tensor makes new values of it and of every
tensor that shares its memory. Parameters and buffers are values too, so that the reader of a weight identifies the
layer.

Source: the static single assignment form of Cytron, Ferrante, Rosen, Wegman and Zadeck, TOPLAS 1991, taken from one
run.
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
        given: its arguments by name, every tensor replaced by the number of its value; defaults left out.
        reads: the values among them, in order; one that is passed twice occurs twice.
        makes: the values it returns, the overwritten ones among them.
    """

    name: str
    given: Mapping[str, Any]
    reads: Sequence[int]
    makes: Sequence[int]


class Dataflow(TorchDispatchMode):
    """Record what a network runs inside the ``with`` block, below autograd.

    Every tensor is kept alive until the record is dropped, so give the network a small example.

    Args:
        network: its parameters and buffers are known by name; they must not be replaced meanwhile.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[Call] = []
        self.shapes: list[tuple[int, ...]] = []
        """The shape of every value."""
        self.maker: dict[int, Call] = {}
        """The call that made a value; a parameter, a buffer or what was given to the network has none."""
        self.readers: dict[int, list[Call]] = {}
        """The calls that read a value, one entry for each time."""
        self.held: dict[int, tuple[nn.Module, str]] = {}
        """Of a parameter or buffer: the module that holds it, and under which name; shared ones are left out."""
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
        """The value that ``tensor`` holds now; a new one for a tensor that has not been seen."""
        known = self._value.get(id(tensor))
        return self._new([tensor])[0] if known is None else known

    def outlives(self, tensors: Iterable[Tensor]) -> set[int]:
        """The values that ``tensors`` hold now: what the network returns."""
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
        """``tensor`` and every other that lies in the same memory."""
        return [tensor, *self._sharing.get(tensor.untyped_storage().data_ptr(), ())]

    def _numbered(self, argument: Any) -> Any:
        if isinstance(argument, Tensor):
            return self.value(argument)
        if isinstance(argument, (list, tuple)):
            return [self._numbered(part) for part in argument]
        return argument
