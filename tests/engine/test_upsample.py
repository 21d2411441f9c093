"""Classes from logits at half size or at the network's own stride: the file does what PyTorch does by hand."""

import onnxruntime
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hardy.data.label_spaces import find_label_space
from hardy.deployment.export import export
from hardy.errors import InputError
from hardy.metrics import confusion, scores
from hardy.networks.base import Network
from hardy.networks.building.create import create
from hardy.networks.building.wrapped import wrap
from hardy.timing.clock import prepare
from hardy.types import Outputs


class Coarse(Network):
    """Logits at a quarter of the image, rounded up, from few layers: what is tested comes after them."""

    def __init__(self):
        super().__init__(find_label_space("camvid11"))
        half = {"stride": 2, "padding": 1}
        self.layers = nn.Sequential(nn.Conv2d(3, 16, 3, **half), nn.ReLU(), nn.Conv2d(16, 11, 3, **half))

    def outputs(self, images):
        coarse = self.layers(self.normalise(images))
        return Outputs(self.enlarged(coarse, images.shape[-2:]), coarse=coarse)


@pytest.fixture(scope="module")
def coarse():
    torch.manual_seed(0)
    return Coarse().eval()


def run(path, images):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def own(network, images):
    with torch.no_grad():
        return network.outputs(images).coarse


