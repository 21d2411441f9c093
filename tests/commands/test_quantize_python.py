"""``hardy.quantize`` in Python: which images give the ranges and which are measured, and what is refused."""

import pytest
import torch

import hardy
from hardy.deployment import calibration
from hardy.deployment.proof import ProofError
from hardy.deployment.quantisation import Quantised
from hardy.errors import InputError


@pytest.fixture
def network(town):
    """A network in memory for the classes of the town."""
    return hardy.create("tiny", classes=town / "classes.yaml", width=8)


@pytest.fixture
def given(monkeypatch):
    """What the quantiser is given, in place of quantising."""
    found = {}

    def quantise(network, path, **options):
        found.update(options)
        return Quantised(str(path), (), {name: len(each) for name, each in options["calibration"].items()}, 1, 2, 1)

    monkeypatch.setattr(calibration, "quantise", quantise)
    return found


def test_no_image_that_gives_the_ranges_is_measured(network, town, given, tmp_path):
    made = hardy.quantize(
        network, tmp_path / "x.onnx", "folder/day", calibrate=["folder/day"], size=(32, 48), images=5, root=town
    )
    assert dict(made.calibrated) == {"folder/day": 5}
    ranges, judged = given["calibration"]["folder/day"], [image for image, _ in given["measured"]["folder/day"]]
    assert len(judged) == 5
    assert not any(torch.equal(one, other) for one in ranges for other in judged)
    assert (given["limit"], given["output"], given["size"]) == (2.0, "classes", (32, 48))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "the network: it has no recipe with sources; name domains, and --calibrate DOMAIN"),
        ({"images": 0}, "images: 0 is out of range; it must be 1 or more"),
        ({"limit": -1.0}, "limit: -1.0 is out of range; it must be 0 or more"),
        ({"output": "masks"}, "output 'masks': it must be classes or logits"),
        (
            {"data": "folder/day", "calibrate": "folder/day", "images": 12},
            "folder/day: the calibration takes all its images, so none is left to measure; lower --images",
        ),
    ],
    ids=["no domains", "no images", "a gain", "another output", "too many"],
)
def test_what_cannot_be_quantised_is_refused(network, town, given, tmp_path, options, said):
    with pytest.raises(InputError) as caught:
        hardy.quantize(network, tmp_path / "x.onnx", **{"size": (32, 48), "root": town, **options})
    assert str(caught.value) == said
    assert not given


def test_a_domain_that_loses_too_much_raises_what_an_export_raises(network, town, monkeypatch, tmp_path):
    def quantise(*given, **options):
        raise ProofError("int8 loses 3.0 points")

    monkeypatch.setattr(calibration, "quantise", quantise)
    with pytest.raises(ProofError, match="int8 loses"):
        hardy.quantize(network, tmp_path / "x.onnx", "folder/day", calibrate="folder/night", images=1, root=town)


@pytest.mark.costly
def test_a_network_in_memory_is_quantised(network, town, tmp_path):
    made = hardy.quantize(
        network,
        tmp_path / "x.onnx",
        ["folder/night"],
        calibrate=["folder/day"],
        size=(32, 48),
        limit=100,
        images=2,
        root=town,
    )
    assert [(drop.domain, drop.images) for drop in made.drops] == [("folder/night", 2)]
    assert (tmp_path / "x.onnx").stat().st_size == made.bytes_after
    assert (tmp_path / "x.README.md").is_file()
