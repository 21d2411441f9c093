"""The search space of multi-path architectures: random architectures, mutations and cheaper architectures.

An architecture has a branch that goes down to stride 32 and at most ``branches - 1`` more branches, which end at
strides 16 and 8. Each has at most ``layers`` layers. The search chooses the widths of the stem, the head and every
layer, the op of every layer, where the branches downsample, their depths, and which branches exist. A further branch is
drawn as a fork: it begins with layers of the first branch, which run once for both. A change of a shared layer applies
to all branches that share it.

Source: the space of Chen, Gong, Liu, Zhang, Li and Wang, "FasterSeg: searching for faster real-time semantic
segmentation", ICLR 2020, section 3 (there stem and head have fixed widths, and every layer may be skipped).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from random import Random
from typing import NamedTuple, TypeVar

from hardy.networks.architectures.multipath import OPS, WIDTHS, Architecture, Branch

__all__ = ["Space"]

_DEEPEST = 2
"""The scale of stride 32, at which the first branch ends."""

_LIGHTER = {"conv_2x": "conv_2x_downup", "conv_2x_downup": "conv_downup", "conv": "conv_downup"}


_T = TypeVar("_T")


class _Row(NamedTuple):
    """A layer of a branch: its op, whether it downsamples, and its width in twelfths (0 for a last layer)."""

    op: str
    down: bool
    width: int


_Rows = tuple[_Row, ...]


@dataclass(frozen=True)
class Space:
    """See the module.

    Attributes:
        filters: Fch, an eighth of the channels at stride 8 and full width.
        layers: the maximum number of layers of a branch, at least 3.
        branches: the maximum number of branches, 1 to 3.
    """

    filters: int = 12
    layers: int = 10
    branches: int = 2

    def largest(self) -> Architecture:
        """All branches and all layers, two convolutions in each, at full width.

        Branches downsample after the first third of their layers, the branch to stride 32 also after the second.
        """
        downs = (self.layers // 3 - 1, 2 * self.layers // 3 - 1)
        branches = [
            [_Row("conv_2x", place in downs[:last], WIDTHS[-1]) for place in range(self.layers)]
            for last in range(_DEEPEST, _DEEPEST - self.branches, -1)
        ]
        return self._made(WIDTHS[-1], WIDTHS[-1], [tuple(rows) for rows in branches])

    def smallest(self) -> Architecture:
        """One branch of three layers, one zoomed convolution in each, at minimum width."""
        return self.lightest()[0]

    def lightest(self) -> list[Architecture]:
        """The architectures with one branch of three layers, one convolution in each, at minimum width.

        Which of them is the fastest depends on the device. The first is `smallest`.
        """
        least = WIDTHS[0]
        return [
            self._made(least, least, [tuple(_Row(op, place < _DEEPEST, least) for place, op in enumerate(ops))])
            for ops in product(("conv_downup", "conv"), repeat=_DEEPEST + 1)
        ]

    def contains(self, architecture: Architecture) -> bool:
        """Whether ``architecture`` is in this space."""
        lasts = [branch.last for branch in architecture.branches]
        return (
            architecture.filters == self.filters
            and lasts[0] == _DEEPEST
            and lasts == sorted(set(lasts), reverse=True)
            and len(lasts) <= self.branches
            and all(len(branch.ops) <= self.layers for branch in architecture.branches)
        )

    def draw(self, rng: Random) -> Architecture:
        """A random architecture of the space."""
        first = _tail(rng.randint(_DEEPEST + 1, self.layers), _DEEPEST, rng)
        lasts = sorted(rng.sample(range(_DEEPEST), rng.randint(1, self.branches) - 1), reverse=True)
        branches = [first, *(self._fork(first, last, rng) for last in lasts)]
        return self._made(rng.choice(WIDTHS), rng.choice(WIDTHS), branches)

    def mutate(self, architecture: Architecture, rng: Random) -> Architecture:
        """Another architecture of the space with one random change: an op, a width (of a layer, the stem or the head),
        the place of a downsampling step, the number of layers, or the branches."""
        changes = (self._op, self._width, self._down, self._layer, self._branches, self._ends)
        while True:
            changed = rng.choice(changes)(architecture, rng)
            if changed is not None and changed != architecture:
                return changed

    def cheaper(self, architecture: Architecture) -> list[Architecture]:
        """All architectures that are one step cheaper: a smaller width, a cheaper op, one layer less or one branch
        less; none for `smallest`."""
        rows = _rows_of(architecture)
        steps = []
        if architecture.stem_width > WIDTHS[0]:
            steps.append(replace(architecture, stem_width=_narrower(architecture.stem_width)))
        if architecture.head_width > WIDTHS[0]:
            steps.append(replace(architecture, head_width=_narrower(architecture.head_width)))
        for branch, place in _places(rows):
            row = rows[branch][place]
            if row.width > WIDTHS[0]:
                steps.append(self._put(architecture, branch, place, [row._replace(width=_narrower(row.width))]))
            if row.op in _LIGHTER:
                steps.append(self._put(architecture, branch, place, [row._replace(op=_LIGHTER[row.op])]))
            if _removable(rows[branch], place):
                steps.append(self._put(architecture, branch, place, []))
        steps += [
            replace(architecture, branches=architecture.branches[:gone] + architecture.branches[gone + 1 :])
            for gone in range(1, len(rows))
        ]
        return steps

    def _op(self, architecture: Architecture, rng: Random) -> Architecture:
        rows = _rows_of(architecture)
        branch, place = rng.choice(list(_places(rows)))
        row = rows[branch][place]
        return self._put(architecture, branch, place, [row._replace(op=_other(OPS, row.op, rng))])

    def _width(self, architecture: Architecture, rng: Random) -> Architecture:
        rows = _rows_of(architecture)
        branch, place = rng.choice([(b, p) for b, p in _places(rows) if rows[b][p].width])
        row = rows[branch][place]
        return self._put(architecture, branch, place, [row._replace(width=_other(WIDTHS, row.width, rng))])

    def _down(self, architecture: Architecture, rng: Random) -> Architecture | None:
        rows = _rows_of(architecture)
        branch = rng.randrange(len(rows))
        inner = range(len(rows[branch]) - 1)
        downs = [place for place in inner if rows[branch][place].down]
        free = [place for place in inner if not rows[branch][place].down]
        if not downs or not free:
            return None
        gone, new = rng.choice(downs), rng.choice(free)
        moved = tuple(
            row._replace(down=place == new or (row.down and place != gone)) for place, row in enumerate(rows[branch])
        )
        return self._made(
            architecture.stem_width, architecture.head_width, [*rows[:branch], moved, *rows[branch + 1 :]]
        )

    def _layer(self, architecture: Architecture, rng: Random) -> Architecture | None:
        rows = _rows_of(architecture)
        branch, place = rng.choice(list(_places(rows)))
        row = rows[branch][place]
        if rng.random() < 0.5:
            return self._put(architecture, branch, place, []) if _removable(rows[branch], place) else None
        if max(len(rows[each]) for each in _together(rows, branch, place)) == self.layers:
            return None
        return self._put(architecture, branch, place, [_Row(rng.choice(OPS), False, rng.choice(WIDTHS)), row])

    def _branches(self, architecture: Architecture, rng: Random) -> Architecture | None:
        first, *others = _rows_of(architecture)
        there = {_downs(rows): rows for rows in others}
        last = rng.choice(range(_DEEPEST))
        if last in there and rng.random() < 0.5:
            del there[last]
        elif last in there or len(there) < self.branches - 1:
            there[last] = self._fork(first, last, rng)
        elif there:
            del there[rng.choice(sorted(there))]
            there[last] = self._fork(first, last, rng)
        else:
            return None
        kept = [there[last] for last in sorted(there, reverse=True)]
        return self._made(architecture.stem_width, architecture.head_width, [first, *kept])

    def _ends(self, architecture: Architecture, rng: Random) -> Architecture:
        if rng.random() < 0.5:
            return replace(architecture, stem_width=_other(WIDTHS, architecture.stem_width, rng))
        return replace(architecture, head_width=_other(WIDTHS, architecture.head_width, rng))

    def _fork(self, first: _Rows, last: int, rng: Random) -> _Rows:
        """A random branch that ends at scale ``last`` and begins with the first layers of ``first``, or none."""
        lengths = [
            length
            for length in range(len(first))
            if _downs(first[:length]) <= last and length + last - _downs(first[:length]) < self.layers
        ]
        length = rng.choice(lengths)
        missing = last - _downs(first[:length])
        more = rng.randint(missing + 1, self.layers - length)
        return first[:length] + _tail(more, missing, rng)

    def _put(self, architecture: Architecture, branch: int, place: int, rows: Sequence[_Row]) -> Architecture:
        """``architecture`` with a layer replaced by ``rows``, in every branch that shares it."""
        made = _rows_of(architecture)
        for each in _together(made, branch, place):
            made[each] = made[each][:place] + tuple(rows) + made[each][place + 1 :]
        return self._made(architecture.stem_width, architecture.head_width, made)

    def _made(self, stem: int, head: int, branches: Sequence[_Rows]) -> Architecture:
        return Architecture(self.filters, stem, head, tuple(map(_branch, branches)))


def _rows_of(architecture: Architecture) -> list[_Rows]:
    found = []
    for branch in architecture.branches:
        after, widths = (*branch.path[1:], branch.last), (*branch.widths, 0)
        steps = zip(branch.ops, branch.path, after, widths, strict=True)
        found.append(tuple(_Row(op, then > here, width) for op, here, then, width in steps))
    return found


def _branch(rows: _Rows) -> Branch:
    path = tuple(_downs(rows[:place]) for place in range(len(rows)))
    return Branch(_downs(rows), tuple(row.op for row in rows), path, tuple(row.width for row in rows[:-1]))


def _downs(rows: Sequence[_Row]) -> int:
    return sum(row.down for row in rows)


def _places(rows: Sequence[_Rows]) -> Iterator[tuple[int, int]]:
    """(branch, place) of every layer; a shared layer is listed once."""
    for branch, of in enumerate(rows):
        for place in range(len(of)):
            if min(_together(rows, branch, place)) == branch:
                yield branch, place


def _together(rows: Sequence[_Rows], branch: int, place: int) -> list[int]:
    """The branches that share a layer of ``branch``, including ``branch``; a last layer is never shared."""
    if place == len(rows[branch]) - 1:
        return [branch]
    until = rows[branch][: place + 1]
    return [each for each, of in enumerate(rows) if of[: place + 1] == until and place < len(of) - 1]


def _removable(rows: _Rows, place: int) -> bool:
    return place < len(rows) - 1 and not rows[place].down


def _tail(count: int, downs: int, rng: Random) -> _Rows:
    """``count`` random layers, the last ones of a branch; ``downs`` of them downsample."""
    steps = rng.sample(range(count - 1), downs)
    rows = [_Row(rng.choice(OPS), place in steps, rng.choice(WIDTHS)) for place in range(count)]
    return (*rows[:-1], rows[-1]._replace(width=0))


def _narrower(width: int) -> int:
    return WIDTHS[WIDTHS.index(width) - 1]


def _other(values: Sequence[_T], value: _T, rng: Random) -> _T:
    return rng.choice([other for other in values if other != value])
