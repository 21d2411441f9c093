"""The parts of an architecture are what its network runs."""

from collections import Counter
from random import Random

import pytest
import torch
from torch.nn import functional as F

from hardy.networks.architectures.multipath import PUBLISHED, content, parse, read
from hardy.networks.building.create import create
from hardy.pruning.shapes import Layers, Shape
from hardy.searching.cost import every_part, parts
from hardy.searching.space import Space

SIZES = [(64, 128), (75, 90)]
ARCHITECTURES = {name: parse(read(file), name) for name, file in PUBLISHED.items()}
ARCHITECTURES |= {f"drawn {seed}": Space(3, 7, 3).draw(Random(seed)) for seed in range(2)}


@pytest.mark.costly
@pytest.mark.slow
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_parts_are_what_runs(name, monkeypatch):
    architecture, size = ARCHITECTURES[name], SIZES[name != "teacher"]
    with torch.device("meta"):
        network = create("fasterseg", "camvid11", arch=content(architecture)).eval()
    resized = []
    true = F.interpolate

    def noted(x, size, **how):
        (height, width), channels = (tuple(map(int, x.shape[-2:])), x.shape[1])
        resized.append(Shape("resize", channels, channels, height, width, extra=(size[0] - height, size[1] - width)))
        return true(x, size=size, **how)

    monkeypatch.setattr(F, "interpolate", noted)
    ran = [layer.shape for layer in Layers(network, (), size).layers]
    assert resized  # the patch is seen where the network resizes
    ends = [Shape("normalise", 3, 3, *network.fitted(size)), Shape("argmax", 11, 11, *size)]
    assert Counter(parts(architecture, size, 11)) == Counter([*ran, *resized, *ends])


@pytest.mark.parametrize("space", [Space(3, 5, 3), Space(12, 8, 2)], ids=str)
def test_every_part_is_there_and_no_part_is_there_twice(space):
    whole = every_part(space, (75, 90), 11)
    assert len(whole) == len(set(whole))
    rng, seen = Random(0), set()
    for _ in range(700):
        seen.update(parts(space.draw(rng), (75, 90), 11))
    for architecture in (space.largest(), *space.lightest()):
        seen.update(parts(architecture, (75, 90), 11))
    assert seen <= set(whole)
    assert len(seen) > 0.98 * len(whole)  # what is measured is also met
