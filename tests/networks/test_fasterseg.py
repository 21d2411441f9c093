"""FasterSeg: published sizes, architectures by file, what is shared, filters cut out."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import hardy
from hardy.errors import InputError
from hardy.networks.architectures.multipath import PUBLISHED, read
from hardy.networks.building.create import create, rebuild
from hardy.ops.cost import gmacs, parameters
from surgery import halved

HEADS_32 = 9 * 256**2 + 256 * 19  # weights of the student's heads at strides 32 and 16, and of either of the teacher's
HEADS_16 = 9 * 192**2 + 192 * 19
HEADS_T = 9 * 384 * 192 + 192 * 19


@pytest.mark.parametrize(
    ("arch", "count", "aux", "unused", "cost"),
    [
        ("student", 3_454_643, 4_385_689, 2 * 128**2, 27.770),
        ("teacher", 22_188_931, 23_524_137, 2 * 192**2, 107.779),
    ],
)
def test_size(arch: str, count: int, aux: int, unused: int, cost: float) -> None:
    """The published counts hold the weights of a channel attention that the release never applies."""
    network = create("fasterseg", "cityscapes19", arch=arch, attention=True, aux=True)
    assert parameters(network) == aux
    assert parameters(network) - parameters(network.aux) == count
    assert gmacs(network, (1024, 2048)) == pytest.approx(cost, rel=1e-4)
    heads = {"student": HEADS_32 / 32**2 + HEADS_16 / 16**2, "teacher": HEADS_T / 32**2 + HEADS_T / 16**2}[arch]
    expected = cost + heads * 1024 * 2048 / 1e9
    assert gmacs(network, (1024, 2048), training=True) == pytest.approx(expected, rel=1e-4)
    with torch.device("meta"):
        assert parameters(create("fasterseg", "cityscapes19", arch=arch)) == count - unused


def test_features_and_heads() -> None:
    network = create("fasterseg", "camvid11", aux=True)
    outputs = network.outputs(torch.rand(1, 3, 128, 192))
    tensors = {**outputs.features, **outputs.extras, "logits": outputs.coarse}
    shapes = {name: tuple(value.shape[1:]) for name, value in tensors.items()}
    assert shapes == {
        "stem": (64, 16, 24),
        "stage1": (32, 16, 24),
        "stage2": (64, 8, 12),
        "stage3": (256, 4, 6),
        "fused": (128, 16, 24),
        "logits": (11, 16, 24),
        "aux_stride16": (11, 8, 12),
        "aux_stride32": (11, 4, 6),
    }
    assert network.auxiliary_weight == 0.2
    assert network.eval()(torch.rand(1, 3, 321, 517)).shape == (1, 11, 321, 517)


def test_a_shared_cell_runs_once() -> None:
    network = create("fasterseg", "camvid11").eval()
    calls: list[int] = []
    for place, cell in enumerate(network.cells):
        cell.register_forward_hook(lambda *_, place=place: calls.append(place))
    network(torch.rand(1, 3, 64, 64))
    assert calls == list(range(10 + 9 - 3))


FINE = {"last": 0, "ops": ["conv"], "path": [0], "widths": []}
STEEP = {"last": 2, "ops": ["conv", "conv_2x_downup", "conv"], "path": [0, 1, 2], "widths": [4, 6]}


@pytest.mark.parametrize("branches", [[FINE], [STEEP], [FINE, STEEP, FINE]])
def test_any_architecture_of_the_space_at_any_size(branches: list[dict[str, Any]]) -> None:
    arch = {"format": "multipath/1", "Fch": 3, "stem": {"width": 4}, "head_width": 6, "branches": branches}
    network = create("fasterseg", "camvid11", arch=arch, aux=True)
    terms = network.outputs(torch.rand(2, 3, 65, 78)).extras
    assert list(terms) == (["aux_stride16", "aux_stride32"] if STEEP in branches else [])
    with torch.no_grad():
        for size in ((32, 32), (45, 70)):
            assert network.eval()(torch.rand(1, 3, *size)).shape == (1, 11, *size)
    assert len(network.cells) == sum(len(branch["ops"]) for branch in branches)
    if branches == [FINE]:  # the branch's only map is fused as it is: stem 5, cell, fusion, head
        assert parameters(network.branches) == 0
        convs = [layer for layer in network.modules() if isinstance(layer, torch.nn.Conv2d)]
        assert [layer.out_channels for layer in convs] == [4, 8, 8, 8, 8, 12, 12, 12, 11]


def test_the_artefact_keeps_the_files_content(tmp_path: Path) -> None:
    content = {**read(PUBLISHED["student"]), "Fch": 3}
    file = tmp_path / "found.json"
    file.write_text(json.dumps(content))
    network = create("fasterseg", "camvid11", arch=str(file)).eval()
    file.unlink()
    assert network.architecture["options"]["arch"] == content
    assert create("fasterseg", "camvid11").architecture["options"]["arch"] == "student"
    again = rebuild(network.architecture, network.label_space).eval()
    again.load_state_dict(network.state_dict(), strict=True)
    assert again.architecture == network.architecture
    hardy.save(network, tmp_path / "run")
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(again(images), network(images))
        assert torch.equal(hardy.load(tmp_path / "run").eval()(images), network(images))


def test_refuses_what_cannot_be_built(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="arch 'studnt': no such file; give student, teacher"):
        create("fasterseg", "camvid11", arch="studnt")
    file = tmp_path / "found.json"
    file.write_text('{"format": "multipath/1"}')
    with pytest.raises(InputError, match=r"found.json': Fch is missing"):
        create("fasterseg", "camvid11", arch=str(file))
    with pytest.raises(InputError, match="arch: format is missing"):
        create("fasterseg", "camvid11", arch={})


@pytest.mark.costly
def test_half_of_every_layer_can_go() -> None:
    torch.manual_seed(0)
    assert halved(create("fasterseg", "camvid11")) == 1