@pytest.mark.costly
@pytest.mark.parametrize(("size", "dynamic"), [((41, 56), False), ((40, 56), True)])
def test_half_is_the_best_class_at_half_size_doubled(coarse, tmp_path, size, dynamic):
    proof = export(coarse, tmp_path / "net.onnx", size=size, dynamic=dynamic, upsample="half")
    for height, width in (size, (67, 90)) if dynamic else (size,):
        images = torch.rand(1, 3, height, width)
        half = F.interpolate(own(coarse, images), size=(-(-height // 2), -(-width // 2)), mode="bilinear")
        best = half.argmax(1)
        expected = torch.stack([best[..., y // 2, :] for y in range(height)], 1)
        expected = torch.stack([expected[..., x // 2] for x in range(width)], 2)
        found = run(tmp_path / "net.onnx", images)
        assert (found.dtype, found.shape) == (torch.uint8, (1, height, width))
        assert (found == expected).float().mean() > 0.999
    assert proof.upsample == "half"
    assert proof.difference < 1e-4  # of the logits at half size
    assert proof.agreement >= 0.9999
    assert 0.5 < proof.agreement_full < 1  # borders between classes fall a pixel aside


@pytest.mark.costly
@pytest.mark.parametrize(
    "upsample",
    [
        pytest.param("full", marks=pytest.mark.exhaustive),
        "borders",
        "half",
        pytest.param("none", marks=pytest.mark.exhaustive),
    ],
)
def test_what_is_timed_is_what_is_exported(coarse, tmp_path, upsample):
    images = torch.rand(1, 3, 40, 56)
    ran = {}
    for runtime in ("eager", "onnxruntime"):
        with torch.no_grad():
            ran[runtime] = torch.as_tensor(
                prepare(coarse, runtime, images, "classes", tmp_path / runtime, upsample).run()
            )
    assert ran["eager"].dtype == ran["onnxruntime"].dtype == torch.uint8
    assert (ran["eager"] == ran["onnxruntime"]).float().mean() >= 0.999
    export(coarse, tmp_path / "net.onnx", size=(40, 56), upsample=upsample)
    assert torch.equal(run(tmp_path / "net.onnx", images), ran["onnxruntime"])


@pytest.mark.costly
def test_none_gives_the_classes_where_the_logits_are(coarse, tmp_path):
    images = [torch.rand(3, 40, 56) for _ in range(2)]
    labels = [torch.randint(0, 11, (40, 56), dtype=torch.uint8) for _ in range(2)]
    proof = export(coarse, tmp_path / "net.onnx", size=(40, 56), upsample="none", images=images, labels=labels)
    found = torch.cat([run(tmp_path / "net.onnx", image[None]) for image in images])
    logits = own(coarse, torch.stack(images))
    assert found.shape == (2, *logits.shape[-2:])
    assert (found == logits.argmax(1)).float().mean() > 0.999
    # Against the network at full size, both at the size of the labels.
    large = F.interpolate(found[:, None].float(), size=(40, 56), mode="nearest-exact")[:, 0].long()
    with torch.no_grad():
        full = coarse(torch.stack(images)).argmax(1)
    assert proof.agreement_full == pytest.approx(float((large == full).float().mean()), abs=1e-3)
    truth = torch.stack(labels).long()
    assert proof.miou_torch == pytest.approx(scores(confusion(full, truth, 11)).miou, abs=1e-3)
    assert proof.miou_onnx == pytest.approx(scores(confusion(large, truth, 11)).miou, abs=1e-3)


class Padded(Network):
    """Its logits are those of an image filled up to multiples of 32."""

    def __init__(self):
        super().__init__(find_label_space("camvid11"))
        self.conv = nn.Conv2d(3, 11, 8, stride=8)

    def outputs(self, images):
        height, width = images.shape[-2:]
        own = self.conv(F.pad(self.normalise(images), (0, -width % 32, 0, -height % 32)))
        whole = F.interpolate(own, scale_factor=8, mode="bilinear")[..., :height, :width]
        return Outputs(whole, coarse=own)


class Silent(Padded):
    """It gives its logits only at the size of the images."""

    def outputs(self, images):
        return Outputs(super().outputs(images).logits)


@pytest.mark.parametrize(
    ("network", "size", "upsample", "message"),
    [
        (
            lambda: create("tiny", "camvid11"),
            (32, 32),
            "hafl",
            "no upsample 'hafl'; there are: full, borders, half, none; did",
        ),
        (lambda: create("classifier", "pacs7"), (32, 32), "half", "predicts one class per image"),
        (Silent, (32, 32), "none", "Silent does not give its coarse logits; use 'full'"),
        (lambda: wrap(nn.Conv2d(3, 11, 1), "camvid11"), (32, 32), "none", "Wrapped computes its logits at full size"),
        (lambda: create("linknet", "camvid11"), (64, 64), "none", "at full size; use 'full' or 'half'"),
        (lambda: create("linknet", "camvid11"), (64, 64), "borders", "at full size; use 'full' or 'half'"),
        (Padded, (45, 70), "half", "at 45x70 the logits of Padded are not .*, or choose a size such as 64x96"),
        (lambda: create("tiny", "camvid11"), (42, 64), "borders", "at 42x64 Tiny has 10x16 .* size such as 64x64"),
    ],
    ids=["unknown", "image level", "silent", "wrapped", "linknet", "linknet, borders", "padded", "no whole number"],
)
def test_what_would_do_nothing_or_wrong_is_refused(tmp_path, network, size, upsample, message):
    with pytest.raises(InputError, match=message):
        export(network(), tmp_path / "net.onnx", size=size, upsample=upsample)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.costly
def test_half_enlarges_with_aligned_corners_where_the_network_does(tmp_path):
    class Cornered(Coarse):
        align_corners = True

    torch.manual_seed(0)
    network = Cornered().eval()
    export(network, tmp_path / "net.onnx", size=(64, 96), upsample="half")
    images = torch.rand(1, 3, 64, 96)
    best = F.interpolate(own(network, images), size=(32, 48), mode="bilinear", align_corners=True).argmax(1)
    expected = best.repeat_interleave(2, 1).repeat_interleave(2, 2)
    assert (run(tmp_path / "net.onnx", images) == expected).float().mean() > 0.999
    with pytest.raises(InputError, match="'borders': Cornered resizes its logits with aligned corners"):
        export(network, tmp_path / "net.onnx", size=(64, 96), upsample="borders")
