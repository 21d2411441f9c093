import sys
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from hardy.data.labels import label_space
from hardy.errors import InputError
from hardy.networks.building.create import rebuild
from hardy.networks.building.wrapped import wrap


@dataclass
class Answer:
    logits: torch.Tensor


class Half(nn.Module):
    """Logits at half size, in whatever dress."""

    def __init__(self, dress: str = "tensor", classes: int = 11) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, classes, 3, 2, 1)
        self.dress = dress

    def forward(self, x: torch.Tensor) -> Any:
        y = self.conv(x)
        dresses = {
            "tensor": y,
            "out": {"out": y, "aux": y * 0},
            "logits": {"logits": y},
            "object": Answer(y),
            "list": [y, y * 0],
            "text": "logits",
        }
        return dresses[self.dress]


@pytest.mark.parametrize("dress", ["tensor", "out", "logits", "object", "list"])
def test_any_module_becomes_a_network(dress: str) -> None:
    module = Half(dress).eval()
    network = wrap(module, "camvid11", mean=(0.1, 0.2, 0.3), std=(0.5, 0.5, 0.5))
    images = torch.rand(2, 3, 33, 47)
    before = images.clone()
    expected = module.conv((images - torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1)) / 0.5)
    expected = nn.functional.interpolate(expected, (33, 47), mode="bilinear", align_corners=False)
    torch.testing.assert_close(network(images), expected)
    assert torch.equal(images, before)
    assert network.module is module
    assert not network.training
    assert network.encoder() == ()


def test_image_level_logits() -> None:
    module = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 7))
    network = wrap(module, "pacs7", image_level=True)
    assert network(torch.rand(4, 3, 20, 20)).shape == (4, 7)
    with pytest.raises(InputError, match=r"needs \(4, 7, h, w\)"):
        wrap(module, "pacs7")(torch.rand(4, 3, 20, 20))


def test_refuses_what_is_no_logits() -> None:
    with pytest.raises(InputError, match="returned str"):
        wrap(Half("text"), "camvid11")(torch.rand(1, 3, 8, 8))
    with pytest.raises(InputError, match=r"shape \(1, 5, 4, 4\); label space 'camvid11'"):
        wrap(Half(classes=5), "camvid11")(torch.rand(1, 3, 8, 8))


def test_is_built_again_by_its_factory_or_from_its_module(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = ModuleType("their_networks")
    vars(theirs).update(half=Half, number=lambda: 3)
    monkeypatch.setitem(sys.modules, "their_networks", theirs)
    labels = label_space("camvid11")
    network = wrap(Half(), labels, mean=(0.5, 0.5, 0.5), factory="their_networks:half")
    again = rebuild(network.architecture, labels)
    again.load_state_dict(network.state_dict(), strict=True)
    images = torch.rand(1, 3, 16, 16)
    assert torch.equal(again(images), network(images))
    assert again.architecture == network.architecture

    orphan = wrap(Half(), labels).architecture
    with pytest.raises(InputError, match="needs its module, or a factory"):
        rebuild(orphan, labels)
    assert isinstance(rebuild(orphan, labels, module=Half()), type(network))
    for factory in ("their_networks:full", "nowhere_at_all:half", "their_networks", ":half"):
        with pytest.raises(InputError, match="cannot be found"):
            rebuild({"name": "wrapped", "options": {"factory": factory}}, labels)
    with pytest.raises(InputError, match="made a int"):
        rebuild({"name": "wrapped", "options": {"factory": "their_networks:number"}}, labels)
