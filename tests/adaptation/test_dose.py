"""What follows from the formulas of DoSe, each by a value; its terms by hand; what its light form costs."""

import copy

import pytest
import torch
from one_norm_network import OneNorm
from timm.layers import LayerNorm2d
from torch import nn
from torch.nn import functional as F

from hardy.adaptation import _dose
from hardy.adaptation.bn_stats import BNStats
from hardy.adaptation.dose import DoSe
from hardy.errors import InputError
from hardy.networks.building.create import create
from hardy.ops.batch_statistics import install, recording, use_batch
from hardy.seed import seeded

ALONE = {"layer": 0.0, "domain": 0.0, "views": 1, "optimiser": "sgd"}
"""No term but the pseudo-labels, of the image itself."""

FORGETFUL = {"capacity": 0}


def images(count=1, seed=0):
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def network():
    with seeded(0, "network"):
        return create("tiny", "camvid11", width=8).eval()


def dose(network, parts=None, memory=FORGETFUL, **options):
    live = DoSe(network, **{"lr": 0.05, "restore": 0.0, "parts": parts or {}, "memory": memory, **options})
    live.enter("day")
    return live


def weights(live):
    return torch.cat([value.detach().flatten() for value in live.network.parameters()])


def test_without_its_terms_it_is_plain_self_training(network):
    live, plain = dose(network, ALONE, labels="hard"), copy.deepcopy(network)
    for module in plain.modules():
        module.train(isinstance(module, nn.BatchNorm2d))
    step = torch.optim.SGD(plain.parameters(), lr=0.05, momentum=0.9)
    for seed in range(2):
        live(images(seed=seed))
        logits = plain(images(seed=seed))
        step.zero_grad()
        F.cross_entropy(logits, logits.argmax(1)).backward()
        step.step()
    torch.testing.assert_close(weights(live), torch.cat([v.detach().flatten() for v in plain.parameters()]))
    assert live.drift() > 1e-3


@pytest.mark.slow
def test_for_equal_batches_and_nothing_restored_the_layer_term_is_0(network):
    def learned(**options):
        live = dose(network, {**ALONE, **options.pop("parts")}, labels="hard", **options)
        for seed in range(2):
            live(images(seed=seed))
        return weights(live)

    assert torch.equal(learned(parts={"layer": 1e3}), learned(parts={"layer": 0.0}))
    assert not torch.equal(learned(parts={"layer": 1e3, "views": 4}), learned(parts={"layer": 0.0, "views": 4}))
    both = [learned(parts={"layer": layer}, restore=0.5) for layer in (1e3, 0.0)]
    assert not torch.equal(*both), "what is restored makes student and teacher differ"


def test_with_probability_1_each_step_begins_at_the_source(network):
    live = dose(network, ALONE, restore=1.0, lr=0.0)
    with torch.no_grad():
        for value in live.network.parameters():
            value.add_(0.1)
    assert live.drift() > 1
    live(images())
    assert live.drift() == 0
    forgets, keeps = (dose(network, ALONE, labels="hard", restore=restore) for restore in (1.0, 0.0))
    forgets(images())
    keeps(images())
    assert torch.equal(weights(forgets), weights(keeps)), "the step comes after"
    assert forgets.drift() > 0
    assert all(torch.equal(a, b) for a, b in zip(live.network.parameters(), network.parameters(), strict=True))


def test_a_tenth_is_restored_before_the_step_and_every_so_many_updates():
    value = torch.ones(100_000)
    with seeded(0, "test"):
        _dose.restore_([value], [torch.zeros(100_000)], 0.1)
    assert 9_700 < int((value == 0).sum()) < 10_300  # 3 deviations are 285
    live = dose(OneNorm(nn.Conv2d(3, 11, 1), nn.BatchNorm2d(11)), {**ALONE, "restore_every": 2}, restore=1.0, lr=0.0)
    for moves in (False, True, False):
        with torch.no_grad():
            live.network.parts[0].weight.add_(1.0)
        live(images())
        assert (live.drift() > 0) == moves


def test_the_same_numbers_are_restored_where_channels_are_stored_last():
    made = []
    for layout in (torch.contiguous_format, torch.channels_last):
        value = torch.ones(4, 5, 3, 3).contiguous(memory_format=layout)
        with seeded(0, "test"):
            _dose.restore_([value, torch.ones(7)], [torch.zeros(4, 5, 3, 3), torch.zeros(7)], 0.3)
        made.append(value)
    assert 0 < float(made[0].mean()) < 1
    assert torch.equal(*made)


