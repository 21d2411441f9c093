"""How well the positions that NPDG samples stand for whole maps: rank correlation of its weights with those of all.

The weights w of every unit of Fast-SCNN (random weights, batch statistics), from drawn streets and two restyled copies
of each, by lambda 0.4 and correlations as in the paper: from one forward pass, and from the moving average over ten,
which is what the penalty is weighted with. Beside them the fixed stride over the flattened map that Hardy took before:
where it is a multiple of the width it reads the first column alone. ``first`` is the mean over the first eight units,
``least`` the worst of these, ``all`` the mean over all.

    python benchmarks/style_sample.py [--quick] [--images N]
"""

import argparse
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from hardy.data.datasets.streets import Streets
from hardy.networks.building.create import create
from hardy.ops.photometric import photometric
from hardy.pruning import activations
from hardy.pruning.activations import Activations, Seen
from hardy.pruning.sensitivity import binary, deviations, normalised, unary
from hardy.pruning.units import find_units
from hardy.seed import seeded

SIZES = ((512, 1024), (512, 512), (768, 768), (360, 480))
FIRST = 8
STYLES = 3
LAMBDA = 0.4

Weights = dict[str, Tensor]


class Looks:
    """The weights of a network's units on given images."""

    def __init__(self, images: Tensor) -> None:
        torch.manual_seed(0)
        self._network = create("fast_scnn", "cityscapes19").train()
        self._units = find_units(self._network)
        with seeded(0, "styles"):
            self._images = torch.cat([images, *(photometric(images) for _ in range(STYLES - 1))])

    def whole(self) -> tuple[Weights, Weights]:
        """From all positions; from every k-th of the flattened map, 64 at most."""
        kept, activations._POSITIONS = activations._POSITIONS, 10**9
        try:
            seen = self._seen()
        finally:
            activations._POSITIONS = kept
        return self._weights(seen, lambda each: each), self._weights(seen, strided)

    def sampled(self, number: int) -> Weights:
        """As the criterion sees them in step ``number``."""
        with seeded(number, "look"):
            return self._weights(self._seen(), lambda each: each)

    @torch.no_grad()
    def _seen(self) -> Activations:
        watch = Activations(self._network, self._units, attached=False)
        with watch:
            self._network.outputs(self._images)
        return watch

    def _weights(self, watch: Activations, view: Callable[[Seen], Seen]) -> Weights:
        found = {}
        for unit in self._units:
            pairs = [of(view(each)) for each in watch.of(unit)]
            if pairs:
                one, both = (normalised([torch.stack(list(parts)).mean(0)])[0] for parts in zip(*pairs, strict=True))
                found[unit.name] = LAMBDA * one + (1 - LAMBDA) * both
        return found


def of(seen: Seen) -> tuple[Tensor, Tensor]:
    """The unary and the binary sensitivity (n,)."""
    apart = deviations(seen.values.unflatten(0, (STYLES, -1)))
    return unary(apart, seen.factor), binary(apart)


def strided(seen: Seen) -> Seen:
    values = seen.values[:, :, :: -(-seen.values.shape[2] // 64)]
    return Seen(values, (values.var((0, 2), correction=0) + 1e-5).rsqrt())


def agreement(found: Weights, whole: Weights) -> tuple[float, float, float]:
    """Spearman's rank correlation: the mean over the first units, the least of them, the mean over all."""
    rows = [torch.stack([each[name].argsort().argsort().double() for each in (found, whole)]) for name in whole]
    each = [float(torch.corrcoef(row)[0, 1]) for row in rows]
    return sum(each[:FIRST]) / FIRST, min(each[:FIRST]), sum(each) / len(each)


def measured(size: tuple[int, int], count: int) -> Iterator[tuple[str, tuple[float, float, float]]]:
    data = Streets(size=size)
    items = data.index()["day"]["train"][:count]
    images = torch.stack([torch.from_numpy(data.read(item)[0]).permute(2, 0, 1) / 255 for item in items])
    looks = Looks(images)
    whole, before = looks.whole()
    yield "fixed stride", agreement(before, whole)
    smoothed = looks.sampled(0)
    yield "one pass", agreement(smoothed, whole)
    for number in range(1, 10):
        fresh = looks.sampled(number)
        smoothed = {name: 0.9 * weight + 0.1 * fresh[name] for name, weight in smoothed.items()}
    yield "ten passes", agreement(smoothed, whole)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one image: under 50 seconds")
    parser.add_argument("--images", type=int, default=None)
    options = parser.parse_args()
    count = options.images or (1 if options.quick else 2)
    torch.set_num_threads(1)
    print(f"Fast-SCNN, {count} images in {STYLES} styles, Spearman's rank correlation with all positions\n")
    print(f"{'image':<12}{'positions':<14}{'first':>8}{'least':>8}{'all':>8}")
    figures = []
    for size in SIZES:
        for name, (first, least, overall) in measured(size, count):
            print(f"{size[0]}x{size[1]:<8}{name:<14}{first:>8.3f}{least:>8.3f}{overall:>8.3f}")
            if name == "ten passes":
                figures.append(f"figure style_sample_{size[0]}x{size[1]} {first:.3f} goal >=0.85")
    print("", *figures, sep="\n")


if __name__ == "__main__":
    main()
