"""Strides that few sizes show, sizes that few networks take, and what decoders read."""

import pytest
import torch
from torch import nn

from hardy.errors import InputError
from hardy.networks.building.create import create
from hardy.networks.building.wrapped import wrap
from hardy.registry import DECODERS


@pytest.mark.costly
@pytest.mark.parametrize(
    ("name", "options", "stage"),
    [
        ("contextnet", {"factor": 3}, ("context", 24, 128)),
        ("contextnet", {"factor": 7}, ("context", 56, 128)),
        ("fast_scnn", {"padding": 0}, ("detail", 8, 64)),
        ("encoder_decoder", {"encoder": "vit_tiny_patch16_224", "decoder": "linear"}, ("stage1", 16, 192)),
    ],
)
def test_strides_that_are_no_power_of_two_or_not_exact(
    name: str, options: dict[str, object], stage: tuple[str, int, int]
) -> None:
    assert tuple(create(name, "camvid11", **options).feature_stages()[0]) == stage


class OneSize(nn.Module):
    """A layer whose weights are for images of one size."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 4, 16, 16)
        self.places = nn.Parameter(torch.zeros(1, 4, side // 16, side // 16))
        self.head = nn.Conv2d(4, 11, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.patches(x) + self.places)


def test_a_module_for_one_size_is_traced_at_that_size() -> None:
    declared = {"features": {"patches": "patches"}}
    assert tuple(wrap(OneSize(224), "camvid11", **declared).feature_stages()[0]) == ("patches", 16, 4)
    odd = wrap(OneSize(160), "camvid11", **declared)
    with pytest.raises(InputError, match=r"cannot be traced .* give feature_stages a size \(H, W\) that it takes"):
        odd.feature_stages()
    assert tuple(odd.feature_stages((160, 160))[0]) == ("patches", 16, 4)
    with pytest.raises(InputError, match="at least 16x16 pixels, not 8x8"):
        create("tiny", "camvid11").feature_stages((8, 8))


@pytest.mark.costly
@pytest.mark.parametrize("name", [name for name in DECODERS.names() if name not in ("eomt", "mask2former")])
def test_a_decoders_head_reads_its_embedding_and_no_map_else(name: str) -> None:
    """The gradient of the logits by the maps all goes through the embedding, but for a sum of several classifiers.

    And but for ``mask2former``, whose queries look at the maps, and ``eomt``, whose queries join the encoder.
    """
    torch.manual_seed(0)
    maps = [torch.rand(1, 8 * 2**i, 32 // 2**i, 48 // 2**i, requires_grad=True) for i in range(4)]
    known = {"channels": (8, 16, 32, 64), "strides": (4, 8, 16, 32), "class_count": 3}
    decoder = DECODERS.build(name, known).eval()
    embedding, logits, _ = decoder.decode(maps)
    assert torch.equal(decoder(maps), logits)
    assert embedding.shape[1] != 3
    (back,) = torch.autograd.grad(logits.square().sum(), [embedding], retain_graph=True)
    assert back.abs().sum() > 0
    used = [
        x for x in maps if torch.autograd.grad(logits.sum(), x, retain_graph=True, allow_unused=True)[0] is not None
    ]
    direct = torch.autograd.grad(logits.square().sum(), used, retain_graph=True)
    through = torch.autograd.grad(embedding, used, back, allow_unused=True)
    for one, other in zip(direct, through, strict=True):
        torch.testing.assert_close(one, other)


def test_several_linear_classifiers_read_all_maps_side_by_side() -> None:
    known = {"channels": (8, 16), "strides": (4, 8), "class_count": 3}
    maps = [torch.rand(2, 8, 8, 12), torch.rand(2, 16, 4, 6)]
    embedding, logits, _ = DECODERS.build("linear", known, maps="all").decode(maps)
    assert embedding.shape == (2, 24, 4, 6)
    assert torch.equal(embedding[:, 8:], maps[1])
    assert logits.shape == (2, 3, 8, 12)