def test_the_prototype_of_a_constant_stream_is_its_batch_statistics(network):
    live = dose(network, {**ALONE, "prediction": "prototype"}, lr=0.0)
    for _ in range(3):
        logits = live(images(2))
    plain = copy.deepcopy(network)
    norms = list(install(plain).values())
    use_batch(norms)
    with recording(norms) as found, torch.no_grad():
        plain(images(2))
    for name, one in zip(live.table(), found, strict=True):
        torch.testing.assert_close(live.table()[name]["day"], one)
    torch.testing.assert_close(logits, BNStats(network)(images(2)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("prediction", ["prototype", "batch", "source"])
def test_the_prediction_uses_the_statistics_asked_for(network, prediction):
    live = dose(network, {**ALONE, "prediction": prediction}, lr=0.0)
    live(images(1, 0))
    wanted = {"batch": BNStats(network)(images(1, 1)), "source": network(images(1, 1)).detach()}
    matches = {name: torch.allclose(live(images(1, 1)), one, atol=1e-5) for name, one in wanted.items()}
    assert matches == {name: name == prediction for name in wanted}


def test_predicting_takes_the_prototype_of_the_domain_that_was_entered(network):
    live = dose(network, {**ALONE, "prediction": "prototype"}, lr=0.0)
    wanted = {"dusk": network(images(seed=5)).detach()}  # without a prototype: the source's statistics
    for place, name in enumerate(("day", "night")):
        live.enter(name)
        live(images(seed=place))
        wanted[name] = live.predict(images(seed=5))
    assert not torch.allclose(wanted["day"], wanted["night"], atol=1e-3)
    for name, logits in wanted.items():
        live.enter(name)
        torch.testing.assert_close(live.predict(images(seed=5)), logits, rtol=1e-4, atol=1e-4)


def test_the_domain_term_acts_from_a_domains_second_batch_on(network):
    lives = [dose(network, {**ALONE, "domain": weight}, labels="hard") for weight in (0.0, 1.0)]
    for live in lives:
        live(images(seed=0))
    assert torch.equal(weights(lives[0]), weights(lives[1]))
    for live in lives:
        live.enter("night")
        live(images(seed=1))
    assert torch.equal(weights(lives[0]), weights(lives[1])), "night has no prototype yet"
    for live in lives:
        live.enter("day")
        live(images(seed=1))
    assert not torch.equal(weights(lives[0]), weights(lives[1]))
    assert {"day", "night"} == set(next(iter(lives[0].table().values())))


def test_the_domain_term_pulls_the_statistics_to_the_prototype():
    """One convolution and a norm: after steps on another image its statistics are nearer to the domain's."""
    with seeded(0, "network"):
        net = OneNorm(nn.Conv2d(3, 11, 1), nn.BatchNorm2d(11), mean=0.0, var=1.0)

    def away(live):
        use_batch(live._norms)
        with recording(live._norms) as found, torch.no_grad():
            live.network(images(seed=1) * 3)
        return float(_dose.apart(found, live.prototypes.at(0), "mean", live.prototypes.sources()))

    left = {}
    for weight in (0.0, 10.0):
        live = dose(net, {**ALONE, "domain": weight}, labels="soft", lr=0.01)
        live(images(seed=0))
        start = away(live)
        live.learn(images(seed=1) * 3, 0)
        left[weight] = away(live) / start
    assert left[0.0] > 0.99
    assert left[10.0] < 0.9


def test_distances_by_hand():
    """Norms of 1 and 2 channels: squares 9, 16 and 1, 1, 1, 1; the source's variances are 4 and 1."""
    zero = [torch.zeros(2, 1), torch.zeros(2, 2)]
    one = [torch.tensor([[3.0], [4.0]]), torch.ones(2, 2)]
    source = [torch.tensor([[0.0], [4.0]]), torch.tensor([[0.0, 0.0], [1.0, 1.0]])]
    wanted = {"mean": (12.5 + 1) / 2, "sum": (25 + 4) / 2, "scaled": ((9 / 4 + 16 / 16) / 2 + 1) / 2}
    for form, value in wanted.items():
        assert float(_dose.apart(one, zero, form, source)) == value


def test_pseudo_labels_and_their_loss_by_hand():
    sure, unsure = [0.7, 0.2, 0.1], [0.6, 0.3, 0.1]
    mean = torch.tensor([sure, unsure]).T.view(1, 3, 1, 2)
    assert torch.equal(_dose.pseudo_labels(mean, "soft"), mean)
    hard = torch.tensor([[1.0, 1.0], [0.0, 0.0], [0.0, 0.0]]).view(1, 3, 1, 2)
    assert torch.equal(_dose.pseudo_labels(mean, "hard"), hard)
    one = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 0.0]]).view(1, 3, 1, 2)
    assert torch.equal(_dose.pseudo_labels(mean, "confident"), one)
    logits = mean.log()
    torch.testing.assert_close(_dose.cross_entropy([logits], one), -torch.tensor(0.7).log())
    both = -(torch.tensor(0.7).log() + torch.tensor(0.6).log()) / 2
    torch.testing.assert_close(_dose.cross_entropy([logits, logits], hard), both)
    uniform = torch.zeros_like(logits)
    torch.testing.assert_close(_dose.cross_entropy([logits, uniform], one), (torch.tensor(3 / 0.7).log()) / 2)
    assert float(_dose.cross_entropy([logits], torch.zeros_like(one))) == 0


