import sys
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from hardy.data.label_spaces import find_label_space
from hardy.deployment.epilogue import Treated
from hardy.engine.artefact import load, save
from hardy.errors import InputError
from hardy.networks.building.create import rebuild
from hardy.networks.building.wrapped import wrap
from hardy.pruning.remove import remove
from hardy.pruning.units import find_units


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
    label_space = find_label_space("camvid11")
    network = wrap(Half(), label_space, mean=(0.5, 0.5, 0.5), factory="their_networks:half")
    again = rebuild(network.architecture, label_space)
    again.load_state_dict(network.state_dict(), strict=True)
    images = torch.rand(1, 3, 16, 16)
    assert torch.equal(again(images), network(images))
    assert again.architecture == network.architecture

    orphan = wrap(Half(), label_space).architecture
    with pytest.raises(InputError, match="needs its module, or a factory"):
        rebuild(orphan, label_space)
    assert isinstance(rebuild(orphan, label_space, module=Half()), type(network))
    for factory in ("their_networks:full", "nowhere_at_all:half", "their_networks", ":half"):
        with pytest.raises(InputError, match="cannot be found"):
            rebuild({"name": "wrapped", "options": {"factory": factory}}, label_space)
    with pytest.raises(InputError, match="returned a int"):
        rebuild({"name": "wrapped", "options": {"factory": "their_networks:number"}}, label_space)


class Staged(nn.Module):
    """Two stages, a fused map that a later layer overwrites in place, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.body = nn.Sequential(nn.Conv2d(8, 12, 3, 2, 1), nn.BatchNorm2d(12), nn.ReLU(inplace=True))
        self.head = nn.Conv2d(12, 11, 1)
        self.unused = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(self.stem(x)))


DECLARED: dict[str, Any] = {"features": {"first": "stem", "raw": "body.1"}, "embedding": "body"}


def test_features_and_embedding_are_declared_by_the_names_of_modules() -> None:
    torch.manual_seed(0)
    network = wrap(Staged().eval(), "camvid11", **DECLARED)
    images = torch.rand(2, 3, 32, 48)
    outputs = network.outputs(images)
    first = network.module.stem(network.normalise(images))
    raw = network.module.body[:2](first)
    assert list(outputs.features) == ["first", "raw"]
    assert torch.equal(outputs.features["first"], first)
    assert torch.equal(outputs.features["raw"], raw), "before the ReLU behind it overwrites it"
    assert raw.min() < 0
    assert torch.equal(outputs.embedding, raw.relu())
    assert torch.equal(outputs.coarse, network.module.head(outputs.embedding))
    assert torch.equal(outputs.logits, wrap(network.module, "camvid11")(images))
    assert torch.equal(network(images), outputs.logits)
    assert [tuple(stage) for stage in network.feature_stages()] == [("first", 2, 8), ("raw", 4, 12)]
    assert not any(module._forward_hooks for module in network.modules()), "nothing stays behind"
    (back,) = torch.autograd.grad(outputs.features["raw"].square().sum(), [network.module.stem[0].weight])
    assert back.abs().sum() > 0


def test_declared_features_follow_copies_artefacts_and_pruning(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = wrap(Staged().eval(), "camvid11", **DECLARED)
    small = deepcopy(network)
    remove(small, find_units(small), {"module.stem.0": [0, 1, 2], "module.body.0": [5]})
    assert [tuple(stage) for stage in small.feature_stages()] == [("first", 2, 5), ("raw", 4, 11)]
    again = load(save(small, tmp_path / "small"), module=Staged())
    assert again.architecture["options"]["features"] == DECLARED["features"]
    assert again.feature_stages() == small.feature_stages()
    images = torch.rand(1, 3, 32, 48)
    found, expected = again.outputs(images), small.eval().outputs(images)
    assert list(found.features) == ["first", "raw"]
    assert torch.equal(found.embedding, expected.embedding)
    assert found.embedding.shape == (1, 11, 8, 12)


@torch.no_grad()
def test_an_exported_graph_has_the_coarse_logits_of_declared_modules() -> None:
    torch.manual_seed(0)
    network = wrap(Staged().eval(), "camvid11", **DECLARED)
    images = torch.rand(1, 3, 32, 48)
    graph = torch.export.export(Treated(network, "none"), (images,)).module()
    torch.testing.assert_close(graph(images), network.outputs(images).coarse)


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"features": {"first": "stam"}}, r"features\['first'\] is 'stam', .* no such module; did you mean 'stem'"),
        ({"embedding": "body.9"}, "embedding is 'body.9', but Staged has no such module"),
        ({"embedding": ""}, "embedding is '', but"),
    ],
)
def test_names_that_are_not_there_are_refused(declared: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        wrap(Staged(), "camvid11", **declared)


def test_modules_that_give_no_map_are_refused_when_they_run() -> None:
    images = torch.rand(1, 3, 32, 48)
    with pytest.raises(InputError, match="embedding is 'unused', which does not run"):
        wrap(Staged(), "camvid11", embedding="unused").outputs(images)
    flat = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 7))
    with pytest.raises(InputError, match=r"features\['x'\] has the shape \(1, 3\); it must be a map"):
        wrap(flat, "pacs7", image_level=True, features={"x": "1"}).outputs(images)
    for name in ("0", "1"):
        pooled = wrap(flat, "pacs7", image_level=True, embedding=name).outputs(images)
        torch.testing.assert_close(flat[2](pooled.embedding), pooled.logits)


def test_what_depends_on_values_is_not_traced() -> None:
    class Choosy(nn.Conv2d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) if x.mean() > 0 else super().forward(-x)

    network = wrap(nn.Sequential(Choosy(3, 11, 1)), "camvid11", features={"x": "0"})
    with pytest.raises(InputError, match="Wrapped cannot be traced without values"):
        network.feature_stages()


def test_an_artefact_with_wrong_declarations_is_refused() -> None:
    for options, message in (
        ({"features": ["stem"]}, "wrapped.features is"),
        ({"features": {"first": 3}}, "wrapped.features is"),
        ({"embedding": 3}, "wrapped.embedding is 3"),
        ({"last": "head"}, "wrapped.last is 'head'"),
        ({"feature": {}}, "no option 'feature'; it has: factory, mean, std, image_level, last, features, embedding"),
    ):
        with pytest.raises(InputError, match=message):
            rebuild({"name": "wrapped", "options": options}, find_label_space("camvid11"), module=Staged())
