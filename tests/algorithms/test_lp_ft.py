"""LP-FT: what each part trains and at which rate, against ERM by hand, and a resume in each part."""

import copy
from itertools import count

import pytest
import torch

import hardy
from hardy.algorithms.erm import ERM
from hardy.algorithms.lp_ft import LPFT
from hardy.engine.changes import attach
from hardy.engine.fit import Fit
from hardy.errors import InputError
from hardy.losses.cross_entropy import CrossEntropy
from hardy.recipe import Method, Optim, RunSection
from hardy.seed import seeded
from hardy.types import Batch

STEPS = 6


def batches(start, rank, processes):
    for step in count(start):
        generator = torch.Generator().manual_seed(step)
        images = torch.rand(3, 3, 16, 24, generator=generator)
        yield Batch(images, images.argmax(1), torch.tensor([0, 1, 0]))


def network(name="two_part_network:TwoPart", **options):
    with seeded(0, "network"):
        return hardy.create(name, "camvid11", **options)


def run_of(folder=None, steps=STEPS, network=network, **options):
    algorithm = LPFT(network(), CrossEntropy(11), steps, **options)
    section = Optim(name="adamw", lr=1e-2, steps=steps, schedule="constant")
    return Fit(algorithm, batches, section, RunSection(device="cpu"), folder=folder)


def moved(before, after):
    return {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}


def test_first_the_head_alone_and_then_everything_is_trained() -> None:
    loop = run_of()
    network = loop.algorithm.network
    states = [copy.deepcopy(network.state_dict())]
    for _ in range(2):
        loop.run(3)
        states.append(copy.deepcopy(network.state_dict()))
    assert moved(states[0], states[1]) == {"middle", "head"}, "the statistics of the encoder's norms rest too"
    assert moved(states[1], states[2]) == {"body", "middle", "head"}
    assert all(value.requires_grad for value in network.parameters())
    assert network.training
    assert network.body[1].training


def test_the_first_part_is_the_training_of_a_frozen_encoder() -> None:
    """The same bits as ERM with the tuner ``frozen``."""
    loop = run_of(probe_share=1.0)
    loop.run()
    other = network()
    attach(other, Method(name="frozen"))
    section = Optim(name="adamw", lr=1e-2, steps=STEPS, schedule="constant")
    Fit(ERM(other, CrossEntropy(11)), batches, section, RunSection(device="cpu")).run()
    wanted = other.state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in loop.algorithm.network.state_dict().items())


def test_the_second_part_is_a_new_training_at_its_rate() -> None:
    loop = run_of(tuning_rate=0.25)
    loop.run(3)
    other = copy.deepcopy(loop.algorithm.network)
    loop.run()
    section = Optim(name="adamw", lr=0.25e-2, steps=STEPS, schedule="constant")
    plain = Fit(ERM(other, CrossEntropy(11)), batches, section, RunSection(device="cpu"))
    plain.progress.step = 3
    plain.run()
    for name, value in loop.algorithm.network.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def test_blocks_that_queries_join_are_computed_again_as_they_were() -> None:
    """The queries have gradients, so checkpointing computes the frozen blocks again in the backward pass."""

    def joined():
        chosen = {"query_count": 4, "blocks": 2, "points": 16}
        return network("encoder_decoder", encoder="test_vit", decoder="eomt", decoder_options=chosen)

    def larger(*_):
        yield Batch(torch.rand(3, 3, 32, 32), torch.randint(11, (3, 32, 32)), torch.zeros(3).long())

    states = []
    for checkpointing in (False, True):
        algorithm = LPFT(joined(), CrossEntropy(11), 2)
        place = RunSection(device="cpu", gradient_checkpointing=checkpointing)
        loop = Fit(algorithm, larger, Optim(name="adamw", lr=1e-2, steps=2, batch=3, accumulate=3), place)
        with seeded(1, "images"):
            loop.run(1)
        states.append(algorithm.state_dict())
        assert all(value.requires_grad for value in algorithm.network.parameters())
        assert all(module.training for module in algorithm.network.modules())
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_the_change_depends_on_the_step_alone() -> None:
    algorithm = run_of().algorithm
    assert [step for step in range(1, 7) if algorithm.restarts(step)] == [4]
    assert [algorithm.rate_factor(step) for step in range(1, 7)] == [1.0] * 3 + [0.1] * 3
    for share in (0.0, 1.0):
        algorithm = run_of(probe_share=share).algorithm
        assert not any(algorithm.restarts(step) for step in range(1, 7))


@pytest.mark.parametrize("stopped", [1, 3, 4])
def test_a_run_resumed_in_either_part_has_the_same_bits(stopped, tmp_path) -> None:
    whole = run_of()
    whole.run()
    first = run_of(tmp_path)
    first.run(stopped)
    first.save()
    second = run_of(tmp_path)
    assert second.resume()
    second.run()
    wanted = whole.algorithm.state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in second.algorithm.state_dict().items())


def test_with_a_tuner_the_second_part_trains_what_the_tuner_does() -> None:
    def tuned():
        made = network()
        attach(made, Method(name="norms"))
        return made

    loop = run_of(network=tuned)
    before = copy.deepcopy(loop.algorithm.network.state_dict())
    loop.run()
    after = loop.algorithm.network.state_dict()
    inside = {name for name in before if name.startswith("body") and not torch.equal(before[name], after[name])}
    assert inside == {
        f"body.{layer}.{part}" for layer in ("1", "4", "6.0.norm", "6.1.norm") for part in ("weight", "bias")
    }


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"probe_share": 1.5}, "LPFT.probe_share: 1.5 is out of range; it must be from 0 to 1"),
        ({"tuning_rate": -0.1}, "LPFT.tuning_rate: -0.1 is out of range"),
    ],
)
def test_options_out_of_range_are_refused(options, said) -> None:
    with pytest.raises(InputError, match=said):
        run_of(**options)


def test_a_network_without_an_encoder_is_refused_in_one_line() -> None:
    with pytest.raises(InputError, match=r"^algorithm: lp_ft: Tiny names no encoder \(Network.encoder\) to freeze"):
        run_of(network=lambda: network("tiny", width=8))
