"""Prototypes of domains for an exported file: measured, checked, and part of the proof of the file.

See `hardy.deployment.statistics` for the graphs and `hardy.deployment.runner` for the table's file.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hardy.adaptation.bn_domains import BNDomains
from hardy.deployment.graph import Output, Session
from hardy.deployment.proof import Parity, ProofError
from hardy.deployment.runner import SOURCE, PrototypeTable, constant
from hardy.deployment.statistics import opened
from hardy.errors import InputError
from hardy.networks.base import Network
from hardy.ops.batch_statistics import AdaptiveNorm, recording, use_given, use_mixed
from hardy.seed import key

__all__ = ["STEADY", "Prototypes", "described", "measured", "proven", "table_of", "worst"]

STEADY = 100
"""The number of batches that a prototype without a count counts for; bn_domains then moves it slowly."""

_CLOSE = 1e-3
"""The largest difference between observed statistics, as a share of the value plus the source's deviation."""

Prototypes = Mapping[str, Mapping[str, Tensor]]
"""Norm -> domain -> (2, C) mean and variance, as `BNDomains.table` returns them."""


def measured(network: Network, domains: Mapping[str, Iterable[Tensor]]) -> PrototypeTable:
    """The prototypes of ``domains``: the mean statistics over the batches of each, computed by `BNDomains`.

    Args:
        network: it does not change.
        domains: for each name its batches (B, 3, H, W), RGB in [0, 1], at the size at which the file will run.

    Raises:
        InputError: for a network without batch norms, or a domain without images.
    """
    counts = {}
    live = BNDomains(network, every=1, most=max(1, len(domains)))
    for name, batches in domains.items():
        live.enter(name)
        counts[name] = sum(live(images) is not None for images in batches)
        if not counts[name]:
            raise InputError(f"{name}: has no image to measure its statistics on")
    return table_of(network, live.table(), counts)


def table_of(network: Network, prototypes: Prototypes, counts: Mapping[str, int] | None = None) -> PrototypeTable:
    """The table of ``prototypes`` with the source's statistics, checked against the batch norms of ``network``.

    Args:
        network: has the norms of the prototypes.
        prototypes: what `BNDomains.table` returned; empty for none.
        counts: how many batches each domain's prototype counts for; `STEADY` without.

    Raises:
        InputError: for prototypes of another network, or values that are no statistics.
    """
    norms = opened(network)[1]
    source = {name: norm.source for name, norm in norms.items()}
    if prototypes and set(prototypes) != set(norms):
        other = min(set(prototypes) ^ set(norms))
        raise InputError(f"prototypes: norm {other!r} is not in both the table and the network; measure them again")
    domains = list(next(iter(prototypes.values()), {}))
    rows = {SOURCE: _row(source.values())}
    for domain in domains:
        for name, own in source.items():
            given = prototypes[name].get(domain)
            if given is None or given.shape != own.shape:
                raise InputError(f"prototypes: {domain!r} has no statistics {tuple(own.shape)} of norm {name!r}")
        rows[domain] = _row(prototypes[name][domain] for name in source)
    every = {SOURCE: 0, **{name: (counts or {}).get(name, STEADY) for name in domains}}
    try:
        return PrototypeTable({name: own.shape[1] for name, own in source.items()}, rows, every)
    except ValueError as error:
        raise InputError(f"prototypes: {error}") from None


def described(network: Network, table: PrototypeTable | None = None) -> dict[str, Any]:
    """The entries about statistics in a file's description, by which the runner recognises the table of its network.

    Args:
        network: whose file it is.
        table: of prototypes; None makes it from ``network``.
    """
    known = table_of(network, {}) if table is None else table
    return {"norms": known.norms, "source": hashlib.sha256(known.rows[SOURCE].tobytes()).hexdigest()}


def proven(
    network: Network,
    files: Mapping[Output, Path],
    table: PrototypeTable,
    compared: Callable[[Network, Mapping[Output, Callable[[Tensor], Tensor]]], Parity],
    *,
    observed: bool,
) -> list[Parity]:
    """The agreement of ``files`` and ``network`` at other statistics than the source's, as inputs and as constants.

    Args:
        network: in evaluation mode, on the CPU.
        files: the graphs, by their output: ``logits`` and ``classes``.
        table: at most three of its domains are tried; random statistics if it holds only the source's.
        compared: the comparison of a network with graphs.
        observed: whether the graphs return observed statistics; then they are also compared at weight 0.5.

    Raises:
        ProofError: if observed statistics differ from the network's.
    """
    twin, norms = opened(network)
    kept, sizes = list(norms.values()), list(table.norms.values())
    found = []
    for row in _tried(table):
        given, parts = torch.from_numpy(row), torch.from_numpy(row).split(sizes, 1)
        use_given(kept, parts)
        sessions = {name: Session(file) for name, file in files.items()}
        found.append(compared(twin, {name: partial(each, statistics=given) for name, each in sessions.items()}))
        if not observed:
            fused = {name: Session(constant(file.read_bytes(), row)) for name, file in files.items()}
            found.append(compared(twin, fused))
            continue
        use_mixed(kept, alpha=0.5, past=parts)
        fed = {"statistics": given, "weight": torch.tensor(0.5)}
        watched = _watched(twin, kept, sessions["logits"], fed)
        found.append(compared(twin, {"logits": watched, "classes": partial(sessions["classes"], **fed)}))
    return found


def worst(parities: Sequence[Parity]) -> Parity:
    """The first of ``parities``, with the largest difference and the smallest agreements of all."""
    values = [one.difference for one in parities]
    return replace(
        parities[0],
        difference=float(np.max(values)),  # NaN if one is
        agreement=min(one.agreement for one in parities),
        agreement_full=min(one.agreement_full for one in parities),
    )


def _watched(
    network: Network, norms: Sequence[AdaptiveNorm], session: Session, fed: Mapping[str, Tensor]
) -> Callable[[Tensor], Tensor]:
    """``session`` fed with ``fed``, which also compares what it observes with what ``network`` does."""

    @torch.no_grad()
    def call(images: Tensor) -> Tensor:
        logits, seen = session.all(images, **fed)
        with recording(norms) as own:
            network(images)
        expected, var = torch.cat(own, 1), torch.cat([norm.source for norm in norms], 1)[1]
        apart = float(((seen - expected).abs() / (expected.abs() + torch.stack((var.sqrt(), var)) + 1e-5)).max())
        if not apart <= _CLOSE:
            raise ProofError(f"the file observes other statistics than the network, by a share of {apart:.3g}")
        return logits

    return call


def _tried(table: PrototypeTable) -> Iterator[np.ndarray]:
    """Up to three prototypes of ``table``, or random statistics near the source's."""
    rows = [row for name, row in table.rows.items() if name != SOURCE][:3]
    if not rows:
        mean, var = table.rows[SOURCE].astype(np.float64)
        drawn = np.random.default_rng(key(0, "statistics")).standard_normal((2, len(mean)))
        rows = [np.stack((mean + 0.1 * np.sqrt(var) * drawn[0], var * np.exp(0.2 * drawn[1]))).astype(np.float32)]
    yield from rows


def _row(parts: Iterable[Tensor]) -> np.ndarray:
    """(2, N) of statistics (2, C) each."""
    joined: np.ndarray = torch.cat([part.detach().float().cpu() for part in parts], 1).contiguous().numpy()
    return joined
