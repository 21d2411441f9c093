"""What is tried next: who may be a parent, who dies, what is never tried."""

from collections import Counter
from random import Random

import pytest

from hardy.networks.architectures.multipath import Architecture
from hardy.searching.evolution import Evaluated, Proposer, within_budget
from hardy.searching.space import Space

SPACE = Space(2, 5, 2)


def price(architecture: Architecture) -> float:
    """One for each convolution of a branch, and the width of the stem."""
    convs = sum(1 + ("2x" in op) for branch in architecture.branches for op in branch.ops)
    return convs + architecture.stem_width


def score(architecture: Architecture) -> float:
    """The wider the head the better."""
    return float(architecture.head_width) + 0.01 * len(architecture.branches[0].ops)


def searched(proposer: Proposer, count: int, history: list[Evaluated] | None = None) -> list[Evaluated]:
    history = list(history or ())
    while len(history) < count:
        found = proposer.next(history)
        assert found is not None
        history.append(Evaluated(found, price(found), score(found)))
    return history


def history_of(scores: list[float]) -> list[Evaluated]:
    rng = Random(0)
    return [Evaluated(SPACE.draw(rng), 0.0, value) for value in scores]


def test_only_the_last_ones_breed_and_the_best_drawn_wins() -> None:
    history = history_of([9.0, 1.0, 3.0, 2.0, 4.0])  # the best of all has died of age
    proposer = Proposer(SPACE, price, 99, 0, population=4, sample=2)
    found = Counter(proposer.parent(history, Random(seed)).score for seed in range(4000))
    # The best of two of four, drawn with replacement: rank r (from the worst, 1) wins with (2 r - 1) / 16.
    for value, share in {1.0: 1, 2.0: 3, 3.0: 5, 4.0: 7}.items():
        assert found[value] / 4000 == pytest.approx(share / 16, abs=0.03)
    assert set(found) == {1.0, 2.0, 3.0, 4.0}
    assert proposer.parent(history_of([5.0, 5.0]), Random(1)) == history_of([5.0, 5.0])[0]


@pytest.mark.parametrize("method", ["evolution", "random"])
def test_within_the_budget_and_never_twice(method) -> None:
    proposer = Proposer(SPACE, price, 15, 0, method, population=5, sample=3)
    history = searched(proposer, 40)
    assert len({tried.architecture for tried in history}) == 40
    assert max(tried.milliseconds for tried in history) <= 15
    assert all(SPACE.contains(tried.architecture) for tried in history)
    assert searched(proposer, 40, history[:17]) == history  # it goes on where it stopped
    other = searched(Proposer(SPACE, price, 15, 1, method, population=5, sample=3), 40)
    assert other != history


def test_evolution_changes_the_best_and_random_search_looks_at_no_score() -> None:
    evolved = Proposer(SPACE, price, 99, 0, population=6, sample=6)
    drawn = Proposer(SPACE, price, 99, 0, "random", population=6, sample=6)
    history = searched(drawn, 6)
    assert history == searched(evolved, 6)  # the first ones are drawn
    worse = [Evaluated(tried.architecture, tried.milliseconds, -tried.score) for tried in history]
    assert drawn.next(history) == drawn.next(worse)
    assert evolved.next(history) != evolved.next(worse)
    assert max(tried.score for tried in searched(evolved, 40)[-6:]) >= 12  # the head became as wide as may be


@pytest.mark.slow
def test_a_space_that_is_used_up_ends_the_search() -> None:
    tiny = Space(2, 3, 1)
    proposer = Proposer(tiny, lambda architecture: float(architecture not in tiny.lightest()), 0.5, 0, population=2)
    history: list[Evaluated] = []
    while (found := proposer.next(history)) is not None:
        history.append(Evaluated(found, 0.0, 0.0))
    assert {tried.architecture for tried in history} <= set(tiny.lightest())


def test_made_cheaper_until_it_fits() -> None:
    rng = Random(4)
    for budget in (20, 12, 8):
        found = within_budget(SPACE, SPACE.largest(), price, budget, rng)
        assert budget - 3 < price(found) <= budget
    fastest = SPACE.lightest()[5]
    assert within_budget(SPACE, SPACE.largest(), lambda each: float(each != fastest), 0.5, rng) == fastest
