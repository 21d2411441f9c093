"""Static int8 quantisation of an exported graph, and the mean IoU that each domain loses by it.

onnxruntime's quantiser writes QuantizeLinear and DequantizeLinear pairs around convolutions and the operations between
them (Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", CVPR
2018): weights per channel in 7 of 8 bits, so that processors without VNNI do not saturate, activations in 8 bits, with
ranges from the calibration images. Attention, normalisation of images and upsampling stay in float32.
"""

import copy
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hardy.deployment import graph, readme
from hardy.deployment.graph import Output
from hardy.deployment.proof import ProofError, as_mask
from hardy.deployment.seal import reserve, seal
from hardy.errors import InputError, check_size
from hardy.files import expanded, temporary
from hardy.metrics import confusion, scores
from hardy.networks.base import Network, refuse_plain, resize
from hardy.ops.tensors import check_finite

__all__ = ["LIMIT", "Drop", "Quantised", "quantise"]

LIMIT = 2.0
"""The most points of mean IoU that a domain may lose by default."""

_KINDS = ["Conv", "ConvTranspose", "Gemm", "Add", "Mul", "Concat", "MaxPool", "AveragePool", "Relu", "Clip"]
"""The operations that are quantised."""

Pictures = Mapping[str, Sequence[tuple[Tensor, Tensor]]]
"""Domain -> its images (3, H, W) in [0, 1], each with its (H, W) mask of class ids."""


@dataclass(frozen=True)
class Drop:
    """The loss of one domain.

    Attributes:
        domain: its name.
        images: how many were measured.
        before, after: mean IoU of the network and of the quantised file, in [0, 1].
        agreement: share of pixels with the same class.
    """

    domain: str
    images: int
    before: float
    after: float
    agreement: float

    @property
    def points(self) -> float:
        """Percentage points of mean IoU lost; negative for a gain."""
        return 100 * (self.before - self.after)


@dataclass(frozen=True)
class Quantised:
    """A quantised file.

    Attributes:
        path: the file.
        drops: of each domain.
        calibrated: domain -> the number of images that gave the ranges.
        layers: how many convolutions and matrix products are in int8.
        bytes_before, bytes_after: sizes of the float32 file and of this one.
    """

    path: str
    drops: tuple[Drop, ...]
    calibrated: Mapping[str, int]
    layers: int
    bytes_before: int
    bytes_after: int


def quantise(
    network: Network,
    path: Path | str,
    *,
    size: Sequence[int],
    calibration: Mapping[str, Sequence[Tensor]],
    measured: Pictures,
    limit: float = LIMIT,
    output: Output = "classes",
) -> Quantised:
    """Write ``network`` in int8 to the ONNX file ``path``, if no domain of ``measured`` loses more than ``limit``.

    Args:
        network: any network for pixels; it does not change.
        path: the file; an existing one is replaced at the end only. Its README is written beside it.
        size: (height, width) to which images are resized.
        calibration: domain -> images (3, H, W) in [0, 1], from which the ranges of activations come.
        measured: other images, with masks.
        limit: points of mean IoU.
        output: what the file returns; see `hardy.deployment.graph.Output`.

    Raises:
        InputError: for a wrong argument, a package that is missing, or a network of image-level classes.
        ProofError: if a domain loses too much; no file is written.
    """
    target = _check(network, expanded(path), size, calibration, measured)
    still = copy.deepcopy(network).cpu().float().eval()
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=temporary(target).name, dir=target.parent) as work:
        exact, small, ready = (Path(work, f"{name}.onnx") for name in ("exact", "small", "classes"))
        graph.write(still, exact, size=size)
        _int8(exact, small, [image for images in calibration.values() for image in images], size)
        graph.with_classes(small, ready)
        session = graph.Session(ready)
        drops = tuple(_drop(name, still, session, pairs, size) for name, pairs in measured.items())
        _judge(target, drops, limit)
        chosen = small if output == "logits" else ready
        layers = graph.count(small, "Conv") + graph.count(small, "Gemm") + graph.count(small, "ConvTranspose")
        counts = {name: len(images) for name, images in calibration.items()}
        made = Quantised(str(target), drops, counts, layers, exact.stat().st_size, chosen.stat().st_size)
        description = _sign(chosen, still, made, size, output)
        made = replace(made, bytes_after=chosen.stat().st_size)
        os.replace(chosen, target)
    readme.write(target, description)
    return made


