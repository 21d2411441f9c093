"""The layers before activations, in networks of each kind."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hardy.distillation._matching import Matching
from hardy.distillation._preactivations import Preactivations
from hardy.errors import InputError
from hardy.networks.base import Network
from hardy.networks.building.create import create
from hardy.networks.building.wrapped import wrap


def found(network: Network) -> dict[str, tuple[str | None, str | None]]:
    seen = Preactivations(network)
    layers = {stage.name: seen.layer(stage.name) for stage in network.feature_stages()}
    return {name: (layer, layer and seen.norm(layer)) for name, layer in layers.items()}


def places(encoder: str) -> dict[str, tuple[str | None, str | None]]:
    kept = found(create("encoder_decoder", "camvid11", encoder=encoder))
    prefix = "backbone.model."
    return {name: tuple(each.removeprefix(prefix) for each in both if each) for name, both in kept.items()}


@pytest.mark.costly
@pytest.mark.slow
def test_a_residual_stage_ends_before_its_last_relu() -> None:
    assert places("resnet26") == {  # blocks of three convolutions, two in each stage
        f"stage{stage}": (f"layer{stage}.1.act3.input", f"layer{stage}.1.bn3") for stage in range(1, 5)
    }


@pytest.mark.costly
@pytest.mark.slow
def test_inverted_residuals_are_read_in_the_next_stage() -> None:
    """The batch norm behind the convolution that widens; the last stage has no next."""
    assert places("mobilenetv2_035") == {
        "stage1": ("blocks.2.0.bn1.drop", "blocks.2.0.bn1"),
        "stage2": ("blocks.3.0.bn1.drop", "blocks.3.0.bn1"),
        "stage3": ("blocks.5.0.bn1.drop", "blocks.5.0.bn1"),
        "stage4": ("blocks.6.0.bn2.drop", "blocks.6.0.bn2"),
    }


@pytest.mark.costly
def test_activations_that_are_no_modules_are_seen() -> None:
    stages = found(create("linknet", "camvid11"))
    assert stages["stage2"] == ("backbone.layer2.1", "backbone.layer2.1.bn2")  # the sum is the block's output
    assert found(create("fanet", "camvid11"))["stage2"] == ("backbone.layer2.1.bn2",) * 2  # the sum is nobody's


class Sums(nn.Module):
    """Features from every kind of ending."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8)
        self.second, self.shortcut = nn.BatchNorm2d(8), nn.BatchNorm2d(8)
        self.act = nn.ReLU(inplace=True)
        self.plain, self.twice = nn.Conv2d(8, 8, 1), nn.ReLU()
        self.out, self.middle = nn.Identity(), nn.Identity()
        self.head = nn.Conv2d(8, 11, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self.norm(self.first(x)))
        y = self.second(x)
        y += self.shortcut(x)
        y = self.out(self.act(y))
        y = self.middle(self.twice(2 * self.plain(y)))
        return self.head(self.twice(y - 1))


def sums(**features: str) -> Network:
    return wrap(Sums(), "camvid11", mean=(0.5,) * 3, std=(0.5,) * 3, features=features)


def test_a_sum_in_place_is_the_input_of_its_activation_and_has_the_first_norm() -> None:
    network = sums(stage1="out")
    assert found(network) == {"stage1": ("module.act.input", "module.second")}
    seen = Preactivations(network)
    assert seen.layer("stage1", normed=True) == "module.act.input"
    assert seen.norm("module.norm") == "module.norm"
    assert seen.norm("module.plain") is None
    assert seen.norm("module.twice.input") is None


def test_a_feature_may_be_what_an_activation_reads() -> None:
    assert found(sums(stage1="norm")) == {"stage1": ("module.norm", "module.norm")}


def test_a_shortcut_may_come_first() -> None:
    """Inverted residuals are ``x + y``; x comes from the block before."""
    seen = Preactivations(create("tiny", "camvid11"))
    assert seen.norm("context.1") == "context.1.project.1"
    assert seen.norm("context.1.project.1.input") is None


def test_a_layer_that_runs_again_is_not_read() -> None:
    """The first call of ``twice`` makes ``middle``, but the input that it has in the end is the second call's."""
    assert found(sums(stage1="twice")) == {"stage1": ("module.twice.input", None)}
    assert found(sums(stage1="middle")) == {"stage1": ("module.act.input", "module.second")}
    assert Preactivations(sums(stage1="twice")).layer("stage1", normed=True) == "module.act.input"


def test_the_values_are_those_before_the_activation() -> None:
    network = sums(stage1="out").eval()
    nn.init.normal_(network.get_parameter("module.second.bias"), -1)
    matching = Matching(network, sums(stage1="out").eval())
    (pair,) = matching.pairs([["module.act.input", "module.norm"]], "X.taps")
    assert pair.student == ("module.act.input", 2, 8)
    with matching.recording() as (student, _):
        out = network.outputs(torch.rand(1, 3, 32, 32)).features["stage1"]
    value = student[pair.student.name]
    assert (value < 0).any()
    torch.testing.assert_close(value.relu(), out)


def test_the_input_of_a_layer_that_is_not_there_has_a_hint() -> None:
    matching = Matching(sums(stage1="out"), sums(stage1="out"))
    with pytest.raises(InputError, match=r"X.taps: the student, Wrapped, has no 'module.atc.input'; did you mean"):
        matching.pairs([["module.atc.input", "module.act"]], "X.taps")
