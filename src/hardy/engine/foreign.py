"""Pruning any module that maps a tensor to logits, without labels, recipe or wrapper.

The module is scored as it stands, on batches that the caller holds or on none, and a copy is cut once. Widths that
the module's code fixes are found by trial (`hardy.pruning.tracing.trial`) and left as they are.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from hardy.data.labels import LabelSpace
from hardy.errors import InputError
from hardy.networks.base import Network, resize
from hardy.ops.norms import reestimate
from hardy.ops.tensors import check_finite
from hardy.pruning.criteria.base import Criterion
from hardy.pruning.goal import Ratio, choose
from hardy.pruning.remove import Plan, remove
from hardy.pruning.schedules._rest import scored
from hardy.pruning.schedules.base import Work
from hardy.pruning.tracing.trace import outputs_of
from hardy.pruning.units import Survey, Unit, survey
from hardy.pruning.weight_norm import duplicate
from hardy.recipe import Prune
from hardy.registry import CRITERIA, LOSSES
from hardy.sections import Method, RunSection
from hardy.seed import seeded
from hardy.timing.targets import limits_of
from hardy.types import Batch, Outputs

__all__ = ["Carved", "prune_module"]

Batches = Iterable[Batch | tuple[Tensor, Tensor]]
"""Batches, or pairs of images (B, C, H, W) and labels (B, ...) of class ids with 255 where unlabelled."""


@dataclass(frozen=True)
class Carved:
    """A module that was pruned.

    Attributes:
        module: the smaller copy, in evaluation mode.
        plan: what it kept: `hardy.pruning.remove.replay` cuts a fresh module to the same shape.
        widths: for each unit its width before and after.
        kinds: for each unit what its channels are.
        blocked: channels that cannot go, by the layer that makes them, with the reason.
    """

    module: nn.Module
    plan: Plan
    widths: dict[str, tuple[int, int]]
    kinds: dict[str, str]
    blocked: dict[str, str]


class _Plain(Network):
    """A module as a `Network`: what it takes and makes is left as it is, but for the size of its maps."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__(LabelSpace("logits", ("0",), ((0, 0, 0),)))
        self.module = module
        self.train(module.training)

    def outputs(self, images: Tensor) -> Outputs:
        """See `Network.outputs`."""
        logits = _logits(self.module(images))
        return Outputs(resize(logits, images.shape[-2:]) if logits.ndim == 4 else logits)


def prune_module(
    module: nn.Module, example: Tensor, choice: Prune, *, data: Batches | None = None, loss: Method | None = None,
    seed: int = 0,
) -> Carved:  # fmt: skip
    """A smaller copy of ``module``, which itself stays as it is.

    Args:
        module: anything whose forward pass takes one tensor.
        example: an input such as noise, of a size that the module accepts.
        choice: criterion, ratio, kinds of units and limits; the schedule must be one-shot.
        data: what a criterion that reads gradients looks at; its first ``choice.reestimate`` batches count the
            statistics of batch norms anew after the cut.
        loss: the loss of the logits; cross entropy by default.
        seed: of all that is drawn.

    Raises:
        InputError: when the module does not run on ``example``, nothing of it can be pruned, the ratio cannot be
            reached, or the criterion needs data and gets none.
    """
    check_finite(module)
    small = duplicate(module)
    found, units = _units(small, example, choice)
    network = _Plain(small)
    with seeded(seed, "criterion"):
        criterion: Criterion = CRITERIA.build(
            choice.criterion.name,
            {
                "network": network,
                "units": [_renamed(unit, _inside) for unit in units],
                "pixel_loss": _pixel_loss(small, example, loss),
            },
            **choice.criterion.options,
        )
    inner = criterion.units
    units = [_renamed(unit, _outside) for unit in inner]
    limits = limits_of(choice, RunSection(seed=seed))
    goal = Ratio(inner, 0.5 if choice.ratio is None else choice.ratio, limits)
    looked = int(choice.schedule.options.get("batches", 30)) if criterion.needs_data else 0
    seen = _batches(data, criterion, choice.criterion.name, max(looked, choice.reestimate))
    work = Work(network, criterion, inner, goal, limits, batches=seen)
    scores = scored(work, looked)
    chosen = choose(scores, inner, goal, {}, limits)
    removed = {
        unit.name: channels for unit, own in zip(units, inner, strict=True) if (channels := chosen.get(own.name))
    }
    if not removed:
        raise InputError(
            "nothing can go: the ratio is less than one block of round_to channels; raise it or lower round_to"
        )
    plan = remove(small, units, removed)
    if choice.reestimate:
        reestimate(small, (batch.images for batch in seen[: choice.reestimate]))
    widths = {unit.name: (unit.size, unit.size - len(removed.get(unit.name, ()))) for unit in units}
    blocked = {**found.blocked, **limits.left_whole(units)}
    return Carved(small.eval(), plan, widths, {unit.name: unit.kind for unit in units}, blocked)


