"""Which architecture to try next: regularised evolution, and random search beside it.

The population is a queue: each new architecture enters, the oldest leaves, however good it is. A child is one mutation
of the best of a few members drawn at random (with replacement). So the population is always the last architectures that
were tried, and what comes next follows from the history and the seed alone: a search continues where it stopped.

No architecture is tried twice, and none with a prediction above the budget. A random architecture over it is made
cheaper, step by random step, until it is not.

Source: Real, Aggarwal, Huang and Le, "Regularized evolution for image classifier architecture search", AAAI 2019,
algorithm 1. The budget and the rejection of repeated architectures are ours.
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
"""Milliseconds predicted for an architecture."""

_TRIES = 200
"""Mutations of a parent, and then random architectures, before a search ends for want of new ones."""


@dataclass(frozen=True)
class Evaluated:
    """An architecture that was tried: the milliseconds predicted for it, and how well it did."""

    architecture: Architecture
    milliseconds: float
    score: float


@dataclass(frozen=True)
class Proposer:
    """Proposes architectures.

    Attributes:
        space: they are of.
        price: predicts milliseconds.
        budget: the most of them.
        seed: of all draws.
        method: ``evolution``, or ``random`` for independent draws.
        population: how many of the last ones can be parents.
        sample: how many of these compete to be the parent.
    """

    space: Space
    price: Price
    budget: float
    seed: int
    method: Literal["evolution", "random"] = "evolution"
    population: int = 20
    sample: int = 5

    def next(self, history: Sequence[Evaluated]) -> Architecture | None:
        """What to try after ``history``; None when nothing new was found."""
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
        """The best of ``sample`` draws from the last ``population`` of ``history``; the older of equals."""
        alive = history[-self.population :]
        drawn = [rng.randrange(len(alive)) for _ in range(self.sample)]
        return alive[max(drawn, key=lambda place: (alive[place].score, -place))]


def within_budget(space: Space, architecture: Architecture, price: Price, budget: float, rng: Random) -> Architecture:
    """``architecture`` made cheaper by random steps until it costs no more than ``budget``; where no step is left, the
    fastest of the lightest."""
    while price(architecture) > budget:
        if not (steps := space.cheaper(architecture)):
            return min(space.lightest(), key=price)
        architecture = rng.choice(steps)
    return architecture
