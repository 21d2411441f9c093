"""A pushed network is a folder with a card and no code; what is pulled is checked first; the hub is asked by name."""

import json
from pathlib import Path

import huggingface_hub
import pytest
import torch
import yaml

import hardy
from hardy import records
from hardy.engine import hub
from hardy.engine.card import card, measured
from hardy.errors import InputError
from hardy.records import Record
from hardy.sections import Data

SCORES = {"folder/day": 0.5, "folder/night": 0.25, "unseen": 0.25}
GRAND = {"name": "vit", "from": "runs/huge", "sha256": "1" * 64, "licence": "dinov3-license"}
LEARNED = {
    "stage": "train",
    "algorithm": "distillation",
    "options": {},
    "teachers": [GRAND],
    "images": {"folder/day": 4},
}
TEACHER = {
    "name": "segformer",
    "from": "runs/big",
    "sha256": "0" * 64,
    "licence": "cc-by-nc-4.0",
    "lineage": [LEARNED],
}


@pytest.fixture
def run(tmp_path):
    """The folder of a run that learned from a teacher and was measured twice."""
    torch.manual_seed(0)
    net = hardy.create("tiny", classes="camvid11", width=8)
    learned = {"stage": "train", "algorithm": "distillation", "options": {}, "teachers": [TEACHER], "images": {"a": 3}}
    net.lineage = (learned,)
    folder = hardy.save(net, tmp_path / "run")
    rows = [Record("r", "train", ("folder/day",), name, 0, "miou", 0.1) for name in SCORES]
    rows += [Record("r", "evaluate", ("folder/day",), name, 0, "miou", value) for name, value in SCORES.items()]
    adapted = {"adapt": {"name": "tent"}}
    rows += [Record("r", "evaluate", ("folder/day",), "unseen", 0, "miou", 0.9, notes=adapted)]
    rows += [Record("r", "export", (), "", 0, "nodes", 9, notes={"file": "/home/someone/secret/net.onnx"})]
    rows += [Record("r", "train", (), "cost", 0, "gmacs", 1.5)]
    records.append(folder / "records.jsonl", rows)
    return folder


def pushed(run, tmp_path, **options):
    return Path(hub.push(run, str(tmp_path / "shared" / "small"), **options))


def test_what_is_pushed_is_pulled_with_the_same_bits(run, tmp_path):
    there = pushed(run, tmp_path, licence="apache-2.0")
    assert {path.name for path in there.iterdir()} == {
        "README.md",
        "network.json",
        "network.safetensors",
        "records.jsonl",
    }
    net = hub.pull(str(there), tmp_path / "mine")
    images = torch.rand(1, 3, 32, 64)
    with torch.no_grad():
        assert torch.equal(net(images), hardy.load(run)(images))
    assert net.lineage[0]["teachers"] == [TEACHER]
    assert (tmp_path / "mine" / "README.md").read_text() == (there / "README.md").read_text()
    assert len(records.read(tmp_path / "mine" / "records.jsonl")) == 9
    assert pushed(run, tmp_path) == there, "a second push replaces the first"


def test_the_card_has_domains_numbers_lineage_and_licences(run, tmp_path):
    text = (pushed(run, tmp_path, licence="apache-2.0") / "README.md").read_text()
    head = yaml.safe_load(text.split("---\n")[1])
    assert (head["license"], head["library_name"], head["pipeline_tag"]) == (
        "apache-2.0",
        "hardy",
        "image-segmentation",
    )
    for line in (
        "Trained on: folder/day.",
        "| folder/night | mIoU | 25.0 | evaluate |",
        "| mean over unseen | mIoU | 25.0 | evaluate |",
        "- GMACs: 1.5",
        "learned by distillation from segformer of runs/big",
        "weights under cc-by-nc-4.0), which learned from vit of runs/huge",
        "Teacher segformer: weights under cc-by-nc-4.0.",
        "Teacher vit: weights under dinov3-license.",
        json.loads((run / "network.json").read_text())["sha256"],
        "Classes (`camvid11`): sky, building",
    ):
        assert line in text, line
    assert "90.0" not in text, "a number with adaptation is not the network's"
    assert "not stated" in (pushed(run, tmp_path) / "README.md").read_text()


def test_no_path_of_the_author_is_pushed(run, tmp_path):
    there = pushed(run, tmp_path)
    for path in (there / "README.md", there / "records.jsonl", there / "network.json"):
        assert "someone" not in path.read_text()
        assert str(tmp_path) not in path.read_text()
    assert {"file": "net.onnx"} in [record.notes for record in records.read(there / "records.jsonl")]


def test_the_card_writes_a_gap_as_a_difference_and_parameters_in_full():
    rows = [Record("r", "train", ("a/b",), name, 0, "miou", value) for name, value in (("gap", 0.25), ("a/b", 0.5))]
    rows += [Record("r", "train", (), "cost", 0, name, v) for name, v in (("parameters", 1138051.0), ("gmacs", 0.0592))]
    text = card(hardy.create("tiny", classes="camvid11"), "x", rows, sha256="0", licence=None, address="x")
    assert "| a/b | mIoU | 50.0 | train |\n| gap: source minus unseen, in points | mIoU | 25.0 | train |" in text
    assert "- parameters: 1,138,051\n- GMACs: 0.0592\n" in text


