"""`hardy.prune` on a module that is no `Network`: options, one call, and a word on what stayed whole."""

import logging
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from hardy.commands._frame import from_sections
from hardy.commands.train import sections_of
from hardy.engine.foreign import Carved, prune_module
from hardy.errors import InputError
from hardy.ops import cost
from hardy.pruning.schedules.base import Schedule
from hardy.registry import SCHEDULES

__all__ = ["prune_foreign"]

_log = logging.getLogger("hardy")


def prune_foreign(
    module: nn.Module,
    example: Tensor | None,
    data: Any,
    *,
    prune: Mapping[str, Any],
    loss: str | Mapping[str, Any],
    run: Mapping[str, Any] | None,
    show: bool,
) -> nn.Module:
    """A smaller copy of ``module`` in evaluation mode; what could not be pruned is logged with the reason.

    Its attribute ``hardy_plan`` is what `hardy.pruning.remove.replay` cuts a fresh module to the same shape with.

    Raises:
        InputError: without an ``example``, for a schedule that trains, and as `prune_module`.
    """
    if example is None:
        raise InputError(
            f"{type(module).__name__} is no Network: give example=, an input such as torch.rand(2, 3, H, W)"
        )
    named = prune.get("schedule", "one_shot")
    chosen = {"name": named} if isinstance(named, str) else dict(named)
    recipe = from_sections(
        **sections_of((), "erm", loss, 1, None, None), prune={**prune, "schedule": chosen}, run=run or {}
    )
    choice = recipe.prune
    assert choice is not None
    asked = [name for name in ("target_ms", "target_gmacs", "floors", "stop", "recovery") if getattr(choice, name)]
    schedule: Schedule = SCHEDULES.build(choice.schedule.name, **choice.schedule.options)
    if asked or schedule.trains:
        what = f"prune.{asked[0]}" if asked else f"the {choice.schedule.name} schedule"
        raise InputError(f"{what} needs a Network: wrap the module with hardy.wrap, or prune it one_shot to a ratio")
    carved = prune_module(
        module, example, choice, data=None if isinstance(data, tuple) and not data else data, loss=recipe.loss,
        seed=recipe.run.seed,
    )  # fmt: skip
    carved.module.hardy_plan = carved.plan  # type: ignore[assignment]
    if show:
        _tell(module, carved)
    return carved.module


def _tell(module: nn.Module, carved: Carved) -> None:
    before, after = cost.parameters(module), cost.parameters(carved.module)
    _log.info("%s: %d of %d parameters left", type(module).__name__, after, before)
    for name, reason in carved.blocked.items():
        _log.warning("left whole: %s: %s", name, reason)
