"""What passes the gates of a network: the activations that each gate scales, caught in a forward pass.

Read before the scale, so that a channel whose scale has shrunk still shows what it carries: at a norm its input, at a
convolution or linear layer its output, and where the gate multiplies the input of a layer (the heads of an attention)
that input. They are kept as they are, with the factor that standardises each channel: whoever only compares styles of
one channel needs no mean taken off, and multiplies the few numbers made of them.
"""

from collections import defaultdict
from collections.abc import Sequence
from types import TracebackType
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.utils.hooks import RemovableHandle

from hardy.errors import InputError
from hardy.pruning.scales import gate_members
from hardy.pruning.units import Member, Unit

__all__ = ["Activations", "Read", "Seen"]

Read = Literal["batch", "running", "scaled"]
"""Standardise by the batch's own statistics, by a batch norm's running ones, or multiply the scale in after all."""

_POSITIONS = 64
"""The most positions of an image that are looked at: a regular sample is as good, and the product is n x n."""

_EPSILON = 1e-5
"""Added to a variance of the batch's own, as batch norms do."""


class Seen(NamedTuple):
    """The activations at one place of a unit.

    Attributes:
        values: (B, n, L), as they are there.
        factor: (n,); ``factor * (values - their mean)`` is what the gate scales, standardised as asked.
    """

    values: Tensor
    factor: Tensor


class Activations:
    """The activations at the gates of ``units`` during the forward passes inside a ``with`` block.

    Args:
        network: what is watched.
        units: whose gates.
        read: see `Read`.
        attached: keep them part of the graph, so that what is made of them has gradients.
    """

    def __init__(
        self, network: nn.Module, units: Sequence[Unit], read: Read = "batch", *, attached: bool = True
    ) -> None:
        self._network = network
        self._units = units
        self._read = read
        self._attached = attached
        self._seen: dict[str, list[Seen]] = defaultdict(list)
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> "Activations":
        self._seen.clear()
        for unit in self._units:
            for member in gate_members(unit):
                self._watch(unit, member)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        missed = [unit.name for unit in self._units if unit.kind == "heads" and not self._seen[unit.name]]
        if kind is None and missed:
            raise InputError(
                f"the heads of {missed[0]!r} are taken without a call of a layer, as inside torch's own attention: "
                "their activations cannot be read; use l2, or leave heads out of prune.kinds"
            )

    def of(self, unit: Unit) -> list[Seen]:
        """The activations of the last forward pass at each place of ``unit``; none where it did not run."""
        return self._seen[unit.name]

    def forget(self) -> None:
        """Drop what was seen."""
        self._seen.clear()

    def _watch(self, unit: Unit, member: Member) -> None:
        module = self._network.get_submodule(member.module)
        index = torch.tensor(member.channels)
        produces = member.side == "out" and isinstance(module, (_ConvNd, nn.Linear))

        def note(value: Tensor) -> None:
            value = value if self._attached else value.detach()
            values = _gathered(value, index, channels_first=not isinstance(module, _LAST))
            self._seen[unit.name].append(Seen(values, self._factor(values, module, index[:, 0].to(value.device))))

        if produces:
            self._handles.append(module.register_forward_hook(lambda _, __, out: note(out)))
        else:
            self._handles.append(module.register_forward_pre_hook(lambda _, args: note(args[0])))

    def _factor(self, values: Tensor, module: nn.Module, channels: Tensor) -> Tensor:
        if self._read == "running" and isinstance(module, _BatchNorm) and module.running_var is not None:
            return (module.running_var[channels] + module.eps).rsqrt()
        factor = (values.var((0, 2), correction=0) + _EPSILON).rsqrt()
        if self._read == "scaled" and not isinstance(module, (_ConvNd, nn.Linear)):
            weight: Tensor = module.weight  # type: ignore[assignment]
            factor = factor * weight.detach()[channels]
        return factor


_LAST = (nn.Linear, nn.LayerNorm)
"""Modules whose channels are the last axis."""


def _gathered(value: Tensor, index: Tensor, *, channels_first: bool) -> Tensor:
    """(B, n, L) of (B, C, ...) or (B, ..., C): for each of the n gates all its channels m and positions, L in all."""
    flat = value.flatten(2) if channels_first and value.ndim > 2 else value
    if not channels_first and value.ndim > 2:
        flat = value.flatten(1, -2).transpose(1, 2)  # (B, C, N)
    elif value.ndim == 2:
        flat = value.unsqueeze(2)
    flat = flat[:, :, :: -(-flat.shape[2] // _POSITIONS)]
    if index.shape == (flat.shape[1], 1) and bool((index[:, 0] == torch.arange(len(index))).all()):
        return flat
    gathered: Tensor = flat[:, index.flatten().to(value.device)].unflatten(1, index.shape)
    return gathered.flatten(2)
