"""`hardy export --dataset`: the domains that prove a file, and those of its prototypes, have their options."""

import pytest

import hardy
from hardy.commands import export as exporting
from hardy.deployment.export import ProofError


@pytest.fixture
def run(tmp_path):
    return hardy.save(hardy.create("tiny", "camvid11"), tmp_path / "run")


def test_images_and_prototypes_are_of_the_data_set_as_it_was_given(call, run, town, tmp_path, monkeypatch):
    seen = {}

    def export(network, file, **options):
        seen.update(options)
        raise ProofError("enough is known")

    monkeypatch.setattr(exporting, "export", export)
    words = ("export", run, tmp_path / "x.onnx", "folder/day", "--size", "32x48", "--images", "2")
    options = ("--statistics", "inputs", "--prototypes", "folder/night", "--dataset", f"folder.root={town}")
    assert call(*words, *options) == (2, "", "hardy: enough is known\n")
    assert len(seen["images"]) == 2
    assert seen["prototypes"].domains == ("folder/night",)


def test_wrong_options_and_options_without_a_domain_are_refused(refused, run, tmp_path):
    words = ("export", run, tmp_path / "x.onnx")
    assert "has no option 'tets'" in refused(*words, "streets/day", "--dataset", "streets.tets=3")
    assert "belong to the domains that prove the file" in refused(*words, "--dataset", "streets.test=3")
