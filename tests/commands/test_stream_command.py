"""`hardy.stream`, and ``hardy evaluate`` with words or the recipe of a stream: tables, records, exit codes."""

import shutil
import sys
from pathlib import Path

import pytest
import torch
import yaml

import hardy
from hardy.cli import main
from hardy.engine import videos
from hardy.engine.streaming import Streaming
from hardy.engine.unused import refuse_unused
from hardy.engine.video_domain import video_part
from hardy.errors import InputError
from hardy.recipe import from_values
from hardy.records import read as records_of
from hardy.seed import seeded

METHOD = "stream_method:Learning"


@pytest.fixture(autouse=True)
def unmeasured(monkeypatch):
    """Time and memory have their own test."""
    monkeypatch.setattr(Streaming, "_measure_costs", lambda self, images: setattr(self.progress, "every", 1))


@pytest.fixture
def network(town):
    with seeded(0, "network"):
        return hardy.create("tiny", classes=str(town), width=8)


@pytest.fixture
def folder(network, tmp_path):
    hardy.save(network, tmp_path / "x")
    return tmp_path / "x"


def called(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["hardy", *map(str, words)])
    with pytest.raises(SystemExit) as left:
        main()
    return int(left.value.code or 0)


def shown(network, town, data=("folder/day", "folder/night"), **more):
    kind = {"kind": "mixed", "images": 3, "probe": 0, "window": 2, **more.pop("stream", {})}
    more = {"adapt": {"name": METHOD, "reset": "never"}, **more}
    return hardy.stream(network, data, stream=kind, datasets={"folder": {"root": str(town)}}, device="cpu", **more)


def test_in_python_the_seeds_decide_and_the_network_stays(network, town):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    first = shown(network, town)
    assert len(first.places) == 6
    assert first.domains == ("folder/day", "folder/night")
    assert (shown(network, town).counts == first.counts).all()
    assert shown(network, town, stream={"seed": 1}).places != first.places, "the stream's seed draws the order"
    other = shown(network, town, seed=1)
    assert other.places == first.places
    assert not (other.counts == first.counts).all(), "the run's seed draws what the method draws"
    assert all((value == before[name]).all() for name, value in network.state_dict().items())
    assert network.training


def test_the_command_line_prints_and_records_every_number(folder, town, monkeypatch, capsys):
    data = ["--dataset", f"folder.root={town}", "--device", "cpu"]
    words = ["stream.kind=recurring", "stream.rounds=2", "stream.images=2", "stream.probe=1", "adapt.name=source"]
    assert called(monkeypatch, "evaluate", folder, "folder/day", "folder/night", *words, *data) == 0
    said = capsys.readouterr().out
    assert "recurring, source" in said
    assert "worst window of 8 frames" in said
    found = records_of(folder / "records.jsonl")
    assert {one.stage for one in found} == {"stream"}
    keys = {(one.target, one.metric, one.notes.get("round")) for one in found}
    assert {("folder/day", "online_miou", 1), ("folder/day", "online_miou", 2), ("stream", "online_miou", None)} <= keys
    assert {("stream", "worst_window_miou", None), ("stream", "ms_per_frame", None)} <= keys
    assert {("stream", "updates", None), ("folder/night", "forward_gain", None)} <= keys
    assert found[0].notes["stream"]["kind"] == "recurring"
    assert found[0].notes["adapt"] == {"name": "source", "reset": "domain"}


def test_a_recipe_of_a_stream_is_overridden_by_words(folder, town, tmp_path, monkeypatch, capsys):
    values = {
        "data": {"unseen": ["folder/night"], "datasets": {"folder": {"root": str(town)}}},
        "stream": {"kind": "mixed", "rounds": 2, "images": 2, "probe": 0},
        "adapt": {"name": "source", "reset": "never"},
    }
    file = tmp_path / "s.yaml"
    file.write_text(yaml.safe_dump(values), encoding="utf-8")
    assert called(monkeypatch, "evaluate", folder, file, "stream.rounds=1", "--device", "cpu") == 0
    assert "mixed, source" in capsys.readouterr().out
    frames = [one.value for one in records_of(folder / "records.jsonl") if one.metric == "frames"]
    assert frames == [2]
    file.write_text(yaml.safe_dump({**values, "optim": {}}), encoding="utf-8")
    assert called(monkeypatch, "evaluate", folder, file) == 2
    assert "the recipe of a stream has only the sections data, stream, adapt" in capsys.readouterr().err
    assert called(monkeypatch, "evaluate", folder, file, "t.yaml") == 2
    assert "is also a recipe of a stream" in capsys.readouterr().err


