"""The activations at the gates of a network, recorded in a forward pass.

They are read before the scale, so that a channel with a small scale still shows its content: the input of a norm layer,
the output of a convolution or linear layer, and the input of a layer where the gate multiplies that input (attention
heads). The values are stored unchanged, together with the factor that standardises each channel. The comparison of the
styles of one channel needs no mean, and the factor is applied to its few results.

Only some positions of a large map are read. They are the same for all images, so also for the copies that are compared,
and are drawn again for each ``with`` block (`hardy.pruning.positions`).
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
from hardy.pruning.coupled import Member, Unit
from hardy.pruning.norms import channel_axis
from hardy.pruning.positions import sampled
from hardy.pruning.scales import gate_members

__all__ = ["Activations", "Read", "Seen"]

Read = Literal["batch", "running", "scaled"]
"""Standardise by the statistics of the batch, by a batch norm's running statistics, or by the batch and the scale."""

_POSITIONS = 64
"""The largest number of positions read from a map with many channels, because the covariance is n x n."""

_VALUES = 8192
"""The largest number of values read per image from a map with few channels; this costs almost no extra time."""

_EPSILON = 1e-5
"""Added to a variance of the batch, as batch norms do."""


class Seen(NamedTuple):
    """The activations at one gate site of a unit.

    Attributes:
        values: (B, n, L), not standardised.
        factor: (n,); ``factor * (values - mean)`` are the standardised values, see `Read`.
    """

    values: Tensor
    factor: Tensor


class Activations:
    """The activations at the gates of ``units`` during one forward pass inside a ``with`` block.

    When the block is entered, torch's CPU generator draws the seed of the positions. So a seeded step repeats them.

    Args:
        network: the network that runs.
        units: the units whose gates are read.
        read: see `Read`.
        attached: keep the activations in the autograd graph.

    Raises:
        InputError: at the end of the block, for heads whose gate has no layer call, as in torch's own attention.
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
        self._generator = torch.Generator()
        self._drawn: dict[tuple[tuple[int, ...], int], Tensor] = {}

    def __enter__(self) -> "Activations":
        self._seen.clear()
        self._drawn.clear()
        self._generator.manual_seed(int(torch.randint(2**31, ())))
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
                f"the heads of {missed[0]!r} go through no layer call, as inside torch's own attention, so their "
                "activations cannot be read; use l2, or leave heads out of prune.kinds"
            )

    def of(self, unit: Unit) -> list[Seen]:
        """The activations at each gate site of ``unit`` in the last block; none for a site that did not run."""
        return self._seen[unit.name]

    def forget(self) -> None:
        """Drop the recorded activations."""
        self._seen.clear()

    def _watch(self, unit: Unit, member: Member) -> None:
        module = self._network.get_submodule(member.module)
        index = torch.tensor(member.channels)
        produces = member.side == "out" and isinstance(module, (_ConvNd, nn.Linear))

        def note(value: Tensor) -> None:
            value = value if self._attached else value.detach()
            values = self._gathered(value, index, channels_first=channel_axis(module) == 1)
            self._seen[unit.name].append(Seen(values, self._factor(values, module, index[:, 0].to(value.device))))

        if produces:
            self._handles.append(module.register_forward_hook(lambda _, __, out: note(out)))
        else:
            self._handles.append(module.register_forward_pre_hook(lambda _, args: note(args[0])))

    def _gathered(self, value: Tensor, index: Tensor, *, channels_first: bool) -> Tensor:
        """(B, n, L) from (B, C, ...) or (B, ..., C): for each of n gates, L values of all its channels and
        positions."""
        if value.ndim == 2:
            flat = value.unsqueeze(2)
        else:
            sides = value.shape[2:] if channels_first else value.shape[1:-1]
            flat = value.flatten(2) if channels_first else value.flatten(1, -2).transpose(1, 2)
            flat = self._sample(flat, tuple(sides), max(_POSITIONS, _VALUES // index.numel()))
        if index.shape == (flat.shape[1], 1) and bool((index[:, 0] == torch.arange(len(index))).all()):
            return flat
        gathered: Tensor = flat[:, index.flatten().to(value.device)].unflatten(1, index.shape)
        return gathered.flatten(2)

    def _sample(self, flat: Tensor, sides: tuple[int, ...], most: int) -> Tensor:
        """(B, C, L) from (B, C, N): the positions of this block, drawn once for all maps of the same size."""
        if flat.shape[2] <= most:
            return flat
        if (sides, most) not in self._drawn:
            self._drawn[sides, most] = sampled(sides, most, self._generator).to(flat.device)
        return flat.index_select(2, self._drawn[sides, most])

    def _factor(self, values: Tensor, module: nn.Module, channels: Tensor) -> Tensor:
        if self._read == "running" and isinstance(module, _BatchNorm) and module.running_var is not None:
            return (module.running_var[channels] + module.eps).rsqrt()
        factor = (values.var((0, 2), correction=0) + _EPSILON).rsqrt()
        if self._read == "scaled" and not isinstance(module, (_ConvNd, nn.Linear)):
            weight: Tensor = module.weight  # type: ignore[assignment]
            factor = factor * weight.detach()[channels]
        return factor
