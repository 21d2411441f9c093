"""Fully sharded training: each of several processes holds its share of every weight, gradient and optimiser state.

The weights of an encoder's block are complete only while it computes: its shares are gathered before its forward and
its backward pass and dropped after them, and each process gets its share of the mean gradient. Weights that belong to
no block are complete from the forward to the end of the backward pass.

Source: Rajbhandari, Rasley, Ruwase and He, "ZeRO: memory optimizations toward training trillion parameter models",
SC 2020, section 5; Zhao et al., "PyTorch FSDP", VLDB 2023. The sharding is PyTorch's ``fully_shard``.
"""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from hardy.algorithms.base import Algorithm
from hardy.engine.gradient_checkpointing import blocks_of
from hardy.errors import InputError
from hardy.recipe import RunSection

__all__ = ["check", "gathered", "same_buffers", "sharded", "spread", "spread_optimiser", "unsharded_rest"]


def check(algorithm: Algorithm, place: RunSection, processes: int) -> None:
    """Refuse what sharded training cannot do.

    Raises:
        InputError: in one process, in fp16, with channels_last, and for an algorithm that reads weights itself.
    """
    if processes == 1:
        raise InputError(
            "run.sharding: full has no effect in one process; start several "
            "(torchrun --nproc_per_node 2 -m hardy train ...), or leave it out"
        )
    if place.precision == "fp16":
        raise InputError("run.precision: fp16 cannot be combined with run.sharding: full; use bf16 or fp32")
    if place.channels_last:
        raise InputError("run.channels_last: true cannot be combined with run.sharding: full; leave one of them out")
    if algorithm.reads_weights:
        raise InputError(
            f"run.sharding: full cannot be combined with the algorithm {type(algorithm).__name__}, which reads "
            "complete weights, and no process has them; leave it out, or train with erm"
        )


def sharded(algorithm: Algorithm, device: torch.device) -> tuple[Algorithm, list[nn.Module]]:
    """A copy of ``algorithm``, which stays on the CPU, with its weights sharded over the devices of all processes; and
    its blocks.

    Raises:
        InputError: for networks without blocks.
    """
    copied = copy.deepcopy(algorithm)
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    blocks = blocks_of((copied.network, *copied.peers().values()), "run.sharding: full")
    for block in blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(copied, mesh=mesh)
    return copied, blocks


def gathered(state: Mapping[Any, Any]) -> dict[Any, Any]:
    """``state``, tensors by name, with every sharded tensor gathered on the CPU; all processes must call it together.

    Values that are mappings are gathered too; all others do not change.
    """
    whole = dict(state)
    for name, value in state.items():
        if isinstance(value, DTensor):
            whole[name] = value.full_tensor().cpu()
        elif isinstance(value, Mapping):
            whole[name] = gathered(value)
    return whole


def spread(state: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The complete ``state``, which all processes have, with every tensor sharded as that of its name in ``like``."""
    return {name: _shared(value, like.get(name)) for name, value in state.items()}


def _shared(value: Tensor, like: Tensor | None) -> Tensor:
    if not isinstance(like, DTensor) or value.shape != like.shape:
        return value
    there = value.to(like.device)
    return distribute_tensor(there, like.device_mesh, like.placements, src_data_rank=None)


def spread_optimiser(state: Mapping[str, Any], optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    """The complete ``state`` of ``optimiser``, with the values of each weight sharded as the weight."""
    order = dict(enumerate(value for group in optimiser.param_groups for value in group["params"]))
    slots = {
        index: {
            name: _shared(value, order.get(index)) if isinstance(value, Tensor) else value for name, value in of.items()
        }
        for index, of in state["state"].items()
    }
    return {**state, "state": slots}


@contextmanager
def unsharded_rest(model: nn.Module) -> Iterator[None]:
    """Inside the block the weights outside of blocks are gathered, so that parts of ``model`` can be called alone."""
    if not isinstance(model, FSDPModule):
        yield
        return
    model.unshard()
    try:
        yield
    finally:
        model.reshard()


def same_buffers(model: nn.Module) -> None:
    """Give every process the buffers of the first, such as the statistics of batch norms, in place."""
    for value in model.buffers():
        dist.broadcast(value, 0)
