"""What holds for every test-time method: the network given stays as it is, and the start can be had back to the bit.

A method written here learns with an optimiser, batch norms, a draw and a buffer, so that the contract is tried on one
that uses all that the interface offers, whatever methods there are.
"""

import copy
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from hardy.adaptation._guard import Guarded
from hardy.adaptation.base import TestTimeAdaptation
from hardy.errors import InputError
from hardy.networks.base import Network
from hardy.networks.building.create import create
from hardy.registry import ADAPTATIONS
from hardy.sections import Guard
from hardy.seed import seeded


class Everything(TestTimeAdaptation):
    """Learns the norms' scales by the entropy, with batch statistics, noise and a running mean of the images."""

    predicts: ClassVar = "after"

    def __init__(self, network: Network) -> None:
        super().__init__(network)
        self.network.requires_grad_(False)
        for module in self.network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.train()
                module.weight.requires_grad_(True)
        learned = [value for value in self.network.parameters() if value.requires_grad]
        self.optimiser = torch.optim.Adam(learned, lr=0.01)
        self.register_buffer("mean", torch.zeros(3), persistent=False)

    def optimisers(self):
        return {"norms": self.optimiser}

    def adapt(self, images: Tensor) -> Tensor:
        self.mean.lerp_(images.mean((0, 2, 3)), 0.1)
        logits = self.network(images + 0.01 * torch.randn_like(images) + self.mean.view(1, 3, 1, 1))
        self.optimiser.zero_grad()
        (-(logits.softmax(1) * logits.log_softmax(1)).sum(1).mean()).backward()
        self.optimiser.step()
        return self.network(images)


METHODS = ["everything", *ADAPTATIONS]
QUICK = {"cotta": {"views": "light"}}
"""Options of what takes long; the method's own tests try the others."""


@pytest.fixture(scope="module")
def network() -> Network:
    with seeded(0, "network"):
        return create("tiny", "camvid11", width=8).eval()


def built(name: str, network: Network) -> TestTimeAdaptation:
    if name == "everything":
        return Everything(network)
    supply = {"network": network, "source_images": [torch.zeros(1, 3, 32, 48), *stream(2)]}
    return ADAPTATIONS.build(name, supply, **QUICK.get(name, {}))


