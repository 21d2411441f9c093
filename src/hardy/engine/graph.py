"""A network as an ONNX graph: written by torch's exporter, run by onnxruntime on the CPU.

Adaptive average pooling is written as two matrix products, ``P_h x P_w^T``: row i of P (cells, length) holds 1 / n at
the n pixels of cell i, those from ``floor(i * length / cells)`` to ``ceil((i + 1) * length / cells) - 1``. That is the
operator's own definition. The exporter's way, a gather per cell, takes a hundred nodes for a pyramid whose cells do
not divide the map, and at a dynamic size the example's indices stay in the graph: at another size it fails or is wrong.

At a fixed size bilinear resizing is written in the same way where that is faster than ONNX's Resize: row i of R
(length, cells) holds the two weights of the cells between which pixel i lies. A product multiplies by all the zeros
besides, so it pays for maps of few cells only; see `PRODUCT_LIMIT`.
"""

import contextlib
import io
import logging
import traceback
import warnings
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from hardy.engine.epilogue import Treated, Upsample
from hardy.errors import InputError
from hardy.networks.base import Network

__all__ = [
    "OPSET",
    "PRODUCT_LIMIT",
    "Output",
    "Session",
    "adaptive_mean",
    "bilinear",
    "count",
    "package",
    "with_classes",
    "write",
]

OPSET = 18

PRODUCT_LIMIT = 64
"""The multiplications for each value up to which bilinear resizing is written as products.

On one thread with AVX-512 they took 0.6 of Resize's time at 52 multiplications, 0.9 at 80 and 2.1 at 192.
"""

Output = Literal["classes", "logits"]
"""What a graph returns: uint8 class ids (B, H, W), or float32 logits (B, K, H, W)."""


