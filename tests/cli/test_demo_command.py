"""``hardy demo`` with verbs that train nothing: its scenes, its log and the page in which it ends."""

import json

import pytest
from report_runs import write_run

from hardy.commands import demo
from hardy.errors import InputError

COSTS = {
    f"{name}_{when}": value
    for name, pair in {"parameters": (1e6, 5e5), "gmacs": (0.1, 0.05), "milliseconds_p50_eager": (8.0, 5.0)}.items()
    for when, value in zip(("before", "after"), pair, strict=True)
}


@pytest.fixture
def asked(monkeypatch):
    """The recipes that the demo runs; its verbs write records in place of training."""
    seen = []

    def train(recipe, show):
        seen.append(recipe)
        demo._log.info("train step 20/240: segmentation 1.5")
        return write_run(demo.Path(recipe.run.folder), 0.9, notes={"network": "fast_scnn"}, cost={"gmacs": 0.1})

    def prune(recipe, show):
        seen.append(recipe)
        return write_run(
            demo.Path(recipe.run.folder), 0.8, stage="prune", notes={"network": recipe.network.run}, cost=COSTS
        )

    def export(*words, **options):
        seen.append((words, options))

    for verb, does in ((demo.train, train), (demo.prune, prune), (demo.export, export)):
        monkeypatch.setattr(verb, "run", does)
    return seen


def test_it_shows_its_progress_also_in_a_log_and_ends_in_a_page(call, asked, tmp_path):
    said = call("demo", tmp_path / "demo")
    assert (said.code, said.err) == (0, "")
    assert [line[:4] for line in said.out.splitlines() if line[1:3] == "/5"] == [
        "1/5 ",
        "2/5 ",
        "2/5 ",
        "2/5 ",
        "3/5 ",
        "4/5 ",
        "5/5 ",
    ]
    assert "    train step 20/240: segmentation 1.5\n" in said.out
    log = (tmp_path / "demo" / "demo.log").read_text(encoding="utf-8")
    assert "1/5 training Fast-SCNN on drawn streets" in log
    assert "train step 20/240" in log
    page = (tmp_path / "demo" / "report.html").read_text(encoding="utf-8")
    assert "<h1>Hardy demo: drawn streets</h1>" in page
    assert page.count('class="compare"') == 4 * 3 * 2  # networks, domains, images
    assert all(one.evaluate.keep_counts and one.evaluate.keep_worst == 2 for one in asked[:4])
    assert [one.prune.criterion.name for one in asked[1:4]] == ["l2", "taylor", "ior"]
    assert [one.prune.target_gmacs for one in asked[1:4]] == [0.05] * 3  # equal work


def test_its_json_is_one_document(call, asked, tmp_path):
    said = call("--json", "demo", tmp_path / "demo")
    assert (said.code, said.err) == (0, "")
    report = json.loads(said.out)
    assert report["lines"][0].startswith("1/5 training")
    assert report["tables"]
    assert {one["stage"] for one in report["records"]} == {"train", "prune"}


def test_real_images_are_made_small_and_one_domain_is_left_out(call, asked, town, tmp_path, monkeypatch):
    def export(*words, **options):
        asked.append((words, options))
        raise InputError("far enough")

    monkeypatch.setattr(demo.export, "run", export)
    said = call("demo", tmp_path / "demo", "--data", town)
    assert (said.code, said.err) == (2, "hardy: far enough\n")
    assert asked[0].data.sources == ("folder/day",)
    assert asked[0].data.unseen == ("folder/night",)
    assert asked[0].data.size == asked[0].data.crop == (32, 64)
    assert asked[0].network.classes == str(town)
    words, options = asked[-1]
    assert (words[2], options["datasets"]) == (["folder/night"], {"folder": {"root": str(town)}})


def test_data_that_the_demo_cannot_use_are_one_line(refused, town, tmp_path):
    (tmp_path / "one" / "images").mkdir(parents=True)
    (tmp_path / "one" / "masks").mkdir()
    for part in ("images", "masks"):
        (tmp_path / "one" / part / "day").symlink_to(town / part / "day")
    (tmp_path / "one" / "classes.yaml").write_bytes((town / "classes.yaml").read_bytes())
    assert "it has one domain; the demo needs another" in refused("demo", tmp_path / "d", "--data", tmp_path / "one")
    assert "there is no such folder; give a folder of data" in refused(
        "demo", tmp_path / "d", "--data", tmp_path / "none"
    )


def test_the_share_of_the_time_has_its_quartiles():
    medians = {"milliseconds_p50_eager_before": 10.0, "milliseconds_p50_eager_after": 6.0}
    assert demo._share(medians, "eager") == "0.60"
    pairs = {"ratio_eager": 0.5, "ratio_low_eager": 0.45, "ratio_high_eager": 2.0}
    assert demo._share({**medians, **pairs}, "eager") == "0.50 [0.45, 2.00]"
