"""The recipes of Rein's published settings, run as they stand but for their size, on tiny folders in real layouts."""

from pathlib import Path

import pytest
from street_folders import street_folders

import hardy
from hardy import records
from hardy.commands import train
from hardy.engine import protocol
from hardy.recipe import read
from hardy.registry import NETWORKS, TUNERS

pytestmark = pytest.mark.slow

RECIPES = Path(__file__).parents[1] / "recipes" / "rein"
ACDC = [f"acdc/{condition}" for condition in ("fog", "night", "rain", "snow")]
TASKS = {
    "gta5": {"cityscapes/all": 2, "bdd100k/10k": 1, "mapillary/v1.2": 1},
    "cityscapes": {**dict.fromkeys(ACDC, 1), "bdd100k/10k": 1, "mapillary/v1.2": 1},
}
"""Source -> the unseen domains of its tasks, and how many images of each the folders hold in ``val``."""
SMALL = [
    "network.encoder=test_vit",
    "network.encoder_weights=null",
    "network.vit.blocks=[1, 2, 4, 5]",
    "network.vit.patch=8",
    "network.decoder_options={query_count: 6, layers: 3, pixel_layers: 1, hidden: 32, pixel_hidden: 32, points: 64}",
    "tuner.tokens=6",
    "tuner.rank=4",
    "data.size=[32, 64]",
    "data.crop=[32, 32]",
    "evaluate.window=[32, 32]",
    "optim.steps=2",
    "optim.batch=2",
    "run.workers=0",
    "run.device=cpu",
    "run.threads=1",
]


@pytest.fixture(scope="module")
def root(tmp_path_factory, save_png16):
    """Each data set of the recipes."""
    return street_folders(tmp_path_factory.mktemp("data"), save_png16)


@pytest.mark.parametrize("source", TASKS)
def test_a_recipe_says_what_the_paper_does_and_finds_its_images(root, source):
    recipe = read(RECIPES / f"{source}.yaml", [f"data.root={root}"])
    parts = protocol.split(recipe.data, seed=0)
    assert {domain.name: len(items) for domain, items in parts.unseen} == TASKS[source]
    NETWORKS.describe(recipe.network.name).check(recipe.network.options)
    tuner = TUNERS.build(recipe.tuner.name, {}, **recipe.tuner.options)
    assert (tuner.link, tuner.rank, tuner.tokens) == (
        True,
        16,
        recipe.network.options["decoder_options"]["query_count"],
    )
    assert recipe.data.crop == recipe.evaluate.window


@pytest.mark.costly
@pytest.mark.parametrize("source", TASKS)
def test_a_recipe_runs(root, source, tmp_path):
    pytest.importorskip("transformers")
    recipe = read(RECIPES / f"{source}.yaml", [*SMALL, f"data.root={root}", f"run.folder={tmp_path / 'run'}"])
    folder = train.run(recipe, show=False)
    found = {(r.target, r.metric): r.value for r in records.read(folder / "records.jsonl")}
    assert all(0 <= found[domain, "miou"] <= 1 for domain in TASKS[source])
    network = hardy.load(folder)
    assert network.backbone.indices == [1, 2, 4, 5]
    assert network.backbone.strides == [8] * 4
    assert network.queries.shape == (6, 256)
