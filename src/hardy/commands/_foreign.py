"""`hardy.prune` on a module that is no `Network`: options, one call, and a word on what stayed whole."""

import logging
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from hardy.commands._memory import from_sections, sections_of
from hardy.commands._print import say, show_rows
from hardy.engine.foreign import Carved, prune_module
from hardy.errors import InputError
from hardy.ops import cost
from hardy.pruning.schedules.base import Schedule
from hardy.registry import SCHEDULES

__all__ = ["prune_foreign"]

_log = logging.getLogger("hardy")

_TRAINED = (
    "target_ms", "target_gmacs", "runtime", "lr", "floors", "stop", "recovery", "recovery_lr", "recover_with",
)  # fmt: skip
"""What a prune section may say only where there are a training loop and measured domains."""


def prune_foreign(
    module: nn.Module,
    example: Tensor | None,
    data: Any,
    *,
    prune: Mapping[str, Any],
    loss: str | Mapping[str, Any],
    run: Mapping[str, Any] | None,
    further: Mapping[str, Any],
    show: bool,
) -> nn.Module:
    """A smaller copy of ``module`` in evaluation mode; what could not be pruned is logged with the reason.

    Its attribute ``hardy_plan`` is what `hardy.pruning.remove.replay` cuts a fresh module to the same shape with.

    Args:
        module: what is pruned.
        example: an input for it.
        data: batches, or nothing.
        prune: a recipe's ``prune`` section; without a criterion ``taylor`` where there are data, else ``l2``.
        loss: of the logits.
        run: a recipe's ``run`` section; its seed counts.
        further: what only a `Network` can be given, by its name.
        show: print parameters and GMACs before and after.

    Raises:
        InputError: without an ``example``, for a schedule that trains or another option that needs a `Network`, and as
            `prune_module`.
    """
    if example is None:
        raise InputError(
            f"{type(module).__name__} is no Network: give example=, an input such as torch.rand(2, 3, H, W)"
        )
    batches = None if isinstance(data, tuple) and not data else data
    named = prune.get("schedule", "one_shot")
    chosen = {"name": named} if isinstance(named, str) else dict(named)
    given = {"criterion": "l2" if batches is None else "taylor", **prune, "schedule": chosen}
    sections = {**sections_of((), "erm", loss, 1, None, None), "prune": given, "run": run or {}}
    recipe = from_sections({"run": "a module in memory"}, **sections)
    choice = recipe.prune
    assert choice is not None
    schedule: Schedule = SCHEDULES.build(choice.schedule.name, **choice.schedule.options)
    asked = [f"prune.{name}" for name in _TRAINED if name in prune] + [name for name, value in further.items() if value]
    if asked or schedule.trains:
        what = asked[0] if asked else f"the {choice.schedule.name} schedule"
        raise InputError(f"{what} needs a Network: wrap the module with hardy.wrap, or prune it one_shot to a ratio")
    carved = prune_module(module, example, choice, data=batches, loss=recipe.loss, seed=recipe.run.seed)
    carved.module.hardy_plan = carved.plan  # type: ignore[assignment]
    _tell(module, carved, example, show=show)
    return carved.module


def _tell(module: nn.Module, carved: Carved, example: Tensor, *, show: bool) -> None:
    for name, reason in carved.blocked.items():
        expected = reason == "reaches the network's output"  # as the last layer of any network does
        _log.log(logging.INFO if expected else logging.WARNING, "left whole: %s: %s", name, reason)
    if show:
        rows = []
        for what, count in (("parameters", cost.parameters), ("gmacs", lambda one: cost.operations(one, example))):
            before, after = count(module), count(carved.module)
            rows.append([what, f"{before:,.6g}", f"{after:,.6g}", f"{after / max(before, 1e-12):.2f}"])
        size = "x".join(map(str, example.shape[1:]))
        show_rows(f"before and after pruning, one input of {size}", ["cost", "before", "after", "ratio"], rows)
        kinds = sorted(set(carved.kinds.values()))
        say(f"pruned: {', '.join(kinds)}; left whole: {', '.join(carved.blocked) or 'nothing'}")
