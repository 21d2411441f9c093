"""Training with copies whose styles climb the loss."""

import pytest
import torch
from torch.nn import functional as F

from hardy.algorithms.dsp import DSP
from hardy.algorithms.erm import ERM
from hardy.algorithms.style_vae import StyleVAE
from hardy.errors import InputError
from hardy.networks.building.create import create
from hardy.types import Batch


def pixel_loss(logits, labels):
    return F.cross_entropy(logits, labels, ignore_index=255)


def draw(count=4):
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 11, (count, 32, 48), generator=generator)
    labels[:, :4] = 255
    return Batch(torch.rand(count, 3, 32, 48, generator=generator), labels, torch.arange(count) % 2)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return create("tiny", "camvid11", width=8)


@pytest.fixture
def style(network, tmp_path):
    torch.manual_seed(1)
    algorithm = StyleVAE(network, pixel_loss)
    with torch.no_grad():
        algorithm.decoder[-1].weight *= 0.2
        algorithm.decoder[-1].bias += 0.5
    algorithm.keep(tmp_path)
    return str(tmp_path)


def total(terms):
    return torch.stack(list(terms.values())).sum()


@pytest.mark.parametrize("copies", [1, 2])
def test_with_random_styles_the_loss_is_that_of_originals_and_copies(network, style, copies):
    algorithm = DSP(network, pixel_loss, style=style, copies=copies, ascent=0).train()
    batch = draw()
    torch.manual_seed(2)
    found = total(algorithm(batch))
    torch.manual_seed(2)
    images = [batch.images]
    epsilon = algorithm.dsp.sample(4 * copies)
    images += [algorithm.dsp.stylise(batch.images, each) for each in epsilon.chunk(copies)]
    whole = Batch(torch.cat(images), batch.labels.repeat(1 + copies, 1, 1), batch.domains.repeat(1 + copies))
    torch.testing.assert_close(found, total(ERM(network, pixel_loss)(whole)))
    assert not torch.allclose(images[1], images[0], atol=0.05)


def test_the_climb_raises_the_loss_of_the_copies(network, style):
    algorithm = DSP(network, pixel_loss, style=style, rate=1.0)
    batch = draw()
    content = algorithm.dsp.content(batch.images)
    network.eval()

    def loss(epsilon):
        with torch.no_grad():
            copies = algorithm.dsp.redraw(content, epsilon, batch.images.shape[-2:])
            return total(algorithm._terms(copies, batch.labels)).item()

    torch.manual_seed(0)
    epsilon = algorithm.dsp.sample(4)
    losses = [loss(epsilon)]
    for _ in range(4):
        epsilon = algorithm._climbed(batch, content, epsilon)
        losses.append(loss(epsilon))
    assert losses == sorted(losses)
    assert losses[-1] > losses[0] + 1e-3


def test_the_climb_leaves_network_and_statistics_alone(network, style):
    algorithm = DSP(network, pixel_loss, style=style).train()
    batch = draw()
    before = {key: value.clone() for key, value in algorithm.state_dict().items()}
    content = algorithm.dsp.content(batch.images)
    start = algorithm.dsp.sample(4)
    climbed = algorithm._climbed(batch, content, start)
    assert (climbed - start).norm(dim=1).gt(0).all()
    assert not climbed.requires_grad
    assert all(parameter.grad is None for parameter in algorithm.parameters())
    assert all(torch.equal(value, before[key]) for key, value in algorithm.state_dict().items())
    algorithm(batch)
    counts = [value for key, value in network.state_dict().items() if key.endswith("num_batches_tracked")]
    assert counts
    assert all(int(count) == 1 for count in counts)  # once a step, however often epsilon climbed


@pytest.mark.slow
def test_the_step_of_the_network_takes_copies_as_they_are(network, style):
    """The gradient is that of originals and final copies with these held fixed."""
    algorithm = DSP(network.eval(), pixel_loss, style=style, ascent=1)
    batch = draw()
    torch.manual_seed(5)
    total(algorithm(batch)).backward()
    found = network.head.weight.grad.clone()
    torch.manual_seed(5)
    content = algorithm.dsp.content(batch.images)
    epsilon = algorithm._climbed(batch, content, algorithm.dsp.sample(4))
    copies = algorithm.dsp.redraw(content, epsilon, batch.images.shape[-2:])
    network.zero_grad()
    labels = batch.labels.repeat(2, 1, 1)
    pixel_loss(network(torch.cat([batch.images, copies])), labels).backward()
    torch.testing.assert_close(found, network.head.weight.grad)


def test_the_same_seed_gives_the_same_bits(network, style):
    found = []
    for _ in range(2):
        algorithm = DSP(network, pixel_loss, style=style, copies=2)
        torch.manual_seed(3)
        found.append(total(algorithm(draw())))
    assert torch.equal(*found)
    torch.manual_seed(4)
    assert not torch.equal(total(algorithm(draw())), found[0])


def test_checkpoints_hold_the_network_alone(network, style):
    algorithm = DSP(network, pixel_loss, style=style)
    assert all(key.startswith("network.") for key in algorithm.state_dict())
    assert {id(p) for p in algorithm.parameters()} == {id(p) for p in network.parameters()}


def test_what_cannot_be_used_is_refused_in_one_line(network, style, tmp_path):
    with pytest.raises(InputError, match=r"DSP.style: name the folder of a run of the algorithm style_vae"):
        DSP(network, pixel_loss)
    with pytest.raises(InputError, match=r"no style.json here"):
        DSP(network, pixel_loss, style=str(tmp_path / "elsewhere"))
    with pytest.raises(InputError, match=r"DSP.copies: 0"):
        DSP(network, pixel_loss, style=style, copies=0)
    with pytest.raises(InputError, match=r"DSP.ascent: -1"):
        DSP(network, pixel_loss, style=style, ascent=-1)
