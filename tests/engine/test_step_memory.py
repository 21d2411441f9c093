"""The estimate of a step's memory against the peak that is measured in a step of the training loop."""

import itertools
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from tuned_networks import attached, small

import hardy
from hardy import records
from hardy.algorithms.coral import CORAL
from hardy.algorithms.erm import ERM
from hardy.commands import train
from hardy.engine.fit import Fit
from hardy.engine.step_memory import MIB, StepMemory, estimate, warn_above
from hardy.losses.cross_entropy import CrossEntropy
from hardy.recipe import Optim, RunSection, from_values
from hardy.timing.memory import tensors
from hardy.types import Batch

SIZE = (64, 96)
BATCH = Batch(torch.rand(4, 3, *SIZE), torch.randint(11, (4, *SIZE)), torch.arange(4) % 2)


def estimated_and_measured(network: nn.Module, **options) -> tuple[StepMemory, float]:
    """The estimate, and the measured peak of the second step in bytes."""
    place = RunSection(**{"device": "cpu", **{k: v for k, v in options.items() if k in RunSection.model_fields}})
    optim = Optim(**{"batch": 4, "lr": 1e-3, **{k: v for k, v in options.items() if k in Optim.model_fields}})
    algorithm = ERM(network.train(), CrossEntropy(11))
    loop = Fit(algorithm, lambda *_: itertools.repeat(BATCH), optim, place)
    before = {name: value.clone() for name, value in algorithm.state_dict().items()}
    draws = torch.random.get_rng_state()
    memory = estimate(algorithm, optim, place, SIZE)
    assert memory is not None
    assert torch.equal(torch.random.get_rng_state(), draws)
    assert all(torch.equal(value, before[name]) for name, value in algorithm.state_dict().items())
    assert all(value.grad is None for value in algorithm.parameters())
    loop.run(1)
    loop.optimiser.zero_grad(set_to_none=True)
    images = loop._next().images  # the one of the batch that the estimate counts
    state = [value for one in loop.optimiser.optimizer.state.values() for value in one.values()]
    held = [value for value in (*state, *loop.average.values()) if isinstance(value, Tensor)]
    labels = BATCH.labels.nbytes
    measured = tensors(lambda: loop.run(1), network, images) * MIB + sum(one.nbytes for one in held) + labels
    return memory, measured


CASES = {
    "transformer": ("plain", None, {}),
    "convolutions": ("lite", None, {"name": "adamw"}),
    "frozen": ("plain", "frozen", {}),
    "rein": ("plain", "rein", {"name": "adam"}),
    "bf16": ("plain", "norms", {"precision": "bf16"}),
    "checkpointing": ("plain", None, {"gradient_checkpointing": True}),
    "average": ("plain", None, {"ema": 0.9, "name": "rmsprop"}),
    "parts": ("plain", None, {"accumulate": 2}),
}


MARKS = dict.fromkeys(("convolutions", "average", "parts"), pytest.mark.exhaustive)
MARKS |= dict.fromkeys(("bf16", "checkpointing", "frozen"), pytest.mark.costly)


@pytest.mark.parametrize("case", [pytest.param(c, marks=MARKS.get(c, ())) for c in CASES])
def test_it_is_the_measured_peak_within_15_percent(case: str) -> None:
    encoder, tuner, options = CASES[case]
    network = small(encoder)
    if tuner:
        attached(network, tuner, **({"rank": 4} if tuner == "rein" else {}))
    memory, measured = estimated_and_measured(network, **options)
    assert memory.complete
    assert 0.85 <= memory.peak / measured <= 1.15


HEADS = {
    "mask2former": {"query_count": 20, "layers": 3, "pixel_layers": 1, "pixel_hidden": 64, "hidden": 64},
    "eomt": {"query_count": 20, "blocks": 2, "mask_steps": 100},
}


@pytest.mark.costly
@pytest.mark.parametrize("tuner", [None, "rein"])
@pytest.mark.parametrize("head", HEADS)
def test_it_counts_the_layers_and_the_losses_of_a_head_with_queries(head: str, tuner: str | None) -> None:
    options = {"encoder": "test_vit", "decoder": head, "decoder_options": {**HEADS[head], "points": 2000}}
    network = hardy.create("encoder_decoder", "camvid11", **options)
    if tuner:
        attached(network, tuner, rank=4, tokens=7)
    memory, measured = estimated_and_measured(network, name="adamw")
    assert memory.complete
    assert 0.85 <= memory.peak / measured <= 1.15


