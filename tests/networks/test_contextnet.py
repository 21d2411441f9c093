"""ContextNet: published sizes, what each branch sees, cuts."""

import pytest
import torch
from torch.nn import functional as F

from hardy.errors import InputError
from hardy.networks.building.create import create
from hardy.ops.cost import gmacs, parameters
from surgery import halved


@pytest.mark.parametrize(
    ("blocks", "count", "cost"),
    # the counts of one and no block in the literature leave out 256 biases that the norms behind them make idle
    [(2, 876_563, 6.746), (1, 858_259 + 256, 6.171), (0, 840_211 + 256, 5.596)],
)
def test_size(blocks: int, count: int, cost: float) -> None:
    network = create("contextnet", "cityscapes19", blocks=blocks)
    assert parameters(network) == count
    assert gmacs(network, (1024, 2048)) == pytest.approx(cost, rel=1e-3)
    assert gmacs(network, (1024, 2048), training=True) == pytest.approx(cost, rel=1e-3)


def test_strides_and_widths() -> None:
    outputs = create("contextnet", "cityscapes19").eval().outputs(torch.rand(1, 3, 128, 192))
    shapes = {name: tuple(value.shape[1:]) for name, value in {**outputs.features, "logits": outputs.coarse}.items()}
    assert shapes == {"context": (128, 4, 6), "detail": (128, 16, 24), "fused": (128, 16, 24), "logits": (19, 16, 24)}
    enlarged = F.interpolate(outputs.coarse, (128, 192), mode="bilinear", align_corners=False)
    assert torch.equal(outputs.logits, enlarged)


@pytest.mark.parametrize(("factor", "size"), [(4, (24, 32)), (2, (48, 64)), (1, (96, 128))])
def test_the_deep_branch_sees_a_smaller_image(factor: int, size: tuple[int, int]) -> None:
    network = create("contextnet", "pacs7", factor=factor).eval()
    seen: dict[str, torch.Tensor] = {}
    network.context.register_forward_pre_hook(lambda _, inputs: seen.update(deep=inputs[0]))
    network.detail.register_forward_pre_hook(lambda _, inputs: seen.update(shallow=inputs[0]))
    images = torch.rand(1, 3, 97, 130)
    features = network.outputs(images).features
    normalised = network.normalise(images)
    smaller = F.interpolate(normalised, size, mode="bilinear", align_corners=False)
    assert torch.equal(seen["shallow"], normalised)
    torch.testing.assert_close(seen["deep"], smaller)
    assert features["context"].shape[-2:] == tuple(-(-side // 8) for side in size)
    assert network.fusion.filter[0].dilation == (factor, factor)


def test_one_image_of_an_odd_size_trains() -> None:
    network = create("contextnet", "pacs7")
    network(torch.rand(1, 3, 75, 101)).square().mean().backward()
    assert all(value.grad is not None and bool(value.grad.isfinite().all()) for value in network.parameters())


def test_numbers_out_of_range_are_refused() -> None:
    for options in ({"factor": 0}, {"blocks": -1}, {"dropout": 2.0}):
        with pytest.raises(InputError, match="ContextNet"):
            create("contextnet", "pacs7", **options)


@pytest.mark.exhaustive
def test_half_of_it_can_go() -> None:
    assert halved(create("contextnet", "pacs7")) > 0.9