def _int8(source: Path, target: Path, images: Sequence[Tensor], size: Sequence[int]) -> None:
    """Write the graph ``source`` in int8 to ``target``, with ranges from ``images``."""
    graph.package("onnx")
    quantization: Any = graph.package("onnxruntime.quantization")
    prepared = source.with_name("prepared.onnx")
    with graph.silence():
        graph.package("onnxruntime.quantization.shape_inference").quant_pre_process(
            str(source), str(prepared), skip_symbolic_shape=True
        )
        quantization.quantize_static(
            str(prepared),
            str(target),
            _Reader(images, size),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=_KINDS,
            per_channel=True,
            reduce_range=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )


class _Reader:
    """Gives onnxruntime the images one after another, then None."""

    def __init__(self, images: Sequence[Tensor], size: Sequence[int]) -> None:
        self._feeds: Iterator[dict[str, np.ndarray]] = (
            {"images": resize(image[None], size).contiguous().numpy()} for image in images
        )

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next image."""
        return next(self._feeds, None)

    def __iter__(self) -> "_Reader":
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        return next(self._feeds)


@torch.inference_mode()
def _drop(
    name: str, network: Network, session: graph.Session, pairs: Sequence[tuple[Tensor, Tensor]], size: Sequence[int]
) -> Drop:
    """The loss of the domain ``name``."""
    count = len(network.label_space)
    before, after = (torch.zeros(count, count, dtype=torch.int64) for _ in range(2))
    equal = pixels = 0
    for image, mask in pairs:
        images = resize(image[None], size).contiguous()
        expected, found = network(images).argmax(1), session(images).long()
        truth = as_mask(mask, (int(size[0]), int(size[1])))[None]
        before += confusion(expected, truth, count)
        after += confusion(found, truth, count)
        equal, pixels = equal + int((expected == found).sum()), pixels + expected.numel()
    return Drop(name, len(pairs), scores(before).miou, scores(after).miou, equal / pixels)


def _judge(target: Path, drops: Sequence[Drop], limit: float) -> None:
    worst = max(drops, key=lambda drop: drop.points if drop.points == drop.points else -np.inf)
    if not worst.points <= limit:
        every = ", ".join(f"{drop.domain} {drop.points:z.1f}" for drop in drops)
        raise ProofError(
            f"{target}: int8 loses {worst.points:.1f} points of mIoU in {worst.domain}, more than the limit {limit:g} "
            f"(all: {every}); give more calibration images, or a higher limit; no file was written"
        )


def _sign(file: Path, network: Network, made: Quantised, size: Sequence[int], output: Output) -> dict[str, Any]:
    """Store the description of ``file`` in its metadata, in place; returns it with the line for the README."""
    onnx = graph.package("onnx")
    model = onnx.load(file)
    description: dict[str, Any] = {
        "output": output,
        "upsample": "full",
        "size": list(size),
        "batch": 1,
        "dynamic": False,
        "quantised": {"drops": [asdict(drop) for drop in made.drops], "calibrated": dict(made.calibrated)},
        "labels": network.label_space.to_json(),
        "versions": {name: metadata.version(name) for name in ("hardy", "torch", "onnx", "onnxruntime")},
    }
    more = {"pretrained": network.architecture.get("pretrained"), "lineage": list(network.lineage)}
    description |= {name: value for name, value in more.items() if value}
    model.producer_name, model.producer_version = "hardy", description["versions"]["hardy"]
    entry = model.metadata_props.add()
    entry.key, entry.value = "hardy", json.dumps(description)
    reserve(model)
    onnx.save(model, file)
    seal(file)
    drops = ", ".join(f"{drop.domain} {drop.points:z.1f}" for drop in made.drops)
    return {**description, "checked": f"int8; points of mIoU lost against the network: {drops}."}


def _check(
    network: Network,
    path: Path,
    size: Sequence[int],
    calibration: Mapping[str, Sequence[Tensor]],
    measured: Pictures,
) -> Path:
    refuse_plain(network)
    check_size("size", size, network.least_size)
    if path.is_dir() or path.suffix != ".onnx":
        raise InputError(f"{path}: the target is a file that ends in .onnx")
    if network.image_level:
        raise InputError("quantize: the network gives one class per image; quantisation is measured by mIoU of pixels")
    for what, given in {"calibration": calibration, "measured": measured}.items():
        if not given or not all(given.values()):
            raise InputError(f"{what}: needs at least one domain with images")
    check_finite(network)
    return path
