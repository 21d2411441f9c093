"""Uses of a network that make no sense: what prune, evaluate, bench, export and predict refuse."""

import pytest

import hardy


@pytest.fixture
def prune(recipe, trained):
    """The words that prune the trained network; without settings by IoR on two domains."""

    def words(sources=("folder/day", "folder/night"), **settings):
        values = {"ratio": 0.3, "min_width": 2, **settings}
        return "prune", recipe(network={"run": str(trained)}, data={"sources": list(sources)}, prune=values)

    return words


def test_prune_without_its_section(refused, recipe):
    assert refused("prune", recipe()).startswith("recipe: hardy prune needs a prune section, such as prune: {")


@pytest.mark.parametrize(
    ("ratio", "said"),
    [
        (0, "prune.ratio: input should be greater than 0 (got 0)"),
        (1, "prune.ratio: input should be less than 1 (got 1)"),
        (1.2, "prune.ratio: input should be less than 1 (got 1.2)"),
        (-0.1, "prune.ratio: input should be greater than 0 (got -0.1)"),
        (0.97, "ratio 0.97 cannot be reached: with min_width 2, round_to 8 at most 0."),
        (0.001, "ratio 0.001 of 208 filters is less than one filter; raise the ratio"),
    ],
)
def test_a_ratio_that_cannot_be(refused, prune, ratio, said):
    assert said in refused(*prune(ratio=ratio))


def test_a_criterion_that_compares_domains_needs_two(refused, prune):
    line = refused(*prune(sources=["folder/day"]))
    assert line.startswith("prune.criterion: ior compares domains and data.sources names 1: the variance of one")
    assert refused(*prune(), "optim.batch=1") == "optim.batch: 1 images cannot hold 2 domains"


@pytest.mark.costly
def test_a_criterion_that_reads_data_needs_some(refused, prune):
    for schedule in ("iterative", "one_shot"):
        line = refused(*prune(sources=[], criterion={"name": "taylor"}, schedule=schedule))
        assert line.startswith(f"prune: taylor with the {schedule} schedule and 0 steps of recovery needs data")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"min_width": 0}, "prune.min_width: input should be greater than 0 (got 0)"),
        ({"schedule": {"name": "iterative", "per_round": 1}, "round_to": 2}, "per_round 1 allows no removal: it must"),
        ({"criterion": {"name": "ior", "alpha": -1}}, "IoR.alpha: -1.0 must be 0 or more"),
        ({"criterion": {"name": "ior", "alpha": "big"}}, "IoR.alpha: input should be a valid number"),
        ({"scope": "local"}, "prune.scope: input should be 'global' or 'layer' (got 'local')"),
    ],
)
def test_settings_that_cannot_be(refused, prune, settings, said):
    assert said in refused(*prune(**settings))


