"""Pruning to GMACs or milliseconds: options of the command line, what is said at the end, what is refused."""

import re

import pytest

from hardy import records
from hardy.engine import artefact
from hardy.ops import cost


@pytest.fixture
def words(recipe, trained):
    """``words(**settings)``: the words that prune the trained network by l2 in one go."""

    def build(**settings):
        values = {"criterion": {"name": "l2"}, "schedule": {"name": "one_shot"}, "min_width": 2, "round_to": 2}
        return "prune", recipe(network={"run": str(trained)}, prune={**values, **settings})

    return build


@pytest.mark.costly
def test_an_option_takes_the_place_of_the_recipes_ratio(call, words, trained, tmp_path):
    size = (32, 48)
    dense = cost.gmacs(artefact.load(trained), size)
    said = call(*words(ratio=0.3), "--target-gmacs", dense / 2, "data.size=[32,48]", "evaluate.latency=false")
    assert (said.code, said.err) == (0, ""), said
    assert f"pruned to {dense / 2:g} GMACs by l2" in said.out
    assert re.search(r"target_gmacs [\d.e-]+: from [\d.e-]+ GMACs, predicted ([\d.e-]+), counted \1: met", said.out)
    small = cost.gmacs(artefact.load(tmp_path / "run"), size)
    assert dense / 4 < small <= dense / 2
    made = [r for r in records.read(tmp_path / "run" / "records.jsonl") if r.metric == "gmacs_after"]
    assert made[0].notes["target"]["reached"] == pytest.approx(small)
    assert made[0].notes["target"]["met"]


@pytest.mark.parametrize(
    ("settings", "more", "said"),
    [
        ({"ratio": 0.3, "target_ms": 3}, [], "prune: ratio and target_ms are given; give one of ratio, target_ms and"),
        ({"ratio": 0.3}, ["prune.target_gmacs=1"], "ratio and target_gmacs are given; give one of"),
        ({}, ["--target-gmacs", "1e-9"], "target_gmacs 1e-09 cannot be reached: at the minimum widths"),
        ({}, ["--target-gmacs", "100"], "GMACs as it is; give a lower target_gmacs"),
        ({}, ["--target-ms", "0"], "prune.target_ms: input should be greater than 0 (got 0.0)"),
        ({}, ["--ratio", "1.5"], "prune.ratio: input should be less than 1 (got 1.5)"),
        ({"round_to": 0}, [], "prune.round_to: give a whole number from 1 up, or auto (got 0)"),
        ({"runtime": "tensorrt"}, [], "prune.runtime: input should be 'eager' or 'onnxruntime' (got 'tensorrt')"),
    ],
)
def test_a_target_that_cannot_be(refused, words, settings, more, said):
    assert said in refused(*words(**settings), *more)
