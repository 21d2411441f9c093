"""Milliseconds of single layers: the same layer at several widths, timed in turns.

In ``eager`` a layer is the module followed by batch norm and ReLU (a linear layer has neither), timed separately.
In ``onnxruntime`` all widths are independent branches of one graph: convolution with bias, then ReLU, as after folding
the batch norm; resizing and the choice of the classes are written as in an export. The times are those that the runtime
reports for its kernels. So re-ordering to and from its blocked layout at the ends, which a layer inside a network does
not need, is not counted. Times are lower quartiles, so that the load of other processes has little effect on stored
numbers.
"""

import json
import re
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hardy.deployment import class_by_class, graph, products
from hardy.networks.base import IMAGENET_MEAN, IMAGENET_STD, resize
from hardy.pruning.shapes import Shape
from hardy.seed import key, seeded
from hardy.timing.clock import Runtime, interleave

__all__ = ["layer_times"]

_WARM_UP = 2
_LEAST, _MOST = 5, 15
_SECONDS = 0.4
"""The runs of one layer's widths take about this many seconds together; their number is between _LEAST and _MOST."""

_UINT8 = 2
"""ONNX's number for the type (TensorProto.UINT8)."""


def layer_times(shapes: Sequence[Shape], runtime: Runtime, device: torch.device) -> list[float]:
    """Milliseconds of each of ``shapes`` for one image, with torch's current number of threads.

    Args:
        shapes: preferably one layer at several widths, since they are timed in turns.
        runtime: see `hardy.timing.clock.Runtime`.
        device: for eager; onnxruntime runs on the CPU.

    Raises:
        InputError: when onnxruntime is not installed.
    """
    return _in_onnxruntime(shapes) if runtime == "onnxruntime" else _in_eager(shapes, device)


def _runs(once: Callable[[], object]) -> int:
    """How often a call is repeated, computed from the time of the second of two calls."""
    once()
    start = time.perf_counter()
    once()
    return min(max(int(_SECONDS / (time.perf_counter() - start + 1e-9)), _LEAST), _MOST)


def _in_eager(shapes: Sequence[Shape], device: torch.device) -> list[float]:
    with torch.inference_mode(), seeded(0, "layer times"):
        runners = [_runner(shape, device) for shape in shapes]
        runs = _runs(lambda: [run() for run in runners])
        return [_typical(spent) for spent in interleave(runners, runs, _WARM_UP, device)]


def _runner(shape: Shape, device: torch.device) -> Callable[[], object]:
    module = _module(shape).to(device).eval()
    given = torch.rand(_given(shape), device=device)
    return lambda: module(given)


def _given(shape: Shape) -> tuple[int, ...]:
    """The shape of the layer's input."""
    if shape.kind == "linear":
        return 1, shape.height, shape.inputs
    return 1, shape.inputs, shape.height, shape.width


class _Bare(nn.Module):
    """A step of a network without weights, as in `Network`, its blocks and the timed region."""

    mean: Tensor
    std: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        if self.shape.kind == "resize":
            return resize(x, self.shape.out_size)
        if self.shape.kind == "argmax":
            return x.argmax(1).to(torch.uint8)
        return (x - self.mean) / self.std


def _module(shape: Shape) -> nn.Module:
    if shape.kind == "linear":
        return nn.Linear(shape.inputs, shape.outputs)
    if shape.kind in {"resize", "normalise", "argmax"}:
        return _Bare(shape)
    sizes: dict[str, Any] = {"kernel_size": shape.kernel, "stride": shape.stride, "padding": shape.padding}
    sizes |= {"dilation": shape.dilation, "groups": shape.groups, "bias": False}
    made: nn.Module
    if shape.kind == "transposed":
        made = nn.ConvTranspose2d(shape.inputs, shape.outputs, output_padding=shape.extra, **sizes)
    else:
        made = nn.Conv2d(shape.inputs, shape.outputs, **sizes)
    return nn.Sequential(made, nn.BatchNorm2d(shape.outputs), nn.ReLU(inplace=True))


