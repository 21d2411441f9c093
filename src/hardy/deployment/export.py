"""Export to ONNX with a proof on images: a file whose outputs differ from the network's is not kept.

The file is written to a temporary folder next to its target and run in onnxruntime on the given images. The proof
compares the logits (largest absolute difference), the classes (share of equal pixels) and, with labels, the mean IoU.
With statistics of batch norms as inputs it is repeated at other statistics, and the table of prototypes is written too.
A file that passes is renamed to its target; its metadata holds the proof under ``hardy``.
"""

import copy
import json
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from hardy.deployment import epilogue, graph, readme, statistics
from hardy.deployment.epilogue import Upsample
from hardy.deployment.graph import Output
from hardy.deployment.openvino_session import OpenVINO, check_installed
from hardy.deployment.proof import Parity, Picture, ProofError, as_image, compare, proof_sizes, random_images
from hardy.deployment.prototypes import Prototypes, described, proven, table_of, worst
from hardy.deployment.runner import PrototypeTable, table_beside, write_table
from hardy.deployment.seal import reserve, seal
from hardy.deployment.statistics import Statistics
from hardy.errors import InputError, check_size, within
from hardy.files import expanded, remove, temporary
from hardy.former import FormerName
from hardy.lock import NAME as LOCK
from hardy.lock import Lock
from hardy.networks.base import Network, refuse_plain
from hardy.ops.tensors import check_finite
from hardy.ranges import MOST_IMAGES, MOST_PIXELS

__all__ = ["AGREEMENT", "Proof", "ProofError", "export"]

AGREEMENT = 0.9999
"""The least share of pixels for which file and network must give the same class."""


@dataclass(frozen=True)
class Proof:
    """An exported file and how it compares with its network.

    Attributes:
        path: the file.
        output: ``classes`` (uint8 ids) or ``logits``.
        upsample: ``full``, ``half`` or ``none``; see `hardy.deployment.epilogue`.
        size: (height, width) at which it was exported and proven.
        batch: images per run.
        dynamic: whether batch, height and width are open.
        statistics: ``fixed``, ``inputs`` or ``observed``; see `hardy.deployment.statistics`.
        domains: those in the table of prototypes beside the file.
        images: how many images it was proven on.
        drawn: True if these are random images because none were given: a weaker proof.
        difference: largest absolute difference of a logit between the file and PyTorch, at all statistics tried.
        agreement: share of pixels (or images) with the same class, where both upsample in the same way.
        agreement_full: share of pixels with the same class as the network at full size.
        miou_torch, miou_onnx: mean IoU of the network at full size and of the file; None without labels.
        nodes: operations in the graph.
        opset: the ONNX operator set.
        label_space: the label space: name, classes, colours.
        versions: of hardy, torch, onnx and onnxruntime.
        agreement_openvino: share of pixels with the same class in OpenVINO; None where it was not asked for.
    """

    path: str
    output: Output
    upsample: Upsample
    size: tuple[int, int]
    batch: int
    dynamic: bool
    statistics: Statistics
    domains: tuple[str, ...]
    images: int
    drawn: bool
    difference: float
    agreement: float
    agreement_full: float
    miou_torch: float | None
    miou_onnx: float | None
    nodes: int
    opset: int
    label_space: dict[str, Any]
    versions: dict[str, str]
    agreement_openvino: float | None = None
    labels = FormerName("label_space")

    def to_json(self) -> dict[str, Any]:
        """The fields as plain values; the label space is called ``labels``, as in files that earlier versions wrote."""
        return {"labels" if name == "label_space" else name: value for name, value in asdict(self).items()}