@pytest.mark.parametrize(
    ("size", "line", "option"),
    [
        ((96, 192), "Its images were resized to 96x192 (height x width) and cropped to 64x128.", " --size 96x192"),
        (None, "It was trained at the images' own size, on crops of 64x128 (height x width).", ""),
    ],
)
def test_the_card_says_at_which_size_it_was_trained_and_predicts(size, line, option):
    network, data = hardy.create("tiny", classes="camvid11"), Data(sources=("streets/sim",), size=size, crop=(64, 128))
    text = card(network, "x y", [], sha256="0", licence=None, address="x", data=data)
    assert line in text
    assert f"hardy predict 'x y' photos/ masks/{option}\n```" in text


def test_the_latest_number_of_a_domain_counts():
    first, last = (Record("r", "train", (), "a", 0, "miou", value) for value in (0.1, 0.2))
    assert measured([first, last, Record("r", "train", (), "a", 0, "iou/car", 0.9)]) == [last]


def test_a_mean_is_replaced_only_by_one_over_its_domains():
    def rows(stage, notes, **scores):
        return [Record("r", stage, ("a/s",), n.replace("_", "/"), 0, "miou", v, notes=notes) for n, v in scores.items()]

    own = rows("train", {}, a_s=0.5, a_x=0.3, a_y=0.1, intra=0.5, unseen=0.2, worst=0.1)
    other = rows("evaluate", {"domains": ["b/z"]}, b_z=0.9, unseen=0.9, worst=0.9)
    again = rows("evaluate", {"domains": ["a/x", "a/y"]}, a_x=0.4, a_y=0.2, unseen=0.3, worst=0.2)
    assert measured([*own, *other]) == [*own, other[0]]
    assert measured([*own, *again]) == [own[0], own[3], *again]


def test_a_score_with_options_does_not_replace_one_without():
    plain, flipped, other = (
        Record("r", "evaluate", (), "a/x", 0, "miou", value, notes=notes)
        for value, notes in ((0.3, {}), (0.4, {"options": {"flip": True}}), (0.5, {"options": {"splits": ["val"]}}))
    )
    assert measured([plain, flipped]) == [plain]
    assert measured([flipped, other]) == [other]
    assert measured([flipped, plain]) == [plain]


@pytest.mark.parametrize("name", ["network.safetensors", "network.json"])
def test_a_damaged_network_is_not_kept(run, tmp_path, name):
    there = pushed(run, tmp_path)
    data = bytearray((there / name).read_bytes())
    data[-20] ^= 1
    (there / name).write_bytes(data)
    with pytest.raises(InputError, match=f"{there}.*(does not match|not a network)"):
        hub.pull(str(there), tmp_path / "mine")
    assert not (tmp_path / "mine").exists()


def test_code_of_others_does_not_run(run, tmp_path):
    there = pushed(run, tmp_path)
    description = json.loads((there / "network.json").read_text())
    description["architecture"]["name"] = "evil:Network"
    del description["description_sha256"]
    (there / "network.json").write_text(json.dumps(description))
    with pytest.raises(InputError, match="--trust evil"):
        hub.pull(str(there), tmp_path / "mine")


def test_a_folder_that_holds_something_else_is_left_alone(run, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("")
    with pytest.raises(InputError, match=r"photos: is not empty \(it holds cat.jpg\); give a new folder"):
        hub.push(run, str(tmp_path / "photos"))
    with pytest.raises(InputError, match="is not empty"):
        hub.pull(str(run), tmp_path / "photos")
    with pytest.raises(InputError, match=r"photos: holds no network\.safetensors and network\.json"):
        hub.pull(str(tmp_path / "photos"), tmp_path / "mine")
    with pytest.raises(InputError, match="--public is for the hub"):
        hub.push(run, str(tmp_path / "new"), public=True)


class Hub:
    """A hub in a folder."""

    def __init__(self, root):
        self.root, self.asked = root, []

    def create_repo(self, name, private, exist_ok):
        self.asked.append((name, private, exist_ok))

    def upload_folder(self, repo_id, folder_path, commit_message):
        target = self.root / repo_id
        target.mkdir(parents=True)
        for path in Path(folder_path).iterdir():
            (target / path.name).write_bytes(path.read_bytes())
        return f"the hub's page of {repo_id}"

    def snapshot(self, name, revision, allow_patterns, local_dir):
        self.asked.append((name, revision, allow_patterns[0]))
        for path in (self.root / name).iterdir():
            Path(local_dir, path.name).write_bytes(path.read_bytes())


def test_the_hub_is_asked_by_its_address(run, tmp_path, monkeypatch):
    there = Hub(tmp_path / "hub")
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: there)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", there.snapshot)
    assert hub.push(run, "hf-hub:me/small") == "the hub's page of me/small"
    assert "hardy pull hf-hub:me/small small" in (tmp_path / "hub/me/small/README.md").read_text()
    hub.pull("hf-hub:me/small@v1", tmp_path / "mine")
    assert there.asked == [("me/small", True, True), ("me/small", "v1", "network.safetensors")]
    with pytest.raises(InputError, match="'hf-hub:small': is not of the form hf-hub:OWNER/NAME"):
        hub.push(run, "hf-hub:small")


def test_being_offline_is_one_line(run, tmp_path, monkeypatch):
    def offline(*args, **options):
        raise OSError("We could not connect\nto the hub")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(InputError, match=r"^hf-hub:me/small: the hub did not answer .* \(OSError: We could not .*\)$"):
        hub.pull("hf-hub:me/small", tmp_path / "mine")
    assert not (tmp_path / "mine").exists()
