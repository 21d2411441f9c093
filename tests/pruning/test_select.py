"""Which channels are chosen, by hand."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hardy.errors import InputError
from hardy.pruning.select import Limits, select, target
from hardy.pruning.units import Unit


def units(**sizes: int) -> list[Unit]:
    return [Unit(name, size, ()) for name, size in sizes.items()]


def scores(**values: list[float]) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()}


A_B = units(a=4, b=6)
GIVEN = scores(a=[0.5, 0.1, 0.9, 0.3], b=[0.2, 0.8, 0.4, 0.6, 0.05, 0.7])


def test_global_takes_the_lowest_of_all():
    assert select(GIVEN, A_B, 4, None, Limits(min_width=1)) == {"a": [1, 3], "b": [0, 4]}


def test_layer_takes_the_same_share_of_each():
    assert select(GIVEN, A_B, 5, None, Limits("layer", 1)) == {"a": [1, 3], "b": [0, 2, 4]}
    assert select(GIVEN, A_B, 3, {"a": [2]}, Limits("layer", 1)) == {"a": [1], "b": [0, 4]}


def test_dead_stay_dead_and_are_not_chosen_again():
    assert select(GIVEN, A_B, 2, {"a": [1], "b": [4]}, Limits(min_width=1)) == {"a": [3], "b": [0]}


def test_floor_passes_the_turn_to_the_next_unit():
    assert select(GIVEN, A_B, 4, None, Limits(min_width=3)) == {"a": [1], "b": [0, 2, 4]}
    assert select(GIVEN, A_B, 4, {"a": [0]}, Limits(min_width=3)) == {"b": [0, 2, 4]}
    assert select(GIVEN, A_B, 9, None, Limits(min_width=5)) == {"b": [4]}  # the unit of 4 stays whole


def test_ties_go_by_unit_and_index():
    same = scores(a=[1.0] * 4, b=[1.0] * 6)
    assert select(same, A_B, 5, None, Limits(min_width=1)) == {"a": [0, 1, 2], "b": [0, 1]}


def test_rounding_keeps_multiples_and_never_removes_more():
    chosen = select(GIVEN, A_B, 5, None, Limits(min_width=1, round_to=4))
    assert chosen == {"b": [0, 4]}  # 6 to 4 in one block; the next blocks of four would exceed five
    wide = units(a=20)
    rising = {"a": torch.arange(20.0)}
    assert select(rising, wide, 11, None, Limits(min_width=1, round_to=8)) == {"a": [0, 1, 2, 3]}
    assert select(rising, wide, 12, None, Limits(min_width=1, round_to=8)) == {"a": list(range(12))}
    assert select(rising, wide, 8, {"a": [0, 1, 2, 3]}, Limits(min_width=1, round_to=8)) == {"a": list(range(4, 12))}


def test_a_block_is_ranked_by_its_mean():
    given_scores = scores(a=[0.0, 0.9, 5, 5, 5, 5], b=[0.3, 0.4, 5, 5, 5, 5])
    assert select(given_scores, units(a=6, b=6), 2, None, Limits(min_width=1, round_to=4)) == {"b": [0, 1]}


@pytest.mark.slow
@given(st.data())
def test_whatever_is_given(data):
    sizes = data.draw(st.lists(st.integers(1, 30), min_size=1, max_size=5))
    limits = Limits(
        data.draw(st.sampled_from(["global", "layer"])), data.draw(st.integers(1, 12)), data.draw(st.integers(1, 9))
    )
    found = units(**{f"u{i}": size for i, size in enumerate(sizes)})
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    values = {unit.name: torch.rand(unit.size, generator=generator) for unit in found}
    count = data.draw(st.integers(0, sum(sizes)))
    chosen = select(values, found, count, None, limits)
    assert sum(map(len, chosen.values())) <= count
    possible = sum(unit.size - limits.floor(unit) for unit in found)
    if limits.scope == "global" and limits.round_to == 1:
        assert sum(map(len, chosen.values())) == min(count, possible)
    for unit in found:
        gone = chosen.get(unit.name, [])
        kept = unit.size - len(gone)
        assert kept >= min(unit.size, limits.min_width)
        assert not gone or kept % limits.round_to == 0
        rest = [float(values[unit.name][i]) for i in range(unit.size) if i not in gone]
        assert not gone or max(float(values[unit.name][i]) for i in gone) <= min(rest)


def test_heads_are_counted_one_by_one_down_to_one():
    found = [Unit("a", 3, (), (), "heads"), Unit("b", 1, (), (), "heads"), Unit("c", 16, (), (), "hidden")]
    values = scores(a=[0.3, 0.1, 0.2], b=[0.0], c=[1.0] * 16)
    limits = Limits(min_width=8, round_to=8)
    assert [limits.floor(unit) for unit in found] == [1, 1, 8]
    assert select(values, found, 10, None, limits) == {"a": [1, 2], "c": list(range(8))}
    assert select(values, found, 10, None, Limits(min_heads=2)) == {"a": [1], "c": list(range(8))}
    assert target(found, 0.5, limits) == 10
    with pytest.raises(InputError, match=r"at most 0\.500"):
        target(found, 0.55, limits)


def test_target_counts_the_share_of_all():
    assert target(units(a=16, b=48), 0.5, Limits()) == 32
    assert target(units(a=16, b=48), 0.75, Limits()) == 48
    assert target(units(a=16, b=48), 0.5, Limits("layer")) == 32


def test_target_out_of_reach_names_what_is():
    with pytest.raises(InputError, match=r"ratio 0\.8 cannot be reached: with min_width 8 at most 0\.750"):
        target(units(a=16, b=48), 0.8, Limits())
    with pytest.raises(InputError, match=r"'a' has 16\) at most 0\.500"):
        target(units(a=16, b=48), 0.75, Limits("layer"))
    with pytest.raises(
        InputError, match=r"with min_width 1, round_to 40 \('a' has 16 channels: min_width 1 and round_to 40 k"
    ):
        target(units(a=16, b=24), 0.5, Limits(min_width=1, round_to=40))
    with pytest.raises(
        InputError, match=r"round_to 16 at most 0\.333 of the filters .*; lower ratio or min_width or round_to$"
    ):
        target(units(a=16, b=32), 0.8, Limits(min_width=1, round_to=16))


@pytest.mark.parametrize("ratio", [0, 1, -0.1, 1.5, float("nan")])
def test_ratio_lies_between_0_and_1(ratio):
    with pytest.raises(InputError, match="must be between 0 and 1: it is the share of filters removed"):
        target(units(a=16), ratio, Limits())


def test_limits_are_checked():
    with pytest.raises(InputError, match="scope 'layers' must be"):
        Limits("layers")
    with pytest.raises(InputError, match="round_to 0 must be at least 1"):
        Limits(round_to=0)
