"""Sizes are the same numbers in PyTorch, in an exported program and in onnxruntime."""

from pathlib import Path

import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.nn import functional as F

from hardy.blocks.open_size import halved_wider, masked
from hardy.blocks.sizes import cells, has_size, is_open
from hardy.networks.base import resize
from hardy.networks.parts.branches import cropped, padded

pytestmark = pytest.mark.slow

SOURCE = Path(__file__).parents[2] / "src" / "hardy"


@pytest.mark.parametrize("stride", [1, 2, 3, 4, 7])
def test_cells_are_those_of_a_strided_map(stride: int) -> None:
    for height, width in ((1, 2), (4, 5), (8, 9), (97, 160)):
        strided = torch.zeros(height, width)[::stride, ::stride]
        assert cells((height, width), stride) == tuple(strided.shape)


def test_a_size_that_is_known_is_compared() -> None:
    x = torch.zeros(1, 1, 4, 6)
    assert not is_open(x)
    assert has_size(x, (4, 6))
    assert not has_size(x, (4, 7))


class _Sizes(nn.Module):
    """All that depends on the size of the example if anything does: it has no odd side and needs no padding."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3, stride=2, padding=1)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Quarters, rounded up; a map without its padding; one that is as large as another by chance; a wider map."""
        height, width = images.shape[-2:]
        quarter = resize(images, cells((height, width), 4))
        whole = cropped(F.avg_pool2d(padded(images, 16), 2), cells((height, width), 2))
        chance = resize(images, (height // 16 * 16, width // 16 * 16))
        x, inside = halved_wider(images)
        return quarter, whole, chance, masked(self.conv(x), inside)[..., :-1, :-1]


@pytest.mark.costly
def test_an_exported_graph_is_not_that_of_its_example(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = _Sizes().eval()
    opened = ({2: Dim.DYNAMIC, 3: Dim.DYNAMIC},)
    file = tmp_path / "sizes.onnx"
    torch.onnx.export(module, (torch.rand(1, 3, 16, 32),), file, dynamic_shapes=opened, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    for size in ((16, 32), (18, 33), (33, 47)):
        images = torch.rand(1, 3, *size)
        expected = [*module(images)[:3], module.conv(images)]
        found = session.run(None, {session.get_inputs()[0].name: images.numpy()})
        for ours, theirs in zip(expected, found, strict=True):
            torch.testing.assert_close(torch.from_numpy(theirs), ours.detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("room", ["networks", "blocks"])
def test_no_size_is_rounded_up_by_a_negative_division(room: str) -> None:
    """ONNX divides integers toward zero, so that this would round down there; `cells` does not."""
    files = sorted((SOURCE / room).rglob("*.py"))
    assert not [file.name for file in files if "-(-" in file.read_text(encoding="utf-8")]
