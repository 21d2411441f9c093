"""``hardy export``: an ONNX file, proven equal to the network on real images."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from hardy.commands.output.printing import keep_records, percent, say, say_lineage
from hardy.data import loader, sources
from hardy.data.base import Domain
from hardy.data.labels import convert
from hardy.deployment.export import Proof, ProofError, export
from hardy.engine import artefact, changes
from hardy.engine.provenance import provenance
from hardy.engine.run_folder import origin_of
from hardy.errors import InputError
from hardy.networks.base import Network
from hardy.ops.tensors import check_finite
from hardy.records import Record

__all__ = ["export", "run"]


def run(
    folder: Path,
    file: Path,
    domains: Sequence[str],
    *,
    size: tuple[int, int],
    dynamic: bool,
    logits: bool,
    images: int | None,
    root: str | None,
    upsample: Any = "full",
    merge: bool = False,
    openvino: bool = False,
    datasets: Mapping[str, Mapping[str, Any]] | None = None,
) -> Proof:
    """Export the network in ``folder`` to ``file``, prove it on the first ``images`` images of each domain, record it.

    With ``merge`` the tuner of the network is merged into its weights first; the folder does not change.

    Raises:
        InputError: when there is no tuner, it cannot be merged, or the proof fails; then no file is written.
    """
    if not domains and (images is not None or root is not None):
        raise InputError("export: --images and --root are for the domains whose images prove the file; name a domain")
    network = _loaded(folder, merge=merge)
    chosen = sources.domains(domains, root=sources.data_root(root), options=datasets) if domains else []
    pictures, truth = _images(network, chosen, 20 if images is None else images)
    try:
        proof = export(
            network,
            file,
            size=size,
            dynamic=dynamic,
            output="logits" if logits else "classes",
            images=pictures or None,
            labels=truth or None,
            upsample=upsample,
            openvino=openvino,
        )
    except ProofError as error:
        raise InputError(str(error)) from None
    notes = {"file": str(file), "size": list(size), "dynamic": dynamic, "images": proof.images}
    notes |= ({} if upsample == "full" else {"upsample": upsample}) | ({"merge": True} if merge else {})
    _show(proof, file, upsample, scored=bool(truth))
    say_lineage(str(file), network)
    _record(folder, domains, _values(proof, upsample, scored=bool(truth)), notes)
    return proof


def _record(folder: Path, domains: Sequence[str], values: Mapping[str, float | None], notes: Mapping[str, Any]) -> None:
    """Append ``values``, by metric, to the records of the run in ``folder``."""
    versions, origin = provenance(), origin_of(folder)
    known = origin.digest, "export", origin.sources, ",".join(domains), origin.seed
    keep_records(folder, [Record(*known, metric, value, {}, versions, notes) for metric, value in values.items()])


def _loaded(folder: Path, *, merge: bool) -> Network:
    """The network in ``folder``, with its tuner merged if ``merge``."""
    network = artefact.load(folder)
    check_finite(network, folder)
    return changes.merge(network) if merge else network


def _values(proof: Proof, upsample: str, *, scored: bool) -> dict[str, float | None]:
    """The numbers of ``proof`` to record, by metric; ``scored`` where the images have labels."""
    values: dict[str, float | None] = {
        "agreement": proof.agreement,
        "logit_difference": proof.difference,
        "nodes": proof.nodes,
    }
    values |= {} if proof.agreement_openvino is None else {"agreement_openvino": proof.agreement_openvino}
    values |= {} if upsample == "full" else {"agreement_full": proof.agreement_full}
    return values | ({"miou_torch": proof.miou_torch, "miou_onnx": proof.miou_onnx} if scored else {})


def _show(proof: Proof, file: Path, upsample: str, *, scored: bool) -> None:
    mode = f"{proof.images} {'random' if proof.drawn else 'given'} images"
    say(
        f"{file}: proven in onnxruntime on {mode}: {proof.agreement:.4%} of pixels agree, largest logit difference "
        f"{proof.difference:.2g}, {proof.nodes} nodes"
    )
    if proof.agreement_openvino is not None:
        say(f"in OpenVINO {proof.agreement_openvino:.4%} of pixels agree")
    if upsample != "full":
        say(f"upsample {upsample}: {proof.agreement_full:.4%} of pixels as at full size")
    if scored:
        say(f"mIoU: PyTorch {percent(proof.miou_torch)}, file {percent(proof.miou_onnx)}")


def _images(network: Network, domains: Sequence[Domain], count: int) -> tuple[list[Tensor], list[Tensor]]:
    """Up to ``count`` images of each domain, and their labels if they can be mapped onto the network's space."""
    pictures: list[Tensor] = []
    truth: list[Tensor] = []
    for domain in domains:
        mapped = convert(domain.dataset.labels, network.labels) is not None
        space = network.labels if mapped else domain.dataset.labels
        for batch in loader.evaluation_batches([(domain, domain.items()[:count])], space):
            pictures.append(batch.images[0])
            truth += [batch.labels[0]] if mapped else []
    return pictures, truth if len(truth) == len(pictures) else []
