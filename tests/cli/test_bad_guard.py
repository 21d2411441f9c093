"""Floors, stop rules, re-estimation and recoveries that make no sense: one line each, exit code 2."""

import pytest

import hardy
from hardy.commands import prune as command


@pytest.fixture
def prune(recipe, trained):
    """The words that prune the trained network by l2 at once; the settings are added to its prune section."""

    def words(*more, data=None, **settings):
        values = {"criterion": "l2", "schedule": "one_shot", "ratio": 0.3, "min_width": 2, **settings}
        return "prune", recipe(network={"run": str(trained)}, data=data or {}, prune=values), *more

    return words


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"reestimate": -1}, "prune.reestimate: input should be greater than or equal to 0 (got -1)"),
        ({"floors": {"tolerence": 0.1}}, "unknown key 'prune.floors.tolerence'; did you mean 'tolerance'?"),
        ({"floors": {"tolerance": 2}}, "prune.floors.tolerance: input should be less than or equal to 1 (got 2)"),
        ({"floors": {"shares": []}}, "prune.floors.shares: list should have at least 1 item"),
        ({"floors": {"shares": [0.5, 1.0]}}, "prune.floors.shares.1: input should be less than 1 (got 1.0)"),
        ({"floors": {"by": "layer"}}, "prune.floors.by: input should be 'unit' or 'stage' (got 'layer')"),
        ({"stop": {"drop": 0.1}}, "prune.stop.domains is missing"),
        ({"stop": {"domains": []}}, "prune.stop.domains: list should have at least 1 item"),
        (
            {"stop": {"domains": ["folder/night"], "drop": -0.1}},
            "prune.stop.drop: input should be greater than or equal",
        ),
        (
            {"stop": {"domains": ["folder/nihgt"]}},
            "'folder/nihgt': folder has no domain 'nihgt'; did you mean 'night'?",
        ),
        ({"stop": {"domains": ["fodler/night"]}}, "there is no dataset 'fodler'; did you mean 'folder'?"),
        ({"stop": {"domains": ["folder/day"]}}, "prune.stop.domains: 'folder/day' is trained on; name a domain not in"),
        ({"recover_with": "destillation"}, "no algorithm 'destillation'; did you mean 'distillation'?"),
        ({"recover_with": "distillation"}, "prune.recover_with: distillation has 0 steps to recover; set"),
        ({"recovery": 2, "recover_with": {"name": "distillation", "limt": 2}}, "no option 'limt'; did you mean"),
        (
            {"recovery": 2, "recover_with": {"name": "distillation", "losses": {"kl": {"temprature": 2}}}},
            "KL has no option 'temprature'; did you mean 'temperature'",
        ),
        (
            {"recovery": 2, "recover_with": {"name": "distillation", "losses": {"kl": {"temperature": 0}}}},
            "KL.temperature: 0.0 is out of",
        ),
        (
            {"recovery": 2, "recover_with": {"name": "distillation", "losses": {"kl": {"weight": -1}}}},
            "weight: -1.0 is out of range",
        ),
        (
            {"recovery": 2, "recover_with": {"name": "self_distillation", "temperature": 2}},
            "SelfDistillation has no option 'temperature', but each of its losses may: losses: {NAME: {temp",
        ),
        ({"recovery": 2, "recover_with": "coral"}, "CORAL compares domains and data.sources names 1; name 2 or more"),
    ],
)
def test_settings_that_cannot_be(refused, prune, settings, said):
    assert said in refused(*prune(**settings))


@pytest.mark.costly
def test_unseen_domains_stop_nothing_unless_the_recipe_says_so(refused, call, prune, monkeypatch):
    monkeypatch.setattr(command, "costs", lambda *_: ([], []))
    monkeypatch.setattr(command, "show_costs", lambda *_: None)
    words = prune(data={"unseen": ["folder/night"]}, stop={"domains": ["folder/night"], "drop": 1.0}, reestimate=1)
    line = refused(*words)
    assert line.startswith("prune.stop.domains: 'folder/night' is in data.unseen, and unseen domains select nothing")
    assert call(*words, "evaluate.select=oracle").code == 0


def test_the_flag_shows_the_table_and_stops(call, prune, tmp_path):
    said = call(*prune("--sensitivity", floors={"images": 1, "shares": [0.5]}))
    assert said.code == 0, said
    assert "sensitivity by l2" in said.out
    assert "-50%" in said.out
    assert not (tmp_path / "run" / "network.json").exists()


@pytest.mark.costly
def test_floors_need_sources_and_leave_what_the_ratio_needs(refused, prune):
    line = refused(*prune(floors={}), "data.sources=[]")
    assert line == "prune.floors: sensitivities are measured on the sources' held-out images; name data.sources"
    assert refused(*prune("--sensitivity"), "data.sources=[]") == line
    line = refused(*prune(floors={"shares": [0.01], "images": 1}), leaving=["records.jsonl"])
    assert line.startswith(
        "ratio 0.3 cannot be reached: with min_width 2, round_to 8 and the widths that prune.floors measured"
    )
    assert line.endswith("lower ratio or min_width or round_to or raise prune.floors.tolerance")


@pytest.mark.costly
def test_a_batch_of_one_cannot_be_counted(refused, recipe, tmp_path):
    theirs = hardy.create("encoder_decoder", "camvid11", encoder="mobilenetv2_035", decoder="linear")
    net = hardy.save(theirs, tmp_path / "net")
    few = {"streets": {"size": [64, 64], "train": 2, "val": 1, "test": 1}}
    file = recipe(
        network={"run": str(net)},
        data={"sources": ["streets/sim"], "datasets": few, "crop": [32, 32]},
        prune={"criterion": "l2", "schedule": "one_shot"},
        optim={"batch": 1},
    )
    line = refused("prune", file)
    assert line.startswith(
        "optim.batch: 1 image at a time is too few to re-estimate the batch norm of EncoderDecoder's 1x1 map"
    )


def test_there_is_no_teacher_in_plain_training(refused, recipe):
    line = refused("train", recipe(algorithm={"name": "distillation"}))
    assert line.startswith("algorithm: distillation needs 'teacher', which is missing: the frozen")
    assert line.endswith("name one as teacher: {run: runs/x}")
    line = refused(
        "prune",
        recipe(algorithm={"name": "distillation"}, prune={"criterion": "l2", "min_width": 2, "ratio": 0.3}),
    )
    assert line.startswith("algorithm: distillation needs 'teacher', which is missing")
