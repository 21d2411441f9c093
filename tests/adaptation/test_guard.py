"""The guard: what raises an alarm, what it does then, and that its own state is exact."""

from typing import ClassVar

import pytest
import torch
from stream_method import Learning
from torch import Tensor

import hardy
from hardy.adaptation import _guard
from hardy.adaptation._guard import Guarded
from hardy.adaptation._signs import agreement, entropy, mixed, pixels, prototypes
from hardy.adaptation.base import TestTimeAdaptation
from hardy.engine.adapting import chosen
from hardy.errors import InputError
from hardy.networks.building.create import create
from hardy.sections import Guard
from hardy.seed import seeded

NOTHING = {
    "sure": 0.0,
    "source": 0.0,
    "entropy": 0.0,
    "agreement": 0.0,
    "classes": 0.0,
    "prototypes": None,
    "drift": None,
}


class Steered(TestTimeAdaptation):
    """Adds to the logits of class 0 what the test says, batch by batch, and counts batches in a trained number."""

    predicts: ClassVar = "after"

    def __init__(self, network, *adds: float) -> None:
        super().__init__(network)
        self.network.requires_grad_(False)
        self.adds = adds
        self.count = torch.nn.Parameter(torch.zeros(()))
        self.optimiser = torch.optim.SGD([self.count], lr=1.0, momentum=0.9)

    def optimisers(self):
        return {"count": self.optimiser}

    def adapt(self, images: Tensor) -> Tensor:
        self.optimiser.zero_grad()
        (-self.count).backward()
        self.optimiser.step()
        logits = self.network(images).clone()
        logits[:, 0] += self.adds[self.calls]
        self.calls += 1
        return logits

    calls = 0


class Before(Steered):
    """Predicts before its update."""

    predicts: ClassVar = "before"


@pytest.fixture(scope="module")
def network():
    with seeded(0, "network"):
        return create("tiny", "camvid11", width=8).eval()


def test_the_table_of_the_method_is_that_of_the_guarded_one(network):
    live = hardy.adapt(network, "bn_domains", guard=NOTHING)
    live.enter("day")
    live(torch.rand(1, 3, 32, 48))
    table = live.table()
    assert table.keys() == live.method.table().keys()
    assert all(list(rows) == ["day"] for rows in table.values())


def image(seed=0):
    return torch.rand(1, 3, 32, 48, generator=torch.Generator().manual_seed(seed))


def guarded(network, *adds, kind=Steered, **limits):
    return Guarded(kind(network, *adds), network, Guard(**{**NOTHING, "keep": 1, **limits}))


def test_it_predicts_when_its_method_does(network):
    assert [guarded(network, kind=kind).predicts for kind in (Steered, Before)] == ["after", "before"]


def test_the_entropy_and_the_prototypes_by_hand():
    half = torch.tensor([[0.0, 0.0, -1e9, -1e9], [0.0, -1e9, -1e9, -1e9]])
    assert entropy(half) == pytest.approx(0.25), "log 2 and 0, over log 4, on average"
    logs = torch.tensor([[0.75, 0.25], [0.5, 0.5], [0.1, 0.9], [0.2, 0.8]]).log()
    wanted = torch.tensor([[1.25, 0.75], [0.3, 1.7]]) / 4
    torch.testing.assert_close(prototypes(logs, logs.argmax(1)), wanted)


def test_agreement_counts_classes_alike_and_only_what_the_source_is_confident_of():
    source = torch.tensor([[9.0, 0, 0], [9, 0, 0], [9, 0, 0], [0, 9, 0], [0, 0, 0.5]])
    found = torch.tensor([[9.0, 0, 0], [9, 0, 0], [0, 9, 0], [9, 0, 0], [9, 0, 0]])
    assert agreement(found.argmax(1), source) == pytest.approx((2 / 3 + 0) / 2), (
        "class 2 is predicted without confidence"
    )
    assert agreement(source.argmax(1), source) == 1
    assert agreement(found.argmax(1), 0 * source) == 1, "without any confidence there is nothing to agree with"


def test_of_a_large_image_a_grid_of_pixels_is_looked_at():
    logits = torch.arange(2 * 300 * 400.0).view(1, 2, 300, 400)
    assert torch.equal(pixels(logits), logits[0, :, ::2, ::2].flatten(1).T)
    assert pixels(logits[..., :100, :300]).shape == (30000, 2)


def test_the_answer_is_the_mean_of_two_predictions_by_hand():
    mine, theirs = (torch.tensor(one).log() for one in ([[0.9, 0.1], [0.6, 0.4]], [[0.2, 0.8], [0.999, 0.001]]))
    torch.testing.assert_close(mixed(mine, theirs, 0.25, 0.0).exp(), torch.tensor([[0.725, 0.275], [0.69975, 0.30025]]))
    answer = mixed(mine, theirs, 0.5, 0.5)
    torch.testing.assert_close(answer.exp()[0], torch.tensor([0.55, 0.45]))
    assert torch.equal(answer[1], theirs[1]), "of the second image the source is sure"
    assert mixed(mine, theirs, 0.0, 0.0) is mine


