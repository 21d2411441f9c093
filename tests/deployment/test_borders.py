"""Interpolating between differing cells alone gives the classes of interpolating everything."""

import onnx
import onnxruntime
import pytest
import torch
from torch.nn import functional as F

from hardy.deployment import borders
from hardy.deployment.export import export
from hardy.errors import InputError
from hardy.networks.building.create import create


def run(logits, size, more="borders_their_pixels"):
    """The classes, and how many squares had their pixels interpolated."""
    nodes, constants = borders.nodes(onnx, "logits", logits.shape, size)
    float32, byte = onnx.TensorProto.FLOAT, onnx.TensorProto.UINT8
    outputs = [
        onnx.helper.make_tensor_value_info("classes", byte, [len(logits), *size]),
        onnx.helper.make_tensor_value_info(more, float32, [None] * 3),
    ]
    given = [onnx.helper.make_tensor_value_info("logits", float32, list(logits.shape))]
    made = onnx.helper.make_model(
        onnx.helper.make_graph(nodes, "borders", given, outputs, constants),
        opset_imports=[onnx.helper.make_opsetid("", 18)],
        ir_version=10,
    )
    onnx.checker.check_model(made)
    session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    classes, pixels = session.run(None, {"logits": logits.numpy()})
    return torch.from_numpy(classes), pixels.shape[1]


@pytest.mark.parametrize(
    ("shape", "size"),
    [((1, 11, 5, 7), (40, 56)), ((2, 4, 3, 5), (9, 20)), ((3, 2, 1, 1), (5, 2)), ((1, 3, 4, 6), (4, 12))],
    ids=["stride 8", "strides 3 and 4", "one cell", "strides 1 and 2"],
)
def test_classes_are_those_of_the_resized_map(shape, size):
    torch.manual_seed(0)
    logits = torch.randn(*shape)
    whole = F.interpolate(logits, size=size, mode="bilinear").argmax(1)
    classes, _ = run(logits, size)
    assert classes.dtype == torch.uint8
    assert torch.equal(classes.long(), whole)


def test_only_squares_with_differing_corners_are_interpolated():
    # Class 0 left of the third column, class 1 from there on: in each of the 3 + 1 rows of squares one of the 5 + 1
    # squares has both. Without any border nothing is interpolated.
    logits = torch.zeros(1, 2, 3, 5)
    logits[:, 0, :, :2] = 1
    logits[:, 1, :, 2:] = 1
    classes, squares = run(logits, (12, 20))
    assert squares == 4
    assert classes[0, 0].tolist() == [0] * 8 + [1] * 12
    classes, squares = run(torch.ones(1, 2, 3, 5), (12, 20))
    assert squares == 0
    assert not classes.any()


def test_an_open_size_is_refused(tmp_path):
    with pytest.raises(InputError, match="works at one image size only"):
        export(create("tiny", "camvid11"), tmp_path / "net.onnx", size=(64, 64), upsample="borders", dynamic=True)
    assert list(tmp_path.iterdir()) == []
