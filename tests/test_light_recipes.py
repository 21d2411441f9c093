"""Every light network has a recipe of its own, and each recipe can be used as it stands."""

from pathlib import Path

import pytest

from hardy.recipe import read
from hardy.registry import LOSSES, NETWORKS

ROOT = Path(__file__).parents[1]
RECIPES = sorted((ROOT / "recipes" / "light").glob("*.yaml"))
OTHERS = {"classifier", "encoder_decoder", "tiny"}
"""Networks that are not one published light network."""


def test_every_light_network_has_one():
    assert {file.stem for file in RECIPES} == set(NETWORKS.names()) - OTHERS


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_it_names_what_is_there(file):
    recipe = read(file)
    assert recipe.network.name == file.stem
    assert recipe.run.folder == f"runs/light/{file.stem}"
    known = {option.name for option in NETWORKS.describe(file.stem).options}
    assert set(recipe.network.options) <= known
    assert ("aux" in known) == recipe.network.options.get("aux", False), "a head that only training has is trained"
    LOSSES.build(recipe.loss.name, {"class_count": 19}, **recipe.loss.options)
    assert f"hardy train recipes/light/{file.name}" in file.read_text(encoding="utf-8")
