"""What holds for every test-time method: the network given stays as it is, and the start can be had back to the bit.

A method written here learns with an optimiser, batch norms, a draw and a buffer, so that the contract is tried on one
that uses all that the interface offers, whatever methods there are.
"""

from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from hardy.adaptation.base import TestTimeAdaptation
from hardy.networks.base import Network
from hardy.networks.building.create import create
from hardy.registry import ADAPTATIONS
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


@pytest.fixture(scope="module")
def network() -> Network:
    with seeded(0, "network"):
        return create("tiny", "camvid11", width=8).eval()


@pytest.fixture(params=METHODS)
def live(request: pytest.FixtureRequest, network: Network) -> TestTimeAdaptation:
    if request.param == "everything":
        return Everything(network)
    return ADAPTATIONS.build(request.param, {"network": network})


def stream(count: int, batch: int = 1) -> list[Tensor]:
    return [torch.rand(batch, 3, 32, 48, generator=torch.Generator().manual_seed(i)) for i in range(count)]


def same(first: TestTimeAdaptation, state: dict) -> bool:
    now = first.state()
    tensors = all(torch.equal(value, state["tensors"][name]) for name, value in now["tensors"].items())
    return tensors and str(now["optimisers"]) == str(state["optimisers"])


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
    import copy

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
        assert "reset" not in [option.name for option in method.options], "a recipe's adapt section has that key"
