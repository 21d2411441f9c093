"""Small networks with a tuner, for the tests of the tuners."""

import torch
from torch import Tensor, nn

import hardy
from hardy.engine import changes
from hardy.networks.base import Network
from hardy.sections import Method
from hardy.seed import seeded

__all__ = ["IMAGES", "attached", "learn", "logits", "merging_error", "small"]

IMAGES = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))


def small(kind: str = "plain") -> Network:
    """A network whose encoder is a small transformer of this kind, or convolutional: ``lite`` or ``convolutions``."""
    with seeded(0, "network"):
        if kind == "convolutions":
            made = hardy.create("two_part_network:TwoPart", "camvid11")
        elif kind == "lite":
            made = hardy.create("encoder_decoder", "camvid11", encoder="tf_efficientnet_lite0", decoder="linear")
        else:
            made = hardy.create("small_transformer:SmallTransformer", "camvid11", kind=kind)
        made.train()(IMAGES)
    return made.eval()


def attached(network: Network, name: str, **options: object) -> Network:
    """``network`` with a tuner, in place."""
    with seeded(0, "tuner"):
        changes.attach(network, Method(name=name, **options))
    return network


def learn(network: Network, steps: int = 2, rate: float = 0.1) -> None:
    """Train what has gradients for some steps, in place."""
    network.train()
    optimiser = torch.optim.SGD([value for value in network.parameters() if value.requires_grad], lr=rate)
    for step in range(steps):
        with seeded(step, "images"):
            images, labels = torch.rand(4, 3, 32, 48), torch.randint(11, (4, 32, 48))
        optimiser.zero_grad()
        nn.functional.cross_entropy(network(images), labels).backward()
        optimiser.step()
    network.eval()


@torch.no_grad()
def logits(network: Network) -> Tensor:
    """Of two images."""
    answer: Tensor = network.eval()(IMAGES)
    return answer


def merging_error(network: Network) -> float:
    """The change of a logit when the tuner of ``network`` is merged, in place, as a share of the largest."""
    before = logits(network)
    hardy.merge(network)
    return float((logits(network) - before).abs().max() / before.abs().max())
