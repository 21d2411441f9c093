"""A folded network says what the network says, and one that does not is refused."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from hardy.deployment.folding import fold
from hardy.deployment.proof import ProofError
from hardy.engine import artefact
from hardy.errors import InputError
from hardy.networks.building.create import create
from hardy.networks.building.wrapped import wrap


def settled(name, **options):
    """A network whose batch norms have seen images."""
    torch.manual_seed(0)
    network = create(name, "camvid11", **options)
    with torch.no_grad():
        network(torch.rand(4, 3, 64, 64))
    return network


@pytest.mark.costly
def test_ddrnet_folds_as_the_field_counts(tmp_path):
    """43 of its 55; those before a ReLU and a convolution stay."""
    network = settled("ddrnet")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = fold(network, size=(64, 96))
    assert found.counted == "43 of 55 batch norms folded"
    assert found.difference < 1e-12
    assert (found.images, found.drawn, found.reparameterised) == (2, True, 0)
    assert str(found).startswith("43 of 55 batch norms folded: the same classes on 2 random images in float64")
    assert len(found.left) == 12
    assert all("its output goes into relu" in reason for reason in found.left.values())
    # The network is as it was; the folded one is of its kind, gives the same features, and is saved and loaded.
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    images = torch.rand(2, 3, 80, 70)
    with torch.no_grad():
        expected, outputs = network.eval().outputs(images), found.network.outputs(images)
    assert outputs.features.keys() == expected.features.keys()
    for name, value in expected.features.items():
        torch.testing.assert_close(outputs.features[name], value, atol=1e-4, rtol=1e-4)
    loaded = artefact.load(artefact.save(found.network, tmp_path))
    assert loaded.changes == found.network.changes
    assert loaded.changes[-1]["change"] == "fold"
    assert network.changes == []
    with torch.no_grad():
        assert torch.equal(loaded(images), found.network(images))


@pytest.mark.costly
def test_what_timm_re_parameterises_goes_first(tmp_path):
    network = settled("encoder_decoder", encoder="repvit_m0_9", decoder="segformer")
    found = fold(network, size=(32, 64), images=[torch.rand(3, 32, 64)])
    norms = sum(isinstance(module, _BatchNorm) for module in network.modules())
    assert found.reparameterised > 100
    assert found.reparameterised + len(found.folded) == norms
    assert not found.left
    assert not any(isinstance(module, _BatchNorm) for module in found.network.modules())
    assert all(value.dtype == torch.float32 for value in found.network.parameters())
    assert f"{norms} of {norms} batch norms folded ({found.reparameterised} by timm): the same" in str(found)
    assert "1 given images" in str(found)
    loaded = artefact.load(artefact.save(found.network, tmp_path))
    assert loaded.changes[0]["parts"] == ["backbone"]
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(loaded(images), found.network(images))
    loaded.changes[0]["parts"] = []
    with pytest.raises(InputError, match=r"has no batch norm|do not fit the network"):
        artefact.load(artefact.save(loaded, tmp_path))


class Padding(nn.Module):
    """Pads at even widths only: what is exact at one size is wrong at another."""

    def __init__(self):
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(3), nn.Conv2d(3, 11, 3)
        nn.init.ones_(self.norm.bias)

    def forward(self, x):
        x = self.norm(F.relu(x))
        return self.conv(x if x.shape[-1] % 2 else F.pad(x, (1, 1, 1, 1)))


def test_a_network_that_says_something_else_is_refused():
    torch.manual_seed(0)
    with pytest.raises(ProofError, match=r"gives another class on \d+ pixels; .*it cannot be folded") as caught:
        fold(wrap(Padding(), "camvid11"), size=(32, 32))
    assert "\n" not in str(caught.value)


def test_nothing_to_fold_is_an_error():
    with pytest.raises(InputError, match="Wrapped has no batch norm to fold"):
        fold(wrap(nn.Conv2d(3, 11, 1), "camvid11"), size=(32, 32))
    module = nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 11, 1))
    with pytest.raises(InputError, match="none of the 1 batch norms of Wrapped can be folded; of 1, its input comes"):
        fold(wrap(module, "camvid11"), size=(32, 32))


def test_a_fold_of_another_network_is_refused_in_one_line(tmp_path):
    found = fold(settled("tiny"), size=(32, 32)).network
    (change,) = found.changes
    for key, wrong, said in (
        ("folded", ["nowhere"], "no batch norm 'nowhere' to fold: it was made from another network"),
        ("biased", ["head"], "'head' is not a layer without a bias"),
        ("parts", ["nowhere"], "no part 'nowhere' to re-parameterise"),
        ("folded", "stem", r"changes\[0\]: folded 'stem' must be a list of different names"),
        ("parts", [3], r"changes\[0\]: parts \[3\] must be a list of different names"),
    ):
        found.changes = [{**change, key: wrong}]
        artefact.save(found, tmp_path)
        with pytest.raises(InputError, match=said) as error:
            artefact.load(tmp_path)
        assert "\n" not in str(error.value)
