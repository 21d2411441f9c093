"""How much memory a training step takes, before the first one.

A copy of the algorithm without values runs one forward and backward pass on fake tensors, which have a shape, a type
and a device but no memory. The bytes of all tensors that are alive are counted after every operation, so what is kept
for the backward pass, temporary tensors, bf16 and gradient checkpointing count as they are. The state of the optimiser
follows from its kind. What libraries allocate inside an operation (cuDNN, oneDNN) does not count.

Source: Hardy's own; fake tensors are PyTorch's (``FakeTensorMode``).
"""

import copy
import logging
import math
import os
import weakref
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hardy.algorithms.base import Algorithm
from hardy.engine import optimiser
from hardy.engine.gradient_checkpointing import blocks_of, checkpointed
from hardy.networks.parts.stages import fakes
from hardy.recipe import Optim, RunSection
from hardy.types import IGNORE, Batch

__all__ = ["MIB", "StepMemory", "available", "estimate", "warn_above"]

MIB = 2**20

_log = logging.getLogger("hardy")


@dataclass(frozen=True)
class StepMemory:
    """Bytes that are in use at the same time in a training step, after the first one.

    Attributes:
        weights: parameters and buffers, and their moving average.
        gradients: of the trained parameters.
        optimiser: its state.
        activations: kept between the forward and the backward pass, with the images and labels.
        peak: the most that all of these and temporary tensors take together.
        complete: False where the algorithm itself does not run without values; then it is the network with the
            cross-entropy of its logits, and what the algorithm adds is missing.
        sharded: they are the share of one process; the peak counts gradients whole, so that it is an upper bound.
    """

    weights: int
    gradients: int
    optimiser: int
    activations: int
    peak: int
    complete: bool
    sharded: bool = False

    def __str__(self) -> str:
        named = ("weights", "gradients", "optimiser", "activations")
        parts = ", ".join(f"{name} {_mib(getattr(self, name))}" for name in named)
        few = ("at most" if self.sharded else "about") if self.complete else "at least"
        return f"memory: {few} {_mib(self.peak)} MiB for a step ({parts})"


def _mib(count: float) -> str:
    return f"{math.ceil(count / MIB):,}"


