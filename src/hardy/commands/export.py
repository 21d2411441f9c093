"""``hardy export``: an ONNX file, proven equal to the network on real images."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from hardy.commands.output.printing import keep_records, percent, say, say_lineage
from hardy.data import loader, sources
from hardy.data.base import Domain
from hardy.data.label_spaces import convert
from hardy.deployment.export import Proof, ProofError, export
from hardy.deployment.prototypes import measured
from hardy.deployment.runner import PrototypeTable, table_beside
from hardy.deployment.statistics import check
from hardy.engine import artefact, changes
from hardy.engine.provenance import provenance
from hardy.engine.run_folder import Origin, origin_of
from hardy.errors import InputError
from hardy.networks.base import Network
from hardy.ops.tensors import check_finite
from hardy.records import Record

__all__ = ["export", "run"]

MEASURED = 100
"""A domain's prototype is measured on at most this many images by default."""


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
    statistics: Any = "fixed",
    prototypes: Sequence[str] = (),
) -> Proof:
    """Export the network in ``folder`` to ``file``, prove it on the first ``images`` images of each domain, record it.

    With ``merge`` the tuner is merged first. ``prototypes`` names domains; evenly spaced images give their prototypes.

    Raises:
        InputError: if ``merge`` finds no tuner that can be merged, or the proof fails; then no file is written.
    """
    if not (domains or prototypes):
        _refuse_alone(images, root, datasets)
    check(statistics, dynamic=dynamic, prototypes=bool(prototypes))
    network, origin = _loaded(folder, merge=merge), origin_of(folder)
    chosen, known = (_domains(names, origin, root, datasets) for names in (domains, prototypes))
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
            statistics=statistics,
            prototypes=_table(network, known, MEASURED if images is None else images, size) if known else None,
        )
    except ProofError as error:
        raise InputError(str(error)) from None
    _show(proof, file, upsample, scored=bool(truth))
    say_lineage(str(file), network)
    keep_records(folder, _records(origin, proof, domains, scored=bool(truth), merge=merge, file=file))
    return proof


def _refuse_alone(*options: object) -> None:
    if any(option is not None for option in options):
        raise InputError(
            "export: --images, --root and --dataset belong to the domains that prove the file; name a domain"
        )


def _records(
    origin: Origin, proof: Proof, domains: Sequence[str], *, scored: bool, merge: bool, file: Path
) -> list[Record]:
    """The records of ``proof``."""
    versions = provenance()
    notes = {"file": str(file), "size": list(proof.size), "dynamic": proof.dynamic, "images": proof.images}
    notes |= ({} if proof.upsample == "full" else {"upsample": proof.upsample}) | ({"merge": True} if merge else {})
    if proof.statistics != "fixed":
        notes |= {"statistics": proof.statistics, "prototypes": list(proof.domains)}
    return [
        Record(origin.digest, "export", origin.sources, ",".join(domains), origin.seed, k, v, {}, versions, notes)
        for k, v in _values(proof, proof.upsample, scored=scored).items()
    ]


def _domains(
    names: Sequence[str], origin: Origin, root: str | None, datasets: Mapping[str, Mapping[str, Any]] | None
) -> Sequence[Domain]:
    place, options = sources.data_root(origin.root(root)), origin.options(names, datasets)
    return sources.domains(names, root=place, options=options) if names else []


def _table(network: Network, domains: Sequence[Domain], count: int, size: tuple[int, int]) -> PrototypeTable:
    """The prototypes of ``domains``, each measured on up to ``count`` evenly spaced images at ``size``."""

    def images(domain: Domain) -> Iterator[Tensor]:
        items = domain.items()
        some = [items[place * len(items) // count] for place in range(count)] if len(items) > count else items
        for batch in loader.evaluation_batches([(domain, some)], domain.dataset.label_space, resize=size):
            yield batch.images

    return measured(network, {domain.name: images(domain) for domain in domains})


def _loaded(folder: Path, *, merge: bool) -> Network:
    """The network in ``folder``, with its tuner merged if ``merge``."""
    network = artefact.load(folder)
    check_finite(network, folder)
    return changes.merge(network) if merge else network


def _values(proof: Proof, upsample: str, *, scored: bool) -> dict[str, float | None]:
    """The numbers of ``proof`` to record, by metric; ``scored`` if the images have labels."""
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
    if proof.statistics != "fixed":
        names = ", ".join(("source", *proof.domains))
        say(f"{table_beside(file)}: the statistics of {names}; the proof was repeated at other statistics")
    if upsample != "full":
        say(f"upsample {upsample}: {proof.agreement_full:.4%} of pixels agree with full size")
    if scored:
        say(f"mIoU: PyTorch {percent(proof.miou_torch)}, file {percent(proof.miou_onnx)}")


def _images(network: Network, domains: Sequence[Domain], count: int) -> tuple[list[Tensor], list[Tensor]]:
    """Up to ``count`` images of each domain; and their labels, if all can be mapped to the network's label space."""
    pictures: list[Tensor] = []
    truth: list[Tensor] = []
    for domain in domains:
        mapped = convert(domain.dataset.label_space, network.label_space) is not None
        space = network.label_space if mapped else domain.dataset.label_space
        for batch in loader.evaluation_batches([(domain, domain.items()[:count])], space):
            pictures.append(batch.images[0])
            truth += [batch.labels[0]] if mapped else []
    return pictures, truth if len(truth) == len(pictures) else []
