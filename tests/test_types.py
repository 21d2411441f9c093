"""The two structures that travel."""

import dataclasses

import pytest
import torch

from hardy.data import rawmap
from hardy.types import IGNORE, Batch, Outputs


@pytest.fixture
def batch():
    return Batch(torch.rand(4, 3, 2, 5), torch.randint(0, 3, (4, 2, 5)), torch.tensor([0, 1, 0, 2]))


def test_a_part_of_a_batch_keeps_images_labels_and_domains_together(batch):
    part = batch.where(batch.domains == 0)
    assert len(part) == 2
    assert torch.equal(part.images, batch.images[[0, 2]])
    assert torch.equal(part.labels, batch.labels[[0, 2]])
    assert part.domains.tolist() == [0, 0]
    assert len(batch) == 4


def test_a_batch_goes_to_a_device_and_a_layout(batch):
    there = batch.to("meta")
    assert {there.images.device.type, there.labels.device.type, there.domains.device.type} == {"meta"}
    laid = batch.to("cpu", torch.channels_last)
    assert laid.images.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(laid.images, batch.images)


def test_a_part_of_outputs_is_taken_from_every_tensor():
    outputs = Outputs(
        torch.rand(3, 2, 4, 4),
        {"stage": torch.rand(3, 5, 2, 2)},
        {"aux_x": torch.rand(3, 2, 2, 2)},
        coarse=torch.rand(3, 2, 2, 2),
        embedding=torch.rand(3, 7, 2, 2),
    )
    part = outputs.where(torch.tensor([False, True, True]))
    assert torch.equal(part.logits, outputs.logits[1:])
    assert torch.equal(part.features["stage"], outputs.features["stage"][1:])
    assert torch.equal(part.extras["aux_x"], outputs.extras["aux_x"][1:])
    assert torch.equal(part.coarse, outputs.coarse[1:])
    assert torch.equal(part.embedding, outputs.embedding[1:])
    bare = Outputs(torch.rand(3, 2)).where(torch.tensor([True, False, False]))
    assert bare.coarse is None
    assert bare.embedding is None


def test_both_are_values(batch):
    for made, name in ((batch, "images"), (Outputs(torch.rand(1, 2, 3, 3)), "logits")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(made, name, torch.zeros(1))


def test_the_ignored_label_is_one_number():
    assert IGNORE == rawmap.IGNORE == 255
