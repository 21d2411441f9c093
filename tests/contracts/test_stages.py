"""What holds of the features, the coarse logits and the embedding of every network."""

import copy
import math
from collections.abc import Sequence

import pytest
import torch
from repeats import without_repeats
from torch.nn import functional as F

from hardy.data.label_spaces import find_label_space
from hardy.networks.base import Network
from hardy.networks.building.create import create
from hardy.pruning.remove import remove
from hardy.pruning.units import find_units
from hardy.registry import NETWORKS
from hardy.types import Outputs, Stage

LABEL_SPACE = find_label_space("pacs7")
SIZES = ((128, 160), (129, 163))


@pytest.fixture(scope="module", params=NETWORKS.names())
def network(request: pytest.FixtureRequest) -> Network:
    """The network as it was drawn with seed 0, in training mode; no test changes it."""
    torch.manual_seed(0)
    return create(request.param, LABEL_SPACE)


@pytest.fixture(scope="module")
def seen(network: Network) -> dict[tuple[int, int], Outputs]:
    """What a copy in evaluation mode gives for images of `SIZES`."""
    ready = copy.deepcopy(network).eval()
    with torch.no_grad():
        return {size: ready.outputs(torch.rand(1, 3, *size)) for size in SIZES}


@pytest.fixture(scope="module")
def listed(network: Network) -> tuple[Stage, ...]:
    """The stages that the network lists."""
    return tuple(network.feature_stages())


def holds(stages: Sequence[Stage], size: tuple[int, int], outputs: Outputs) -> None:
    """The features are those listed, with their channels and, for layers that see H x W pixels, ceil(H / stride) x
    ceil(W / stride) cells."""
    assert [stage.name for stage in stages] == list(outputs.features)
    for name, stride, channels in stages:
        shape = (1, channels, *(math.ceil(side / stride) for side in size))
        assert tuple(outputs.features[name].shape) == shape, name


@pytest.mark.parametrize("size", SIZES)
def test_stages_are_those_of_a_real_pass(
    network: Network, listed: Sequence[Stage], seen: dict[tuple[int, int], Outputs], size
) -> None:
    holds(listed, network.fitted(size), seen[size])
    strides = [stage.stride for stage in listed if stage.name.startswith("stage")]
    assert strides == sorted(strides), "finest first"


def test_listing_them_changes_nothing(network: Network, listed: Sequence[Stage]) -> None:
    modes = [module.training for module in network.modules()]
    before = {key: (value, value.clone()) for key, value in vars_of(network).items()}
    random = torch.get_rng_state()
    assert tuple(network.feature_stages()) == listed
    assert torch.equal(torch.get_rng_state(), random)
    assert [module.training for module in network.modules()] == modes
    now = vars_of(network)
    assert now.keys() == before.keys()
    assert all(now[key] is value and torch.equal(value, copied) for key, (value, copied) in before.items())


def vars_of(network: Network) -> dict[str, torch.Tensor]:
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}


@pytest.mark.parametrize("size", SIZES)
def test_coarse_logits_resized_are_the_logits(network: Network, seen: dict[tuple[int, int], Outputs], size) -> None:
    outputs = seen[size]
    if network.image_level:
        assert outputs.coarse is None
        return
    assert outputs.coarse is not None
    assert torch.equal(network.enlarged(outputs.coarse, size), outputs.logits)


def test_the_layers_see_images_of_the_nearest_multiples(
    network: Network, listed: Sequence[Stage], seen: dict[tuple[int, int], Outputs]
) -> None:
    if not network.image_level:
        assert all(network.multiple % stage.stride == 0 for stage in listed if stage.stride <= 32)
    size = SIZES[1]
    height, width = network.fitted(size)
    assert max(abs(height - size[0]), abs(width - size[1])) <= network.multiple / 2
    ready, images = copy.deepcopy(network).eval(), torch.rand(1, 3, *size)
    resized = F.interpolate(images, (height, width), mode="bilinear", align_corners=False)
    with torch.no_grad():
        found, expected = ready.outputs(images), ready.outputs(resized)
    for name, value in found.features.items():
        assert torch.equal(value, expected.features[name])
    if not network.image_level:
        assert torch.equal(found.coarse, expected.coarse)


def test_gradients_flow_back_from_features_and_embedding(network: Network) -> None:
    """Nothing is detached: each reaches a weight, and the logits reach the embedding."""
    ready = copy.deepcopy(network).eval()
    outputs = ready.outputs(torch.rand(1, 3, 64, 64))
    assert outputs.embedding is not None
    assert outputs.embedding.ndim == (2 if network.image_level else 4)
    first = next(ready.parameters())
    for name, value in {**outputs.features, "embedding": outputs.embedding}.items():
        assert value.requires_grad, name
    (reached,) = torch.autograd.grad(outputs.embedding.square().sum(), [first], retain_graph=True)
    assert reached.abs().sum() > 0
    (back,) = torch.autograd.grad(outputs.logits.square().sum(), [outputs.embedding])
    assert back.abs().sum() > 0, "the head reads it"


@pytest.mark.costly
def test_stages_of_a_pruned_network_are_its_own(network: Network, listed: Sequence[Stage]) -> None:
    """Without the blocks that repeat the one before: they are coupled as it is, and trying them out costs as much."""
    dense = without_repeats(copy.deepcopy(network)).eval()
    small, units = copy.deepcopy(dense), find_units(dense)
    remove(small, units, {unit.name: range(unit.size // 2) for unit in units})
    images = torch.rand(1, 3, *SIZES[0])
    with torch.no_grad():
        left = small.feature_stages()
        holds(left, SIZES[0], small.outputs(images))
    assert [stage[:2] for stage in left] == [stage[:2] for stage in listed]
    assert sum(stage.channels for stage in left) < sum(stage.channels for stage in listed)
