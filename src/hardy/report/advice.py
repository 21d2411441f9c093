"""Which network to ship within a budget of milliseconds, and why: one sentence for each network of the Pareto front."""

from collections.abc import Sequence
from dataclasses import dataclass

from hardy.report.pareto import Point, front
from hardy.report.runs import Network

__all__ = ["Advice", "advise", "usual_budget"]

CLOSE = 0.01
"""A score that is at most this much lower is close to the best."""


@dataclass(frozen=True)
class Advice:
    """The network to ship for budgets from ``milliseconds`` up to those of the next advice, and the reason."""

    milliseconds: float
    name: str
    reason: str


def advise(made: Sequence[Network], among: str) -> list[Advice]:
    """The advice for every budget, fastest first; empty if no network has milliseconds.

    Args:
        made: the networks.
        among: the domains that the scores are means over, in words, such as ``unseen domains``.
    """
    best = _front(made)
    advice = []
    for place, network in enumerate(best):
        if network.milliseconds is None or network.headline is None:
            continue  # `_front` has none of these
        score = f"{_percent(network.headline)} % {network.metric_words} over {among}"
        worst = f" ({_percent(network.worst[0])} % on the worst, {network.worst[1]})" if network.worst else ""
        reason = f"{score} at {network.milliseconds:.3g} ms{worst}, and no network as fast scores higher"
        if place + 1 < len(best):
            more = best[place + 1]
            gain = 100 * ((more.headline or 0) - network.headline)
            reason += f"; {more.name} would gain {gain:.1f} points and takes {_time(more, network)}"
        elif place:
            less = best[place - 1]
            loss = 100 * (network.headline - (less.headline or 0))
            reason += f"; {less.name} takes {_time(less, network)} and would lose {loss:.1f} points"
        advice.append(Advice(network.milliseconds, network.name, f"{reason}."))
    return advice


def usual_budget(made: Sequence[Network]) -> float | None:
    """The time of the fastest network that scores at most a point below the best; None without milliseconds."""
    best = _front(made)
    if not best:
        return None
    top = max(one.headline or 0.0 for one in best)
    return next(one.milliseconds for one in best if (one.headline or 0.0) >= top - CLOSE)


def _front(made: Sequence[Network]) -> list[Network]:
    """The networks on the Pareto front, fastest first; one network for each time."""
    points = [
        Point(str(place), one.milliseconds, one.headline)
        for place, one in enumerate(made)
        if one.milliseconds is not None and one.headline is not None
    ]
    found: dict[float, Network] = {}
    for point in front(points):
        found.setdefault(point.milliseconds, made[int(point.name)])
    return list(found.values())


def _time(other: Network, network: Network) -> str:
    """The time of ``other`` in words: as a share of that of ``network`` if both were timed in turns."""
    known = f"{other.milliseconds:.3g} ms"
    if not other.in_turns(network) or not network.milliseconds or not other.milliseconds:
        return f"{known}, timed separately,"
    return f"{other.milliseconds / network.milliseconds:.2f} of its time ({known})"


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"
