"""The order of the frames in a stream. It is computed from numbers only; no image is read.

A stream has rounds, and each round shows the same frames of every domain. Frames of one domain keep their order, unless
the order of images is random; ``recorded`` sorts the frames of all domains by name, so that a sequence that passes
through several domains stays together. Each random draw depends on the seed and its place, not on earlier draws.

Source: domain after domain in rounds, and gradual changes: Wang, Fink, Van Gool and Dai, "Continual test-time domain
adaptation", CVPR 2022; correlated samples: Yuan, Xie and Li, "Robust test-time adaptation in dynamic scenarios", CVPR
2023. The mixed zone between two domains and the blocks of a random length are Hardy's own.
"""

import re
from collections.abc import Callable, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

from hardy.sections import Stream
from hardy.seed import key

__all__ = ["Frame", "order"]


class Frame(NamedTuple):
    """One frame of a stream.

    Attributes:
        round: the number of the round, from 0.
        domain: the index of the domain in the list of domains.
        item: the index of the image in its domain.
    """

    round: int
    domain: int
    item: int


def order(
    sizes: Sequence[tuple[str, int]], choice: Stream, recorded: Callable[[Frame], str] | None = None
) -> list[Frame]:
    """The frames of a stream.

    Args:
        sizes: the name and the number of images of each domain.
        choice: its kind, rounds, images, orders, block and seed are used.
        recorded: gives the name of a frame, such as the path of its file. The kind ``recorded`` sorts by these names
            and compares the numbers in them as numbers.

    Returns:
        The frames in their order; empty if no domain has an image.
    """
    places = list(range(len(sizes)))
    if choice.domain_order == "drawn":
        places = _draw(choice, "domains").permutation(len(sizes)).tolist()
    rounds = [[_part(sizes[place], place, number, choice) for place in places] for number in range(choice.rounds)]
    if choice.kind == "gradual":
        return _faded([part for parts in rounds for part in parts if part], choice)
    if choice.kind == "recorded":
        assert recorded is not None, "the caller knows the names"
        together = [list(chain(*parts)) for parts in rounds]
        return [frame for frames in together for frame in sorted(frames, key=lambda one: _by_number(recorded(one)))]
    arrange = _ARRANGED[choice.kind]
    return [frame for number, parts in enumerate(rounds) for frame in arrange(parts, choice, number)]


def _draw(choice: Stream, *place: int | str) -> np.random.Generator:
    return np.random.default_rng(key(choice.seed, "stream", *place))


def _part(domain: tuple[str, int], place: int, number: int, choice: Stream) -> list[Frame]:
    """The frames of one domain in round ``number``."""
    name, size = domain
    count = min(size, choice.images or size)
    items = [(i * size) // count for i in range(count)]
    if choice.image_order == "drawn":
        items = _draw(choice, "images", name, number).permutation(items).tolist()
    return [Frame(number, place, item) for item in items]


def _by_number(name: str) -> list[tuple[int, int, str]]:
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", name)]


def _abrupt(parts: Sequence[list[Frame]], choice: Stream, number: int) -> list[Frame]:
    return [frame for part in parts for frame in part]


def _mixed(parts: Sequence[list[Frame]], choice: Stream, number: int) -> list[Frame]:
    """A random order of the domains: each domain comes as often as it has frames."""
    turns = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    waiting = [iter(part) for part in parts]
    return [next(waiting[turn]) for turn in _draw(choice, "mixed", number).permutation(turns)]


def _recurring(parts: Sequence[list[Frame]], choice: Stream, number: int) -> list[Frame]:
    """A block of each domain in turn, until no frame is left."""
    starts = range(0, max(map(len, parts), default=0), choice.block)
    return [frame for start in starts for part in parts for frame in part[start : start + choice.block]]


def _correlated(parts: Sequence[list[Frame]], choice: Stream, number: int) -> list[Frame]:
    """Blocks of geometric length; the next domain is drawn in proportion to the frames left."""
    draw, left, made = _draw(choice, "correlated", number), [list(part) for part in parts], list[Frame]()
    now = -1
    while any(left):
        counts = np.array([len(part) for part in left], dtype=np.float64)
        if now >= 0 and counts.sum() > counts[now]:
            counts[now] = 0
        now = int(draw.choice(len(left), p=counts / counts.sum()))
        length = int(draw.geometric(1 / choice.block))
        made += left[now][:length]
        del left[now][:length]
    return made


def _faded(parts: Sequence[list[Frame]], choice: Stream) -> list[Frame]:
    """Domain after domain; around each change the share of the next domain rises linearly from 0 to 1.

    This zone has up to ``block`` frames of each domain, and at most half of its frames.
    """
    made: list[Frame] = []
    waiting = list(parts[0]) if parts else []
    for number, after in enumerate(parts[1:]):
        width = min(choice.block, len(waiting) // 2, len(after) // 2)
        if waiting[-1].domain == after[0].domain:
            width = 0  # the last of a round and the first of the next
        slots = (np.arange(2 * width) + 0.5) / max(2 * width, 1)
        chance = slots - _draw(choice, "gradual", number).random(2 * width)
        later = set(np.argsort(-chance, kind="stable")[:width].tolist())
        made += waiting[: len(waiting) - width]
        old, new = iter(waiting[len(waiting) - width :]), iter(after[:width])
        made += [next(new if slot in later else old) for slot in range(2 * width)]
        waiting = after[width:]
    return made + waiting


_ARRANGED: dict[str, Callable[[Sequence[list[Frame]], Stream, int], list[Frame]]] = {
    "abrupt": _abrupt,
    "mixed": _mixed,
    "recurring": _recurring,
    "correlated": _correlated,
}
