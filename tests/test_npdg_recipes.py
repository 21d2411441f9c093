"""The recipes of the paper's tasks, run as they stand but for their size, on tiny folders in the real layouts."""

from pathlib import Path

import numpy as np
import pytest
from street_folders import street_folders

from hardy import records
from hardy.commands import evaluate as evaluation
from hardy.commands import prune, train
from hardy.data.label_spaces import CITYSCAPES_IDS, SPACES
from hardy.engine import protocol
from hardy.recipe import read

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
CITY = SPACES["cityscapes19"]
TASKS = {
    "gta5": {"cityscapes/all": 2, "bdd100k/10k": 1, "mapillary/v1.2": 1},
    "synthia": {"cityscapes/all": 2, "bdd100k/10k": 1, "mapillary/v1.2": 1},
    "cityscapes": {"bdd100k/10k": 1, "mapillary/v1.2": 1, "gta5/all": 2, "synthia/rand-cityscapes": 3},
}
"""Source -> the unseen domains of its tasks, and how many images of each the folders below hold in ``val``."""
SMALL = [
    "network.encoder=test_resnet",
    "network.encoder_weights=null",
    "network.decoder_options={width: 16, separable: true}",
    "data.crop=[32, 48]",
    "optim.steps=1",
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
def test_every_task_finds_its_images(root, source):
    recipe = read(ROOT / "recipes" / f"npdg_{source}.yaml", [f"data.root={root}"])
    parts = protocol.split(recipe.data, seed=0)
    assert {domain.name: len(items) for domain, items in parts.unseen} == TASKS[source]
    assert [name.split("/")[0] for name in parts.sources] == [source]
    (domain, train_items), (_, val_items) = parts.train[0], parts.val[0]
    assert set(train_items) == set(domain.splits["train"])
    assert set(val_items) == set(domain.splits["val"])
    (mapillary,) = (part for part in parts.unseen if part[0].name == "mapillary/v1.2")
    label = mapillary[0].dataset.read_label(mapillary[1][0])
    assert label[0, 20:28].tolist() == [255] * 8  # bike lanes by the map of RobustNet, which openseg calls road
    assert label[0, 0] == CITY.index("sky")


@pytest.mark.costly
@pytest.mark.parametrize("source", ["synthia", "cityscapes"])
def test_a_recipe_runs_and_its_records_name_both_means(root, source, tmp_path, capsys):
    recipe = read(
        ROOT / "recipes" / f"npdg_{source}.yaml",
        [*SMALL, "algorithm=erm", "prune=null", f"data.root={root}", f"run.folder={tmp_path / 'run'}"],
    )
    folder = train.run(recipe)
    shown = " ".join(capsys.readouterr().out.split())
    assert "mIoU %" in shown
    assert "mIoU16 %" in shown
    assert "mIoU13 %" in shown
    found = {(r.target, r.metric): r.value for r in records.read(folder / "records.jsonl")}
    lacking = {"terrain", "truck", "train"}
    for domain in (*TASKS[source], "synthia/rand-cityscapes" if source == "synthia" else "cityscapes/all"):
        for name, left_out in (("miou16", lacking), ("miou13", lacking | {"wall", "fence", "pole"})):
            kept = [found[domain, f"iou/{c}"] for c in CITY.classes if c not in left_out]
            kept = [value for value in kept if value is not None]
            assert found[domain, name] == pytest.approx(sum(kept) / len(kept), abs=1e-12), (domain, name)

    evaluation.run(folder, ["bdd100k"], size=None, per_class=True, root=root)
    shown = capsys.readouterr().out
    assert "mIoU16 %" not in shown  # BDD100K has all classes: the means are rows of the table per class
    assert "mIoU16" in shown


@pytest.mark.costly
def test_style_warm_up_sparse_training_removal_and_recovery(root, tmp_path):
    place = [*SMALL, f"data.root={root}", "data.sources=[cityscapes]"]
    style = train.run(
        read(ROOT / "recipes" / "npdg_style.yaml", [*place, f"run.folder={tmp_path / 'style'}"]), show=False
    )
    folder = prune.run(
        read(
            ROOT / "recipes" / "npdg_cityscapes.yaml",
            [
                *place,
                f"algorithm.style={style}",
                f"prune.criterion.style={style}",
                "prune.schedule.steps=2",
                "prune.schedule.fill=true",
                "prune.recovery=1",
                "data.unseen=[bdd100k]",
                "evaluate.latency=false",
                f"run.folder={tmp_path / 'run'}",
            ],
        ),
        show=False,
    )
    found = {(r.target, r.metric): r.value for r in records.read(folder / "records.jsonl")}
    assert found["cost", "parameters_after"] < 0.9 * found["cost", "parameters_before"]
    assert ("bdd100k/10k", "miou") in found


def test_the_raw_ids_above_are_those_of_their_classes():
    raw = np.array([[23, 7, 22]], dtype=np.uint8)
    assert [CITY.classes[i] for i in CITYSCAPES_IDS.apply(raw, "x")[0]] == ["sky", "road", "terrain"]
