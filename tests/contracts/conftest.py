"""What methods with an artefact of their own are given in the contracts."""

import pytest
import torch

from hardy.networks.building.create import create
from hardy.networks.styles.dsp import first_layers, save_dsp
from hardy.ops.dsp import Perturbation
from hardy.ops.style_vae import DVAE, mirror
from hardy.seed import seeded


@pytest.fixture(scope="session")
def style_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a style perturbation that nobody trained."""
    with seeded(0, "style"):
        encoder = first_layers(create("tiny", "camvid11", width=8), 4)
        width = encoder.channels
        style = Perturbation(encoder, DVAE(width).decoder, mirror(width, 4), torch.zeros(width), torch.eye(width))
    return str(save_dsp(style, tmp_path_factory.mktemp("style")))
