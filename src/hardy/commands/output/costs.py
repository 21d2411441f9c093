"""Costs before and after pruning (parameters, multiply-accumulates and milliseconds), and their tables."""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hardy.commands.output.printing import say, show_rows
from hardy.errors import InputError
from hardy.files import write_text
from hardy.networks.base import Network
from hardy.ops import cost
from hardy.recipe import Recipe
from hardy.stored import finite, read_json
from hardy.timing import layer_tables
from hardy.timing.bench import Comparison, Runtime, compare
from hardy.timing.payoff import reasons
from hardy.timing.targets import Outcome

__all__ = [
    "CostPairs",
    "PruningReport",
    "cost_values",
    "costs",
    "own_costs",
    "reading_values",
    "show_costs",
    "show_module",
    "show_readings",
]

_log = logging.getLogger("hardy")

_PROGRESS = {"removed", "left", "beta", "under"}
"""The values that a round logs and that do not describe the scores."""

CostPairs = list[tuple[str, float, float]]
"""(name, value before, value after) of every cost that pruning should reduce."""


@dataclass(frozen=True)
class PruningReport:
    """The part of a pruning result that is saved and shown.

    Attributes:
        outcome: the outcome for a cost target; None for a ratio.
        blocked: the layers whose channels could not be removed, with the reason.
        took: steps and seconds of scoring and removing, by name.
        rounds: for each round its last step and the logged values.
        removed: the share of the channels that was removed; None if an earlier version wrote the report.
    """

    outcome: Outcome | None = None
    blocked: dict[str, str] = field(default_factory=dict)
    took: dict[str, float] = field(default_factory=dict)
    rounds: Sequence[tuple[int, dict[str, float]]] = ()
    removed: float | None = None

    def readings(self) -> dict[str, tuple[float, float]]:
        """For each value that describes the scores: its first and its last value over the rounds."""
        names = {name: None for _, values in self.rounds for name in values if name not in _PROGRESS}
        each = {name: [values[name] for _, values in self.rounds if name in values] for name in names}
        return {name: (values[0], values[-1]) for name, values in each.items()}

    def notes(self) -> dict[str, Any]:
        """The notes for records."""
        return {} if self.outcome is None else {"target": self.outcome.to_json()}

    def write(self, folder: Path) -> None:
        """Write the report to ``folder`` atomically."""
        write_text(folder / "pruning.json", json.dumps(asdict(self), indent=1))

    @classmethod
    def read(cls, folder: Path) -> "PruningReport":
        """The report that an earlier call wrote to ``folder``; an empty one if there is none.

        Raises:
            InputError: if the file is damaged.
        """
        path = folder / "pruning.json"
        if not path.exists():
            return cls()
        values = read_json(path)
        try:
            outcome, blocked, took = values["outcome"], dict(values["blocked"]), dict(values.get("took", {}))
            if not all(isinstance(reason, str) for reason in blocked.values()):
                raise ValueError("blocked holds no reasons")
            rounds = tuple((int(step), dict(kept)) for step, kept in values.get("rounds", ()))
            if not all(map(finite, [*took.values(), *(value for _, kept in rounds for value in kept.values())])):
                raise ValueError("took or rounds hold no numbers")
            removed = values.get("removed")
            if removed is not None and not finite(removed):
                raise ValueError("removed is no number")
            return cls(Outcome.from_json(outcome) if outcome else None, blocked, took, rounds, removed)
        except (KeyError, TypeError, ValueError) as error:
            again = "delete the folder 'pruned' next to it to prune again"
            raise InputError(f"{path}: not a pruning report ({error}); {again}") from None


