"""ESPNet's published weights: the published network, written here on the raw state dict, gives the same logits."""

from pathlib import Path

import pytest
import torch
from published_names import espnet, values
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

import hardy
from hardy.data.label_spaces import LabelSpace
from hardy.networks.building.importing import imported

CITYSCAPES = ((72.3923111, 82.90893555, 73.15840149), (45.3192215, 46.15289307, 44.91483307))
CAMVID = ((110.331026, 108.408863, 105.033194), (72.125710, 72.690745, 69.904348))
"""Mean and deviation of BGR images in [0, 255]; the result is divided by 255."""


def published(weights: dict[str, Tensor], bgr: Tensor) -> Tensor:
    """Logits of ``bgr`` (B, 3, H, W) in [0, 255] by the table of the network, H and W multiples of 8."""
    w = {name.removeprefix("encoder."): value for name, value in weights.items()}
    decoder = "classifier.weight" in w
    classes = CAMVID if len(w["classifier.conv.weight"]) == 12 else CITYSCAPES
    mean, std = (torch.tensor(numbers).view(1, 3, 1, 1) for numbers in classes)
    x = (bgr - mean) / std / 255

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var, scale, shift = (w[f"{name}.{leaf}"] for leaf in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, mean, var, scale, shift, eps=1e-3)

    def act(x: Tensor, name: str) -> Tensor:
        return F.prelu(norm(x, f"{name}.bn"), w[f"{name}.act.weight"])

    def pyramid(x: Tensor, name: str, stride: int = 1) -> Tensor:
        reduced = F.conv2d(x, w[f"{name}.c1.conv.weight"], stride=stride, padding=stride - 1)
        d = {n: F.conv2d(reduced, w[f"{name}.d{n}.conv.weight"], padding=n, dilation=n) for n in (1, 2, 4, 8, 16)}
        sums = [d[2], d[2] + d[4], d[2] + d[4] + d[8], d[2] + d[4] + d[8] + d[16]]
        return torch.cat([d[1], *sums], 1)

    def level(x: Tensor, name: str) -> tuple[Tensor, Tensor]:
        first = last = act(pyramid(x, f"{name}_0", 2), f"{name}_0")
        for place in range(sum(key.startswith(f"{name}.") and key.endswith(".c1.conv.weight") for key in w)):
            last = act(last + pyramid(last, f"{name}.{place}"), f"{name}.{place}.bn")
        return first, last

    half = F.avg_pool2d(x, 3, 2, 1)
    convolved = act(F.conv2d(x, w["level1.conv.weight"], stride=2, padding=1), "level1")
    out0 = act(torch.cat([convolved, half], 1), "b1")
    first, last = level(out0, "level2")
    out1 = act(torch.cat([last, first, F.avg_pool2d(half, 3, 2, 1)], 1), "b2")
    first, last = level(out1, "level3")
    y = F.conv2d(act(torch.cat([first, last], 1), "b3"), w["classifier.conv.weight"])
    if not decoder:
        return F.interpolate(y, scale_factor=8, mode="bilinear", align_corners=False)
    y = F.conv_transpose2d(norm(y, "br"), w["up_l3.0.weight"], stride=2)
    y = torch.cat([F.conv2d(out1, w["level3_C.conv.weight"]), y], 1)
    y = act(pyramid(act(y, "combine_l2_l3.0"), "combine_l2_l3.1"), "combine_l2_l3.1.bn")
    y = act(F.conv_transpose2d(y, w["up_l2.0.weight"], stride=2), "up_l2.1")
    finest = convolved if w["conv.conv.weight"].shape[1] == y.shape[1] + 16 else out0
    y = act(F.conv2d(torch.cat([y, finest], 1), w["conv.conv.weight"], padding=1), "conv")
    return F.conv_transpose2d(y, w["classifier.weight"], stride=2)


def space(count: int) -> LabelSpace:
    return LabelSpace("some", tuple(f"c{i}" for i in range(count)), tuple((i, 0, 0) for i in range(count)))


def agree(weights: dict[str, Tensor], file: Path, count: int) -> None:
    """The network imported from ``file`` for ``count`` classes has the logits that ``weights`` have."""
    bgr = torch.randint(0, 256, (2, 3, 64, 96), generator=torch.Generator().manual_seed(1)).float()
    network = hardy.import_weights(file, space(count))
    with torch.no_grad():
        logits = network(bgr.flip(1) / 255)
        expected = published(weights, bgr)[:, :count]
    assert float((logits - expected).abs().max()) <= 1e-5 * max(1.0, float(expected.abs().max()))


@pytest.mark.parametrize("without_void", [False, True])
@pytest.mark.parametrize(
    "names",
    [espnet(7, 1, 2), espnet(12, 2, 1, skip=19), espnet(7, 1, 1, decoder=False)],
    ids=["released", "as trained", "encoder"],
)
def test_the_same_logits(names: dict[str, tuple[int, ...]], without_void: bool, tmp_path: Path) -> None:
    weights = values(names)
    save_file(weights, tmp_path / "some.safetensors")
    count = next(shape[0] for name, shape in names.items() if name.endswith("classifier.conv.weight"))
    agree(weights, tmp_path / "some.safetensors", count - without_void)


REAL = {
    "decoder/espnet_p_2_q_3.pth": ("cityscapes19", 3, 364_489 - 161_920),
    "decoder/espnet_p_2_q_8.pth": ("cityscapes19", 8, 364_489),
    "decoder/espnet_p_2_q_8_camvid.pth": ("camvid11", 8, 354_469),
    "encoder/espnet_p_2_q_5.pth": ("cityscapes19", 5, 252_041),
}


@pytest.mark.parametrize("name", REAL)
def test_the_published_files(name: str, real_data: Path) -> None:
    file = real_data / "weights" / "espnet" / "pretrained" / name
    if not file.is_file():
        pytest.skip(f"no published weights at {file}")
    classes, q, count = REAL[name]
    found = imported(file, classes)
    assert (found.publication, found.network.architecture["options"]["q"]) == ("espnet", q)
    assert sum(value.numel() for value in found.network.parameters()) == count
    weights = torch.load(file, map_location="cpu", weights_only=True)
    assert found.used == len(weights)
    assert list(found.dropped.values()) == ["void, which is no class"]
    agree(weights, file, len(found.network.label_space))
