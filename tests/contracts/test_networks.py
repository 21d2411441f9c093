"""What holds for every network."""

import copy
import json

import pytest
import torch
from repeats import without_repeats
from torch import nn
from torch.export import Dim

from hardy.data.label_spaces import LabelSpace, find_label_space
from hardy.engine.classes import for_classes
from hardy.errors import InputError
from hardy.networks.base import Network
from hardy.networks.building.create import create, rebuild
from hardy.ops.cost import gmacs, parameters
from hardy.registry import LOSSES, NETWORKS
from hardy.types import IGNORE

LABEL_SPACE = find_label_space("pacs7")


def build(name: str, seed: int = 0) -> Network:
    """The network with its auxiliary heads, if it has any."""
    torch.manual_seed(seed)
    options = {"aux": True} if "aux" in {option.name for option in NETWORKS.describe(name).options} else {}
    return create(name, LABEL_SPACE, **options)


@pytest.fixture(scope="module", params=NETWORKS.names())
def name(request: pytest.FixtureRequest) -> str:
    """Of the module, so that all tests of one network come together and it is built once."""
    return request.param


@pytest.fixture(scope="module")
def built(name: str) -> Network:
    """The network as it was drawn with seed 0; no test changes it."""
    return build(name)


@pytest.fixture
def network(built: Network) -> Network:
    """A copy of the network, in training mode; what a test draws is the same in any order of tests."""
    torch.manual_seed(0)
    return copy.deepcopy(built)


@pytest.fixture(scope="module")
def short(built: Network) -> Network:
    """Without the blocks that repeat the one before; no test changes it."""
    return without_repeats(copy.deepcopy(built))


@pytest.fixture
def shallow(short: Network) -> Network:
    """A copy of that, for claims that no block can break that is built as the one before it."""
    torch.manual_seed(0)
    return copy.deepcopy(short)


def expected(network: Network, batch: int, size: tuple[int, int]) -> tuple[int, ...]:
    return (batch, len(LABEL_SPACE)) if network.image_level else (batch, len(LABEL_SPACE), *size)


def labels_for(network: Network, batch: int, size: tuple[int, int]) -> torch.Tensor:
    shape = (batch,) if network.image_level else (batch, *size)
    return torch.randint(0, len(LABEL_SPACE), shape, generator=torch.Generator().manual_seed(1))


def test_any_size_from_the_least_up_gives_logits_of_that_size(network: Network) -> None:
    network.eval()
    with torch.no_grad():
        for size in [(network.least_size, network.least_size), (64, 96), (97, 131), (45, 33)]:
            assert network(torch.rand(1, 3, *size)).shape == expected(network, 1, size)


def test_trains_on_one_image_of_the_least_size(network: Network) -> None:
    """A global pooling leaves one value per channel, of which a batch norm has no variance."""
    size = (network.least_size, network.least_size)
    outputs = network.outputs(torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0)))
    assert outputs.logits.shape == expected(network, 1, size)
    terms = network.losses(outputs, labels_for(network, 1, size), LOSSES.build("cross_entropy", {"class_count": 7}))
    sum(terms.values()).backward()
    assert all(value.grad.isfinite().all() for value in network.parameters() if value.grad is not None)


def test_other_classes_keep_the_logits_of_those_with_the_same_names(network: Network) -> None:
    """Of the auxiliary heads too; more classes, fewer, and others than there were."""
    names, size = LABEL_SPACE.classes, 48
    classes = (names[4], "unheard_of", names[0], names[6], names[2], "neither", "nor_this", names[1])
    images, kept = torch.rand(2, 3, size, size), [place for place, one in enumerate(classes) if one in names]
    old = logits_of(network, images)
    new = logits_of(for_classes(network, LabelSpace("other", classes, ((0, 0, 0),) * len(classes))).train(), images)
    assert old.keys() == new.keys()
    for name, value in new.items():
        assert value.shape[1] == len(classes)
        before = old[name][:, [names.index(classes[place]) for place in kept]]
        torch.testing.assert_close(value[:, kept], before, rtol=1e-4, atol=1e-4 * float(before.abs().max()))