def export(
    network: Network,
    path: Path | str,
    *,
    size: Sequence[int],
    dynamic: bool = False,
    output: Output = "classes",
    upsample: Upsample = "full",
    batch: int = 1,
    images: Sequence[Picture] | None = None,
    labels: Sequence[Picture] | None = None,
    agreement: float = AGREEMENT,
    openvino: bool = False,
    statistics: Statistics = "fixed",
    prototypes: Prototypes | PrototypeTable | None = None,
) -> Proof:
    """Write ``network`` to the ONNX file ``path`` and prove it on ``images``.

    The network does not change: a copy in evaluation mode is exported, in float32, without auxiliary heads.

    Args:
        network: any network, on any device.
        path: the file; its folder is created. An existing file is replaced only by a proven one, its README too.
        size: (height, width) to which images are resized.
        dynamic: leave batch, height and width open; proven at ``size`` and at about three quarters of it.
        output: ``"classes"`` for uint8 class ids (B, H, W) computed in the graph, ``"logits"`` for float32 logits.
        upsample: how logits are resized to full size; see `hardy.deployment.epilogue.Upsample`.
        batch: images per run.
        images: uint8 (H, W, 3) RGB or float (3, H, W) in [0, 1]; None for four random images.
        labels: a (H, W) mask of class ids per image, 255 where ignored, or one class id per image.
        agreement: the least share of pixels that must have the same class.
        openvino: prove the file in OpenVINO too.
        statistics: whether the statistics of batch norms are inputs; see `hardy.deployment.statistics`.
        prototypes: of domains, for the table beside the file, as ``hardy.adapt(network, "bn_domains").table()`` gives
            them.

    Raises:
        InputError: if a package is missing, an argument or the weights cannot be used, or the export fails.
        ProofError: if the file disagrees with the network; no file is written.
    """
    target = _check(network, expanded(path), size, batch, images, labels)
    _check_openvino(statistics, wanted=openvino)
    still = copy.deepcopy(network).cpu().float().eval()
    epilogue.check(still, upsample, proof_sizes(size, dynamic, network.least_size))
    table = _table(still, statistics, prototypes, dynamic=dynamic)
    settings: dict[str, Any] = {"output": output, "upsample": upsample, "batch": batch, "dynamic": dynamic}
    settings |= {"size": size, "statistics": statistics, "openvino": openvino, "drawn": images is None}
    with _work_folder(target) as folder:
        return _proven(still, folder, target, *_shown(images, labels, size), table, agreement=agreement, **settings)


def _proven(
    network: Network,
    folder: Path,
    target: Path,
    images: list[Tensor],
    labels: list[Tensor] | None,
    table: PrototypeTable | None,
    *,
    size: Sequence[int],
    statistics: Statistics,
    openvino: bool,
    drawn: bool,
    agreement: float,
    **settings: Any,
) -> Proof:
    """Write the file in ``folder``, prove it, and move it to ``target``, with its table and README; see `export`."""
    file, parity = _written(network, folder, images, labels, table, size=size, statistics=statistics, **settings)
    if openvino:
        settings["agreement_openvino"] = _in_openvino(network, folder, images, size=size, **settings)
    settings |= {"path": str(target), "nodes": graph.count(file), "domains": table.domains if table else ()}
    proof = _proof(network, parity, drawn=drawn, statistics=statistics, **settings)
    _judge(proof, agreement)
    _sign(file, proof, network)
    _keep(file, target, table)
    readme.write(target, _readme_values(proof))
    return proof


def _keep(file: Path, target: Path, table: PrototypeTable | None) -> None:
    """Move ``file`` to ``target``, and write ``table`` beside it."""
    if table:
        write_table(table_beside(target), table)
    os.replace(file, target)


def _shown(
    images: Sequence[Picture] | None, labels: Sequence[Picture] | None, size: Sequence[int]
) -> tuple[list[Tensor], list[Tensor] | None]:
    """The images that prove the file, and their labels if there are any."""
    pictures = random_images(size) if images is None else [as_image(image) for image in images]
    return pictures, None if labels is None else [torch.as_tensor(np.asarray(label)) for label in labels]


def _table(
    network: Network, kind: Statistics, prototypes: Prototypes | PrototypeTable | None, *, dynamic: bool
) -> PrototypeTable | None:
    """The table of prototypes of ``network``; None for fixed statistics."""
    statistics.check(kind, dynamic=dynamic, prototypes=bool(prototypes))
    if kind == "fixed":
        return None
    if not isinstance(prototypes, PrototypeTable):
        return table_of(network, prototypes or {})
    if described(network, prototypes) != described(network):
        raise InputError("prototypes: the table is of another network; measure them again")
    return prototypes


