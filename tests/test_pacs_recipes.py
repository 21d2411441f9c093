"""The PACS recipes run, and the study is the full grid, on a PACS of a few pictures."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import hardy
from hardy import records
from hardy.commands import prune, train
from hardy.data.label_spaces import SPACES
from hardy.recipe import read
from hardy.studies.cells import make_cells
from hardy.studies.study import read as read_study

pytestmark = pytest.mark.slow

RECIPES = Path(__file__).parents[1] / "recipes"
DOMAINS = ("art_painting", "cartoon", "photo", "sketch")
SMALL = ["data.size=[32, 32]", "data.crop=[32, 32]", "run.device=cpu", "evaluate.every=0"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two pictures of each class in each domain."""
    root = tmp_path_factory.mktemp("data")
    draw = np.random.default_rng(0)
    for domain in DOMAINS:
        for number in range(14):
            folder = root / "pacs" / "kfold" / domain / SPACES["pacs7"].classes[number % 7]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(draw.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return root


@pytest.mark.costly
def test_the_study_is_the_whole_grid(root):
    file = RECIPES.parent / "studies" / "ior_pacs.yaml"
    study, others = read_study(file)
    planned = make_cells(study, file, [*others, f"data.root={root}"]).cells
    by_name = {cell.name: cell for cell in planned}
    dense, pruned = ([cell for cell in planned if cell.stage == stage] for stage in ("dense", "pruned"))
    assert (len(dense), len(pruned)) == (4 * 3 * 3, 4 * 3 * 3 * 2 * 2)
    assert {cell.recipe.algorithm.name for cell in dense} == {"erm", "coral", "mixup"}
    assert {cell.recipe.algorithm.name for cell in pruned} == {"erm"}
    for cell in pruned:
        before = by_name[cell.after].recipe
        assert (before.data.unseen, before.data.sources) == (cell.recipe.data.unseen, cell.recipe.data.sources)
        assert before.run.seed == cell.recipe.run.seed
        assert {*before.data.unseen, *before.data.sources} == {f"pacs/{domain}" for domain in DOMAINS}


@pytest.mark.costly
@pytest.mark.parametrize("algorithm", ["coral", "mixup"])
def test_the_recipes_run_and_frozen_norms_stay_frozen(root, tmp_path, algorithm, monkeypatch):
    monkeypatch.setattr(prune, "costs", lambda *_: ([("parameters", 2.0, 1.0)], []))
    small = [*SMALL, f"data.root={root}"]
    network = ["network.encoder=test_resnet", "network.encoder_weights=null"]
    dense = train.run(
        read(
            RECIPES / "pacs_pretrain.yaml",
            [
                *small,
                *network,
                f"algorithm.name={algorithm}",
                "optim.steps=2",
                "optim.batch=6",
                f"run.folder={tmp_path / 'dense'}",
            ],
        ),
        show=False,
    )
    smaller = prune.run(
        read(
            RECIPES / "pacs_prune.yaml",
            [
                *small,
                f"network.run={dense}",
                "optim.batch=6",
                "prune.schedule.every=1",
                "prune.schedule.per_round=1000",
                "prune.recovery=1",
                f"run.folder={tmp_path / 'pruned'}",
            ],
        ),
        show=False,
    )
    for folder in (dense, smaller):
        found = {(r.target, r.metric): r.value for r in records.read(folder / "records.jsonl")}
        assert {f"pacs/{domain}" for domain in DOMAINS} | {"intra", "unseen"} <= {target for target, _ in found}
        assert found["unseen", "accuracy"] == found["pacs/sketch", "accuracy"]
    before, after = (
        [m for m in hardy.load(folder).train().modules() if isinstance(m, torch.nn.BatchNorm2d)]
        for folder in (dense, smaller)
    )
    assert sum(norm.num_features for norm in after) < sum(norm.num_features for norm in before)
    assert not any(norm.training for norm in (*before, *after))
    assert all(torch.equal(norm.running_mean, torch.zeros(norm.num_features)) for norm in after)