@pytest.mark.parametrize(("views", "counts"), [(1, (1, 1)), (2, (1, 1)), (4, (2, 2)), (5, (3, 2))])
def test_the_views_are_two_batches_and_their_geometry_is_undone(monkeypatch, views, counts):
    monkeypatch.setattr(_dose, "jittered", lambda given: given)
    x = torch.linspace(0, 1, 32).view(1, 1, 1, 32).expand(2, 3, 32, 32).contiguous()
    mirrored = set()
    for seed in range(8):
        with seeded(seed, "views"):
            here, seen, there, others = _dose.two_batches(x, views, light=False, least=8)
        assert (len(here), len(there)) == counts
        assert torch.equal(seen[:2], x)
        assert len({view.scale for view in there}) == 1
        assert all(view.scale == 1 for view in here)
        mirrored |= {view.flip for view in (*here[1:], *there)}
        for made, tolerance in ((_dose.undone(seen, here, (32, 32)), 0), (_dose.undone(others, there, (32, 32)), 0.02)):
            for one in made:
                torch.testing.assert_close(one, x, rtol=0, atol=tolerance)
    assert mirrored == ({False} if views == 1 else {False, True})


def test_the_buffer_is_filled_on_every_nth_batch_and_replayed_without_moving_a_prototype(network):
    memory = {"capacity": 4, "every": 2, "replay_every": 3, "replayed": 1}
    live = dose(network, {"views": 1}, memory)
    stored, updates = [], []
    for seed in range(4):
        live(images(seed=seed))
        stored.append(len(live.exemplars))
        updates.append(int(live.updates))
    assert stored == [1, 1, 2, 2]
    assert updates == [1, 2, 4, 5], "one more after the third image"
    assert live.prototypes.counts.tolist()[:2] == [4, 0]
    assert torch.allclose(live.exemplars.image(0), images(seed=0), atol=0.5 / 255 + 1e-6)
    assert live.exemplars.scores[:2].min() > 0


def test_when_nothing_is_learned_the_variance_of_gradients_is_0(network):
    live = dose(network, {"views": 1}, {"capacity": 2, "every": 1}, lr=0.0)
    live(images(2))
    assert live.exemplars.places.tolist() == [0, 0]
    assert live.exemplars.scores.tolist() == [0, 0]


def test_random_scores_fill_the_buffer_without_any_gradient(network, monkeypatch):
    from hardy.adaptation import dose as module

    monkeypatch.setattr(module, "gradients", None)
    live = dose(network, {"views": 1}, {"capacity": 2, "every": 1, "vog": "random"}, lr=0.0)
    live(images(seed=0))
    live(images(seed=1))
    assert live.exemplars.places.tolist() == [0, 0]
    assert len({*live.exemplars.scores.tolist(), 0.0}) == 3


@pytest.mark.slow
def test_a_domain_that_is_forgotten_leaves_no_exemplars(network):
    live = dose(network, {"views": 1}, {"capacity": 17, "every": 1}, learned="norms")
    for number in range(17):
        live.enter(f"domain {number}")
        live(images(seed=number))
    assert "domain 0" not in live.prototypes.names.listed()
    assert sorted(live.exemplars.places.tolist()) == [-1, *range(16)]


