"""The space of a search: what is in it, and that no step leaves it."""

from random import Random

import pytest

from hardy.networks.architectures.multipath import Architecture, Branch, content, parse
from hardy.searching.cost import parts
from hardy.searching.space import Space

SIZE = (64, 128)
SPACES = [Space(4, 3, 1), Space(2, 6, 2), Space(12, 10, 3)]


def work(architecture: Architecture) -> int:
    """Multiply-accumulates of one image."""
    return sum(part.macs for part in parts(architecture, SIZE, 19))


def layers(architecture: Architecture) -> int:
    return sum(len(branch.ops) for branch in architecture.branches)


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_draws_and_mutations_stay_in_the_space(space: Space) -> None:
    rng = Random(0)
    seen = set()
    architecture = space.draw(rng)
    for turn in range(150):
        changed = space.mutate(architecture, rng)
        assert changed != architecture
        assert space.contains(changed)
        assert parse(content(changed), "changed") == changed  # every rule of the format holds
        seen.add(changed)
        architecture = changed if turn % 5 else space.draw(rng)
        assert space.contains(architecture)
    assert len(seen) > 100
    assert {len(each.branches) for each in seen} == set(range(1, space.branches + 1))
    lasts = {branch.last for each in seen for branch in each.branches}
    assert lasts == ({2} if space.branches == 1 else {0, 1, 2})


def test_each_kind_of_change_by_hand() -> None:
    space = Space(4, 5, 2)
    one = Branch(2, ("conv", "conv", "conv_2x", "conv"), (0, 1, 1, 2), (4, 6, 8))
    fork = Branch(1, ("conv", "conv", "conv"), (0, 1, 1), (4, 6))
    architecture = Architecture(4, 8, 8, (one, fork))
    assert len(architecture.shared()[0]) == 2 + 2 + 1
    rng, kinds = Random(1), {}
    for _ in range(400):
        changed = space.mutate(architecture, rng)
        first = changed.branches[0]
        if changed.stem_width != 8 or changed.head_width != 8:
            kinds["ends"] = changed
        elif len(changed.branches) == 1:
            kinds["dropped"] = changed
        elif first.path != one.path and len(first.ops) == 4:
            kinds["down"] = changed
        elif len(first.ops) != 4:
            kinds["layers"] = changed
        elif first.ops[1] != "conv":
            kinds["shared op"] = changed
        elif first.widths[0] != 4:
            kinds["shared width"] = changed
        elif first.ops[3] != "conv":
            kinds["last op"] = changed
    assert len(kinds) == 7
    assert kinds["down"].branches[0].last == 2
    for kind in ("shared op", "shared width"):  # what both branches run changes for both and goes on running once
        assert len(kinds[kind].shared()[0]) == 5
    assert kinds["last op"].branches[1] == fork
    assert kinds["last op"].branches[0].ops[:3] == one.ops[:3]


def test_steps_that_make_cheaper_end_at_the_smallest() -> None:
    space, rng = Space(12, 6, 2), Random(2)
    for _ in range(5):
        architecture = space.draw(rng)
        while steps := space.cheaper(architecture):
            assert all(space.contains(step) for step in steps)
            # Without a layer the next one may meet a wider map; every other step does no more work.
            same = [step for step in steps if layers(step) == layers(architecture)]
            assert max(map(work, same), default=0) <= work(architecture)
            architecture = rng.choice(steps)
        assert architecture == space.smallest()


def test_the_ends_of_the_space() -> None:
    space = Space(12, 6, 2)
    largest, smallest = space.largest(), space.smallest()
    assert [branch.path for branch in largest.branches] == [(0, 0, 1, 1, 2, 2), (0, 0, 1, 1, 1, 1)]
    assert {op for branch in largest.branches for op in branch.ops} == {"conv_2x"}
    assert (largest.stem_width, largest.head_width, set(largest.branches[0].widths)) == (12, 12, {12})
    assert len(largest.shared()[0]) == 6 + 6 - 3  # until they part, the branches run once
    assert smallest.branches == (Branch(2, ("conv_downup",) * 3, (0, 1, 2), (4, 4)),)
    assert len(set(space.lightest())) == 8
    assert space.lightest()[0] == smallest
    rng = Random(3)
    works = [work(space.draw(rng)) for _ in range(50)]
    assert work(smallest) < min(works)
    assert max(works) < work(largest)
    assert not Space(12, 5, 2).contains(largest)
    assert not Space(12, 6, 1).contains(largest)
    assert not Space(6, 6, 2).contains(largest)
