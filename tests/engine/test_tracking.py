"""Trackers get the settings, the terms of every stage and the recorded numbers, and nothing leaves the machine."""

from typing import ClassVar

import pytest
from accelerate import tracking as of_accelerate
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hardy import records
from hardy.commands import train
from hardy.engine import tracking
from hardy.errors import InputError
from hardy.recipe import from_values


@pytest.fixture
def values(town, tmp_path):
    return {
        "network": {"name": "tiny", "width": 8, "classes": str(town)},
        "data": {
            "sources": ["folder/day"],
            "unseen": ["folder/night"],
            "crop": [32, 48],
            "datasets": {"folder": {"root": str(town)}},
        },
        "optim": {"steps": 4, "batch": 2},
        "evaluate": {"latency": False},
        "run": {"folder": str(tmp_path / "run"), "device": "cpu", "workers": 0, "threads": 1, "log_every": 2},
    }


@pytest.mark.costly
def test_tensorboard_has_the_terms_and_the_numbers_of_the_records(values, tmp_path):
    values["run"]["trackers"] = ["tensorboard"]
    folder = train.run(from_values(values))
    (events,) = (folder / "hardy").glob("events*")
    read = EventAccumulator(str(events))
    read.Reload()
    tags = read.Tags()["scalars"]
    assert [each.step for each in read.Scalars("train/segmentation")] == [2, 4]
    recorded = {f"{r.stage}/{r.target}/{r.metric}": r.value for r in records.read(folder / "records.jsonl")}
    scores = {name: value for name, value in recorded.items() if value is not None}
    assert set(scores) <= set(tags)
    (unseen,) = read.Scalars("train/unseen/miou")
    assert (unseen.step, unseen.value) == (4, pytest.approx(recorded["train/unseen/miou"], abs=1e-6))
    assert "train/source validation" in tags
    settings = next((folder / "hardy").glob("*/hparams.yml")).read_text()
    assert "optim.steps: 4" in settings
    assert "network.name: tiny" in settings


class Noted:
    """A tracker that notes how it is made and what it gets."""

    requires_logging_directory = False
    made: ClassVar[list] = []

    def __init__(self, *args, **options):
        self.args, self.options, self.seen = args, options, []
        self.made.append(self)

    def start(self):
        """Begin."""

    def store_init_configuration(self, settings):
        self.settings = settings

    def log(self, values, step):
        self.seen.append((step, values))

    def finish(self):
        self.seen.append("closed")


@pytest.fixture
def noted(monkeypatch):
    monkeypatch.setattr(Noted, "made", [])
    monkeypatch.setitem(of_accelerate.LOGGER_TYPE_TO_CLASS, "wandb", Noted)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    return Noted.made


def test_weights_and_biases_is_offline_in_the_folder_and_its_steps_go_on(noted, tmp_path):
    folder = tmp_path / "run"
    made = tracking.Tracking(["wandb"], folder, {"optim": {"lr": 0.1, "none": None}, "size": [1, 2]})
    assert not noted
    made.log("train", 2, {"task": 0.5})
    made.scores("train", [("unseen", "miou", 0.25), ("unseen", "iou/car", None)])
    made.log("recover", 1, {"task": 0.25})
    made.close()
    (it,) = noted
    assert (it.args, it.options) == (("hardy",), {"dir": str(folder), "name": "run", "mode": "offline"})
    assert it.settings == {"optim.lr": 0.1, "size": "[1, 2]"}
    assert it.seen == [
        (2, {"train/task": 0.5}),
        (2, {"train/unseen/miou": 0.25}),
        (3, {"recover/task": 0.25}),
        "closed",
    ]


def test_the_environment_may_send_it_elsewhere(noted, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "online")
    tracking.Tracking(["wandb"], tmp_path).log("train", 1, {})
    assert "mode" not in noted[0].options


def test_a_tracker_that_is_not_installed_is_refused_and_leaves_nothing(values, tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "get_available_trackers", list)
    values["run"]["trackers"] = ["tensorboard"]
    with pytest.raises(InputError, match=r"run\.trackers: 'tensorboard' is not installed .* installed here: none"):
        train.run(from_values(values))
    assert not (tmp_path / "run").exists()
