"""How pooling and resizing are written into a graph: as a few products where that is exact and cheap."""

import re

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hardy.blocks.pyramid_pooling import PyramidPooling
from hardy.blocks.simple_pyramid_pooling import SimplePyramidPooling
from hardy.data.label_spaces import find_label_space
from hardy.deployment import graph, products
from hardy.deployment.export import export
from hardy.networks.base import Network, resize
from hardy.networks.building.create import create
from hardy.networks.icnet import _pooled
from hardy.types import Outputs


def run(path, images):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"images": images.numpy()})[0]


class _Pyramid(Network):
    """Little more than a pyramid: its cells divide few maps."""

    def __init__(self):
        super().__init__(find_label_space("camvid11"))
        self.first = nn.Conv2d(3, 8, 8, stride=8)
        self.pyramid = PyramidPooling(8, 11, (1, 3, 6))

    def outputs(self, images):
        return Outputs(resize(self.pyramid(self.first(self.normalise(images))), images.shape[-2:]))


@pytest.mark.costly
def test_dynamic_pyramid_pooling_is_right_at_sizes_the_example_does_not_divide(tmp_path):
    torch.manual_seed(0)
    network = _Pyramid().eval()
    proof = export(network, tmp_path / "net.onnx", size=(48, 80), dynamic=True, output="logits")
    assert proof.dynamic
    assert graph.count(tmp_path / "net.onnx", "Resize") > 0  # a product would hold the example's size
    for shape in ((1, 3, 48, 80), (3, 3, 112, 64), (1, 3, 50, 131)):
        images = torch.rand(*shape)
        with torch.no_grad():
            expected = network(images).numpy()
        np.testing.assert_allclose(run(tmp_path / "net.onnx", images), expected, atol=1e-5)


class _Pool(Network):
    """The pyramid of a network on a map of 3x5 cells at 96x160 pixels, which few of its cells divide."""

    def __init__(self, channels, pyramid):
        super().__init__(find_label_space("camvid11"))
        self.first = nn.Conv2d(3, channels, 32, stride=32)
        self.pyramid = pyramid

    def outputs(self, images):
        y = self.pyramid(self.first(self.normalise(images)))[:, :11]
        return Outputs(resize(y, images.shape[-2:]), coarse=y)


class _Summed(nn.Module):
    def forward(self, x):
        return _pooled(x)


@pytest.mark.costly
@pytest.mark.parametrize(
    ("channels", "part", "grids", "convolutions"),
    [
        pytest.param(128, lambda: create("fast_scnn", "camvid11").context[-1], 4, 5, id="fast_scnn"),
        pytest.param(12, _Summed, 4, 0, id="icnet"),
        pytest.param(
            512,
            lambda: create("swiftnet", "camvid11").decoder.pyramid,
            3,
            5,
            id="swiftnet",
            marks=pytest.mark.exhaustive,
        ),
        pytest.param(256, lambda: SimplePyramidPooling(256, 32), 3, 4, id="pp_liteseg", marks=pytest.mark.exhaustive),
    ],
)
def test_a_pyramid_is_a_few_nodes_and_no_gathers(tmp_path, channels, part, grids, convolutions):
    file = tmp_path / "net.onnx"
    torch.manual_seed(0)
    graph.write(_Pool(channels, part()).eval(), file, size=(96, 160))
    assert [graph.count(file, kind) for kind in ("Gather", "Resize", "Loop")] == [0, 0, 0]
    # Two products pool and two resize, whatever the cells; beside these a few nodes for each convolution and grid.
    assert graph.count(file, "MatMul") <= 4 * grids + 2
    assert graph.count(file) <= 6 * grids + 3 * convolutions + 12


@pytest.mark.parametrize(
    ("cells", "size"),
    [
        ((45, 60), (360, 480)),
        ((3, 5), (7, 41)),
        ((1, 1), (4, 6)),
        ((9, 8), (5, 3)),
        ((41, 4), (321, 9)),
        ((40, 7), (96, 9)),
    ],
)
def test_bilinear_products_are_bilinear_resizing(cells, size):
    x = torch.rand(2, 3, *cells)
    torch.testing.assert_close(products.bilinear(x, size), resize(x, size), atol=1e-5, rtol=0)