def test_a_torn_frame_is_named_after_the_table_and_sets_the_exit_code(folder, town, tmp_path, monkeypatch, capsys):
    torn = shutil.copytree(town, tmp_path / "torn")
    image = sorted((torn / "images" / "night").iterdir())[0]
    image.write_bytes(image.read_bytes()[:60])
    data = ["--dataset", f"folder.root={torn}", "--device", "cpu"]
    assert called(monkeypatch, "evaluate", folder, "folder/night", "stream.probe=0", *data) == 2
    both = capsys.readouterr()
    assert "worst window" in both.out
    assert f"{image}: SKIPPED: " in both.out
    assert "frames were skipped; the first, frame 0" in both.err
    assert "Traceback" not in both.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["folder/evening", "stream.kind=mixed"], "'folder/evening': folder has no domain 'evening'"),
        (["folder/day", "stream.kind=mixd"], "stream.kind: input should be 'abrupt', 'gradual', 'mixed'"),
        (["folder/day", "stream.every=0"], "stream.every: give measured, or a whole number of batches from 1 up"),
        (["folder/day", "stream.frame_ms=20"], "stream: frame_ms: it has no effect unless every is measured"),
        (["folder/day", "stream.rounds=0"], "stream.rounds: input should be greater than 0"),
        (["folder/day", "stream.wibble=1"], "unknown key 'stream.wibble'"),
        (["stream.kind=mixed"], "no data named; give domains such as camvid/0001TP, or stream.unlabelled"),
        (["folder/day", "stream.kind=mixed", "--flip"], "--flip: it has no effect on a stream; leave it out"),
        (["folder/day", "stream.kind=mixed", "--per-class"], "--per-class: it has no effect on a stream"),
        (["stream.unlabelled=[nowhere]"], "hardy: stream.unlabelled: "),
    ],
)
def test_wrong_words_are_refused_in_one_line(folder, town, monkeypatch, capsys, words, said):
    assert called(monkeypatch, "evaluate", folder, *words, "--dataset", f"folder.root={town}", "--device", "cpu") == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_folder_of_images_is_an_unlabelled_stream(network, town):
    place = str(town / "images" / "day")
    table = shown(network, town, data=(), stream={"unlabelled": [place]})
    assert table.domains == (place,)
    assert len(table.places) == 3
    numbers = {(one.target, one.metric): one.value for one in table.numbers() if one.round is None}
    assert numbers["stream", "updates"] == 3
    assert numbers["stream", "online_miou"] != numbers["stream", "online_miou"], "no label, no score"


def test_a_video_is_an_unlabelled_stream_of_the_frames_that_can_be_decoded(network, town, monkeypatch):
    taken = torch.randint(0, 256, (4, 32, 40, 3), dtype=torch.uint8).numpy()

    def torn(source):
        yield from taken[:3]
        raise InputError(f"{source}: breaks off after 3 frames; fetch it again")

    monkeypatch.setattr(videos, "frames", lambda source: iter(taken) if "whole" in str(source) else torn(source))
    day = str(town / "images" / "day")
    words = ["whole.mp4", day, "torn.MP4"]
    table = shown(network, town, data=(), stream={"kind": "abrupt", "unlabelled": words, "images": 4, "rounds": 2})
    assert table.domains == tuple(words)
    assert len(table.places) == 2 * (4 + 4 + 3)
    assert [reason for _, _, reason in table.skipped] == ["torn.MP4: breaks off after 3 frames; fetch it again"] * 2
    assert table.skipped[0][:2] == (11, "torn.MP4, frame 3")
    part = video_part(
        "x", videos.Source("whole", Path("whole.mp4"), "whole.mp4"), network.label_space, image_level=False
    )
    assert [(part[0].dataset.read(at)[0] == taken[at]).all() for at in (0, 2, 1, 3)] == [True] * 4
    for more, said in (
        ({"image_order": "drawn"}, "stream.image_order: drawn"),
        ({"unlabelled": ["camera:0"]}, "camera"),
    ):
        with pytest.raises(InputError, match=said):
            shown(network, town, data=(), stream={"kind": "abrupt", "unlabelled": words, **more})


def test_training_refuses_the_section():
    values = {"network": "tiny", "data": {"sources": ["streets/sim"]}, "stream": {"kind": "mixed"}}
    with pytest.raises(InputError, match=r"^stream: the section has no effect: only hardy evaluate reads it"):
        refuse_unused(from_values(values), "train")


def test_the_section_changes_no_digest_of_a_recipe_without_it():
    values = {"network": "tiny", "data": {"sources": ["streets/sim"]}}
    assert from_values(values).digest() == from_values({**values, "stream": None}).digest()
