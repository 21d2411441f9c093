"""Rein's link and the Mask2Former head: the head's queries come from the tokens."""

import copy
from pathlib import Path

import pytest
import torch

import hardy
from hardy.engine import changes
from hardy.errors import InputError
from hardy.networks.base import Network
from hardy.sections import Method
from hardy.seed import seeded

SMALL = {"query_count": 12, "layers": 1, "pixel_layers": 1, "pixel_hidden": 32, "hidden": 32}


def network() -> Network:
    with seeded(0, "network"):
        return hardy.create(
            "encoder_decoder", "pacs7", encoder="test_resnet", decoder="mask2former", decoder_options=SMALL
        )


def linked(**options: object) -> Network:
    net = network()
    with seeded(1, "tuner"):
        changes.attach(net, Method(name="rein", link=True, tokens=12, **options))
    return net


def images() -> torch.Tensor:
    return torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.costly
def test_the_heads_queries_are_those_of_the_tokens() -> None:
    net = linked().eval()
    queries = net.queries
    assert queries is not None
    assert queries.shape == (12, 256)
    assert "decoder.query_embed" not in net.state_dict()
    torch.testing.assert_close(net.decoder._own()[0], queries)
    before = net(images())
    net(images()).sum().backward()
    taught = [name for name, value in net.named_parameters() if value.grad is not None and bool(value.grad.any())]
    assert any(name.startswith("rein.") and ".merge." in name for name in taught)
    with torch.no_grad():
        for tokens in net.rein:
            tokens.merge.bias.add_(1.0)
    assert not torch.allclose(net(images()), before)


@pytest.mark.slow
def test_a_copy_reads_its_own_tokens() -> None:
    net = linked().eval()
    twin = copy.deepcopy(net)
    before = net(images())
    with torch.no_grad():
        for tokens in twin.rein:
            tokens.merge.bias.add_(1.0)
    assert torch.equal(net(images()), before)
    assert not torch.allclose(twin(images()), before)


@pytest.mark.costly
def test_it_is_saved_and_loaded(tmp_path: Path) -> None:
    net = linked().eval()
    loaded = hardy.load(hardy.save(net, tmp_path / "run")).eval()
    assert loaded.linked == net.linked != ()
    assert torch.equal(loaded(images()), net(images()))


@pytest.mark.costly
def test_another_number_of_tokens_is_one_line_and_changes_nothing() -> None:
    net = network()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(InputError, match=r"queries have the shape \(10, 256\), and the head takes \(12, 256\)"):
        changes.attach(net, Method(name="rein", link=True, tokens=10))
    assert net.state_dict().keys() == before.keys()
    assert all(value.requires_grad for value in net.parameters())
