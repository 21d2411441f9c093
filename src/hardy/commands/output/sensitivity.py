"""The table of a sensitivity sweep, and its numbers as records."""

from hardy.commands.output.printing import percent, show_rows
from hardy.pruning.sweep import Sweep
from hardy.sections import Floors

__all__ = ["show_sweep", "sweep_values"]


def show_sweep(title: str, sweep: Sweep, choice: Floors) -> None:
    """Print a row per group of units: width, drop of the score at each share, and minimum width (floor)."""
    floors = sweep.floors(choice.tolerance)
    columns = ["unit", "width", *(f"-{share:.0%}" for share in sweep.shares), "floor"]
    rows = []
    for group, losses in sweep.rows():
        sizes = [unit.size for unit in group.units]
        least = [floors[unit.name] for unit in group.units]
        rows.append([group.name, _range(sizes), *(percent(loss.drop) for loss in losses), _range(least)])
    note = (
        f"points lost from {percent(sweep.score)} when only this share of the unit is masked; "
        f"floor: the minimum width, with a drop of {percent(choice.tolerance)} or less"
    )
    show_rows(title, columns, rows, note)


def sweep_values(sweep: Sweep, choice: Floors) -> list[tuple[str, str, float]]:
    """(target, metric, value): the unpruned score, each group's drop at each share, each unit's minimum width."""
    values = [("network", "score", sweep.score)]
    values += [(loss.group.name, f"drop_{loss.share:g}", loss.drop) for loss in sweep.losses]
    return values + [(name, "floor", float(width)) for name, width in sweep.floors(choice.tolerance).items()]


def _range(values: list[int]) -> str:
    """One number, or the smallest and the largest of several."""
    return str(values[0]) if len(set(values)) == 1 else f"{min(values)} to {max(values)}"