def package(name: str) -> Any:
    """The module ``name`` of the ``export`` extra, imported here and nowhere earlier.

    Raises:
        InputError: naming the extra when it is not installed.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise InputError(f"{error.name} is not installed; it comes with: pip install 'hardy[export]'") from None


def write(
    network: Network, path: Path, *, size: Sequence[int], batch: int = 1, dynamic: bool = False,
    upsample: Upsample = "full",
) -> None:  # fmt: skip
    """Write ``network`` as one ONNX file from ``images`` (B, 3, H, W) float32 to ``logits`` (B, K, H, W).

    Args:
        network: in evaluation mode, on the CPU; hooks on it are not exported.
        path: the file; written in one go, not atomically.
        size: (height, width) of the images; with ``dynamic`` an example only.
        batch: images at once; with ``dynamic`` an example only.
        dynamic: leave batch, height and width open.
        upsample: at which size the logits are; see `hardy.engine.epilogue.logits`.

    Raises:
        InputError: naming the module at which the exporter gave up, or a dimension that did not stay open.
    """
    onnx, _ = package("onnx"), package("onnxscript")
    # A dimension of 1 would be taken for a constant, so the example of an open batch has two images.
    images = torch.zeros(max(2, batch) if dynamic else batch, 3, *size)
    opened = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC) if dynamic else None
    treated = network if upsample == "full" else Treated(network, upsample)
    rewritten: dict[Any, Any] = {torch.ops.aten.adaptive_avg_pool2d.default: adaptive_mean}
    if not dynamic:
        rewritten[torch.ops.aten.upsample_bilinear2d.vec] = _bilinear
    with _silence():
        try:
            program = torch.export.export(treated, (images,), dynamic_shapes=(opened,))
            program = program.run_decompositions(rewritten)
            exported = torch.onnx.export(
                program,
                (),
                dynamo=True,
                opset_version=OPSET,
                input_names=["images"],
                output_names=["logits"],
                external_data=False,
                verbose=False,
            )
        except Exception as error:
            raise InputError(_refusal(error, network, dynamic)) from error
    assert exported is not None, "the dynamo exporter returns a program"
    model = exported.model_proto
    fixed = [axis for axis in (0, 2, 3) if dynamic and not _shape(model.graph.input[0])[axis].dim_param]
    if fixed:
        raise InputError(
            f"{type(network).__name__} fixed dimension {fixed[0]} of its images; export it at a fixed size"
        )
    onnx.save(model, path)


def with_classes(source: Path, path: Path, *, doubled: bool = False) -> None:
    """Write the graph ``source`` with its logits replaced by ``classes``: their argmax as uint8.

    ONNX's ArgMax yields int64, eight times the bytes; with equal logits the first class wins, as in torch. With
    ``doubled`` the logits are at half the size of the images, rounded up: every class is written twice in both
    directions, and what lies beyond the images is cut off.
    """
    onnx = package("onnx")
    helper, byte = onnx.helper, onnx.TensorProto.UINT8
    model = onnx.load(source)
    logits, images = model.graph.output[0], model.graph.input[0]
    kept = [axis.dim_param or axis.dim_value for axis in _shape(logits)]
    last = "classes_at_half" if doubled else "classes"
    nodes = [
        helper.make_node("ArgMax", [logits.name], ["class_ids"], axis=1, keepdims=0, name="argmax"),
        helper.make_node("Cast", ["class_ids"], [last], to=byte, name="to_bytes"),
    ]
    if doubled:
        kept[2:] = [axis.dim_param or axis.dim_value for axis in _shape(images)][2:]
        constants = {"twice": np.array([1, 2, 2], np.float32), "corner": np.zeros(2, np.int64),
                     "sides": np.array([1, 2], np.int64)}  # fmt: skip
        model.graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in constants.items())
        modes = {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
        nodes += [
            helper.make_node("Resize", [last, "", "twice"], ["classes_doubled"], name="double", **modes),
            helper.make_node("Shape", [images.name], ["images_size"], start=2, name="images_size"),
            helper.make_node("Slice", ["classes_doubled", "corner", "images_size", "sides"], ["classes"], name="cut"),
        ]
    model.graph.node.extend(nodes)
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("classes", byte, [kept[0], *kept[2:]]))
    onnx.save(model, path)


def count(path: Path, kind: str | None = None) -> int:
    """The number of operations in the graph of file ``path``; of one ``kind`` only, such as BatchNormalization."""
    nodes = package("onnx").load(path).graph.node
    return sum(kind is None or node.op_type == kind for node in nodes)


class Session:
    """The graph of an ONNX file, ready to run on the CPU: ``session(images) -> classes or logits``.

    Args:
        path: the file.
        threads: threads of one operation; as many as torch's when None.
        optimised: where to write the graph as onnxruntime runs it, if anywhere.
    """

    def __init__(self, path: Path, *, threads: int | None = None, optimised: Path | None = None) -> None:
        runtime = package("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads or torch.get_num_threads()
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        # Threads that spin after a run would take the cores from whatever is timed next in this process.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        if optimised is not None:
            options.optimized_model_filepath = str(optimised)
        self._session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def __call__(self, images: Tensor) -> Tensor:
        """What the graph returns for ``images`` (B, 3, H, W) float32 on the CPU."""
        return torch.from_numpy(self._session.run(None, {"images": images.numpy()})[0])


def adaptive_mean(x: Tensor, size: Sequence[int]) -> Tensor:
    """Adaptive average pooling of ``x`` (B, C, H, W) to ``size`` (h, w) cells, as matrix products."""
    if tuple(size) == (1, 1):
        return x.mean((-2, -1), keepdim=True)
    return _shares(x.shape[-2], size[0], x) @ x @ _shares(x.shape[-1], size[1], x).T


def bilinear(x: Tensor, size: Sequence[int]) -> Tensor:
    """``x`` (B, C, h, w) resized to ``size`` (H, W) bilinearly with half-pixel centres, as matrix products."""
    rows, columns = (_weights(to, of, x) for to, of in zip(size, x.shape[-2:], strict=True))
    first, second = _multiplications(x.shape[-2:], size)
    return rows @ (x @ columns.T) if second < first else rows @ x @ columns.T


def _bilinear(x: Tensor, size: Sequence[int] | None, align_corners: bool, scales: Sequence[float] | None) -> Any:
    """As the operator is called: `bilinear` where that pays."""
    if align_corners or scales is not None or size is None or min(_multiplications(x.shape[-2:], size)) > PRODUCT_LIMIT:
        return NotImplemented
    return bilinear(x, size)


def _multiplications(cells: Sequence[int], size: Sequence[int]) -> tuple[float, float]:
    """Of both products, for each value that is made: rows first, and columns first."""
    return cells[1] + cells[0] * cells[1] / size[1], cells[0] + cells[0] * cells[1] / size[0]


def _weights(length: int, count: int, like: Tensor) -> Tensor:
    """(length, count): what each of ``count`` cells gives to each pixel; rows sum to 1.

    Pixel i lies at ``(i + 1/2) count / length - 1/2`` among the cells, and outside at the nearest.
    """
    pixel = torch.arange(length, device=like.device, dtype=torch.float64).unsqueeze(1)
    cell = torch.arange(count, device=like.device, dtype=torch.float64).unsqueeze(0)
    centre = ((pixel + 0.5) * (count / length) - 0.5).clamp(0, count - 1)
    return (1 - (centre - cell).abs()).clamp(min=0).to(like.dtype)


def _shares(length: int, cells: int, like: Tensor) -> Tensor:
    """(cells, length): the share each pixel has in each cell; rows sum to 1.

    The bounds are compared in integers times ``cells``: floor and ceil of a quotient without dividing.
    """
    cell = torch.arange(cells, device=like.device).unsqueeze(1)
    pixel = torch.arange(length, device=like.device).unsqueeze(0)
    inside = (((pixel + 1) * cells > cell * length) & (pixel * cells < (cell + 1) * length)).to(like.dtype)
    return inside / inside.sum(1, keepdim=True)


def _shape(value: Any) -> Any:
    return value.type.tensor_type.shape.dim


def _refusal(error: Exception, network: nn.Module, dynamic: bool) -> str:
    """One line: which module of ``network`` could not be exported, and why."""
    names = {id(module): name for name, module in network.named_modules()}
    place, seen = "", list[BaseException]()
    cause: BaseException | None = error
    while cause is not None and cause not in seen:
        seen.append(cause)
        for frame, _ in traceback.walk_tb(cause.__traceback__):
            place = names.get(id(frame.f_locals.get("self")), "") or place
        cause = cause.__cause__ or cause.__context__
    why = next((line.strip() for line in str(seen[-1]).splitlines() if line.strip()), type(seen[-1]).__name__)
    where = f"module {place!r}" if place else "the network"
    return f"{type(network).__name__}: {where} cannot be exported{' at a dynamic size' if dynamic else ''}: {why}"


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep the exporter's progress lines, warnings and logs from the user's terminal."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
