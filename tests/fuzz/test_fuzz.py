"""The short form of the fuzz script: some mutated cases of every kind, each clean or refused in one line."""

import pytest
from _harness import GOOD, Kind, kinds

CASES = 24
"""Of a kind that does not say in SHORT how many it can afford."""


@pytest.mark.costly
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.exhaustive] * (name not in ("artefacts", "recipes"))) for name in kinds()],
)
def test_mutated_inputs_are_clean_or_refused_in_one_line(name, tmp_path):
    kind = Kind(kinds()[name], tmp_path / name, seed=1)
    ends = [(number, kind.run(number)) for number in range(vars(kind.module).get("SHORT", CASES))]
    bad = [f"{name} {number}: {end.how}: {end.note}: {end.said[-800:]}" for number, end in ends if end.how not in GOOD]
    assert not bad, "\n".join(bad)
    assert {end.how for _, end in ends} <= set(GOOD)
    assert any(end.how == "refused" for _, end in ends), "no case was refused: does anything reach the command?"
