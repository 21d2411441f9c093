"""The order of streams: every frame once in each round, in the order that the kind names, by the seed alone."""

from collections import Counter
from itertools import groupby, pairwise
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from hardy.data.stream import Frame, order
from hardy.recipe import from_values
from hardy.sections import Stream

SIZES = [("a/day", 12), ("a/dusk", 8), ("a/night", 20)]
KINDS = ["abrupt", "gradual", "mixed", "recurring", "correlated"]


def made(**choice):
    return order(SIZES, Stream(**choice))


def blocks(frames):
    """(domain, length) of each run of one domain."""
    return [(domain, len(list(run))) for domain, run in groupby(frame.domain for frame in frames)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("choice", [{}, {"images": 5}, {"domain_order": "drawn", "image_order": "drawn"}])
def test_each_round_shows_the_same_frames_once_and_the_seed_repeats_it(kind, choice):
    frames = made(kind=kind, rounds=3, seed=4, block=3, **choice)
    counts = [min(size, choice.get("images", size)) for _, size in SIZES]
    assert len(frames) == len(set(frames)) == 3 * sum(counts)
    for domain, count in enumerate(counts):
        seen = [{f.item for f in frames if f.domain == domain and f.round == number} for number in range(3)]
        assert seen[0] == seen[1] == seen[2]
        assert len(seen[0]) == count
    assert frames == made(kind=kind, rounds=3, seed=4, block=3, **choice)
    drawn = kind not in ("abrupt", "recurring") or choice.get("image_order") == "drawn"
    assert (frames != made(kind=kind, rounds=3, seed=5, block=3, **choice)) == drawn


@pytest.mark.parametrize("kind", KINDS)
def test_a_domain_keeps_the_order_of_its_images_unless_it_is_drawn(kind):
    frames = made(kind=kind, rounds=2, block=3)
    for domain in range(3):
        own = [(frame.round, frame.item) for frame in frames if frame.domain == domain]
        assert own == sorted(own)


def test_abrupt_is_domain_after_domain_and_recurring_takes_turns():
    assert blocks(made(kind="abrupt", rounds=2)) == [(0, 12), (1, 8), (2, 20)] * 2
    turns = [(0, 5), (1, 5), (2, 5), (0, 5), (1, 3), (2, 5), (0, 2), (2, 10)]
    assert blocks(made(kind="recurring", block=5)) == turns


def test_fewer_images_are_evenly_spaced():
    assert made(images=4)[:4] == [Frame(0, 0, 0), Frame(0, 0, 3), Frame(0, 0, 6), Frame(0, 0, 9)]


def test_a_drawn_order_of_domains_is_one_for_all_rounds_and_three_seeds_give_others():
    orders = [[domain for domain, _ in blocks(made(domain_order="drawn", seed=s, rounds=2))] for s in range(6)]
    assert all(one[:3] == one[3:] and sorted(one[:3]) == [0, 1, 2] for one in orders)
    assert len({tuple(one) for one in orders}) >= 3


def test_gradual_changes_over_the_blocks_on_either_side_and_nowhere_else():
    frames = order([("a", 100), ("b", 100)], Stream(kind="gradual", block=30))
    domains = [frame.domain for frame in frames]
    assert domains[:70] == [0] * 70
    assert domains[130:] == [1] * 70
    assert sum(domains[70:100]) < 10, "few of the next domain before the change"
    assert sum(domains[100:130]) > 20, "few of the last one after it"


def test_gradual_across_rounds_never_fades_a_domain_into_itself():
    alone = order([("a", 6)], Stream(kind="gradual", rounds=2, block=4))
    assert [(frame.round, frame.item) for frame in alone] == [(r, i) for r in range(2) for i in range(6)]


def test_mixed_has_no_long_run_and_correlated_has_runs_of_the_block_on_average():
    sizes = [("a", 300), ("b", 300), ("c", 300)]
    mixed = blocks(order(sizes, Stream(kind="mixed")))
    runs = blocks(order(sizes, Stream(kind="correlated", block=10)))
    assert Counter(domain for domain, _ in mixed).keys() == {0, 1, 2}
    assert 500 < len(mixed) < 700, "a domain follows itself in a third of 900 places"
    assert 45 < len(runs) < 150
    assert all(one != other for (one, _), (other, _) in pairwise(runs[:20]))


def test_no_domain_or_no_image_gives_no_frame():
    for kind in KINDS:
        assert order([], Stream(kind=kind)) == []
        assert order([("a", 0)], Stream(kind=kind, rounds=2)) == []
    with_empty = order([("a", 0), ("b", 3)], Stream(kind="gradual"))
    assert [frame.domain for frame in with_empty] == [1, 1, 1]


@pytest.mark.parametrize(
    "file", sorted((Path(__file__).parents[2] / "recipes" / "streams").glob("*.yaml")), ids=lambda file: file.stem
)
def test_the_shipped_streams_are_valid_and_name_their_command(file):
    text = file.read_text(encoding="utf-8")
    values = yaml.safe_load(text)
    assert set(values) == {"data", "stream", "adapt"}
    recipe = from_values({"network": {"run": "x"}, **values}, (), str(file))
    assert recipe.adapt.reset == "never"
    assert f"hardy evaluate runs/x recipes/streams/{file.name}" in text
    assert all(len(line) <= 140 for line in text.splitlines())


def test_a_recorded_stream_follows_the_files_through_all_domains():
    names = {0: ["b/frame9", "a/frame2"], 1: ["a/frame10", "b/frame10"]}
    frames = order([("a", 2), ("b", 2)], Stream(kind="recorded", rounds=2), lambda one: names[one.domain][one.item])
    once = ["a/frame2", "a/frame10", "b/frame9", "b/frame10"]
    assert [names[frame.domain][frame.item] for frame in frames] == 2 * once
    assert [frame.round for frame in frames] == [0] * 4 + [1] * 4


def test_a_recorded_stream_draws_no_order():
    with pytest.raises(ValidationError, match="image_order: drawn has no effect in a recorded stream"):
        Stream(kind="recorded", image_order="drawn")
