"""Finds the values before activations: the layers to tap for them, and the batch norm that each value comes from.

A copy of the network without values (on the meta device) runs once. All functions of PyTorch that it calls are
recorded, also an activation that is not a module. The last activation of a feature is the first of these that exists:

1. the activation whose output is the feature, or the activation that reads the feature;
2. if the feature comes from a linear layer, as in inverted residuals: the next activation, if it has the feature's size
   and a coarser feature follows it (so it is in the first block of the next stage);
3. the last activation before the feature that has the feature's size.

Source: the search is Hardy's. The places are those of Heo et al., "A comprehensive overhaul of feature distillation",
ICCV 2019, section 3.2 and its code: before the last ReLU of a residual stage, and after the first convolution of the
next stage in a network of inverted residuals.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hardy.networks.base import Network
from hardy.networks.parts.stages import EMBEDDING, INPUT, traced

__all__ = ["Preactivations"]

_ACTIVATIONS = {"relu", "relu_", "relu6", "hardtanh", "leaky_relu", "prelu", "rrelu", "elu", "selu", "celu", "silu"}
_ACTIVATIONS |= {"gelu", "mish", "hardswish", "softplus"}
_SUMS = {"add", "add_", "__add__", "__iadd__", "__radd__"}


class _Call(NamedTuple):
    """A call of an activation: its time, the ids of input and output, the input's size, its layer and batch norm."""

    time: int
    read: int
    returned: int
    size: tuple[int, ...]
    layer: tuple[str, int] | None
    norm: str | None


class Preactivations:
    """The values before the activations of ``network``.

    Args:
        network: the network; it is not changed.

    Raises:
        InputError: for a network that cannot be traced; see `Network.feature_stages`.
    """

    def __init__(self, network: Network) -> None:
        self._seen = traced(network, _look)

    @property
    def features(self) -> Mapping[str, Tensor]:
        """The features and the embedding, without values."""
        return self._seen.features

    def layer(self, feature: str, *, normed: bool = False) -> str | None:
        """The name of the layer whose value the last activation of ``feature`` reads.

        The name ends with ``.input`` if the value is the input of the activation's module, such as the sum of a
        residual block. If the activation is not a module and reads such a sum, it is the batch norm before the sum.
        None if there is no activation of the feature's size, or no layer has its input.

        Args:
            feature: a feature of the network.
            normed: use only activations that read the output of a batch norm, or a sum with such an output.
        """
        calls = [call for call in self._seen.calls_of(feature) if call.norm or not normed]
        return next((name for call in calls if (name := self._seen.name(call))), None)

    def norm(self, layer: str) -> str | None:
        """The batch norm whose output is the value of ``layer`` or an operand of it; None if there is none.

        In a sum of two such outputs, the batch norm inside the block that sums is preferred. If both are inside, it is
        that of the first operand, because blocks write the shortcut second.
        """
        return self._seen.values.get(layer)