def test_what_cannot_be_pruned_is_not_trained_for_it_first(refused, recipe, tmp_path):
    line = refused("prune", recipe(), "prune.ratio=0.97", "prune.criterion.name=l2")
    assert line.startswith("ratio 0.97 cannot be reached: with min_width 8")
    assert not (tmp_path / "run" / "dense").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--size", "ax8"], "size 'ax8' is not HEIGHTxWIDTH, such as 512x1024"),
        (["--size", "64"], "size '64' is not HEIGHTxWIDTH"),
        (["--size", "0x64"], "size '0x64' is not HEIGHTxWIDTH"),
        (["--size", "8x8"], "size: 8x8 pixels, but Tiny needs at least 16 on each side"),
        (["--window", "8x8"], "window: 8x8 pixels, but Tiny needs at least 16 on each side"),
        (["--scale", "0"], "arguments: evaluate.scales.0: input should be greater than 0 (got 0.0)"),
        (["--split", "test"], "data.unseen_splits: folder/day has no split 'test'; it has: all"),
        (["--dataset", "folder.ending=x"], "arguments: Folder has no option 'ending'; did you mean 'mask_ending'?"),
        (["--dataset", "fodler.x=1"], "arguments: there is no dataset 'fodler'; did you mean 'folder'?"),
        (["--dataset", "folder"], "data set option 'folder' does not have the form name.option=value"),
        (["--dataset", "folder.root={a: 1}"], "data.datasets.folder.root: {'a': 1} is not a path; write it as text"),
        (["--dataset", "folder.root=5"], "data.datasets.folder.root: 5 is not a path; write it as text"),
        (["--dataset", "folder.root="], "data.datasets.folder.root: None is not a path; write it as text"),
        (["--dataset", "folder.root=["], "data set option 'folder.root=[': '[' is not a YAML value"),
    ],
    ids=" ".join,
)
def test_an_evaluation_that_cannot_be(refused, trained, town, words, said):
    kept = trained / "records.jsonl"
    before = kept.read_bytes() if kept.exists() else None
    assert said in refused("evaluate", trained, "folder/day", "--root", town, *words)
    assert (kept.read_bytes() if kept.exists() else None) == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--size", "8x8"], "size (8, 8): give (height, width), each at least 16"),
        (["--runtime", "tensorrt"], "there is no runtime 'tensorrt'; there are: eager, onnxruntime, openvino"),
        (["--batch", "0"], "batch 0: must be at least 1"),
        (["--runs", "0"], "runs 0: must be at least 1"),
        (["--threads", "0"], "threads 0: must be at least 1"),
        (["--against", "gone"], "gone: no network.json here"),
    ],
    ids=" ".join,
)
def test_a_measurement_that_cannot_be(refused, trained, words, said):
    assert said in refused("bench", trained, *words)


def test_an_export_that_cannot_be(refused, trained, tmp_path):
    file = tmp_path / "net.onnx"
    assert (
        refused("export", trained, tmp_path / "net.pt") == f"{tmp_path}/net.pt: the target is a file that ends in .onnx"
    )
    assert refused("export", trained, tmp_path) == f"{tmp_path}: the target is a file that ends in .onnx"
    assert refused("export", trained, file, "--size", "8x8").startswith("size (8, 8): give (height, width), each at")
    assert refused("export", trained, file, "--size", "8").startswith("size '8' is not HEIGHTxWIDTH")
    assert refused("export", trained, file, "nothing").startswith("there is no dataset 'nothing'")


@pytest.mark.costly
def test_a_prediction_that_cannot_be(refused, trained, town, tmp_path):
    target = tmp_path / "masks"
    gone = tmp_path / "gone"
    assert refused("predict", trained, gone, target) == f"{gone}: there is no such image, video or folder of images"
    assert "is a text file" in refused("predict", trained, town / "classes.yaml", target)
    assert refused("predict", trained, town / "images", target, "--size", "8x8").startswith("size (8, 8): give")
    (tmp_path / "empty").mkdir()
    assert "holds no images" in refused("predict", trained, tmp_path / "empty", target)
    pictures = hardy.save(hardy.create("classifier", "pacs7"), tmp_path / "pictures")
    assert "one class per image" in refused("predict", pictures, town / "images", target)
    assert "predicts one class per image" in refused("evaluate", pictures, "folder/day", "--root", town)
    assert not target.exists()


def test_a_run_that_is_none_has_no_headline(refused, tmp_path):
    assert refused("runs", tmp_path).startswith(f"{tmp_path}: there is no run with a records.jsonl below it")
    (tmp_path / "records.jsonl").write_text('{"recipe": "x"}\n')
    assert refused("runs", tmp_path).startswith(f"{tmp_path}/records.jsonl:1: not a record: ")


def test_a_recipe_is_not_written_over(refused, tmp_path):
    (tmp_path / "recipe.yaml").write_text("mine")
    assert (
        refused("init", "--to", tmp_path) == f"{tmp_path}/recipe.yaml: it already exists; give another folder with --to"
    )
    assert (tmp_path / "recipe.yaml").read_text() == "mine"
