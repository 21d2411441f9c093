"""The classes computed class by class are those of ArgMax."""

import onnx
import onnxruntime
import pytest
import torch

from hardy.deployment import class_by_class, graph, products
from hardy.networks.building.create import create

FLOAT, BYTE = onnx.TensorProto.FLOAT, onnx.TensorProto.UINT8


def resizing(logits, size, folder):
    """A file that resizes ``logits`` (B, K, h, w) to ``size`` as an export does."""

    class Resize(torch.nn.Module):
        def forward(self, x):
            return products.bilinear(x, size)

    file = folder / "logits.onnx"
    onnx.save(graph._model(Resize(), logits, {}, False), file)
    return file


def classes(file, images, folder, **how):
    """What the file with classes gives, and the kinds of its operations."""
    made = folder / "classes.onnx"
    graph.with_classes(file, made, **how)
    model = onnx.load(made)
    onnx.checker.check_model(model, full_check=True)
    read = {name for node in model.graph.node for name in node.input}
    assert read.issuperset(value.name for value in model.graph.initializer), "onnxruntime warns of what nobody reads"
    session = onnxruntime.InferenceSession(made, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    return torch.from_numpy(found), [node.op_type for node in model.graph.node]


@pytest.mark.costly
@pytest.mark.parametrize(
    ("shape", "size"),
    [((1, 5, 12, 6), (96, 48)), ((1, 2, 3, 4), (9, 20)), ((1, 3, 40, 5), (320, 10))],
    ids=["windows of rows", "one product", "narrow"],
)
def test_they_are_those_of_the_resized_map_and_of_equal_logits_the_first(shape, size, tmp_path):
    logits = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    logits[:, 1, : shape[2] // 2] = logits[:, 0, : shape[2] // 2].clamp(
        min=3
    )  # two classes that are equal and the best
    logits[:, 0, : shape[2] // 2] = logits[:, 1, : shape[2] // 2]
    found, kinds = classes(resizing(logits, size, tmp_path), logits, tmp_path)
    assert "ArgMax" not in kinds
    assert kinds.count("Where") == shape[1] - 1
    assert found.dtype == torch.uint8
    assert torch.equal(found, products.bilinear(logits, size).argmax(1).to(torch.uint8))
    assert not found[:, : size[0] // 4].any()  # equal logits


@pytest.mark.costly
def test_two_images_keep_argmax(tmp_path):
    logits = torch.randn(2, 3, 12, 6, generator=torch.Generator().manual_seed(0))
    found, kinds = classes(resizing(logits, (96, 48), tmp_path), logits, tmp_path)
    assert "ArgMax" in kinds
    assert torch.equal(found, products.bilinear(logits, (96, 48)).argmax(1).to(torch.uint8))


@pytest.mark.costly
def test_many_classes_keep_argmax(tmp_path, monkeypatch):
    logits = torch.randn(1, 4, 12, 6, generator=torch.Generator().manual_seed(0))
    file = resizing(logits, (96, 48), tmp_path)
    for most, expected in ((4, False), (3, True)):
        monkeypatch.setattr(class_by_class, "MOST_CLASSES", most)
        assert ("ArgMax" in classes(file, logits, tmp_path)[1]) is expected


def test_logits_that_no_product_resizes_keep_argmax(tmp_path):
    given, made = (onnx.helper.make_tensor_value_info(name, FLOAT, [1, 3, 4, 5]) for name in ("images", "logits"))
    body = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["images"], ["logits"])], "one", [given], [made])
    model = onnx.helper.make_model(body, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, tmp_path / "logits.onnx")
    logits = torch.randn(1, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    found, kinds = classes(tmp_path / "logits.onnx", logits, tmp_path)
    assert kinds == ["Relu", "ArgMax", "Cast"]
    assert torch.equal(found, logits.relu().argmax(1).to(torch.uint8))


@pytest.mark.costly
def test_a_product_with_a_matrix_for_each_class_keeps_argmax(tmp_path):
    logits = torch.randn(1, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    across = torch.randn(3, 6, 8, generator=torch.Generator().manual_seed(1))

    class Product(torch.nn.Module):
        def forward(self, x):
            return x @ across

    onnx.save(graph._model(Product(), logits, {}, False), tmp_path / "logits.onnx")
    found, kinds = classes(tmp_path / "logits.onnx", logits, tmp_path)
    assert "ArgMax" in kinds
    assert torch.equal(found, Product()(logits).argmax(1).to(torch.uint8))


@pytest.mark.costly
def test_logits_that_something_else_reads_stay(tmp_path):
    """A second reader of the coarse logits ends the part that is computed class by class."""
    logits = torch.randn(1, 3, 12, 6, generator=torch.Generator().manual_seed(0))

    class Twice(torch.nn.Module):
        def forward(self, x):
            wide = x.relu()
            return products.bilinear(wide, (24, 12)) + wide.mean()

    onnx.save(graph._model(Twice(), logits, {}, False), tmp_path / "logits.onnx")
    found, kinds = classes(tmp_path / "logits.onnx", logits, tmp_path)
    assert "ArgMax" in kinds
    assert torch.equal(found, Twice()(logits).argmax(1).to(torch.uint8))


@pytest.mark.costly
@pytest.mark.parametrize("upsample", ["full", "half"])
def test_a_network_ends_in_it(upsample, tmp_path):
    """Its logits file is split class by class; the classes are those of the logits."""
    network = create("fast_scnn", "camvid11").eval()
    graph.write(network, tmp_path / "logits.onnx", size=(96, 128), upsample=upsample)
    images = torch.rand(1, 3, 96, 128, generator=torch.Generator().manual_seed(0))
    found, kinds = classes(tmp_path / "logits.onnx", images, tmp_path, upsample=upsample)
    assert "ArgMax" not in kinds
    best = graph.Session(tmp_path / "logits.onnx")(images).argmax(1).to(torch.uint8)
    if upsample == "half":
        best = best.repeat_interleave(2, -2).repeat_interleave(2, -1)
    assert torch.equal(found, best)
