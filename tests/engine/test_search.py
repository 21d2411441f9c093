"""The search's ledger and the choice at its end."""

import json
from random import Random

import pytest

from hardy.engine.search import kept_within, search
from hardy.errors import InputError
from hardy.searching.evolution import Evaluated, Proposer
from hardy.searching.space import Space

SPACE = Space(2, 5, 2)


def price(architecture):
    return 0.1 * sum(len(branch.ops) for branch in architecture.branches) + 0.05 * architecture.stem_width


def score(architecture):
    return architecture.head_width / 12 + 1 / 3


@pytest.mark.parametrize("method", ["evolution", "random"])
def test_a_search_goes_on_where_it_stopped(method, tmp_path):
    proposer = Proposer(SPACE, price, 1.2, 0, method, population=4, sample=2)
    messages = []
    whole = search(proposer, score, 15, tmp_path / "whole.jsonl", lambda number, values: messages.append(number))
    assert messages == list(range(1, 16))
    asked = []

    def failing(architecture):
        asked.append(architecture)
        if len(asked) == 8:
            raise RuntimeError("power cut")
        return score(architecture)

    file = tmp_path / "stopped.jsonl"
    with pytest.raises(RuntimeError):
        search(proposer, failing, 15, file)
    assert file.read_text().count("\n") == 7
    assert search(proposer, failing, 15, file) == whole
    assert len(asked) == 16
    assert file.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    line = json.loads(file.read_text().splitlines()[3])
    assert (line["number"], line["score"]) == (3, whole[3].score)
    assert search(proposer, failing, 15, file) == whole  # nothing more to try
    assert len(asked) == 16
    file.write_text(file.read_text()[:-30])
    with pytest.raises(InputError, match=r"stopped.jsonl:15: not an evaluation"):
        search(proposer, score, 15, file)


def test_the_best_that_keeps_the_budget_in_fact():
    rng = Random(0)
    drawn = [SPACE.draw(rng) for _ in range(5)]
    given = [(8.0, 0.9), (8.9, 0.8), (8.6, 0.7), (5.0, 0.6), (4.0, 0.95)]
    history = [Evaluated(each, *pair) for each, pair in zip(drawn, given, strict=True)]
    asked = []

    def chosen(*factors):
        """What is chosen when these are measured over predicted."""
        asked.clear()

        def milliseconds(architecture):
            place = drawn.index(architecture)
            asked.append(place)
            return history[place].milliseconds * factors[place]

        return kept_within(history, milliseconds, 9.0)

    assert chosen(1, 1, 1, 1, 1) == (history[4], 4.0, 1)
    assert asked == [4]  # the best by score
    assert chosen(1, 1, 1, 1, 3) == (history[0], 8.0, 2)
    assert chosen(1.2, 1, 1, 1, 3) == (history[3], 5.0, 3)  # 8.9 and 8.6 ms are above 9 less 6 %
    assert asked == [4, 0, 3]
    assert chosen(1.2, 1, 1, 2, 3) == (history[0], pytest.approx(9.6), 3)  # none keeps it: the fastest