def _in_onnxruntime(shapes: Sequence[Shape]) -> list[float]:
    runtime = graph.package("onnxruntime")
    draw = np.random.default_rng(key(0, "layer times"))
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
    options.log_severity_level = 4
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder, "times"))
        model = _model(shapes, draw).SerializeToString()
        session = runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        images = {f"x{place}": draw.random(_given(shape), dtype=np.float32) for place, shape in _inputs(shapes)}
        runs = _runs(lambda: session.run(None, images))
        for _ in range(runs):
            session.run(None, images)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return _by_branch(events, len(shapes), runs)


def _inputs(shapes: Sequence[Shape]) -> list[tuple[int, Shape]]:
    """For each different input of ``shapes`` the index and the shape of the first one with it."""
    first: dict[tuple[int, ...], int] = {}
    for place, shape in enumerate(shapes):
        first.setdefault(_given(shape), place)
    return [(place, shapes[place]) for place in first.values()]


def _model(shapes: Sequence[Shape], draw: np.random.Generator) -> Any:
    """An ONNX graph with a branch for each shape; all names of branch i begin with ``branch{i}_``."""
    onnx = graph.package("onnx")
    helper, tensor = onnx.helper, onnx.numpy_helper.from_array
    kind = onnx.TensorProto.FLOAT
    inputs = _inputs(shapes)
    place_of = {_given(shape): place for place, shape in inputs}
    nodes: list[Any] = []
    weights: list[Any] = []
    outputs: list[Any] = []
    for place, shape in enumerate(shapes):
        own, given = f"branch{place}_", f"x{place_of[_given(shape)]}"
        if shape.kind in {"resize", "normalise", "argmax"}:
            steps, values = _bare_nodes(onnx, shape, own, given)
            nodes, weights = nodes + steps, weights + values
        else:
            weight = draw.standard_normal(_weight(shape), dtype=np.float32)
            weights += [tensor(weight, f"{own}w"), tensor(np.ones(shape.outputs, np.float32), f"{own}b")]
            nodes += _nodes(helper, shape, own, given)
        made_kind = onnx.TensorProto.UINT8 if shape.kind == "argmax" else kind
        outputs.append(helper.make_tensor_value_info(f"{own}y", made_kind, None))
    taken = [helper.make_tensor_value_info(f"x{place}", kind, _given(shape)) for place, shape in inputs]
    made = helper.make_graph(nodes, "layers", taken, outputs, weights)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", graph.OPSET)], ir_version=10)


def _weight(shape: Shape) -> tuple[int, ...]:
    if shape.kind == "linear":
        return shape.inputs, shape.outputs
    first, second = (shape.inputs, shape.outputs) if shape.kind == "transposed" else (shape.outputs, shape.inputs)
    return first, second // shape.groups, *shape.kernel


def _nodes(helper: Any, shape: Shape, own: str, given: str) -> list[Any]:
    if shape.kind == "linear":
        product = helper.make_node("MatMul", [given, f"{own}w"], [f"{own}m"], name=f"{own}product")
        return [product, helper.make_node("Add", [f"{own}m", f"{own}b"], [f"{own}y"], name=f"{own}bias")]
    settings = {
        "kernel_shape": shape.kernel,
        "strides": shape.stride,
        "dilations": shape.dilation,
        "group": shape.groups,
        "pads": [*shape.padding, *shape.padding],
    }
    if shape.kind == "transposed":
        settings["output_padding"] = shape.extra
    operation = "ConvTranspose" if shape.kind == "transposed" else "Conv"
    layer = helper.make_node(operation, [given, f"{own}w", f"{own}b"], [f"{own}c"], name=f"{own}layer", **settings)
    return [layer, helper.make_node("Relu", [f"{own}c"], [f"{own}y"], name=f"{own}relu")]


