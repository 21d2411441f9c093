"""What holds for every network with a transformer: any size, refusals in one line. Their files: with their pruning."""

from typing import Any

import pytest
import torch

from hardy.errors import InputError
from hardy.networks.building.create import create


@pytest.mark.parametrize(("name", "coarsest"), [("topformer", "tokens"), ("seaformer", "stage5")])
def test_every_size_from_the_least_up(name: str, coarsest: str) -> None:
    network = create(name, "camvid11")
    assert network(torch.rand(1, 3, 32, 32)).shape == (1, 11, 32, 32)
    network.eval()
    assert network(torch.rand(1, 3, 321, 517)).shape == (1, 11, 321, 517)
    assert network.outputs(torch.rand(1, 3, 32, 65)).features[coarsest].shape[-2:] == (2, 2)
    with pytest.raises(InputError, match=r"at least 32x32 pixels, not 31x40$"):
        network(torch.rand(1, 3, 31, 40))


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("topformer", {"variant": "l"}, "TopFormer.variant"),
        ("topformer", {"drop_path": 1.5}, "TopFormer.drop_path: 1.5"),
        ("topformer", {"dropout": -1}, "TopFormer.dropout: -1"),
        ("seaformer", {"variant": "m"}, "SeaFormer.variant"),
        ("seaformer", {"drop_path": 1.5}, "SeaFormer.drop_path: 1.5"),
        ("seaformer", {"dropout": -1}, "SeaFormer.dropout: -1"),
        ("segformer", {"weights": "timm"}, "timm has none of mit_b0; give a weights file"),
        ("segformer", {"encoder_weights": "none.pth"}, "no such weights file"),
        ("segformer", {"variant": "b6"}, "SegFormer.variant"),
        ("segformer", {"drop_path": 1.5}, "SegFormer.drop_path: 1.5 is out of range"),
        ("segformer", {"width": 0}, "width: 0 is out of range"),
        ("encoder_decoder", {"encoder": "mit_b0", "output_stride": 16}, "takes no output_stride"),
        ("encoder_decoder", {"encoder": "mit_b1", "encoder_weights": "timm"}, "timm has none of mit_b1"),
    ],
)
def test_refuses_what_cannot_be_built(name: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        create(name, "camvid11", **options)
    assert "\n" not in str(caught.value)