def estimate(
    algorithm: Algorithm, optim: Optim, place: RunSection, size: Sequence[int], *, domains: int = 1, unlabelled: int = 0
) -> StepMemory | None:
    """The memory of a step of ``algorithm`` on its device; nothing is computed or changed.

    Args:
        algorithm: on the device on which it will be trained.
        optim: optimiser, batch and accumulation.
        place: precision, layout and gradient checkpointing.
        size: (H, W) of the images.
        domains: how many the images come from.
        unlabelled: images without labels in a batch.

    Returns:
        None when not even the network runs without values.
    """
    images = [count // _processes() for count in (optim.batch, unlabelled)]
    counts = [-(-count // optim.accumulate) for count in images]
    each = 4 * 3 * size[0] * size[1] + 8 * (1 if algorithm.network.image_level else size[0] * size[1])
    beside = each * (2 * sum(images) - sum(counts))  # the batch, and the other parts that it is split into
    parameters = [value for value in optimiser.trained(algorithm) if value.requires_grad]
    held = _bytes([*algorithm.parameters(), *algorithm.buffers()])
    gradients, largest = _bytes(parameters), max((value.nbytes for value in parameters), default=0)
    state = _states(optim) * gradients
    average = _bytes(algorithm.state_dict().values()) if optim.ema else 0
    whole = 0
    if place.sharding == "full":
        whole = _whole(algorithm)
        held, gradients, state, average = (-(-size // _processes()) for size in (held, gradients, state, average))
    terms: tuple[Callable[[Algorithm, Batch], Tensor], ...] = (_terms, _stand_in)
    for complete, loss in zip((True, False), terms, strict=True):
        try:
            kept, peak = _traced(algorithm, place, counts, (size[0], size[1]), domains, loss)
        except Exception as error:  # code that depends on values can raise anything here
            _log.debug("%s without values: %s", type(algorithm).__name__, error)
            continue
        foreach = next(algorithm.parameters()).is_cuda  # the optimiser then handles all parameters in one call
        stepping = gradients + (gradients if foreach else 2 * largest)
        highest = held + average + state + beside + whole + max(peak, stepping)
        sizes = (held + average, gradients, state, kept + beside, highest)
        return StepMemory(*sizes, complete, place.sharding == "full")
    return None


def available(device: torch.device) -> int | None:
    """The bytes that this process can use on a GPU; None on the CPU."""
    if device.type != "cuda":
        return None
    return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)


def warn_above(memory: StepMemory, limit: int | None) -> None:
    """Log a warning when a step needs more than ``limit`` bytes."""
    if limit is not None and memory.peak > limit:
        _log.warning(
            "a step needs about %s MiB and the device has %s: take a smaller optim.batch or data.crop, "
            "optim.accumulate, run.precision: bf16, run.gradient_checkpointing: true, or a tuner",
            _mib(memory.peak),
            _mib(limit),
        )


def _processes() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def _bytes(tensors: Iterable[Tensor]) -> int:
    """Of all different ones."""
    return sum({id(one): one.nbytes for one in tensors}.values())


def _whole(algorithm: Algorithm) -> int:
    """The bytes of weights that a sharded step has complete at one time: those outside of blocks, and two blocks; one
    computes while the next is gathered."""
    blocks = [_bytes(block.parameters()) for block in blocks_of((algorithm.network, *algorithm.peers().values()))]
    return _bytes(algorithm.parameters()) - sum(blocks) + sum(sorted(blocks)[-2:])


def _states(optim: Optim) -> int:
    """How many numbers the optimiser keeps for each parameter."""
    moving = int(optim.momentum > 0)
    return {"sgd": moving, "rmsprop": 1 + moving, "adam": 2, "adamw": 2}[optim.name]


def _terms(algorithm: Algorithm, batch: Batch) -> Tensor:
    return torch.stack(list(algorithm(batch).values())).sum()


def _stand_in(algorithm: Algorithm, batch: Batch) -> Tensor:
    outputs = algorithm.network.outputs(batch.images)
    return F.cross_entropy(outputs.logits.float(), batch.labels) + sum(
        value.float().sum() for name, value in outputs.extras.items() if name.startswith("aux_")
    )


def _traced(
    algorithm: Algorithm,
    place: RunSection,
    counts: Sequence[int],
    size: tuple[int, int],
    domains: int,
    loss: Callable[[Algorithm, Batch], Tensor],
) -> tuple[int, int]:
    """The bytes that are alive between the passes, and the most, besides the algorithm itself."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    copied = copy.deepcopy(algorithm, fakes(algorithm, mode)).train()
    device = next(algorithm.parameters()).device
    blocks = blocks_of((copied.network, *copied.peers().values())) if place.gradient_checkpointing else []
    with torch.random.fork_rng(devices=[]), checkpointed(blocks), mode:
        live = _Live([*copied.parameters(), *copied.buffers()])
        with live:
            batch = _batch(copied, counts, size, domains, device)
            with _autocast(place, device):
                total = loss(copied, batch)
            kept = live.now
            total.backward()
    return kept, live.peak


def _batch(algorithm: Algorithm, counts: Sequence[int], size: tuple[int, int], domains: int, device: Any) -> Batch:
    labelled, without = counts
    shape = (labelled + without, *(() if algorithm.network.image_level else size))
    images = torch.empty(labelled + without, 3, *size, device=device)
    labels = torch.full(shape, IGNORE, device=device)
    origins = torch.arange(labelled + without, device=device) % domains
    return Batch(images, labels, origins)


def _autocast(place: RunSection, device: torch.device) -> AbstractContextManager[Any]:
    kinds = {"bf16": torch.bfloat16, "fp16": torch.float16}
    return torch.autocast(device.type, kinds[place.precision]) if place.precision in kinds else nullcontext()


class _Live(TorchDispatchMode):
    """Counts the bytes of the tensors that are made inside the block and are alive.

    Args:
        others: tensors that do not count.
    """

    def __init__(self, others: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._others = [one.untyped_storage() for one in others]  # held, or an id could be another's later
        self._sizes = {id(one): 0 for one in self._others}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for value in tree_leaves(made):
            if isinstance(value, Tensor):
                self._note(value.untyped_storage())
        return made

    def _note(self, storage: torch.UntypedStorage) -> None:
        key = id(storage)
        if key not in self._sizes:
            self._sizes[key] = storage.nbytes()
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self.now -= self._sizes.pop(key)
