"""``hardy import``: a published state dict becomes a run that the other verbs take; bad files are one line."""

import json

import pytest
import torch
from published_names import espnet, values

import hardy


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """The smallest ESPNet under its published names, of 12 classes."""
    target = tmp_path_factory.mktemp("published") / "espnet.pth"
    torch.save(values(espnet(12, 1, 1)), target)
    return target


def test_a_file_becomes_a_run(call, file, tmp_path):
    said = call("import", file, "--network", "espnet", "--classes", "camvid11", "--to", tmp_path / "run")
    assert said.code == 0, said.err
    assert "espnet of sacmehta/ESPNet" in said.out
    assert "dropped class 11: void, which is no class" in said.out
    kept = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert kept == ["network.json", "network.safetensors", "records.jsonl"]
    record = json.loads((tmp_path / "run" / "records.jsonl").read_text())
    assert (record["stage"], record["metric"]) == ("import", "parameters")
    assert record["notes"]["publication"] == "espnet"
    network = hardy.load(tmp_path / "run")
    assert record["value"] == sum(value.numel() for value in network.parameters())
    said = call(
        "evaluate",
        tmp_path / "run",
        "streets/night",
        "--dataset",
        "streets.test=2",
        "--split",
        "test",
        "--size",
        "64x96",
    )
    assert said.code == 0, said.err
    assert "streets/night" in said.out


def test_bad_files_are_one_line(refused, file, tmp_path):
    words = ("import", file, "--to", tmp_path / "run")
    assert refused(*words, "--classes", "cityscapes19").endswith("label space 'cityscapes19' has 19")
    assert refused(*words, "--classes", "camvid11", "--from", "pidnet").endswith(
        "is not of pidnet (XuJiacong/PIDNet): it lacks pag3.f_x.0.weight"
    )
    assert "not of tiny" in refused(*words, "--classes", "camvid11", "--network", "tiny")
    missing = refused("import", tmp_path / "none.pth", "--classes", "camvid11", "--to", tmp_path / "run")
    assert missing.endswith("none.pth: no such weights file")
    assert "Missing option '--classes'" in refused(*words)


def test_a_run_is_not_written_over(call, refused, file, tmp_path):
    assert call("import", file, "--classes", "camvid11", "--to", tmp_path / "run").code == 0
    line = refused("import", file, "--classes", "camvid11", "--to", tmp_path / "run")
    assert line.endswith("run: it already contains a network; give another folder")
