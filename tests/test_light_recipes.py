"""Every light network has a recipe of its own, and each recipe can be used as it stands."""

from pathlib import Path

from hardy.recipe import read
from hardy.registry import LOSSES, NETWORKS

ROOT = Path(__file__).parents[1]
RECIPES = sorted((ROOT / "recipes" / "light").glob("*.yaml"))
OTHERS = {"classifier", "encoder_decoder", "tiny"}
"""Networks that are not one published light network."""


def test_every_light_network_has_one():
    assert {file.stem for file in RECIPES} == set(NETWORKS.names()) - OTHERS


def test_each_names_its_network_and_only_what_there_is():
    wrong = []
    for file in RECIPES:
        recipe = read(file)
        known = {option.name for option in NETWORKS.describe(file.stem).options}
        given = recipe.network.options
        LOSSES.build(recipe.loss.name, {"class_count": 19}, **recipe.loss.options)
        claims = {
            "the network of its name": recipe.network.name == file.stem,
            "a folder of its name": recipe.run.folder == f"runs/light/{file.stem}",
            "known options only": set(given) <= known,
            "the auxiliary heads, which only training has": ("aux" in known) == given.get("aux", False),
            "its own command": f"hardy train recipes/light/{file.name}" in file.read_text(encoding="utf-8"),
        }
        wrong += [f"{file.name} lacks {claim}" for claim, holds in claims.items() if not holds]
    assert not wrong, "\n".join(wrong)
