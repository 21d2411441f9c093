"""A network as an ONNX graph: written by torch's exporter, run by onnxruntime on the CPU.

Adaptive average pooling is written as matrix products; at a fixed size so is bilinear resizing where that is faster.
See `hardy.deployment.products`.
"""

import contextlib
import copy
import io
import logging
import re
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from hardy.deployment import borders, class_by_class
from hardy.deployment.epilogue import Treated, Upsample
from hardy.deployment.products import Products
from hardy.deployment.statistics import Opened, Statistics, opened
from hardy.errors import InputError
from hardy.networks.base import Network

__all__ = [
    "OPSET",
    "Output",
    "Session",
    "count",
    "package",
    "silence",
    "with_classes",
    "write",
]

OPSET = 18

Output = Literal["classes", "logits"]
"""What a graph returns: uint8 class ids (B, H, W), or float32 logits (B, K, H, W)."""


def package(name: str) -> Any:
    """The module ``name`` of the ``export`` extra, imported on first use.

    Raises:
        InputError: naming the extra if it is not installed.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise InputError(f"{error.name} is not installed; it comes with: pip install 'hardy[export]'") from None


def write(
    network: Network,
    path: Path,
    *,
    size: Sequence[int],
    batch: int = 1,
    dynamic: bool = False,
    upsample: Upsample = "full",
    statistics: Statistics = "fixed",
) -> None:
    """Write ``network`` as one ONNX file from ``images`` (B, 3, H, W) float32 to ``logits`` (B, K, H, W).

    Args:
        network: in evaluation mode, on the CPU; hooks on it are not exported.
        path: the file; it is not written atomically.
        size: (height, width) of the images; with ``dynamic`` only an example.
        batch: images per run; with ``dynamic`` only an example.
        dynamic: leave batch, height and width open, under these names.
        upsample: the size of the logits; see `hardy.deployment.epilogue.logits`.
        statistics: whether the statistics of batch norms are inputs too; see `hardy.deployment.statistics`.

    Raises:
        InputError: naming the module at which the export failed, or a dimension that did not stay open.
    """
    onnx, _ = package("onnx"), package("onnxscript")
    # The exporter treats a dimension of 1 as a constant, so the example of an open batch has two images.
    images = torch.zeros(max(2, batch) if dynamic else batch, 3, *size)
    network, norms = (network, {}) if statistics == "fixed" else opened(network)
    treated: nn.Module = network if upsample == "full" else Treated(network, upsample)
    more: Mapping[str, Tensor] = {}
    if norms:
        treated = own = Opened(treated, list(norms.values()), observed=statistics == "observed")
        more = own.defaults
    with silence():
        try:
            model = _model(treated, images, more, dynamic)
        except Exception as error:
            raise InputError(_failure(error, network, dynamic)) from error
    fixed = [axis for axis in (0, 2, 3) if dynamic and not _shape(model.graph.input[0])[axis].dim_param]
    if fixed:
        raise InputError(
            f"{type(network).__name__} fixes dimension {fixed[0]} of its images; export it at a fixed size"
        )
    _name_dimensions(model)
    model.graph.initializer.extend(onnx.numpy_helper.from_array(value.numpy(), name) for name, value in more.items())
    onnx.save(model, path)


def _model(network: nn.Module, images: Tensor, more: Mapping[str, Tensor], dynamic: bool) -> Any:
    """The ONNX model of ``network``, exported on ``images`` and the inputs ``more``."""
    free = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC) if dynamic else None
    with Products(resizing=not dynamic), _unfused(network), torch.no_grad() if more else contextlib.nullcontext():
        program = torch.export.export(
            network, (images, *more.values()), dynamic_shapes=(free, *[None] * len(more)) if dynamic else None
        )
    exported = torch.onnx.export(
        program,
        (),
        dynamo=True,
        opset_version=OPSET,
        input_names=["images", *more],
        output_names=["logits", "observed"] if "weight" in more else ["logits"],
        external_data=False,
        verbose=False,
    )
    assert exported is not None, "the dynamo exporter returns a program"
    return exported.model_proto


def _name_dimensions(model: Any) -> None:
    """Rename the open dimensions of ``images`` to batch, height and width in the graph, in place."""
    names = dict(zip((0, 2, 3), ("batch", "height", "width"), strict=True))
    given = {_shape(model.graph.input[0])[axis].dim_param: name for axis, name in names.items()}
    given.pop("", None)
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for dimension in _shape(value):
            if dimension.dim_param:
                dimension.dim_param = re.sub(
                    r"[A-Za-z_]\w*", lambda word: given.get(word[0], word[0]), dimension.dim_param
                )


def with_classes(source: Path, path: Path, *, upsample: Upsample = "full") -> None:
    """Write the graph ``source`` with its logits replaced by ``classes``: their argmax as uint8.

    Where the graph allows it, the argmax is computed by `hardy.deployment.class_by_class`, elsewhere by ONNX's ArgMax,
    which returns int64, eight times the bytes; of equal logits both take the first class, as torch does. For ``half``
    the logits are at half the size of the images, rounded up: every class is repeated twice in both directions and
    cropped to the images. For ``borders`` see `hardy.deployment.borders`.
    """
    onnx = package("onnx")
    model = onnx.load(source)
    (logits, *others), images = copy.deepcopy(list(model.graph.output)), model.graph.input[0]
    coarse = [axis.dim_param or axis.dim_value for axis in _shape(logits)]
    full = [axis.dim_param or axis.dim_value for axis in _shape(images)]
    if upsample == "borders":
        nodes, constants = borders.nodes(onnx, logits.name, coarse, full[2:])
    else:
        nodes, constants = _best(onnx, model.graph, logits.name, "classes_at_half" if upsample == "half" else "classes")
    if upsample == "half":
        doubled, needed = _doubled(onnx, images.name)
        nodes, constants = nodes + doubled, constants + needed
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(constants)
    del model.graph.output[:]
    sides = full[2:] if upsample in ("borders", "half") else coarse[2:]
    byte = onnx.TensorProto.UINT8
    model.graph.output.append(onnx.helper.make_tensor_value_info("classes", byte, [coarse[0], *sides]))
    model.graph.output.extend(others)
    onnx.save(model, path)


def _best(onnx: Any, graph: Any, logits: str, output: str) -> tuple[list[Any], list[Any]]:
    """The nodes from logits to the best class as uint8, and their constants; nodes that are not needed any more go."""
    found = class_by_class.best(onnx, graph, logits, output)
    if found is None:
        make = onnx.helper.make_node
        return [
            make("ArgMax", [logits], ["class_ids"], axis=1, keepdims=0, name="argmax"),
            make("Cast", ["class_ids"], [output], to=onnx.TensorProto.UINT8, name="to_bytes"),
        ], []
    for node in [node for node in graph.node if node.output[0] in found.replaced]:
        graph.node.remove(node)
    for value in [value for value in graph.value_info if value.name in found.replaced]:
        graph.value_info.remove(value)
    read = {name for node in (*graph.node, *found.nodes) for name in node.input}
    for value in [value for value in graph.initializer if value.name not in read]:
        graph.initializer.remove(value)
    return found.nodes, found.constants


def _doubled(onnx: Any, images: str) -> tuple[list[Any], list[Any]]:
    """The nodes from classes at half the size of ``images`` to classes at their size, and their constants."""
    make = onnx.helper.make_node
    constants = {
        "twice": np.array([1, 2, 2], np.float32),
        "corner": np.zeros(2, np.int64),
        "sides": np.array([1, 2], np.int64),
    }
    modes = {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
    nodes = [
        make("Resize", ["classes_at_half", "", "twice"], ["classes_doubled"], name="double", **modes),
        make("Shape", [images], ["images_size"], start=2, name="images_size"),
        make("Slice", ["classes_doubled", "corner", "images_size", "sides"], ["classes"], name="cut"),
    ]
    return nodes, [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()]


def count(path: Path, kind: str | None = None) -> int:
    """Number of operations in the graph of file ``path``; with ``kind``, such as BatchNormalization, only of that."""
    nodes = package("onnx").load(path).graph.node
    return sum(kind is None or node.op_type == kind for node in nodes)


class Session:
    """The graph of an ONNX file, ready to run on the CPU: ``session(images) -> classes or logits``.

    Args:
        path: the file, or its bytes.
        threads: threads per operation; None: as many as torch uses.
        optimised: a file to write the graph to as onnxruntime runs it; None writes none.
    """

    def __init__(self, path: Path | bytes, *, threads: int | None = None, optimised: Path | None = None) -> None:
        runtime = package("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads or torch.get_num_threads()
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        # Threads that spin after a run would slow down the next measurement in this process.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        if optimised is not None:
            options.optimized_model_filepath = str(optimised)
        model = path if isinstance(path, bytes) else str(path)
        self._session = runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def __deepcopy__(self, memo: dict[int, object]) -> "Session":
        """The same session: it has no state."""
        return self

    @property
    def described(self) -> str | None:
        """The description of the network that `hardy.export` wrote into the file, as JSON; None if there is none."""
        found: str | None = self._session.get_modelmeta().custom_metadata_map.get("hardy")
        return found

    @property
    def takes(self) -> tuple[int | str | None, ...]:
        """The shape of the images; a name or None for an open dimension."""
        return tuple(self._session.get_inputs()[0].shape)

    @property
    def gives(self) -> tuple[int | str | None, ...]:
        """The shape of the output; a name or None for an open dimension."""
        return tuple(self._session.get_outputs()[0].shape)

    def __call__(self, images: Tensor, **inputs: Tensor) -> Tensor:
        """The first output of the graph for ``images`` (B, 3, H, W) float32 on the CPU, and for ``inputs`` by name."""
        return self.all(images, **inputs)[0]

    def all(self, images: Tensor, **inputs: Tensor) -> list[Tensor]:
        """All outputs of the graph; see `__call__`."""
        fed = {name: value.numpy() for name, value in {"images": images, **inputs}.items()}
        return [torch.from_numpy(value) for value in self._session.run(None, fed)]


def _shape(value: Any) -> Any:
    return value.type.tensor_type.shape.dim


def _failure(error: Exception, network: nn.Module, dynamic: bool) -> str:
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
def _unfused(network: nn.Module) -> Iterator[None]:
    """Compute SAM's attention step by step inside the block: the exporter cannot write its fused form."""
    fused: list[Any] = [
        module
        for module in network.modules()
        if type(module).__module__ == "timm.models.vision_transformer_sam" and getattr(module, "fused_attn", False)
    ]  # by name, since to import timm takes seconds
    for module in fused:
        module.fused_attn = False
    try:
        yield
    finally:
        for module in fused:
            module.fused_attn = True


@contextlib.contextmanager
def silence() -> Iterator[None]:
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