def costs(dense: Network, network: Network, recipe: Recipe) -> tuple[CostPairs, list[Comparison]]:
    """Parameters, GMACs and, unless the recipe turns it off, milliseconds, which are measured in turns in one
    process."""
    size = recipe.data.size or recipe.data.crop
    changes: CostPairs = [
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
        except InputError as error:  # a user's module that cannot be exported can still be pruned
            if runtime == "eager":
                raise
            _log.warning("not measured in %s: %s", runtime, error)
    for one in comparisons:
        changes.append((f"milliseconds_p50_{one.runtime}", one.before_p50, one.after_p50))
        changes.append((f"milliseconds_p95_{one.runtime}", one.before_p95, one.after_p95))
    return changes, comparisons


def own_costs(network: Network, recipe: Recipe) -> list[tuple[str, str, float]]:
    """(target, metric, value) of the parameters of ``network`` and, if they can be counted, of its GMACs."""
    found: list[tuple[str, str, float]] = [("cost", "parameters", cost.parameters(network))]
    try:
        found.append(("cost", "gmacs", cost.gmacs(network, recipe.data.size or recipe.data.crop)))
    except RuntimeError as error:  # a user's module that does not run without data
        _log.info("GMACs are not recorded: %s", " ".join(str(error).split()))
    return found


def cost_values(changes: CostPairs, comparisons: Sequence[Comparison]) -> list[tuple[str, str, float]]:
    """(target, metric, value) of every cost, before and after, and of the ratio of the times with its quartiles."""
    found = [("cost", f"{name}_before", value) for name, value, _ in changes]
    found += [("cost", f"{name}_after", value) for name, _, value in changes]
    for one in comparisons:
        ratios = {"ratio": one.ratio, "ratio_low": one.low, "ratio_high": one.high}
        found += [("cost", f"{name}_{one.runtime}", value) for name, value in ratios.items()]
    return found


def reading_values(report: PruningReport) -> list[tuple[str, str, float]]:
    """(target, metric, value) of the values that describe the scores, from the first and the last round."""
    found = report.readings().items()
    return [("scores_first", name, first) for name, (first, _) in found] + [
        ("scores_last", name, last) for name, (_, last) in found
    ]


def show_readings(report: PruningReport) -> None:
    """Print the values that describe the scores, such as their reliability, from the first and the last round."""
    rows = [
        [name.replace("_", " "), f"{first:.3g}", f"{last:.3g}"] for name, (first, last) in report.readings().items()
    ]
    if rows:
        show_rows("scores of the channels", ["", "first round", "last round"], rows)


def _number(value: float) -> str:
    """``value`` as text: without decimals from 1000 on, else with four digits."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def show_costs(
    changes: CostPairs, comparisons: Sequence[Comparison], report: PruningReport, dense: Network, small: Network
) -> None:
    """Print costs before and after, predicted and measured, and why layers did not get faster."""
    rows = [
        [name.replace("_", " "), _number(before), _number(after), f"{after / before:.2f}"]
        for name, before, after in changes
    ]
    sizes = {one.size for one in comparisons}
    where = "".join(f", batch 1 at {height}x{width}" for height, width in sizes)
    show_rows(f"before and after pruning{where}", ["cost", "before", "after", "ratio"], rows)
    if report.outcome is not None:
        say(str(report.outcome))
    for one in comparisons:
        verdict = "faster" if one.faster else "NOT FASTER"
        say(
            f"{one.runtime}: {verdict}: takes {one.ratio:.2f} of the time (quartiles {one.low:.2f} to {one.high:.2f}, "
            f"{one.runs} pairs, {one.threads} threads)"
        )
        times = layer_tables.open_table(one.runtime, torch.device("cpu"))
        for line in reasons(dense, small, one.size, times, one.after_p50, report.blocked):
            say(f"  {line}")


def show_module(dense: nn.Module, small: nn.Module, example: Tensor, kinds: Sequence[str], left: Sequence[str]) -> None:
    """Print parameters and GMACs of a module before and after, the kinds of layers pruned, and the layers not
    pruned."""
    rows = []
    for what, count in (("parameters", cost.parameters), ("gmacs", lambda one: cost.operations(one, example))):
        before, after = count(dense), count(small)
        rows.append([what, f"{before:,.6g}", f"{after:,.6g}", f"{after / max(before, 1e-12):.2f}"])
    size = "x".join(map(str, example.shape[1:]))
    show_rows(f"before and after pruning, one input of {size}", ["cost", "before", "after", "ratio"], rows)
    say(f"pruned: {', '.join(kinds)}; not pruned: {', '.join(left) or 'nothing'}")
