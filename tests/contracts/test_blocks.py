"""What holds for every block with a formula: it is what is counted, and sizes divide as they should."""

import inspect

import pytest
import torch
from torch import nn

from hardy.blocks.base import Costed, costed
from hardy.ops.cost import operations

FORMS = [(block, name) for block in costed() for name in block.shown]


def weights(block: nn.Module) -> int:
    layers = [m for m in block.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)]
    return sum(layer.weight.numel() for layer in layers)


def options_of(block: type[Costed], name: str) -> list[dict]:
    """The form as it is shown, and with a stride where the block has one."""
    shown = dict(block.shown[name])
    return [shown, {**shown, "stride": 2}] if "stride" in inspect.signature(block).parameters else [shown]


@pytest.mark.parametrize(("block", "name"), FORMS, ids=[name for _, name in FORMS])
@pytest.mark.parametrize("size", [(16, 24), (17, 23)])
def test_the_formula_is_what_is_counted(block, name, size):
    for options in options_of(block, name):
        made = 0
        for channels in ((32, 32), (32, 96)):
            try:
                module = block(*channels, **options)
            except AssertionError:  # a block that adds its input or sets it beside the rest takes one of the two
                continue
            made += 1
            cost = block.cost(*channels, size, **options)
            assert cost.weights == weights(module)
            assert operations(module, torch.empty(1, 32, *size)) * 1e9 == pytest.approx(cost.macs, rel=1e-9)
        assert made


@pytest.mark.parametrize(("block", "name"), FORMS, ids=[name for _, name in FORMS])
def test_every_gradient_is_there_and_no_map_is_shifted(block, name):
    for options in options_of(block, name):
        width = 48 if name == "ShuffleNet V1 unit" and "stride" in options else 16
        made = block(16, width, **options, **({"groups": 2} if name == "ShuffleNet V1 unit" else {}))
        x = torch.rand(2, 16, 17, 23, requires_grad=True)
        y = made(x)
        factor = options.get("factor", options.get("stride", 2 if "kind" in options else 1))
        up = name.startswith("up")
        assert y.shape[2:] == tuple(factor * side if up else -(-side // factor) for side in (17, 23))
        assert y.shape[:2] == (2, width)
        y.sum().backward()
        assert x.grad.isfinite().all()
        assert all(p.grad is not None for p in made.parameters())