def _units(module: nn.Module, example: Tensor, choice: Prune) -> tuple[Survey, list[Unit]]:
    found = survey(module, example)
    units = [unit for unit in found.units if unit.kind in choice.kinds]
    if not units:
        reasons = "; ".join(f"{name}: {why}" for name, why in list(found.blocked.items())[:3])
        raise InputError(f"nothing of {type(module).__name__} can be pruned: {reasons or 'it has no layers'}")
    return found, units


def _inside(name: str) -> str:
    """A module's name as `_Plain` knows it."""
    return f"module.{name}" if name else "module"


def _outside(name: str) -> str:
    return name.removeprefix("module").removeprefix(".")


def _renamed(unit: Unit, named: Callable[[str], str]) -> Unit:
    """The unit with other names of its modules."""
    members, outputs = (
        tuple(replace(member, module=named(member.module)) for member in some) for some in (unit.members, unit.outputs)
    )
    gates, within = tuple(map(named, unit.gates)), named(unit.within) if unit.within else ""
    return replace(unit, name=named(unit.name), members=members, gates=gates, outputs=outputs, within=within)


def _pixel_loss(module: nn.Module, example: Tensor, loss: Method | None) -> Any:
    with torch.no_grad():
        device = next((value.device for value in module.parameters()), example.device)
        module_out = outputs_of(duplicate(module).eval(), example.to(device))
    classes = module_out[0].shape[1] if module_out and module_out[0].ndim > 1 else 1
    chosen = loss or Method(name="cross_entropy")
    return LOSSES.build(chosen.name, {"class_count": classes}, **chosen.options)


def _batches(data: Batches | None, criterion: Criterion, name: str, most: int) -> list[Batch]:
    """The first ``most`` batches of ``data``."""
    if data is None and not criterion.needs_data:
        return []
    if data is None:
        raise InputError(f"criterion {name!r} needs data: give data=[(images, labels), ...], or use l2")
    if isinstance(data, (str, Mapping)):
        raise InputError("data of a plain module are batches: give data=[(images, labels), ...], or hardy.wrap it")
    return [_batch(one) for one in islice(data, most)]


def _batch(one: Any) -> Batch:
    if isinstance(one, Batch):
        return one
    if not isinstance(one, (tuple, list)) or len(one) != 2 or not all(isinstance(part, Tensor) for part in one):
        raise InputError(f"data: a batch is a Batch or a pair of tensors (images, labels), not {type(one).__name__}")
    images, labels = one
    return Batch(images, labels.long(), torch.zeros(len(images), dtype=torch.int64))


def _logits(result: Any) -> Tensor:
    """The first tensor of what a module returns; of a mapping, ``out`` or ``logits`` if it has one."""
    if isinstance(result, Mapping):
        result = result.get("out", result.get("logits", next(iter(result.values()), None)))
    while isinstance(result, (list, tuple)) and result:
        result = result[0]
    if not isinstance(result, Tensor):
        raise InputError(f"a module that is scored on data must return logits, not {type(result).__name__}")
    return result
