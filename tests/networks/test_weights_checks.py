"""Files of weights that hold what no network can take: one line, before anything is filled or unpacked."""

import pickle
import zipfile

import pytest
import torch
from safetensors.torch import save_file

import hardy
from hardy.errors import InputError
from hardy.networks.building.weights import read_weights


def refusal(file, read=read_weights):
    with pytest.raises(InputError) as caught:
        read(file)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{file}: ")
    return str(caught.value)


@pytest.mark.parametrize("rubbish", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_weights_that_are_not_finite(tmp_path, rubbish, suffix):
    file, weights = tmp_path / f"a.{suffix}", {"a": torch.zeros(3), "b": torch.tensor([1.0, rubbish])}
    save_file(weights, file) if suffix == "safetensors" else torch.save(weights, file)
    assert "b holds NaN or infinite numbers" in refusal(file)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (torch.zeros(1).expand(10**6, 10**6), "more than 20 times the file"),
        (torch.zeros(3, 3).to_sparse(), "a is sparse, quantised, complex or without values"),
        (torch.zeros(3, device="meta"), "a is sparse, quantised, complex or without values"),
        (torch.zeros(3, dtype=torch.complex64), "a is sparse, quantised, complex or without values"),
    ],
    ids=["spread", "sparse", "meta", "complex"],
)
def test_tensors_that_are_not_plain(tmp_path, value, said):
    torch.save({"a": value}, tmp_path / "a.pth")
    assert said in refusal(tmp_path / "a.pth")


def test_names_that_are_no_text(tmp_path):
    torch.save({1: torch.zeros(3)}, tmp_path / "a.pth")
    assert "holds something other than named tensors" in refusal(tmp_path / "a.pth")


def test_an_archive_that_unpacks_to_far_more(tmp_path):
    torch.save({"a": torch.zeros(10**6)}, tmp_path / "plain.pth")
    with zipfile.ZipFile(tmp_path / "plain.pth") as plain, zipfile.ZipFile(tmp_path / "a.pth", "w", 8) as packed:
        for entry in plain.infolist():
            packed.writestr(entry.filename, plain.read(entry))
    assert "its archive unpacks to more than 20 times its size" in refusal(tmp_path / "a.pth")


@pytest.mark.parametrize(
    "data",
    [
        b"PK\x03\x04",
        b"\x80\x02h\xffq\x00.",
        b"((((.",
        b"\x80\xff.",
        b"\x80\x02\x8b\xff\xff\xff\x7f.",
        b"cos\nabort\n(tR.",
        pickle.dumps({"a": 1}),
        b"\x00" * 100,
        b"V" * 100,
    ],
)
@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_rubbish_is_refused_by_import_in_one_line(tmp_path, data, name):
    (tmp_path / name).write_bytes(data)
    said = refusal(tmp_path / name, lambda file: hardy.import_weights(file, "camvid11"))
    assert "()" not in said
    assert "Error" not in said.replace("Error while deserializing header", "")
    assert "cannot be read as weights (" in said


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_an_empty_file_is_called_empty(tmp_path, name):
    (tmp_path / name).touch()
    assert f"{name}: is empty; fetch it again" in refusal(
        tmp_path / name, lambda file: hardy.import_weights(file, "camvid11")
    )
