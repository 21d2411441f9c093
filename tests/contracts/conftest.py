"""What methods with an artefact of their own are given in the contracts."""

from pathlib import Path

import pytest
import torch

from hardy.networks.building.create import create
from hardy.networks.styles.dsp import first_layers, save_dsp
from hardy.ops.dsp import Perturbation
from hardy.ops.style_vae import DVAE, mirror
from hardy.seed import seeded

ALIKE = {
    "bisenetv2": "fast_scnn",
    "contextnet": "fast_scnn",
    "ddrnet": "pidnet",
    "efficientvit": "segformer",
    "fanet": "encoder_decoder",
    "fasterseg": "fast_scnn",
    "icnet": "pidnet",
    "linknet": "espnet",
    "pp_liteseg": "encoder_decoder",
    "regseg": "encoder_decoder",
    "seaformer": "segformer",
    "stdc": "encoder_decoder",
    "swiftnet": "encoder_decoder",
    "swiftnet_pyramid": "pidnet",
    "topformer": "segformer",
}
"""Network -> the one of its kind, for which `make test` tries every claim; a network that is not named here is new."""

EACH = {
    "test_any_size_from_the_least_up_gives_logits_of_that_size",
    "test_the_loss_reaches_every_parameter",
    "test_is_built_again_from_what_was_written_down",
    "test_stages_are_those_of_a_real_pass",
    "test_coarse_logits_resized_are_the_logits",
}
"""What is tried for every network: for those of `ALIKE` by `make test-costly`, for the others by `make test`."""

DEAREST = {"test_one_exported_graph_takes_every_size", "test_stages_of_a_pruned_network_are_its_own"}
"""What takes seconds a network; `make test-costly` tries it for one plain network, the image-level one, one with
transposed convolutions, one of three branches and one with attention."""
NOT_DEAREST = ALIKE.keys() | {"encoder_decoder", "fast_scnn"}


LONG = {
    "test_adaptations.py": {"cotta", "dose", "roid"},
    "test_distillation.py": {"holistic", "overhaul"},
    "test_guards.py": {"bn_domains", "cotta", "dose"},
}
"""File -> the methods that take longest in it, each with tests of its own; `make test-costly` tries these."""


STATEFUL = {"cirkd", "holistic", "kl", "knowledge_adaptation", "mgd", "overhaul"}
"""The distillation losses with buffers, draws or optimisers of their own, and one without: these are resumed."""


def others_of_distillation(item: pytest.Function) -> bool:
    """Whether `make test` tries the claim of ``item`` with another loss or another kind of labels."""
    name, kind = item.callspec.params.get("case", ("kl", "scenes")) if hasattr(item, "callspec") else ("kl", "scenes")
    if item.originalname == "test_a_resumed_run_ends_with_the_same_bits":
        return name not in STATEFUL or kind == "pictures"
    return kind == "pictures" and item.originalname != "test_terms_are_finite_scalars_that_teach_the_student_alone"


def takes_long(item: pytest.Function) -> bool:
    """Whether ``item`` tries a method of `LONG`."""
    given = item.callspec.params if hasattr(item, "callspec") else {}
    return bool({given.get("name"), given.get("case", [None])[0]} & LONG.get(item.path.name, set()))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the claims that `make test` tries with others of their kind."""
    for item in items:
        if item.path.parent == Path(__file__).parent and isinstance(item, pytest.Function) and takes_long(item):
            item.add_marker(pytest.mark.costly)
        losses = item.path == Path(__file__).parent / "test_distillation.py"
        if losses and isinstance(item, pytest.Function) and others_of_distillation(item):
            item.add_marker(pytest.mark.exhaustive)
    files = {Path(__file__).parent / name for name in ("test_networks.py", "test_stages.py")}
    for item in items:
        if item.path in files and isinstance(item, pytest.Function):
            given = {value for value in item.callspec.params.values() if isinstance(value, str)}
            claim = item.originalname
            if given & (NOT_DEAREST if claim in DEAREST else ALIKE.keys() if claim not in EACH else set()):
                item.add_marker(pytest.mark.exhaustive)
            elif given & ALIKE.keys():
                item.add_marker(pytest.mark.costly)


@pytest.fixture(scope="session")
def style_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a style perturbation that nobody trained."""
    with seeded(0, "style"):
        encoder = first_layers(create("tiny", "camvid11", width=8), 4)
        width = encoder.channels
        style = Perturbation(encoder, DVAE(width).decoder, mirror(width, 4), torch.zeros(width), torch.eye(width))
    return str(save_dsp(style, tmp_path_factory.mktemp("style")))
