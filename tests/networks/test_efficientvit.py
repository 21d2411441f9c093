"""EfficientViT: published sizes, the head by its formula, filters cut out."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hardy.errors import InputError
from hardy.networks.building.create import create
from hardy.ops.cost import gmacs, parameters
from hardy.registry import DECODERS
from surgery import halved


@pytest.mark.parametrize(
    ("variant", "count", "cost"),
    [("b0", 706_691, 4.391), ("b1", 4_803_443, 25.105), ("b2", 15_323_779, 73.641)],
)
def test_size(variant: str, count: int, cost: float) -> None:
    network = create("efficientvit", "cityscapes19", variant=variant)
    assert parameters(network) == count
    assert gmacs(network, (1024, 2048)) == pytest.approx(cost, rel=2e-4)


def test_features() -> None:
    network = create("efficientvit", "camvid11")
    outputs = network.outputs(torch.rand(1, 3, 128, 192))
    shapes = {name: tuple(value.shape[1:]) for name, value in {**outputs.features, "logits": outputs.coarse}.items()}
    assert shapes == {
        "stage1": (16, 32, 48),
        "stage2": (32, 16, 24),
        "stage3": (64, 8, 12),
        "stage4": (128, 4, 6),
        "logits": (11, 16, 24),
    }
    assert network.eval()(torch.rand(1, 3, 321, 517)).shape == (1, 11, 321, 517)


def test_the_head_is_its_formula() -> None:
    torch.manual_seed(0)
    head = (
        DECODERS.build(
            "efficientvit", {"channels": [3, 5], "strides": [8, 16], "class_count": 2}, width=4, maps=2, expansion=2
        )
        .double()
        .eval()
    )
    fine, coarse = torch.randn(1, 3, 6, 9).double(), torch.randn(1, 5, 3, 5).double()
    norm = (1 + head.expand[1].eps) ** 0.5  # a batch norm that has seen nothing

    def conv(x: Tensor, layer: nn.Sequential, groups: int = 1) -> Tensor:
        return F.conv2d(x, layer[0].weight, padding=layer[0].weight.shape[-1] // 2, groups=groups) / norm

    def swish(x: Tensor) -> Tensor:
        return x * (x + 3).clamp(0, 6) / 6

    x = conv(fine, head.projections[0])
    x = x + F.interpolate(conv(coarse, head.projections[1]), (6, 9), mode="bicubic", align_corners=False)
    block = head.blocks[0]
    x = x + conv(swish(conv(swish(conv(x, block.expand)), block.depthwise, groups=8)), block.project)
    x = swish(conv(x, head.expand))
    expected = F.conv2d(x, head.classifier.weight, head.classifier.bias)
    torch.testing.assert_close(head([fine, coarse]), expected)


@pytest.mark.parametrize("encoder", ["resnet18", "vit_tiny_patch16_224"])
def test_the_head_goes_with_any_encoder(encoder: str) -> None:
    network = create("encoder_decoder", "camvid11", encoder=encoder, decoder="efficientvit").eval()
    with torch.no_grad():
        assert network(torch.rand(1, 3, 97, 131)).shape == (1, 11, 97, 131)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"maps": 4}, "give 1 to 3, the encoder's maps"),
        ({"maps": 0}, "give 1 to 3"),
        ({"width": 0}, "width: 0"),
        ({"depth": -1}, "depth: -1"),
        ({"dropout": 2}, "dropout: 2"),
    ],
)
def test_the_head_refuses_what_cannot_be_built(options: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        DECODERS.build("efficientvit", {"channels": [3, 5, 7], "strides": [4, 8, 16], "class_count": 2}, **options)


def test_half_of_every_layer_of_the_head_can_go() -> None:
    torch.manual_seed(0)
    network = create("efficientvit", "camvid11")
    network.backbone = _Strided()  # timm's encoder takes long to survey
    assert halved(network) == 1


class _Strided(nn.Module):
    """One convolution for each map that the head uses, of its width and stride."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = nn.ModuleList(nn.Conv2d(a, b, 3, s, 1) for a, b, s in ((3, 32, 8), (32, 64, 2), (64, 128, 2)))

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for step in self.steps:
            x = step(x)
            maps.append(x)
        return maps