def logits_of(network: Network, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """The logits in evaluation mode, and those of the auxiliary heads while training."""
    with torch.no_grad():
        torch.manual_seed(1)
        extras = copy.deepcopy(network).train().outputs(images).extras
        return {"logits": network.eval()(images), **{k: v for k, v in extras.items() if k.startswith("aux_")}}


def test_gives_logits_while_training(shallow: Network) -> None:
    assert shallow.training
    assert shallow(torch.rand(2, 3, 65, 78)).shape == expected(shallow, 2, (65, 78))


def test_callers_images_stay_as_they_are(shallow: Network) -> None:
    images = torch.rand(2, 3, 64, 64)
    before = images.clone()
    for training in (True, False):
        shallow.train(training)(images)
        assert torch.equal(images, before)


def test_an_image_is_seen_alone_in_evaluation(shallow: Network) -> None:
    shallow.double()  # in float32 the kernels for one image and for three round apart
    shallow(torch.rand(4, 3, 64, 64, dtype=torch.float64))  # running statistics other than the first ones
    shallow.eval()
    images = torch.rand(2, 3, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        together = shallow(images)
        rounding = 1e-10 * max(1.0, float(together.abs().max()))
        for index in range(2):
            alone = shallow(images[index : index + 1])[0]
            torch.testing.assert_close(alone, together[index], atol=rounding, rtol=1e-9)


def test_normalisation_is_the_first_step(shallow: Network) -> None:
    shallow.eval()
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        logits = shallow(images)
        shifted = images * 3 - 0.5
        shallow.mean, shallow.std = shallow.mean * 3 - 0.5, shallow.std * 3
        torch.testing.assert_close(shallow(shifted), logits, atol=1e-4, rtol=1e-3)


def test_auxiliary_heads_run_only_while_training(name: str, shallow: Network) -> None:
    images = torch.rand(2, 3, 64, 64)
    has_aux = "aux" in {option.name for option in NETWORKS.describe(name).options}
    trained = [key for key in shallow.outputs(images).extras if key.startswith("aux_")]
    assert bool(trained) == has_aux
    assert not [key for key in shallow.eval().outputs(images).extras if key.startswith("aux_")]


def test_features_are_named_maps(shallow: Network) -> None:
    outputs = shallow.eval().outputs(torch.rand(2, 3, 64, 64))
    assert outputs.features
    assert all(value.ndim == 4 and len(value) == 2 for value in outputs.features.values())
    sides = [value.shape[-1] for key, value in outputs.features.items() if key.startswith("stage")]
    assert sides == sorted(sides, reverse=True)


def test_the_loss_reaches_every_parameter(network: Network) -> None:
    size = (64, 64)
    labels = labels_for(network, 2, size)
    terms = network.losses(
        network.outputs(torch.rand(2, 3, *size)), labels, LOSSES.build("cross_entropy", {"class_count": 7})
    )
    assert "classification" in terms if network.image_level else "segmentation" in terms
    sum(terms.values()).backward()
    assert [key for key, value in network.named_parameters() if value.grad is None] == []
    assert all(value.grad.isfinite().all() for value in network.parameters())


def test_ignored_labels_alone_give_no_loss(shallow: Network) -> None:
    labels = torch.full_like(labels_for(shallow, 2, (64, 64)), IGNORE)
    terms = shallow.losses(
        shallow.outputs(torch.rand(2, 3, 64, 64)), labels, LOSSES.build("cross_entropy", {"class_count": 7})
    )
    assert all(value == 0 for value in terms.values())


def test_refuses_what_is_no_image(shallow: Network) -> None:
    shallow.eval()
    least = shallow.least_size
    for images, words in (
        (torch.zeros(1, 3, 64, 64, dtype=torch.uint8), "float"),
        (torch.zeros(1, 1, 64, 64), "RGB"),
        (torch.zeros(3, 64, 64), "RGB"),
        (torch.zeros(1, 3, 64, least - 1), f"at least {least}x{least} pixels, not 64x{least - 1}$"),
    ):
        with pytest.raises(InputError, match=words):
            shallow(images)


def test_is_built_again_from_what_was_written_down(name: str, network: Network) -> None:
    network.eval()
    written = json.loads(json.dumps(network.architecture))
    assert set(written["options"]) == {option.name for option in NETWORKS.describe(name).options}
    torch.manual_seed(1)
    again = rebuild(written, LABEL_SPACE).eval()
    assert again.architecture == network.architecture
    again.load_state_dict(network.state_dict(), strict=True)
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(again(images), network(images))


def test_the_same_seed_draws_the_same_weights(name: str, built: Network) -> None:
    first, second, other = built.state_dict(), build(name).state_dict(), build(name, seed=1).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_counting_costs_changes_nothing(shallow: Network) -> None:
    shallow.eval()
    before = {key: value.clone() for key, value in shallow.state_dict().items()}
    found = gmacs(shallow, (64, 64), training=True)
    least = by_layers(shallow, (64, 64))
    assert found == pytest.approx(least, rel=1e-6) or found > least, "products of attention come on top"
    assert found < 2 * least
    assert parameters(shallow) == sum(value.numel() for value in shallow.parameters())
    assert not shallow.training
    assert all(torch.equal(value, before[key]) for key, value in shallow.state_dict().items())


def by_layers(network: Network, size: tuple[int, int]) -> float:
    """Billions of multiply-accumulates for one image in the convolutions and linear layers that run in training."""
    total = 0

    def count(layer: nn.Module, given: tuple[torch.Tensor], out: torch.Tensor) -> None:
        nonlocal total  # a filter lies at each value put out, of a transposed convolution at each value taken
        places = given[0] if isinstance(layer, nn.ConvTranspose2d) else out
        total += places.numel() // 2 * layer.weight[0].numel()

    twin = copy.deepcopy(network).train()
    for layer in twin.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            layer.register_forward_hook(count)
    with torch.no_grad():
        twin(torch.rand(2, 3, *size))
    return total / 1e9


@pytest.mark.costly
def test_one_exported_graph_takes_every_size(shallow: Network) -> None:
    """Without the blocks that repeat the one before: a graph of these says nothing that the first does not say."""
    shallow.eval()
    sizes = ({0: Dim.AUTO, 2: Dim.AUTO, 3: Dim.AUTO},)
    with torch.no_grad():
        exported = torch.export.export(shallow, (torch.rand(2, 3, 64, 128),), dynamic_shapes=sizes).module()
    images = torch.rand(3, 3, 97, 160)
    with torch.no_grad():
        logits = shallow(images)
        rounding = 1e-5 * max(1.0, float(logits.abs().max()))
        torch.testing.assert_close(exported(images), logits, rtol=1e-4, atol=rounding)


def test_nothing_is_pretrained_that_was_drawn_and_the_encoder_is_a_part(network: Network) -> None:
    assert not network.pretrained
    parts = set(network.modules())
    assert all(module in parts and list(module.parameters()) for module in network.encoder())
    inside = {id(value) for module in network.encoder() for value in module.parameters()}
    assert len(inside) < len(list(network.parameters()))
