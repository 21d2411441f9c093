"""The table of a study with further metrics beside the first, by hand."""

from hardy.commands._summary import Summary
from hardy.records import Record
from hardy.report.pivot import coordinates
from hardy.studies.study import Study

STUDY = {
    "stages": {"dense": {"verb": "train", "recipe": "dense.yaml"}},
    "grid": {
        "seed": {"key": "run.seed", "values": [0, 1]},
        "rate": {"key": "optim.lr", "values": {"low": 0.01, "high": 0.1}},
    },
}


def record(metric, value, rate, seed):
    notes = {"of": "dense", "axes": {"seed": str(seed), "rate": rate}}
    return Record("", "train", (), "unseen", seed, metric, value, notes=notes)


def test_the_iou_of_a_class_and_a_count_beside_the_miou():
    study = Study.model_validate({**STUDY, "table": {"beside": ["iou/vessel", "gmacs"]}})
    places = [coordinates("dense", {"seed": seed, "rate": rate}) for rate in ("low", "high") for seed in "01"]
    records = [
        record("miou", value, rate, seed) for value, rate, seed in ((0.5, "low", 0), (0.5, "low", 1), (0.75, "high", 0))
    ]
    records += [record("iou/vessel", 0.25, "low", seed) for seed in (0, 1)] + [record("gmacs", 1.5, "high", 0)]
    found = Summary(study, "name", places, records).table
    assert found.columns == ("rate", "value", "iou/vessel %", "gmacs")
    assert found.rows == (
        ("low", "50.0 ± 0.0", "25.0 ± 0.0", "–"),
        ("high", "75.0 (1/2)", "–", "1.5 (1/2)"),
    )
    plain = Summary(Study.model_validate(STUDY), "name", places, records).table
    assert plain.rows == (("low", "50.0 ± 0.0"), ("high", "75.0 (1/2)"))
