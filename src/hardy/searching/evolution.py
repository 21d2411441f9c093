"""The choice of the next architecture: regularised evolution, or random search.

The population is a queue: each new architecture enters and the oldest leaves, even if it is the best. A child is one
mutation of the best of a few members that are drawn at random, with replacement. So the population always consists of
the architectures evaluated last, and the next one depends only on the history and the seed. A search can therefore be
resumed.

No architecture is evaluated twice, and none with a prediction above the budget. A random architecture above the budget
is made cheaper in random steps until it is within it.

Source: Real, Aggarwal, Huang and Le, "Regularized evolution for image classifier architecture search", AAAI 2019,
algorithm 1. The budget and the rejection of repeated architectures are Hardy's.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal

from hardy.networks.architectures.multipath import Architecture
from hardy.searching.space import Space
from hardy.seed import key

__all__ = ["Evaluated", "Price", "Proposer", "within_budget"]

Price = Callable[[Architecture], float]
"""Returns the milliseconds predicted for an architecture."""

_TRIES = 200
"""The number of attempts by mutation of a parent, and then by random draws, before a search ends."""


@dataclass(frozen=True)
class Evaluated:
    """An evaluated architecture: its predicted milliseconds and its score."""

    architecture: Architecture
    milliseconds: float
    score: float


@dataclass(frozen=True)
class Proposer:
    """Proposes architectures.

    Attributes:
        space: the space of the architectures.
        price: predicts milliseconds.
        budget: the upper limit of the milliseconds.
        seed: the seed of all random draws.
        method: ``evolution``, or ``random`` for independent draws.
        population: the number of last architectures that can be parents.
        sample: the number of these that are drawn; the best of them is the parent.
    """

    space: Space
    price: Price
    budget: float
    seed: int
    method: Literal["evolution", "random"] = "evolution"
    population: int = 20
    sample: int = 5

    def next(self, history: Sequence[Evaluated]) -> Architecture | None:
        """The next architecture after ``history``; None if no new one within the budget was found."""
        rng = Random(key(self.seed, "search", len(history)))
        known = {tried.architecture for tried in history}
        if self.method == "evolution" and len(history) >= self.population:
            parent = self.parent(history, rng)
            for _ in range(_TRIES):
                child = self.space.mutate(parent.architecture, rng)
                if child not in known and self.price(child) <= self.budget:
                    return child
        for _ in range(_TRIES):
            drawn = within_budget(self.space, self.space.draw(rng), self.price, self.budget, rng)
            if drawn not in known and self.price(drawn) <= self.budget:
                return drawn
        return None

    def parent(self, history: Sequence[Evaluated], rng: Random) -> Evaluated:
        """The best of ``sample`` draws from the last ``population`` of ``history``; of equal ones the oldest."""
        alive = history[-self.population :]
        drawn = [rng.randrange(len(alive)) for _ in range(self.sample)]
        return alive[max(drawn, key=lambda index: (alive[index].score, -index))]


def within_budget(space: Space, architecture: Architecture, price: Price, budget: float, rng: Random) -> Architecture:
    """``architecture`` made cheaper in random steps until its price is within ``budget``.

    If no step is left, the fastest of `Space.lightest`, which may be above the budget.
    """
    while price(architecture) > budget:
        if not (steps := space.cheaper(architecture)):
            return min(space.lightest(), key=price)
        architecture = rng.choice(steps)
    return architecture