@contextmanager
def _work_folder(target: Path) -> Iterator[Path]:
    """A temporary folder next to ``target``, without files that a killed process left; it is removed at the end.

    Raises:
        InputError: for an `OSError` inside the block.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = temporary(target)
        with Lock(folder, who="hardy export", advice="wait for it, or name another file"):
            for left in folder.iterdir():
                if left.name != LOCK:
                    remove(left)
            try:
                yield folder
            finally:
                remove(folder)
    except OSError as error:
        raise InputError(f"{target}: cannot be written: {error.strerror or error}") from None


def _written(
    network: Network,
    folder: Path,
    images: Sequence[Tensor],
    labels: Sequence[Tensor] | None,
    table: PrototypeTable | None,
    *,
    output: Output,
    statistics: Statistics,
    **settings: Any,
) -> tuple[Path, Parity]:
    """The file in ``folder`` that returns ``output``, and how it compares with ``network``."""
    files: dict[Output, Path] = {"logits": folder / "logits.onnx", "classes": folder / "classes.onnx"}
    graph.write(network, files["logits"], statistics=statistics, **settings)
    graph.with_classes(files["logits"], files["classes"], upsample=settings["upsample"])
    sessions = {name: graph.Session(file) for name, file in files.items()}
    parity = compare(network, sessions, images=images, labels=labels, **settings)
    if table is not None:
        compared = partial(compare, images=images, labels=None, **settings)
        others = proven(network, files, table, compared, observed=statistics == "observed")
        parity = worst([parity, *others])
    return files[output], parity


def _in_openvino(
    network: Network, folder: Path, images: Sequence[Tensor], *, size: Sequence[int], output: Output, **settings: Any
) -> float:
    """The agreement of ``network`` with the graphs in ``folder`` when OpenVINO runs them."""
    sessions = {name: OpenVINO(folder / f"{name}.onnx") for name in get_args(Output)}
    return compare(network, sessions, size=size, images=images, labels=None, **settings).agreement


def _proof(network: Network, parity: Parity, **settings: Any) -> Proof:
    return Proof(
        **settings,
        opset=graph.OPSET,
        label_space=network.label_space.to_json(),
        versions={name: metadata.version(name) for name in ("hardy", "torch", "onnx", "onnxruntime")},
        **vars(parity),
    )


def _check(
    network: Network,
    path: Path,
    size: Sequence[int],
    batch: int,
    images: Sequence[Picture] | None,
    labels: Sequence[Picture] | None,
) -> Path:
    refuse_plain(network)
    check_size("size", size, network.least_size)
    if batch < 1:
        raise InputError(f"batch {batch}: must be at least 1")
    within("batch", batch, 1, MOST_IMAGES)
    within("pixels of a size", size[0] * size[1], 1, MOST_PIXELS)
    if path.is_dir() or path.suffix != ".onnx":
        raise InputError(f"{path}: the target is a file that ends in .onnx")
    if images is not None and not images:
        raise InputError("images is empty; leave it out to prove the file on random images")
    if labels is not None and len(labels) != len(images or ()):
        raise InputError(f"{len(labels)} labels for {len(images or ())} images; give one per image")
    check_finite(network)
    return path


def _check_openvino(kind: Statistics, *, wanted: bool) -> None:
    if wanted and kind != "fixed":
        raise InputError(f"statistics {kind}: OpenVINO proves files of fixed statistics; leave openvino out")
    if wanted:
        check_installed()


def _judge(proof: Proof, agreement: float) -> None:
    if proof.agreement_openvino is not None and not proof.agreement_openvino >= agreement:
        raise ProofError(
            f"{proof.path}: in OpenVINO the file and the network agree on {proof.agreement_openvino:.4%} of the "
            f"pixels, needed: {agreement:.2%}; no file was written"
        )
    if not (proof.agreement >= agreement and math.isfinite(proof.difference)):
        raise ProofError(
            f"{proof.path}: the file and the network agree on {proof.agreement:.4%} of the pixels, needed: "
            f"{agreement:.2%}; largest logit difference {proof.difference:.3g}; no file was written"
        )


def _readme_values(proof: Proof) -> dict[str, Any]:
    """What the README beside the file shows."""
    images = f"{proof.images} {'random' if proof.drawn else 'real'} images"
    checked = f"Proven against PyTorch on {images}: {proof.agreement:.4%} of the classes agree."
    return {**proof.to_json(), "checked": checked}


def _sign(file: Path, proof: Proof, network: Network) -> None:
    """Store the proof, the origin of the encoder's weights and the lineage in the metadata of ``file``, in place."""
    onnx = graph.package("onnx")
    model = onnx.load(file)
    model.producer_name, model.producer_version = "hardy", proof.versions["hardy"]
    entry = model.metadata_props.add()
    # Not the path: it says nothing about the file, but may identify its author.
    entry.key = "hardy"
    shown = {name: value for name, value in proof.to_json().items() if name != "path"}
    more = {"pretrained": network.architecture.get("pretrained"), "lineage": list(network.lineage)}
    more |= {} if proof.statistics == "fixed" else described(network)
    more |= {"least_size": network.least_size} if proof.dynamic else {}
    entry.value = json.dumps({**shown, **{name: value for name, value in more.items() if value}})
    reserve(model)
    onnx.checker.check_model(model)
    onnx.save(model, file)
    seal(file)
