"""What methods with an artefact of their own are given in the contracts."""

from pathlib import Path

import pytest
import torch

from hardy.networks.building.create import create
from hardy.networks.styles.dsp import first_layers, save_dsp
from hardy.ops.dsp import Perturbation
from hardy.ops.style_vae import DVAE, mirror
from hardy.seed import seeded

COSTLY = {
    "test_one_exported_graph_takes_every_size",
    "test_stages_of_a_pruned_network_are_its_own",
    "test_counting_costs_changes_nothing",
    "test_other_classes_keep_the_logits_of_those_with_the_same_names",
}
"""Claims of every network that take seconds each."""

ALIKE = {
    "bisenetv2": "fast_scnn",
    "contextnet": "fast_scnn",
    "ddrnet": "pidnet",
    "fanet": "swiftnet",
    "icnet": "swiftnet_pyramid",
    "linknet": "espnet",
    "pp_liteseg": "stdc",
    "regseg": "encoder_decoder",
    "seaformer": "topformer",
    "efficientvit": "segformer",
}
"""Network -> the one of its kind with which `make test` tries the costly claims in its place."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the costly claims of networks that have one of their kind in `make test`."""
    for item in items:
        name = getattr(item, "originalname", None)
        if item.path.parent == Path(__file__).parent and name in COSTLY and ALIKE.keys() & _parameters(item):
            item.add_marker(pytest.mark.exhaustive)


def _parameters(item: pytest.Item) -> set[object]:
    return {value for value in item.callspec.params.values() if isinstance(value, str)}  # type: ignore[attr-defined]


@pytest.fixture(scope="session")
def style_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a style perturbation that nobody trained."""
    with seeded(0, "style"):
        encoder = first_layers(create("tiny", "camvid11", width=8), 4)
        width = encoder.channels
        style = Perturbation(encoder, DVAE(width).decoder, mirror(width, 4), torch.zeros(width), torch.eye(width))
    return str(save_dsp(style, tmp_path_factory.mktemp("style")))