@pytest.fixture(params=METHODS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def live(name: str, network: Network) -> TestTimeAdaptation:
    return built(name, network)


def stream(count: int, batch: int = 1) -> list[Tensor]:
    return [torch.rand(batch, 3, 32, 48, generator=torch.Generator().manual_seed(i)) for i in range(count)]


def same(first: TestTimeAdaptation, state: dict) -> bool:
    now = first.state()
    return alike(now, state)


def alike(one: object, other: object) -> bool:
    """Whether nested states hold the same bits."""
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(alike(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return isinstance(other, list) and len(one) == len(other) and all(map(alike, one, other))
    return one == other


def test_it_maps_images_to_logits_without_a_graph_and_counts_batches(live: TestTimeAdaptation) -> None:
    for images in stream(2, batch=2):
        logits = live(images)
        assert logits.shape == (2, 11, 32, 48)
        assert not logits.requires_grad
        assert logits.isfinite().all()
    assert live.step == 2
    assert live.predicts in ("before", "after")


def test_the_network_given_and_the_images_stay_as_they_are(live: TestTimeAdaptation, network: Network) -> None:
    before = {name: value.clone() for name, value in network.state_dict().items()}
    for images in stream(3):
        kept = images.clone()
        live(images)
        assert torch.equal(images, kept)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not network.training
    assert all(value.requires_grad and value.grad is None for value in network.parameters())


def test_reset_is_exact(live: TestTimeAdaptation) -> None:
    start = live.state()
    first = [live(images) for images in stream(3)]
    live.reset()
    assert same(live, start)
    assert all(torch.equal(live(images), logits) for images, logits in zip(stream(3), first, strict=True))
    live.reset()
    live.reset()
    assert same(live, start)


def test_a_restored_one_goes_on_with_the_same_bits(live: TestTimeAdaptation) -> None:
    for images in stream(2):
        live(images)
    kept = live.state()
    later = [live(images) for images in stream(5)[2:]]
    live.restore(kept)
    assert same(live, kept)
    assert all(torch.equal(live(images), logits) for images, logits in zip(stream(5)[2:], later, strict=True))


def test_another_one_that_is_restored_goes_on_with_the_same_bits_and_resets_to_its_start(
    name: str, live: TestTimeAdaptation, network: Network
) -> None:
    live.seed = 5
    for images in stream(2):
        live(images)
    other = built(name, network)
    start = other.state()
    other.restore(live.state())
    assert same(other, live.state())
    assert torch.equal(other.predict(stream(3)[2]), live.predict(stream(3)[2])), "without learning, too"
    assert all(torch.equal(live(images), other(images)) for images in stream(4)[2:])
    other.reset()
    assert same(other, start)
    other.seed = 0
    assert torch.equal(other.predict(stream(1)[0]), built(name, network).predict(stream(1)[0]))


def test_predicting_without_learning_changes_nothing(live: TestTimeAdaptation) -> None:
    live(stream(1)[0])
    kept = live.state()
    first = live.predict(stream(2)[1])
    assert first.shape == (1, 11, 32, 48)
    assert not first.requires_grad
    assert same(live, kept)
    with torch.inference_mode():
        assert torch.equal(live.predict(stream(2)[1].clone()), first)
    wanted = [live(images) for images in stream(4)[2:]]
    live.restore(kept)
    for images, logits in zip(stream(4)[2:], wanted, strict=True):
        live.predict(stream(2)[1])
        assert torch.equal(live(images), logits)


def test_images_of_other_channels_are_refused_in_one_line_and_half_precision_is_taken(live: TestTimeAdaptation) -> None:
    live(stream(1)[0])
    kept = live.state()
    for wrong in (torch.rand(1, 4, 32, 48), torch.rand(3, 32, 48), torch.zeros(1, 3, 32, 48, dtype=torch.uint8)):
        for call in (live, live.predict):
            with pytest.raises(InputError, match=r"takes \(B, 3, H, W\) RGB in \[0, 1\]$"):
                call(wrong)
    assert same(live, kept)
    rounded = stream(2)[1].half()
    wanted = live(rounded.float())
    live.restore(kept)
    assert torch.equal(live(rounded), wanted)


@pytest.mark.parametrize("guarded", [False, True])
def test_no_images_and_images_that_are_not_finite_are_refused_and_nothing_changes(
    name: str, live: TestTimeAdaptation, network: Network, guarded: bool
) -> None:
    one = Guarded(live, network, Guard(sure=0.0)) if guarded else live
    one(stream(1)[0])
    kept = one.state()
    torn = stream(1, batch=2)[0]
    torn[1, 0, 3, 3] = float("nan")
    for wrong, said in ((torn[:0], "the batch is empty"), (torn, "image 1 of the batch of 2 holds NaN or infinity")):
        for call in (one, one.predict):
            with pytest.raises(InputError, match=said):
                call(wrong)
    assert same(one, kept)


def test_the_state_of_another_network_is_refused_and_nothing_changes(name: str, live: TestTimeAdaptation) -> None:
    live(stream(1)[0])
    kept = live.state()
    other = built(name, create("tiny", "camvid11", width=16)).state()
    with pytest.raises(InputError, match=r"^state: its tensor 'network\..*' is .*; give a state of the same method"):
        live.restore(other)
    without = {**kept, "tensors": {key: value for key, value in kept["tensors"].items() if key != "step"}}
    with pytest.raises(InputError, match=r"^state: its tensor 'step' is missing"):
        live.restore(without)
    assert same(live, kept)


def test_the_domain_that_is_entered_belongs_to_the_state_and_no_reset_forgets_it(live: TestTimeAdaptation) -> None:
    assert live.domain is None
    live.enter("day")
    live(stream(1)[0])
    kept = live.state()
    live.enter("night")
    live(stream(2)[1])
    live.reset()
    assert live.domain == "night", "it was given, not learned"
    live.restore(kept)
    assert live.domain == "day"
    live.enter(None)
    live(stream(2)[1])
    for wrong in ("", 3, "n" * 257):
        with pytest.raises(InputError, match=r"^domain .* is not a name of 1 to 256 bytes, nor None"):
            live.enter(wrong)
    assert live.domain is None


def test_image_level_networks_and_batches_of_one_adapt(name: str) -> None:
    with seeded(0, "network"):
        live = built(name, create("classifier", "pacs7", encoder="test_resnet"))
    for images in (*stream(2, batch=1), *stream(1, batch=3)):
        assert live(images).shape == (len(images), 7)


def test_neither_gradients_left_over_nor_a_graph_of_the_images_reach_it(live: TestTimeAdaptation) -> None:
    wanted = [live(images) for images in stream(2)]
    live.reset()
    for value in live.parameters():
        value.grad = torch.ones_like(value)
    images = stream(1)[0].requires_grad_()
    assert torch.equal(live(images), wanted[0])
    assert images.grad is None
    for value in live.parameters():
        value.grad = torch.ones_like(value)
    assert torch.equal(live(stream(2)[1]), wanted[1])


def test_neither_mode_nor_no_grad_nor_the_global_generator_changes_it(live: TestTimeAdaptation) -> None:
    wanted = [live(images) for images in stream(3)]
    live.reset()
    live.train()
    torch.manual_seed(99)
    with torch.no_grad():
        assert torch.equal(live(stream(1)[0]), wanted[0])
    with torch.inference_mode():
        assert torch.equal(live(stream(2)[1]), wanted[1])
        assert torch.equal(live(stream(3)[2].clone()), wanted[2])


def test_a_deep_copy_learns_on_its_own(live: TestTimeAdaptation) -> None:
    live(stream(1)[0])
    state = live.state()
    other = copy.deepcopy(live)
    other(stream(2)[1])
    assert same(live, state)
    other.reset()
    live.reset()
    assert same(other, live.state())


def test_the_method_of_this_file_does_learn(network: Network) -> None:
    live = Everything(network)
    first = live(stream(1)[0])
    assert not torch.equal(live(stream(1)[0]), first)
    assert not same(live, Everything(network).state())
    other = Everything(network)
    other.seed = 1
    assert not torch.equal(other(stream(1)[0]), first)


def test_describes_itself() -> None:
    for name in ADAPTATIONS:
        method = ADAPTATIONS.describe(name)
        assert method.source
        taken = {"guard", "reset", "seed"} & {option.name for option in method.options}
        assert not taken, "a recipe's section adapt and hardy.adapt have them"