class Unsure(torch.nn.Module):
    """Multiplies the logits of a network by the mean of the image: the darker, the less sure."""

    def __init__(self, network, factor):
        super().__init__()
        self.network, self.factor = network, factor
        self.register_buffer("mean", network.mean)

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images) * self.factor * (images.mean((1, 2, 3), keepdim=True) > 0.25)


def test_where_the_source_is_sure_it_answers_and_nothing_is_learned(network):
    live = guarded(network, *[1.0] * 4, sure=0.5, every=2)
    live.network = Unsure(network, 1e4)
    dark = image(0) / 4
    live(image(0))
    assert live.method.count == live.method.calls == 0
    assert live.actions == (("sure", "the source network predicted, and nothing was learned"),)
    assert live.watched is None
    live(dark)
    assert live.method.calls == 1, "also on a batch that is not watched, after one that was sure"
    live(torch.cat([image(1), dark]))
    assert live.method.calls == 2, "one of the images is not sure"
    answer = live.predict(torch.cat([image(1), dark]))
    torch.testing.assert_close(answer[:1] / 1e4, network(image(1)))
    torch.testing.assert_close(answer[1:], network(dark))
    assert live.forwards == 3


def test_the_source_has_its_share_in_the_answer_also_without_learning(network):
    live = guarded(network, 5.0, source=0.5)
    with torch.no_grad():
        source = network(image(0)).log_softmax(1)
    mine = network(image(0)).detach().clone()
    mine[:, 0] += 5
    torch.testing.assert_close(live(image(0)).exp(), (source.exp() + mine.softmax(1)) / 2)
    torch.testing.assert_close(live.predict(image(0)).exp(), source.exp())


def test_a_guard_that_watches_nothing_changes_no_bit(network):
    alone, under = Learning(network), Guarded(Learning(network), network, Guard(**NOTHING))
    for batch in range(3):
        assert torch.equal(alone(image(batch)), under(image(batch)))
        assert torch.equal(alone.predict(image(9)), under.predict(image(9)))
    assert under.actions == ()
    assert under.forwards == 3, "the source network still predicts, and that is counted"


@pytest.mark.parametrize(
    ("limits", "add", "cause"),
    [
        ({"agreement": 0.5}, 50.0, "agreement 0."),
        ({"entropy": 0.1}, 500.0, "entropy 0."),
        ({"classes": 0.95}, 50.0, "classes 0."),
        ({"prototypes": 0.05}, 50.0, "prototypes 0."),
        ({}, float("nan"), "nan in the logits"),
        ({}, float("inf"), "nan in the logits"),
    ],
)
def test_each_cause_brings_back_the_last_good_state_and_the_source_answers(network, limits, add, cause):
    live = guarded(network, 0.0, 0.0, add, 0.0, **limits)
    live(image(0))
    assert live.watched is not None
    assert not live.watched.alarm
    live(image(1))
    good = live.method.state()
    with torch.no_grad():
        assert torch.equal(live(image(2)), network(image(2)))
    assert live.watched.alarm
    ((said, action),) = live.actions
    assert said.startswith(cause)
    assert action == "rolled back to the last good state"
    now = live.method.state()
    assert all(torch.equal(value, good["tensors"][name]) for name, value in now["tensors"].items())
    assert torch.equal(
        now["optimisers"]["count"]["state"][0]["momentum_buffer"],
        good["optimisers"]["count"]["state"][0]["momentum_buffer"],
    )
    live(image(3))
    assert live.actions == ()


@pytest.mark.parametrize("does", ["both", "fallback", "rollback", "nothing"])
def test_what_an_alarm_does_can_be_switched_off_but_not_on_nan(network, does):
    live = guarded(network, 0.0, 50.0, float("nan"), agreement=0.5, on_alarm=does)
    live(image(0))
    answer = live(image(1))
    with torch.no_grad():
        source = network(image(1))
        mine = source.clone()
        mine[:, 0] += 50
        assert torch.equal(answer, source if does in ("both", "fallback") else mine)
        assert live.watched is not None
        assert live.watched.alarm, "it is counted in any case"
        assert live.method.count == pytest.approx(1.0 if does in ("both", "rollback") else 2.9)
        assert torch.equal(live(image(2)), network(image(2)))
    assert live.method.count == 1


def test_a_section_with_a_guard_is_the_one_from_before_it_could_do_less():
    usual, less = (chosen({"name": "source", "guard": guard}) for guard in (True, {"on_alarm": "nothing"}))
    said = [one.model_dump(mode="json")["guard"] for one in (usual, less)]
    assert said[1].pop("on_alarm") == "nothing"
    assert said[0] == said[1]
    assert said[0]["keep"] == 10


