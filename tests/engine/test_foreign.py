"""Modules of the user's own: pruned without label space, recipe or wrapper."""

import copy
import json
import logging

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F

import hardy
from hardy.errors import InputError
from hardy.pruning.remove import replay
from hardy.types import Batch

IMAGES = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


class Own(nn.Module):
    """A network with one stage that can be pruned and one whose code fixes its width."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 24, 3, 2, 1), nn.BatchNorm2d(24), nn.PReLU(24))
        self.body = nn.Conv2d(24, 32, 3, 2, 1)
        self.head = nn.Conv2d(32, 5, 1)

    def forward(self, x):
        y = self.body(self.stem(x))
        y = y.reshape(len(y), 32, -1).relu().reshape(len(y), 32, 8, 8)
        return {"out": F.interpolate(self.head(y), x.shape[-2:]), "aux": y.mean((1, 2, 3))}


def pruned(module: nn.Module, **options) -> nn.Module:
    torch.manual_seed(0)
    return hardy.prune(module, **{"example": IMAGES, "criterion": "l2", "ratio": 0.5, "show": False, **options})


def test_what_cannot_go_is_named_and_the_rest_is_smaller(caplog, capsys):
    module = Own()
    before = copy.deepcopy(module.state_dict())
    with caplog.at_level(logging.INFO, "hardy"):
        small = pruned(module, ratio=0.34, show=True)
    assert isinstance(small, Own)
    assert not small.training
    assert (small.stem[0].out_channels, small.stem[2].num_parameters, small.body.out_channels) == (16, 16, 32)
    assert small(IMAGES)["out"].shape == (4, 5, 32, 32)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert "not pruned: body: a mean over channels" in caplog.text
    assert not any("output" in r.getMessage() for r in caplog.records if r.levelno > logging.INFO), "as it should be"
    shown = capsys.readouterr().out
    assert "7,853" in shown
    assert "not pruned: body, head" in shown


def test_the_plan_cuts_a_fresh_module():
    build = lambda: timm.create_model("vit_tiny_patch16_224", img_size=32, depth=1, num_classes=5)  # noqa: E731
    small = pruned(build().eval())
    assert {"heads", "out", "in"} <= {side for sides in small.hardy_plan.values() for side in sides}
    again = build().eval()
    replay(again, json.loads(json.dumps(small.hardy_plan)))
    again.load_state_dict(small.state_dict(), strict=True)
    assert torch.equal(again(IMAGES), small(IMAGES))


@pytest.mark.costly
@pytest.mark.parametrize("pairs", [True, False])
def test_gradients_come_from_the_batches_given(pairs):
    module = timm.create_model("test_resnet", num_classes=5)
    labels = torch.tensor([0, 1, 2, 255])
    data = [(IMAGES, labels) if pairs else Batch(IMAGES, labels, torch.tensor([0, 1, 0, 1]))]
    small = pruned(module, criterion="taylor" if pairs else "ior", data=data)
    assert small(IMAGES).shape == (4, 5)
    other = pruned(module, criterion="taylor", data=[(IMAGES.flip(0), torch.tensor([4, 4, 3, 3]))])
    assert small.hardy_plan != other.hardy_plan


def test_the_statistics_of_norms_are_reestimated_from_the_data():
    module = timm.create_model("test_resnet", num_classes=5)
    data = [(IMAGES, torch.tensor([0, 1, 2, 3])), (IMAGES.flip(2), torch.tensor([0, 1, 2, 3]))]
    kept, counted = (pruned(module, data=iter(data), prune={"reestimate": n}) for n in (0, 2))
    assert kept.conv1[1].running_mean.eq(0).all()
    seen = torch.cat([counted.conv1[0](images) for images, _ in data])
    torch.testing.assert_close(counted.conv1[1].running_mean, seen.mean((0, 2, 3)), atol=1e-6, rtol=1e-4)


@pytest.mark.costly
def test_without_a_criterion_it_is_l2_or_with_data_taylor():
    module = timm.create_model("test_resnet", num_classes=5)
    data = [(IMAGES, torch.tensor([0, 1, 2, 3]))]
    for given, name in (((), "l2"), (data, "taylor")):
        plans = [pruned(module, criterion=c, data=given).hardy_plan for c in (None, name)]
        assert plans[0] == plans[1]
    assert hardy.prune(module, IMAGES, "l2", show=False).hardy_plan == pruned(module).hardy_plan


def test_inputs_need_not_be_images():
    torch.manual_seed(0)
    layers = nn.Conv1d(7, 16, 3, padding=1), nn.BatchNorm1d(16), nn.ReLU(), nn.Conv1d(16, 5, 1)
    module, series = nn.Sequential(*layers), torch.rand(4, 7, 30)
    data = [(series, torch.randint(0, 5, (4, 30)))]
    small = pruned(module, example=series[:1], criterion="taylor", data=data, prune={"reestimate": 1})
    assert (small[0].out_channels, small[3].in_channels, small(series).shape) == (8, 8, (4, 5, 30))
    torch.testing.assert_close(small[1].running_mean, small[0](series).mean((0, 2)), atol=1e-6, rtol=1e-4)
    assert module.training
    assert module[1].running_mean.eq(0).all()


def test_only_the_kinds_asked_for_go():
    module = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=1, num_classes=5)
    small = pruned(module, prune={"kinds": ["hidden"]})
    assert set(small.hardy_plan) == {"blocks.0.mlp.fc1", "blocks.0.mlp.fc2"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"example": None}, "Own is not a Network: give example="),
        ({"criterion": "taylor"}, "criterion 'taylor' needs data: give data="),
        ({"criterion": "taylor", "data": ["camvid/dusk"]}, "a batch is a Batch or a pair of tensors"),
        ({"criterion": "ior", "data": [(IMAGES, torch.zeros(4, 32, 32))]}, "two domains"),
        ({"prune": {"schedule": "iterative"}}, "the iterative schedule needs a Network: use hardy.wrap"),
        ({"ratio": None, "target_ms": 1.0}, "prune.target_ms needs a Network"),
        ({"example": torch.rand(2, 4, 32, 32)}, "Own does not run on an example of shape (2, 4, 32, 32) in stem.0"),
        ({"folder": "runs/x"}, "folder needs a Network"),
        ({"optim": {"batch": 2}}, "optim needs a Network"),
        ({"prune": {"lr": 0.1}}, "prune.lr needs a Network"),
        ({"prune": {"kinds": ["heads"]}}, "nothing of Own can be pruned"),
        ({"ratio": 0.3}, "the ratio is less than one block of round_to channels"),
    ],
)
def test_one_clear_line(options, message):
    with pytest.raises(InputError) as error:
        pruned(Own(), **options)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