def _constants(shape: Shape) -> dict[str, np.ndarray]:
    """The constant inputs of normalising and resizing."""
    if shape.kind == "normalise":
        pair = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}
        return {name: np.array(value, dtype=np.float32).reshape(1, 3, 1, 1) for name, value in pair.items()}
    if shape.kind != "resize":
        return {}
    whole = np.array([1, shape.inputs, *shape.out_size], dtype=np.int64)
    if not _by_products(shape):
        return {"whole": whole}
    across, rows, down = products.factors((shape.height, shape.width), shape.out_size, torch.zeros(1))
    if len(rows) == 1:
        return {"across": across.numpy(), "down": down[0].numpy()}
    made = {"across": across.numpy(), "rows": rows.flatten().numpy(), "down": down.numpy(), "whole": whole}
    made["windows"] = np.array([1, shape.inputs, *rows.shape, shape.out_size[1]], dtype=np.int64)
    return made


def _by_products(shape: Shape) -> bool:
    """Whether an export resizes by products."""
    return products.multiplications((shape.height, shape.width), shape.out_size) <= products.PRODUCT_LIMIT


def _bare_nodes(onnx: Any, shape: Shape, own: str, given: str) -> tuple[list[Any], list[Any]]:
    """The nodes of a step without weights as an export writes it, and their constants."""
    constants = [onnx.numpy_helper.from_array(value, f"{own}{name}") for name, value in _constants(shape).items()]
    if shape.kind == "argmax":
        return _argmax_nodes(onnx, shape, own, given)

    def node(kind: str, inputs: Sequence[str], output: str, **how: Any) -> Any:
        names = [given if name == "given" else name and f"{own}{name}" for name in inputs]
        return onnx.helper.make_node(kind, names, [f"{own}{output}"], name=f"{own}{output}", **how)

    if shape.kind == "normalise":
        return [node("Sub", ["given", "mean"], "apart"), node("Div", ["apart", "std"], "y")], constants
    if not _by_products(shape):
        how = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
        return [node("Resize", ["given", "", "", "whole"], "y", **how)], constants
    wide = node("MatMul", ["given", "across"], "wide")
    if len(constants) == 2:  # one window
        return [wide, node("MatMul", ["down", "wide"], "y")], constants
    return [
        wide,
        node("Gather", ["wide", "rows"], "needed", axis=2),
        node("Reshape", ["needed", "windows"], "parts"),
        node("MatMul", ["down", "parts"], "pieces"),
        node("Reshape", ["pieces", "whole"], "y"),
    ], constants


def _argmax_nodes(onnx: Any, shape: Shape, own: str, given: str) -> tuple[list[Any], list[Any]]:
    count = shape.inputs
    if not 1 < count <= class_by_class.MOST_CLASSES:
        best = onnx.helper.make_node("ArgMax", [given], [f"{own}m"], name=f"{own}argmax", axis=1, keepdims=0)
        return [best, onnx.helper.make_node("Cast", [f"{own}m"], [f"{own}y"], name=f"{own}cast", to=_UINT8)], []
    each = [f"{own}logits_{k}" for k in range(count)]
    apart = onnx.helper.make_node("Split", [given], each, name=f"{own}apart", axis=1, num_outputs=count)
    nodes, constants = class_by_class.first_largest(onnx, each, f"{own}y", own)
    return [apart, *nodes], constants


def _typical(spent: Any) -> float:
    return float(np.percentile(spent, 25))


def _by_branch(events: Sequence[dict[str, Any]], count: int, runs: int) -> list[float]:
    """Milliseconds of each branch: the sum over its kernels of the lower quartile of the last ``runs`` times."""
    times: dict[int, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for event in events:
        found = re.search(r"branch(\d+)_", event["name"])
        if event.get("cat") == "Node" and found and event["name"].endswith("_kernel_time"):
            times[int(found[1])][event["name"]].append(event["dur"] / 1e3)
    return [sum(_typical(spent[-runs:]) for spent in times[place].values()) for place in range(count)]
