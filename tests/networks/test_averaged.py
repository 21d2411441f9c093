"""Several teachers as one: the mean of their class probabilities, by class name."""

import copy

import pytest
import torch

from hardy.data.label_spaces import LabelSpace
from hardy.errors import InputError
from hardy.networks.base import Network
from hardy.networks.building.averaged import Averaged
from hardy.networks.building.create import create
from hardy.networks.building.teacher import Teacher
from hardy.types import Outputs


def space(*names: str) -> LabelSpace:
    return LabelSpace("+".join(names), names, tuple((index, 0, 0) for index in range(len(names))))


class Fixed(Network):
    """Gives the same logits for each pixel."""

    def __init__(self, label_space: LabelSpace, logits: list[float], *, image_level: bool = False) -> None:
        super().__init__(label_space)
        self.register_buffer("logits", torch.tensor(logits))
        self.image_level = image_level

    def outputs(self, images):
        shape = (len(images), len(self.label_space), *images.shape[-2:])
        return Outputs(self.logits.view(1, -1, 1, 1).expand(shape).to(images.dtype))


def fixed(names: str, probabilities: list[float], **more) -> Teacher:
    return Teacher(Fixed(space(*names), torch.tensor(probabilities).log().tolist(), **more))


IMAGES = torch.rand(2, 3, 32, 32)


def test_probabilities_are_averaged_by_hand():
    both = Teacher(Averaged([fixed("ab", [0.2, 0.8]), fixed("ab", [0.6, 0.4])]))
    found = both.outputs(IMAGES).logits.softmax(1)
    assert found.shape == (2, 2, 32, 32)
    torch.testing.assert_close(found[0, :, 5, 5], torch.tensor([0.4, 0.6]))
    assert not both.gives_features


def test_classes_are_matched_by_name_and_others_left_out_first():
    both = Averaged([fixed("abc", [0.2, 0.3, 0.5]), fixed("cxa", [0.3, 0.4, 0.3])])
    assert both.label_space.classes == ("a", "c")
    torch.testing.assert_close(
        both.outputs(IMAGES).logits.softmax(1)[0, :, 0, 0], torch.tensor([(2 / 7 + 0.5) / 2, (5 / 7 + 0.5) / 2])
    )


def test_a_probability_of_nearly_zero_stays_finite():
    both = Averaged([fixed("ab", [1.0, 1e-38]), fixed("ab", [1.0, 1e-38])])
    assert both.outputs(IMAGES).logits.isfinite().all()


def test_one_teacher_twice_teaches_as_itself():
    network = create("tiny", "camvid11", width=8).eval()
    once, twice = Teacher(network, "fp32"), Teacher(Averaged([Teacher(network, "fp32")] * 2))
    torch.testing.assert_close(twice(IMAGES), once(IMAGES))
    assert torch.equal(copy.deepcopy(twice)(IMAGES), twice(IMAGES))
    assert not list(twice.parameters())
    assert not twice.state_dict()


def test_it_follows_a_device():
    both = Teacher(Averaged([Teacher(create("tiny", "camvid11", width=8))] * 2)).to("meta")
    assert {value.device.type for one in both.network.teachers for value in one.network.parameters()} == {"meta"}


def test_teachers_that_have_nothing_in_common_are_refused():
    with pytest.raises(InputError, match=r"teacher: a\+b and c have no class in common"):
        Averaged([fixed("ab", [0.5, 0.5]), fixed("c", [1.0])])
    with pytest.raises(InputError, match="teacher: one predicts masks and another image-level classes"):
        Averaged([fixed("ab", [0.5, 0.5]), fixed("ab", [0.5, 0.5], image_level=True)])