@pytest.mark.exhaustive
def test_a_larger_transformer_is_exact_too() -> None:
    network = hardy.create("encoder_decoder", "camvid11", encoder="vit_tiny_patch16_224", decoder="segformer")
    memory, measured = estimated_and_measured(attached(network, "rein"), name="adamw")
    assert 0.9 <= memory.peak / measured <= 1.1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("case", ["transformer", "rein", "bf16", "checkpointing"])
def test_on_a_gpu_it_is_the_peak_of_the_allocator(case: str) -> None:
    _, tuner, options = CASES[case]
    network = hardy.create("encoder_decoder", "camvid11", encoder="vit_small_patch16_224", decoder="linear")
    if tuner:
        attached(network, tuner)
    optim, place = Optim(batch=8, name="adamw"), RunSection(device="cuda", **options)
    algorithm = ERM(network.train(), CrossEntropy(11))
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    size = (256, 256)
    batch = Batch(torch.rand(8, 3, *size), torch.randint(11, (8, *size)), torch.arange(8) % 2)
    loop = Fit(algorithm, lambda *_: itertools.repeat(batch), optim, place)
    memory = estimate(algorithm, optim, place, size)
    assert memory is not None
    loop.run(1)
    torch.cuda.reset_peak_memory_stats()
    loop.run(1)
    measured = torch.cuda.max_memory_allocated() - before
    assert 0.85 <= memory.peak / measured <= 1.15


def test_its_parts_by_hand() -> None:
    """A 1x1 convolution of 3 to 11 channels on one image of 8x8 that is trained by Adam with an average."""
    network = hardy.wrap(nn.Conv2d(3, 11, 1), "camvid11")
    algorithm = ERM(network.train(), CrossEntropy(11))
    memory = estimate(algorithm, Optim(name="adam", batch=1, ema=0.5), RunSection(), (8, 8))
    assert memory is not None
    trained = 4 * (33 + 11)
    assert memory.weights == trained + 4 * 6 + trained  # with mean and deviation, and the average of what is stored
    assert (memory.gradients, memory.optimiser) == (trained, 2 * trained)
    image, labels, logits = 4 * 3 * 64, 8 * 64, 4 * 11 * 64
    assert memory.activations >= 2 * (image + labels) + image + logits  # the image, normalised, and the log-softmax
    assert memory.peak > memory.weights + memory.gradients + memory.optimiser + memory.activations - trained


@pytest.mark.costly
def test_an_algorithm_that_needs_values_is_estimated_without_its_part() -> None:
    memory = estimate(CORAL(small("plain"), CrossEntropy(11)), Optim(batch=4), RunSection(), SIZE, domains=2)
    assert memory is not None
    assert not memory.complete
    assert str(memory).startswith("memory: at least ")


def test_more_than_the_device_has_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    memory = StepMemory(0, 0, 0, 0, 3000 * MIB, complete=True)
    for fine in (None, 3000 * MIB):
        warn_above(memory, fine)
    assert not caplog.records
    warn_above(memory, 2999 * MIB)
    assert "a step needs about 3,000 MiB and the device has 2,999: take a smaller optim.batch" in caplog.text


@pytest.mark.costly
def test_hardy_train_says_it_in_one_line_and_records_it(
    town: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = from_values(
        {
            "network": {"name": "tiny", "classes": str(town / "classes.yaml"), "width": 8},
            "data": {"sources": ["folder/day"], "root": str(town), "crop": [32, 48]},
            "optim": {"steps": 1, "batch": 2},
            "run": {"workers": 0, "device": "cpu", "folder": str(tmp_path / "run")},
        }
    )
    folder = train.run(given)
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("memory: ")]
    assert len(said) == 1
    assert " MiB for a step (weights 1, gradients 1, optimiser 1, activations" in said[0]
    assert all(0.1 < one.cost["train_step_mib"] < 10 for one in records.read(folder / "records.jsonl"))
