"""What pruning changed in parameters, multiply-accumulates and milliseconds, and the tables that say so."""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hardy.commands._print import say, show_rows
from hardy.errors import InputError
from hardy.files import write_text
from hardy.networks.base import Network
from hardy.ops import cost
from hardy.recipe import Recipe
from hardy.stored import read_json
from hardy.timing import layer_tables
from hardy.timing.bench import Comparison, Runtime, compare
from hardy.timing.payoff import reasons
from hardy.timing.targets import Outcome

__all__ = ["Change", "PruningReport", "cost_values", "costs", "show_costs", "show_module"]

_log = logging.getLogger("hardy")

Change = list[tuple[str, float, float]]
"""(what, before, after) of everything that pruning should make smaller."""


@dataclass(frozen=True)
class PruningReport:
    """What is worth telling of the pruning itself.

    Attributes:
        outcome: of a target of cost, None for a ratio.
        blocked: channels that could not go, by the layer that makes them, with the reason.
    """

    outcome: Outcome | None = None
    blocked: dict[str, str] = field(default_factory=dict)

    def notes(self) -> dict[str, Any]:
        """For the record."""
        return {} if self.outcome is None else {"target": self.outcome.to_json()}

    def write(self, folder: Path) -> None:
        """Keep it in ``folder``, whole or not at all."""
        write_text(folder / "pruning.json", json.dumps(asdict(self), indent=1))

    @classmethod
    def read(cls, folder: Path) -> "PruningReport":
        """What an earlier call kept in ``folder``; nothing where there is none.

        Raises:
            InputError: when it is torn or damaged.
        """
        path = folder / "pruning.json"
        if not path.exists():
            return cls()
        kept = read_json(path)
        try:
            outcome, blocked = kept["outcome"], dict(kept["blocked"])
            if not all(isinstance(reason, str) for reason in blocked.values()):
                raise ValueError("blocked holds no reasons")
            return cls(Outcome.from_json(outcome) if outcome else None, blocked)
        except (KeyError, TypeError, ValueError) as error:
            again = "delete the folder 'pruned' beside it to prune again"
            raise InputError(f"{path}: not what pruning found ({error}); {again}") from None


def costs(dense: Network, network: Network, recipe: Recipe) -> tuple[Change, list[Comparison]]:
    """Parameters, GMACs and, unless the recipe says no, measured milliseconds, taken in turns in one process."""
    size = recipe.data.size or recipe.data.crop
    changes: Change = [
        ("parameters", cost.parameters(dense), cost.parameters(network)),
        ("gmacs", cost.gmacs(dense, size), cost.gmacs(network, size)),
    ]
    runtimes: tuple[Runtime, ...] = (
        ("eager", "onnxruntime") if find_spec("onnxruntime") and find_spec("onnxscript") else ("eager",)
    )
    comparisons = []
    for runtime in runtimes if recipe.evaluate.latency else ():
        try:
            comparisons.append(compare(dense, network, size=size, runtime=runtime))
        except InputError as error:  # a user's module that cannot be exported is pruned all the same
            if runtime == "eager":
                raise
            _log.warning("not measured in %s: %s", runtime, error)
    for one in comparisons:
        changes.append((f"milliseconds_p50_{one.runtime}", one.before_p50, one.after_p50))
        changes.append((f"milliseconds_p95_{one.runtime}", one.before_p95, one.after_p95))
    return changes, comparisons


def cost_values(changes: Change) -> list[tuple[str, str, float]]:
    """(target, metric, value) of every cost, before and after."""
    before = [("cost", f"{name}_before", value) for name, value, _ in changes]
    return before + [("cost", f"{name}_after", value) for name, _, value in changes]


def _number(value: float) -> str:
    """Whole from a thousand up, four digits below."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def show_costs(
    changes: Change, comparisons: Sequence[Comparison], found: PruningReport, dense: Network, small: Network
) -> None:
    """Print costs before and after, predicted beside measured, and where pruning did not pay and why."""
    rows = [
        [name.replace("_", " "), _number(before), _number(after), f"{after / before:.2f}"]
        for name, before, after in changes
    ]
    sizes = {one.size for one in comparisons}
    where = "".join(f", batch 1 at {height}x{width}" for height, width in sizes)
    show_rows(f"before and after pruning{where}", ["cost", "before", "after", "ratio"], rows)
    if found.outcome is not None:
        say(str(found.outcome))
    for one in comparisons:
        verdict = "faster" if one.faster else "NOT FASTER"
        say(
            f"{one.runtime}: {verdict}: takes {one.ratio:.2f} of the time (quartiles {one.low:.2f} to {one.high:.2f}, "
            f"{one.runs} pairs, {one.threads} threads)"
        )
        times = layer_tables.open_table(one.runtime, torch.device("cpu"))
        for line in reasons(dense, small, one.size, times, one.after_p50, found.blocked):
            say(f"  {line}")


def show_module(dense: nn.Module, small: nn.Module, example: Tensor, kinds: Sequence[str], left: Sequence[str]) -> None:
    """Print parameters and GMACs of any module before and after, what was pruned, and what was left whole."""
    rows = []
    for what, count in (("parameters", cost.parameters), ("gmacs", lambda one: cost.operations(one, example))):
        before, after = count(dense), count(small)
        rows.append([what, f"{before:,.6g}", f"{after:,.6g}", f"{after / max(before, 1e-12):.2f}"])
    size = "x".join(map(str, example.shape[1:]))
    show_rows(f"before and after pruning, one input of {size}", ["cost", "before", "after", "ratio"], rows)
    say(f"pruned: {', '.join(kinds)}; left whole: {', '.join(left) or 'nothing'}")
