"""A stage that learns from another stage's network; and the studies of a tuned teacher, run with few steps."""

from pathlib import Path

import pytest
import yaml

import hardy
from hardy import records
from hardy.commands import train
from hardy.errors import InputError
from hardy.studies.cells import make_cells
from hardy.studies.study import read

STUDIES = Path(__file__).parents[2] / "studies"
RECIPE = {
    "network": {"name": "tiny", "classes": "cityscapes19"},
    "data": {"sources": ["streets/sim"], "crop": [32, 32]},
}
STUDY = {
    "stages": {
        "small": {
            "verb": "train",
            "recipe": "it.yaml",
            "after": "large",
            "uses": "teacher",
            "set": {"algorithm": "two_stage"},
        },
        "large": {"verb": "train", "recipe": "it.yaml"},
    },
    "grid": {"seed": {"key": "run.seed", "values": [0, 1]}},
}


def written(folder: Path, values: object) -> Path:
    (folder / "it.yaml").write_text(yaml.safe_dump(RECIPE))
    (folder / "study.yaml").write_text(yaml.safe_dump(values))
    return folder / "study.yaml"


def test_a_stage_learns_from_the_network_of_the_stage_before_it(tmp_path):
    file = written(tmp_path, STUDY)
    study, _ = read(file)
    small, large = (
        [cell for cell in make_cells(study, file, ()).cells if cell.stage == stage] for stage in ("small", "large")
    )
    assert [cell.after for cell in small] == [cell.name for cell in large]
    assert [cell.recipe.teacher.run for cell in small] == [cell.recipe.run.folder for cell in large]
    assert all(cell.recipe.network.name == "tiny" and cell.recipe.network.run is None for cell in small)
    assert all(cell.recipe.teacher is None for cell in large)


def test_the_teacher_of_no_stage_is_refused(tmp_path):
    with pytest.raises(InputError, match="uses: teacher needs a stage") as caught:
        read(written(tmp_path, {**STUDY, "stages": {"large": {**STUDY["stages"]["large"], "uses": "teacher"}}}))
    assert "\n" not in str(caught.value)


VIT = (
    "network: {name: encoder_decoder, classes: %s, encoder: test_vit, vit: {patch: 8}, "
    "decoder: segformer, decoder_options: {width: 16}}"
)


@pytest.mark.costly
@pytest.mark.slow
@pytest.mark.parametrize(
    ("bed", "classes", "data"),
    [
        (
            "streets",
            "cityscapes19",
            ["data.datasets={streets: {size: [32, 64], train: 6}}", "data.unseen=[streets/night]"],
        ),
        ("camvid", "camvid11", ["data.sources=[camvid/0006R0]", "data.size=[48, 64]"]),
    ],
)
def test_the_published_way_from_a_tuned_transformer_to_fast_scnn(bed, classes, data, tmp_path, request):
    if bed == "camvid":
        request.getfixturevalue("real_data")
    file = STUDIES / f"tuned_teacher_{bed}.yaml"
    study, others = read(
        file,
        [
            f"grid.teacher.values={{vit: {{{VIT % classes}}}}}",
            "grid.seed.values=[0]",
            f"study.folder={tmp_path}",
            *data,
            "data.crop=[32, 64]",
            "data.cache=false",
            "optim.steps=4",
            "optim.warm_up=0",
            "optim.batch=2",
            "evaluate.every=0",
            "run.device=cpu",
        ],
    )
    cells = make_cells(study, file, others).cells
    for cell in (one for one in cells if one.stage != "alone"):
        train.run(cell.recipe, show=False)
    tuned, distilled = (
        next(one.recipe.run.folder for one in cells if one.stage == stage) for stage in ("tuned", "distilled")
    )
    assert "rein" in dict(hardy.load(tuned).named_children())
    student = hardy.load(distilled)
    assert type(student).__name__ == "FastSCNN"
    assert student.lineage
    assert any(r.metric == "miou" for r in records.read(Path(distilled) / "records.jsonl"))