@pytest.mark.costly
@pytest.mark.slow
def test_the_light_form_costs_at_most_half_of_the_full_one(network):
    """Forward passes of one image, and two more for a backward pass, over 10 batches with their share of the buffer."""

    def cost(form):
        live = dose(network, {}, {"replay_every": 5, "every": 5}, form=form)
        cost, own = [], live.network.outputs

        def counted(given):
            made = own(given)
            cost.append(given.shape[0] * (3 if made.logits.requires_grad else 1))
            return made

        live.network.outputs = counted
        for seed in range(10):
            live(images(seed=seed))
        return sum(cost)

    assert cost("light") <= 0.5 * cost("full")


def test_networks_without_batch_norm_use_the_statistics_of_layer_norms():
    with seeded(0, "network"):
        net = OneNorm(nn.Conv2d(3, 11, 1), LayerNorm2d(11))
    lives = [dose(net, {**ALONE, "domain": weight}, labels="hard") for weight in (0.0, 1.0)]
    for live in lives:
        live(images(seed=0))
        live(images(seed=1))
    assert not torch.equal(weights(lives[0]), weights(lives[1]))
    assert list(lives[0].table()) == ["parts.1"]
    with pytest.raises(InputError, match=r"^dose: the network has neither"):
        DoSe(OneNorm(nn.Conv2d(3, 11, 1)))
    with pytest.raises(InputError, match=r"^dose: the network's weights are torch.float16; .*: network.float\(\)$"):
        DoSe(net.half())


def test_norms_alone_may_be_learned(network):
    live = dose(network, ALONE, labels="hard", learned="norms")
    live(images())
    pairs = zip(live.network.named_parameters(), network.parameters(), strict=True)
    changed = {name for (name, value), start in pairs if not torch.equal(value, start)}
    assert changed
    assert all(".norm." in name for name in changed)


def test_the_domain_is_detected_where_none_is_given(network):
    live = dose(network, {"views": 1})
    live.enter(None)
    live(images())
    assert list(live.prototypes.names.listed()) == ["detected/1"]
    live = dose(network, {"views": 1}, domains="detected")
    live(images())
    assert live.confusion() == {"day": {"detected/1": 1}}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"parts": {"layr": 1}}, r"parts has no 'layr'; did you mean 'layer'\?; it has: layer, domain"),
        ({"parts": {"views": 0}}, r"parts\.views 0 does not fit"),
        ({"memory": {"capacity": 10**10}}, r"memory\.capacity 10000000000 does not fit .* 4096"),
        ({"memory": {"vog": "root"}}, r"memory\.vog 'root' does not fit .*'code', 'printed' or 'random'"),
        ({"restore": 1.5}, r"restore 1\.5 or lr .* does not fit"),
        ({"lr": -1.0}, r"lr -1\.0 does not fit"),
    ],
)
def test_settings_that_do_not_fit_are_refused_in_one_line(network, options, said):
    with pytest.raises(InputError, match=f"^dose: .*{said}") as refused:
        DoSe(network, **options)
    assert "\n" not in str(refused.value)


def test_restored_numbers_are_independent_draws():
    torch.manual_seed(0)
    hit = torch.zeros(400, 1000)
    hit.view(-1)[_dose._hits(hit.numel(), 0.1)] = 1
    assert float(hit.mean()) == pytest.approx(0.1, abs=0.002)
    assert float(hit.sum(1).var()) == pytest.approx(1000 * 0.1 * 0.9, rel=0.3), "as many in each part as a binomial"
    assert float((hit[:, 1:] * hit[:, :-1]).mean()) == pytest.approx(0.01, abs=0.001), "neighbours do not know"
    assert float(hit[:, 0].mean()) == pytest.approx(0.1, abs=0.06)
    assert float(hit[:, -1].mean()) == pytest.approx(0.1, abs=0.06)


@pytest.mark.parametrize("probability", [0.0, 1e-7, 0.5, 1.0])
def test_each_value_is_restored_from_its_own_source(probability):
    torch.manual_seed(0)
    values, source = [torch.zeros(40, 5), torch.zeros(()), torch.zeros(300)], []
    for number, value in enumerate(values):
        source.append(torch.arange(value.numel()).reshape(value.shape) + 1000.0 * (number + 1))
    _dose.restore_(values, source, probability)
    moved = [value != 0 for value in values]
    assert all(torch.equal(value[at], start[at]) for value, start, at in zip(values, source, moved, strict=True))
    share = float(torch.cat([at.flatten() for at in moved]).float().mean())
    assert share == pytest.approx(probability, abs=0.1)