class _Seen(TorchFunctionMode):
    """Records every call while a network runs once; see the module."""

    def __init__(self) -> None:
        super().__init__()
        self.time = 0
        self.kept: list[object] = []  # keeps the tensors alive, so that no id is used twice
        self.born: dict[int, int] = {}
        self.copied: dict[int, int] = {}
        self.running: list[tuple[str, Any]] = []
        self.counts: Counter[str] = Counter()
        self.makers: dict[tuple[int, int], tuple[str, int]] = {}
        self.values: dict[str, str | None] = {}
        self.plain: dict[str, tuple[str, int]] = {}
        self.norms: dict[int, str] = {}
        self.calls: list[_Call] = []
        self.features: Mapping[str, Tensor] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        read = args[0] if args and isinstance(args[0], Tensor) else None
        before = (id(read), read._version) if read is not None and name in _ACTIVATIONS else None
        returned = func(*args, **(kwargs or {}))
        if not isinstance(returned, Tensor):
            return returned
        self.time += 1
        self.kept.append(returned)
        self.born.setdefault(id(returned), self.time)
        if name == "batch_norm" and self.running:
            self.norms[id(returned)] = self.running[-1][0]
        elif name == "clone":
            self.copied[id(returned)] = id(args[0])
        elif name in _SUMS:
            if origin := self._origin(args[:2]):
                self.norms[id(returned)] = origin
        elif before is not None and read is not None and read.ndim == 4:
            norm = self.norms.get(before[0])
            layer = self.makers.get(before) or self._activation(read) or self.plain.get(norm or "")
            self.calls.append(_Call(self.time, before[0], id(returned), tuple(read.shape[-2:]), layer, norm))
            self.norms.pop(id(returned), None)  # in case it is the same tensor, changed in place
        return returned

    def enter(self, name: str, given: Sequence[Any]) -> None:
        """Record that the module ``name`` starts."""
        self.running.append((name, given[0] if given else None))
        self.counts[name] += 1
        if given and isinstance(given[0], Tensor):
            self.values[f"{name}{INPUT}"] = self.norms.get(id(given[0]))

    def leave(self, name: str, value: object) -> None:
        """Record that the module ``name`` ends."""
        self.running.pop()
        if isinstance(value, Tensor):
            maker = self.makers.setdefault((id(value), value._version), (name, self.counts[name]))
            if maker[0] == name == self.norms.get(id(value)):  # the module is only a batch norm
                self.plain[name] = maker
            self.values[name] = self.norms.get(id(value))

    def calls_of(self, feature: str) -> list[_Call]:
        """The candidates for the last activation of ``feature``, the best first."""
        value = self.features[feature]
        size, born = tuple(value.shape[-2:]), self.born.get(id(value), 0)
        same = {id(value), self.copied.get(id(value))}
        made = [call for call in self.calls if call.returned in same]
        read = [call for call in self.calls if call.read in same]
        before = [call for call in self.calls if call.time < born and call.size == size]
        after = [call for call in self.calls if born < call.time < self._coarser(value)]
        following = after[:1] if after and after[0].size == size else []
        return [*made[-1:], *read[:1], *following, *before[::-1]]

    def name(self, call: _Call) -> str | None:
        """The layer whose value ``call`` read; None if that layer ran again afterwards."""
        if call.layer is None or self.counts[call.layer[0].removesuffix(INPUT)] != call.layer[1]:
            return None
        return call.layer[0]

    def _origin(self, operands: Sequence[Any]) -> str | None:
        """The batch norm of a sum: the first operand's that is inside the running module, else the first one."""
        norms = [norm for each in operands if (norm := self.norms.get(id(each)))]
        inside = f"{self.running[-1][0]}." if self.running else ""
        return next((norm for norm in norms if norm.startswith(inside)), norms[0] if norms else None)

    def _activation(self, read: Tensor) -> tuple[str, int] | None:
        """The input of the running module, if it is the tensor ``read``."""
        if not self.running or self.running[-1][1] is not read:
            return None
        name = self.running[-1][0]
        return f"{name}{INPUT}", self.counts[name]

    def _coarser(self, value: Tensor) -> float:
        """The time at which the next feature is computed, if it has fewer cells than ``value``; else 0."""
        born = self.born.get(id(value), 0)
        later = [(when, each) for each in self.features.values() if (when := self.born.get(id(each), 0)) > born]
        if not later:
            return 0
        when, following = min(later, key=lambda pair: pair[0])
        return when if following.shape[-2:].numel() < value.shape[-2:].numel() else 0


def _look(network: Network, image: Tensor) -> _Seen:
    """All calls while ``network`` runs on ``image``."""
    seen = _Seen()
    for name, module in network.named_modules():
        if name:
            _follow(seen, name, module)
    with seen:
        outputs = network.outputs(image)
    embedding = {} if outputs.embedding is None else {EMBEDDING: outputs.embedding}
    seen.features = {**outputs.features, **embedding}
    return seen


def _follow(seen: _Seen, name: str, module: nn.Module) -> None:
    module.register_forward_pre_hook(lambda _, given: seen.enter(name, given))
    module.register_forward_hook(lambda _, __, value: seen.leave(name, value))