def test_one_that_predicts_before_its_update_goes_back_to_the_state_that_predicted_well(network):
    live = guarded(network, 0.0, 0.0, 50.0, kind=Before, agreement=0.5)
    live(image(0))
    live(image(1))
    assert live.method.count > 1
    live(image(2))
    assert live.method.count == 1, "the update after the second batch was never seen to be good"


def test_alarms_in_a_row_reset_it_to_its_start(network):
    live = guarded(network, 0.0, *[50.0] * 3, 0.0, agreement=0.5, resets=3)
    live(image(0))
    said = []
    for batch in range(1, 4):
        live(image(batch))
        said += [action for _, action in live.actions]
    assert said == ["rolled back to the last good state"] * 2 + ["reset to the start"]
    assert live.method.count == 0
    assert live.method.optimiser.state_dict()["state"] == {}
    live(image(4))
    assert live.failures == 0


def test_it_watches_every_so_many_batches_but_nan_always(network):
    live = guarded(network, 0.0, 50.0, 50.0, float("nan"), agreement=0.5, every=2)
    alarms = []
    for batch in range(4):
        live(image(batch))
        alarms.append(bool(live.actions))
    assert alarms == [False, False, True, True]
    assert live.forwards == 3


class Drifting(TestTimeAdaptation):
    """Moves every parameter by its own size with each batch, or to NaN."""

    predicts: ClassVar = "before"

    def __init__(self, network, *, to: float = 2.0) -> None:
        super().__init__(network)
        self.to_factor = to

    @torch.no_grad()
    def adapt(self, images: Tensor) -> Tensor:
        logits = self.network(images)
        for value in self.network.parameters():
            value.mul_(self.to_factor)
        return logits


def test_parameters_stay_within_the_limit_of_their_drift(network):
    live = Guarded(Drifting(network), network, Guard(**{**NOTHING, "drift": 0.25}))
    live(image())
    ((cause, action),) = live.actions
    assert cause == "drift 1.000, above 0.25"
    assert action == "parameters brought back to the limit"
    for name, value in live.method.network.named_parameters():
        torch.testing.assert_close(value, network.get_parameter(name) * 1.25)


def test_parameters_that_are_nan_are_undone(network):
    live = Guarded(Drifting(network, to=float("nan")), network, Guard(**NOTHING))
    assert live(image()).isfinite().all()
    assert live.actions == (("nan in the parameters", "rolled back to the last good state"),)
    assert all(
        torch.equal(value, network.get_parameter(name)) for name, value in live.method.network.named_parameters()
    )


def test_a_budget_is_kept_by_predicting_without_learning(network, monkeypatch):
    now = iter(range(99))
    monkeypatch.setattr(_guard.time, "perf_counter", lambda: float(next(now)))  # each batch takes a second
    live = guarded(network, *[0.0] * 9, budget_ms=400)
    learned = []
    for batch in range(6):
        live(image(batch))
        learned.append(not live.actions)
    assert learned == [True, False, False, False, False, False], "with a second for each, 0.6 s of debt are added"
    assert live.actions == (("budget", "predicted without learning"),)
    assert live.method.calls == 1


@pytest.mark.slow
def test_a_state_that_was_saved_restores_the_last_good_one_too(network, tmp_path):
    from hardy.engine.adaptation_state import load_state, save_state

    live = Guarded(Learning(network), network, Guard(**{**NOTHING, "keep": 2}))
    for batch in range(3):
        live(image(batch))
    save_state(live, tmp_path / "state.safetensors")
    other = Guarded(Learning(network), network, Guard(**{**NOTHING, "keep": 2}))
    load_state(other, tmp_path / "state.safetensors")
    for one in (live, other):
        one._undo("by the test")
    mine, theirs = live.state(), other.state()
    assert all(torch.equal(value, theirs["tensors"][name]) for name, value in mine["tensors"].items())
    assert live.method.step == 2
    assert torch.equal(live(image(7)), other(image(7)))
    other.reset()
    assert other.method.step == other.forwards == 0
    assert torch.equal(other(image(0)), Learning(network)(image(0)))


def test_in_python_and_in_recipes_true_is_a_guard_with_its_defaults(network):
    live = hardy.adapt(network, "source", guard=True)
    assert isinstance(live, Guarded)
    assert live.guard == Guard()
    assert not isinstance(hardy.adapt(network, "source"), Guarded)
    given = chosen(None, ["adapt.name=source", "adapt.guard.agreement=0.7"])
    assert given.guard == Guard(agreement=0.7)
    assert given.model_dump()["guard"]["agreement"] == 0.7
    assert chosen({"name": "source", "guard": False}) == chosen("source")
    assert "guard" not in chosen("source").model_dump()
    with pytest.raises(InputError, match=r"unknown key 'adapt.guard.agrement'; did you mean 'agreement'"):
        chosen({"name": "source", "guard": {"agrement": 0.7}})


def test_half_precision_is_refused(network):
    with pytest.raises(InputError, match=r"the network is in torch.float16; .*; adapt network.float\(\)"):
        hardy.adapt(create("tiny", "camvid11", width=8).half(), "source")
