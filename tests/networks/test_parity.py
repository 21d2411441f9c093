"""Imported weights compute what their publication's own code computes: numbers of that code, made once and kept.

The fixtures hold the names and shapes of a state dict and 64 values of each output at two sizes; `release_logits` made
them by the rules of `parity`. Both sides compute in float64, so that the bound measures the function alone.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from parity import agree, state
from safetensors.torch import save_file

import hardy
from hardy.blocks.zoomed_conv import ZoomedConv
from hardy.networks.base import Network
from hardy.networks.building.create import create
from hardy.networks.fasterseg import FasterSeg
from hardy.registry import PUBLICATIONS

FOLDER = Path(__file__).parent / "parity"


def release_of(publication: str, folder: Path) -> tuple[Network, dict[str, Any]]:
    """The network of the drawn file of ``publication``, imported, and the outputs of its release, which sees images of
    any size as they are."""
    description = json.loads((FOLDER / f"{publication}.json").read_text())
    assert description["repository"] == PUBLICATIONS.build(publication).repository
    save_file(state(description["shapes"]), folder / "some.safetensors")
    network = hardy.import_weights(folder / "some.safetensors", "cityscapes19", source=publication)
    network.multiple = 1
    return network, description["outputs"]


@pytest.mark.costly
@pytest.mark.parametrize("publication", list(PUBLICATIONS))
def test_an_imported_file_computes_what_its_release_computes(publication: str, tmp_path: Path) -> None:
    agree(*release_of(publication, tmp_path))


CONVENTIONS = [
    ("segformer", {"embedding_eps": 1e-6}),
    ("segformer_transformers", {"eps": 1e-6}),
    ("swiftnet", {"skip": "sum"}),
    ("pidnet", {"align_corners": False}),
    ("fast_scnn", {"align_corners": False}),
]
"""Options that import sets, as a network has them unless stated otherwise."""


@pytest.mark.costly
@pytest.mark.parametrize(
    ("publication", "options"), CONVENTIONS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_the_numbers_distinguish_a_release_from_its_paper(
    publication: str, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = PUBLICATIONS.get(publication)
    own = kind.options
    monkeypatch.setattr(kind, "options", lambda self, weights: own(self, weights) | options)
    with pytest.raises(AssertionError, match=r"'\d+x\d+', '"):
        agree(*release_of(publication, tmp_path))


def test_fasterseg_computes_what_its_release_computes() -> None:
    """Its files do not name the architecture, so that none can be imported; here it is known to be the student's."""
    description = json.loads((FOLDER / "fasterseg.json").read_text())
    network = create("fasterseg", "cityscapes19", arch="student", aux=True, published=True)
    weights = {}
    for name, value in state(description["shapes"]).items():  # a shared cell has two names; the last one counts
        layer, _, leaf = name.rpartition(".")
        if not layer.startswith("ffm.channel_attention"):  # which the release never applies
            weights[f"{our_layer(layer, network)}.{leaf}"] = value
    network.load_state_dict(weights, strict=True)
    agree(network, description["outputs"])


LAYERS = {
    r"stem\.0\.conv\.(\d)": r"stem.0.\1",
    r"stem\.1\.(conv|bn)(\d)": r"stem.\2.\1",
    r"stem\.2\.(conv|bn)1": r"stem.3.\1",
    r"stem\.2\.(conv|bn)2": r"stem.4.\1",
    r"(arms|refines)32\.0\.conv\.(\d)": r"branches.0.\1.1.\2",
    r"(arms|refines)32\.1\.conv\.(\d)": r"branches.0.\1.0.\2",
    r"(arms|refines)16\.conv\.(\d)": r"branches.1.\1.0.\2",
    r"ffm\.conv_1x1\.(conv|bn)": r"fusion.mix.\1",
    r"heads(\d+)\.conv_3x3\.(conv|bn)": r"heads\1.0.\2",
    r"heads(\d+)\.conv_1x1": r"heads\1.1",
}
PARTS = {"conv": "0", "bn": "1", "arms": "narrow", "refines": "refine"}
PARTS |= {"heads8": "head", "heads16": "aux.stride16", "heads32": "aux.stride32"}


def our_layer(layer: str, network: FasterSeg) -> str:
    """Where a layer of the release goes."""
    if found := re.fullmatch(r"cells\.(\d+)-(\d)\._op\._op\.(conv|bn)(\d)", layer):
        place = network.routes[int(found[2])][int(found[1])]
        inside = "layers." if isinstance(network.cells[place], ZoomedConv) else ""
        return f"cells.{place}.{inside}{int(found[4]) - 1}.{PARTS[found[3]]}"
    ours = next(re.sub(f"^{old}$", new, layer) for old, new in LAYERS.items() if re.fullmatch(old, layer))
    return ".".join(PARTS.get(part, part) for part in ours.split("."))