def test_a_window_of_rows_holds_the_cells_that_its_pixels_lie_between():
    # Windows of 30 rows at stride 8: pixels 30 to 59 lie at 3.3 to 6.9, so that they touch the cells 3 to 7; no window
    # touches more than six. With 60 columns each value takes 60 / 8 multiplications of the other product.
    assert products._window(360, 45) == (30, 6)
    assert products.multiplications((45, 60), (360, 480)) == 60 / 8 + 6
    assert products._window(7, 3) == (7, 3)  # fewer rows than a window has
    assert products._window(359, 45) == (359, 45)  # no number of rows divides them


@pytest.mark.parametrize(
    ("cells", "how", "product"),
    [
        ((45, 60), {"size": (360, 480), "mode": "bilinear"}, True),
        ((4, 5), {"size": 9, "mode": "bilinear", "align_corners": False}, True),
        ((64, 128), {"size": (128, 256), "mode": "bilinear"}, False),  # 82 multiplications for each value
        ((4, 4), {"size": (8, 8), "mode": "bilinear", "align_corners": True}, False),
        ((4, 4), {"scale_factor": 2, "mode": "bilinear"}, False),
        ((4, 4), {"size": (8, 8), "mode": "nearest"}, False),
        ((9, 9), {"size": (4, 4), "mode": "bilinear", "antialias": True}, False),
    ],
)
def test_resizing_is_a_product_where_that_is_little_work(monkeypatch, cells, how, product):
    made = []
    true = products.bilinear
    monkeypatch.setattr(products, "bilinear", lambda x, size: made.append(size) or true(x, size))
    x = torch.rand(1, 2, *cells)
    with products.Products(resizing=True):
        found = F.interpolate(x, **how)
    assert bool(made) == product
    torch.testing.assert_close(found, F.interpolate(x, **how), atol=1e-6, rtol=0)
    with products.Products(resizing=False):
        assert torch.equal(F.interpolate(x, **how), F.interpolate(x, **how))
    assert len(made) == product


@pytest.mark.parametrize("size", [3, (4, 3), (None, 5)])
def test_pooling_is_products_but_where_a_side_stays(monkeypatch, size):
    made = []
    true = products.adaptive_mean
    monkeypatch.setattr(products, "adaptive_mean", lambda x, size: made.append(size) or true(x, size))
    x = torch.rand(2, 3, 7, 11)
    with products.Products(resizing=False):
        found = nn.AdaptiveAvgPool2d(size)(x)
    torch.testing.assert_close(found, F.adaptive_avg_pool2d(x, size), atol=1e-6, rtol=0)
    assert made == ([] if size == (None, 5) else [(3, 3) if size == 3 else size])


@pytest.mark.parametrize("cells", [1, 2, 3, 5, 6, 9])
def test_adaptive_mean_is_adaptive_average_pooling(cells):
    x = torch.rand(2, 3, 7, 11, dtype=torch.float64)
    torch.testing.assert_close(products.adaptive_mean(x, (cells, 4)), F.adaptive_avg_pool2d(x, (cells, 4)))


class _Tower(Network):
    """Two convolutions, and the resizing that names are lost in."""

    def __init__(self):
        super().__init__(find_label_space("camvid11"))
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(8, 11, 3, stride=2))

    def outputs(self, images):
        y = self.layers(self.normalise(images))
        return Outputs(resize(y, images.shape[-2:]), coarse=y)


@pytest.mark.costly
@pytest.mark.parametrize(("output", "upsample"), [("logits", "full"), ("classes", "full"), ("classes", "half")])
def test_open_dimensions_are_called_batch_height_and_width(tmp_path, output, upsample):
    file = tmp_path / "net.onnx"
    export(_Tower(), file, size=(48, 80), dynamic=True, output=output, upsample=upsample)
    model = onnx.load(file)
    (images,), (found,) = model.graph.input, model.graph.output
    assert names(images) == ["batch", 3, "height", "width"]
    assert names(found) == ["batch", *([11] if output == "logits" else []), "height", "width"]
    words = {
        word
        for value in model.graph.value_info
        for name in names(value)
        for word in re.findall(r"\b[A-Za-z_]\w*", str(name))
    }
    assert not {word for word in words if re.fullmatch(r"s\d+", word)}, "one name for one dimension everywhere"


def names(value):
    return [one.dim_param or one.dim_value for one in value.type.tensor_type.shape.dim]
