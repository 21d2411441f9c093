"""A key that would have no effect is refused, and what can have one has it."""

from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

import hardy
from hardy.commands import bench, train
from hardy.commands import evaluate as measuring
from hardy.commands import export as exporting
from hardy.engine import optimiser
from hardy.engine.unused import refuse_unused
from hardy.errors import InputError
from hardy.networks.building.create import create
from hardy.ops.windows import views
from hardy.recipe import Optim, from_values, read
from hardy.registry import ALGORITHMS, NETWORKS, SCHEDULES

ROOT = Path(__file__).parents[2]
TRAIN = {"network": "tiny", "data": {"sources": ["streets/sim"]}}
PRUNE = {**TRAIN, "prune": {"criterion": "l2", "ratio": 0.5}}
SEARCH = {**TRAIN, "search": {"budget_ms": 5}}


@pytest.mark.parametrize(
    ("verb", "values", "key"),
    [
        ("train", PRUNE, "prune: the section has no effect: hardy train does not prune"),
        ("prune", {**PRUNE, **SEARCH}, "search: the section"),
        ("search", {**PRUNE, **SEARCH}, "prune: the section"),
        ("train", {**TRAIN, "data": {"sources": ["streets/sim"], "unseen_splits": ["test"]}}, "data.unseen_splits: "),
        ("train", {**TRAIN, "data": {"sources": ["streets/sim"], "split": "given", "holdout": 0.2}}, "data.holdout: "),
        ("train", {**TRAIN, "optim": {"schedule": "cosine", "power": 2}}, "optim.power: 2.0 has no effect"),
        ("train", {**TRAIN, "optim": {"batch": 4, "accumulate": 8}}, "optim.accumulate: 8"),
        ("train", {**TRAIN, "evaluate": {"select": "last", "every": 5}}, "evaluate.every: 5 has no effect"),
        ("search", {**SEARCH, "evaluate": {"every": 5}}, "evaluate.every: 5 has no effect"),
        ("prune", {**PRUNE, "prune": {"criterion": "l2", "runtime": "onnxruntime"}}, "prune.runtime: onnxruntime"),
        ("prune", {**PRUNE, "prune": {"criterion": "l2", "schedule": "one_shot", "lr": 0.1}}, "prune.lr: 0.1"),
        ("prune", {**PRUNE, "prune": {"criterion": "l2", "recovery_lr": 0.1}}, "prune.recovery_lr: 0.1"),
    ],
)
def test_a_key_without_effect_is_refused_by_its_name(verb, values, key):
    with pytest.raises(InputError) as caught:
        refuse_unused(from_values(values), verb)
    assert str(caught.value).startswith(key)
    assert "\n" not in str(caught.value)


RUNS = sorted(file for file in (ROOT / "recipes").rglob("*.yaml") if file.parent.name != "streams")
"""Recipes of runs; those of streams have tests of their own."""


@pytest.mark.parametrize("file", RUNS, ids=lambda file: file.stem)
def test_every_key_of_the_shipped_recipes_has_an_effect(file):
    recipe = read(file)
    refuse_unused(recipe, "search" if recipe.search else "prune" if recipe.prune else "train")


def test_nothing_is_written_where_a_key_is_refused(tmp_path):
    values = {**TRAIN, "optim": {"schedule": "cosine", "power": 2}, "run": {"folder": str(tmp_path / "run")}}
    with pytest.raises(InputError, match=r"optim\.power"):
        train.run(from_values(values))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_momentum_is_the_first_beta_of_adam(name, caplog):
    algorithm = ALGORITHMS.build("erm", {"network": create("tiny", "camvid11"), "pixel_loss": cross_entropy})
    assert optimiser.build(algorithm, Optim(name=name)).param_groups[0]["betas"] == (0.9, 0.999), "torch's own"
    assert optimiser.build(algorithm, Optim(name=name, momentum=0.5)).param_groups[0]["betas"] == (0.5, 0.999)


def test_an_encoder_rate_without_encoder_is_said(caplog):
    optimiser.build(
        ALGORITHMS.build("erm", {"network": create("tiny", "camvid11"), "pixel_loss": cross_entropy}),
        Optim(encoder_rate=0.1),
    )
    assert "optim.encoder_rate 0.1: Tiny has no pre-trained encoder" in caplog.text


@pytest.mark.parametrize(
    ("registry", "name", "options", "key"),
    [
        (NETWORKS, "espnet", {"decoder": False, "width": 8}, "width and finest have no effect"),
        (NETWORKS, "bisenetv2", {"booster_width": 64}, "booster_width: 64 has no effect"),
        (SCHEDULES, "sparse", {"settle": 5}, "settle 5 has no effect"),
        (ALGORITHMS, "dsp", {"ascent": 0, "rate": 1.0, "style": "x"}, "rate and limit have no effect"),
        (ALGORITHMS, "vrex", {"anneal": 0, "early_weight": 2.0}, "early_weight: 2.0 has no effect"),
        (ALGORITHMS, "style_vae", {"encoder": "vgg.pth", "stride": 4}, "stride: 4 has no effect"),
    ],
)
def test_an_option_of_a_method_without_effect_is_refused(registry, name, options, key):
    network = create("tiny", "camvid11")
    supply = {"label_space": network.label_space, "network": network, "pixel_loss": cross_entropy}
    with pytest.raises(InputError, match=key):
        registry.build(name, supply, **options)


def test_weights_of_the_whole_network_leave_nothing_for_those_of_the_encoder(tmp_path):
    file = hardy.save(create("swiftnet", "camvid11"), tmp_path / "run") / "network.safetensors"
    with pytest.raises(InputError, match=r"complete network: encoder_weights='timm' would have no effect"):
        create("swiftnet", "camvid11", weights=file, encoder_weights="timm")


def test_views_of_one_class_per_image_average_its_logits_and_turn_nothing():
    def forward(images):
        return images.mean((2, 3)) + torch.arange(3.0)

    images = torch.rand(2, 3, 8, 12)
    torch.testing.assert_close(views(forward, flip=True)(images), forward(images))
    assert views(forward, scales=(0.5, 1.0))(images).shape == (2, 3)
    with pytest.raises(InputError, match="one class per image; leave the window out"):
        views(forward, window=(4, 4))(images)


def test_options_of_the_command_line_that_would_do_nothing(tmp_path):
    run = hardy.save(create("tiny", "camvid11"), tmp_path / "run")
    with pytest.raises(InputError, match="bench blocks takes only the options"):
        bench.check(blocks=True, channels=None, others=True)
    with pytest.raises(InputError, match="--channels 64 is only for hardy bench blocks"):
        bench.check(blocks=False, channels=64, others=False)
    with pytest.raises(InputError, match="--images, --root and --dataset belong to the domains"):
        exporting.run(run, tmp_path / "x.onnx", [], size=(64, 64), dynamic=False, logits=False, images=3, root=None)
    pictures = hardy.save(create("classifier", "pacs7", encoder="resnet10t"), tmp_path / "pictures")
    with pytest.raises(InputError, match="--per-class: Classifier predicts one class per image"):
        measuring.run(pictures, ["pacs/photo"], size=None, per_class=True)
