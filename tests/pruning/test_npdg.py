"""NPDG: what follows style is shrunk, epsilon climbs the whole objective, and the limit cases hold."""

import itertools

import pytest
import torch
from torch import nn

from hardy.data.label_spaces import find_label_space
from hardy.errors import InputError
from hardy.networks.base import Network, resize
from hardy.pruning.criteria import npdg
from hardy.pruning.criteria.npdg import NPDG
from hardy.pruning.goal import Ratio
from hardy.pruning.schedules.base import Work
from hardy.pruning.schedules.sparse import Sparse
from hardy.pruning.select import Limits
from hardy.pruning.units import find_units
from hardy.types import Outputs


class Reddening(nn.Module):
    """A style that is the strength of the red channel."""

    def __init__(self):
        super().__init__()
        self.climbs = 0

    def sample(self, count):
        return torch.randn(count, 2, dtype=torch.float64)

    def content(self, images):
        return images

    def redraw(self, images, epsilon, size):
        self.climbs += epsilon.requires_grad
        factor = torch.ones(len(images), 3, dtype=images.dtype)
        factor = torch.cat([factor[:, :1] + 0.8 * epsilon[:, :1].tanh(), factor[:, 1:]], 1)
        return images * factor[:, :, None, None]


class TwoColours(Network):
    """Filters 0 to 3 see red only, 4 to 7 green only."""

    least_size = 8

    def __init__(self):
        super().__init__(find_label_space("camvid11"))
        self.look = nn.Conv2d(3, 8, 1)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Conv2d(8, 11, 1)
        with torch.no_grad():
            self.look.weight[:, :, 0, 0] *= torch.tensor([[1.0, 0, 0]] * 4 + [[0, 1.0, 0]] * 4)

    def outputs(self, images):
        return Outputs(resize(self.head(torch.relu(self.norm(self.look(self.normalise(images))))), images.shape[-2:]))


@pytest.fixture
def style(monkeypatch):
    made = []
    monkeypatch.setattr(npdg, "load_dsp", lambda folder: made.append(Reddening()) or made[-1])
    return made


@pytest.fixture
def colours():
    torch.manual_seed(0)
    return TwoColours().double()


def frozen_look(network):
    network.look.requires_grad_(False)
    return network


@pytest.mark.slow
def test_what_sees_only_style_goes_and_what_sees_only_content_keeps_its_scale(style, colours, draw_batch, pixel_loss):
    network = frozen_look(colours)
    units = find_units(network)
    criterion = NPDG(network, units, pixel_loss, style="x")
    optimiser = torch.optim.SGD(network.parameters(), lr=0.05)
    stream = itertools.cycle([draw_batch([0, 0, 0]), draw_batch([0, 0, 0], 1)])

    def tune(steps, terms, after_backward, after_step):
        network.train()
        for _ in range(steps):
            optimiser.zero_grad()
            sum(terms(next(stream)).values()).backward()
            optimiser.step()
            after_step()

    limits = Limits(min_width=2)
    schedule = Sparse(steps=60, beta=0.2, adapt=10)
    done = schedule.run(Work(network, criterion, units, Ratio(units, 0.5, limits), limits, tune=tune))
    assert done.removed == {"look": [0, 1, 2, 3]}
    weights = criterion.weights["look"]
    assert weights[4:].abs().max() < 1e-6
    assert weights[:4].mean() == pytest.approx(2, rel=0.01)
    assert network.norm.weight.detach().min() > 0.8


def test_epsilon_climbs_the_gradient_of_the_whole_objective(style, colours, draw_batch, pixel_loss):
    units = find_units(colours)
    criterion = NPDG(colours, units, pixel_loss, style="x", copies=1, climb=(20.0, 1e9))
    criterion.strength = 0.5
    batch = draw_batch([0, 0])
    epsilon = torch.tensor([[0.3, 0.0], [-0.4, 0.0]], dtype=torch.float64)
    dsp = style[0]
    moved, copies = criterion._climbed(batch, batch.images, epsilon)
    assert torch.equal(copies, dsp.redraw(batch.images, epsilon, None))
    assert not copies.requires_grad

    def objective(moved):
        images = torch.cat([batch.images, dsp.redraw(batch.images, moved, None)])
        with criterion._climbing:
            loss = pixel_loss(colours(images), batch.labels.repeat(2, 1, 1))
        weights = criterion._sensitivities(criterion._climbing, 2)["look"]
        return float((loss + 0.5 * (weights * colours.norm.weight.detach().abs()).sum()).detach())

    gradient = (moved - epsilon) * objective(epsilon) / (20.0 * 2)  # 20 / objective, times the images
    for row in range(2):
        step = torch.zeros_like(epsilon)
        step[row, 0] = 1e-5
        slope = (objective(epsilon + step) - objective(epsilon - step)) / 2e-5
        assert float(gradient[row, 0]) == pytest.approx(slope, rel=1e-5)
    assert not gradient[:, 1].any()


def test_a_climbed_copy_is_harder_than_a_random_one(style, colours, draw_batch, pixel_loss):
    criterion = NPDG(colours, find_units(colours), pixel_loss, style="x", copies=3, unary=None)
    batch = draw_batch([0, 1])
    torch.manual_seed(3)
    copies = criterion._copies(batch)
    torch.manual_seed(3)
    start = style[0].redraw(batch.images, style[0].sample(2), None)

    def loss(copy):
        return float(pixel_loss(colours(torch.cat([batch.images, copy])), batch.labels.repeat(2, 1, 1)).detach())

    assert loss(start) < loss(copies[0]) <= loss(copies[2])
    torch.manual_seed(3)
    epsilon = style[0].sample(2)
    for copy in copies:  # each is where the climb from the one before ended
        epsilon, _ = criterion._climbed(batch, batch.images, epsilon)
        assert torch.equal(copy, style[0].redraw(batch.images, epsilon, None))


def test_the_limit_of_a_climb_is_a_share_of_the_length(style, colours, draw_batch, pixel_loss):
    epsilon = torch.tensor([[0.3, 0.4], [-0.4, 0.3]], dtype=torch.float64)
    criterion = NPDG(colours, find_units(colours), pixel_loss, style="x", climb=(20.0, 1e-3))
    batch = draw_batch([0, 0])
    moved = criterion._climbed(batch, batch.images, epsilon)[0] - epsilon
    torch.testing.assert_close(moved.norm(dim=1), torch.full((2,), 5e-4, dtype=torch.float64))


def test_the_rate_of_a_climb_is_an_option(style, colours, draw_batch, pixel_loss):
    epsilon = torch.tensor([[0.3, 0.4], [-0.4, 0.3]], dtype=torch.float64)
    batch, units = draw_batch([0, 0]), find_units(colours)
    moves = [
        NPDG(colours, units, pixel_loss, style="x", climb=(rate, 1e9))._climbed(batch, batch.images, epsilon)[0]
        - epsilon
        for rate in (20.0, 5.0)
    ]
    assert float(moves[0].norm()) > 0
    torch.testing.assert_close(moves[0], 4 * moves[1])


@pytest.mark.parametrize("climb", [(0.0, 1.0), (20.0, 0.0)])
def test_without_rate_or_limit_styles_stay_random(style, colours, draw_batch, pixel_loss, climb):
    criterion = NPDG(colours, find_units(colours), pixel_loss, style="x", climb=climb)
    criterion.observe(draw_batch([0, 1]))
    assert style[0].climbs == 0


def test_the_network_is_touched_once_a_step(style, colours, draw_batch, pixel_loss):
    criterion = NPDG(colours, find_units(colours), pixel_loss, style="x", copies=2)
    batch = draw_batch([0, 1])
    sum(criterion.observe(batch).values()).backward()
    assert int(colours.norm.num_batches_tracked) == 1
    assert style[0].climbs == 2
    assert all(p.grad is not None for p in colours.parameters())


def test_without_strength_it_is_plain_training_on_the_copies(style, colours, draw_batch, pixel_loss):
    batch = draw_batch([0, 1, 1])
    criterion = NPDG(colours, find_units(colours), pixel_loss, style="x", climb=(20.0, 0.0), copies=2)
    torch.manual_seed(5)
    terms = criterion.observe(batch)
    found = torch.autograd.grad(sum(terms.values()) + 0.0 * criterion.penalty(), colours.norm.weight)[0]
    torch.manual_seed(5)
    dsp = style[0]
    copies = [dsp.redraw(batch.images, dsp.sample(3), None) for _ in range(2)]
    plain = pixel_loss(colours(torch.cat([batch.images, *copies])), batch.labels.repeat(3, 1, 1))
    torch.testing.assert_close(found, torch.autograd.grad(plain, colours.norm.weight)[0])


def test_without_sensitivities_the_penalty_is_that_of_network_slimming(style, colours, draw_batch, pixel_loss):
    criterion = NPDG(colours, find_units(colours), pixel_loss, style="x", unary=None, copies=1)
    criterion.observe(draw_batch([0]))
    colours.norm.weight.data[:] = torch.linspace(-1, 1, 8)
    penalty = criterion.penalty()
    assert float(penalty.detach()) == pytest.approx(float(colours.norm.weight.detach().abs().sum()))
    penalty.backward()
    assert torch.equal(colours.norm.weight.grad, colours.norm.weight.detach().sign())


@pytest.mark.parametrize(("unary", "expected"), [(1.0, (2.0, 0.0)), (0.0, (None, None)), (0.4, (None, None))])
def test_lambda_weighs_unary_against_binary(style, colours, draw_batch, pixel_loss, unary, expected):
    units = find_units(colours)
    criterion = NPDG(colours, units, pixel_loss, style="x", unary=unary, climb=(20.0, 0.0))
    torch.manual_seed(1)
    criterion.observe(draw_batch([0, 1]))
    weights = criterion.weights["look"]
    assert float(weights.mean()) == pytest.approx(1, abs=1e-6)
    if expected[0] is not None:
        assert float(weights[:4].mean()) == pytest.approx(expected[0], abs=1e-6)
        assert float(weights[4:].abs().max()) == pytest.approx(expected[1], abs=1e-6)


def test_weights_move_slowly(style, colours, draw_batch, pixel_loss):
    criterion = NPDG(colours, find_units(colours), pixel_loss, style="x", climb=(20.0, 0.0))
    criterion.observe(draw_batch([0, 1]))
    first = criterion.weights["look"].clone()
    seen = []
    criterion._sensitivities = lambda activations, styles: (
        seen.append(torch.full((8,), 3.0)) or {"look": seen[-1].double()}
    )
    criterion.observe(draw_batch([0, 1]))
    torch.testing.assert_close(criterion.weights["look"], 0.9 * first + 0.3)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"style": ""}, "NPDG.style: name the folder of a run of the algorithm style_vae"),
        ({"style": "x", "copies": 0}, "copies 0 must be at least 1"),
        ({"style": "x", "unary": 1.5}, "unary 1.5 in"),
        ({"style": "x", "climb": (-1.0, 1.0)}, r"NPDG.climb: -1.0 .* out of range"),
    ],
)
def test_bad_options(style, colours, pixel_loss, options, said):
    with pytest.raises(InputError, match=said):
        NPDG(colours, find_units(colours), pixel_loss, **options)


def test_a_folder_without_a_style(tmp_path, colours, pixel_loss):
    with pytest.raises(InputError, match=r"no style\.json here"):
        NPDG(colours, find_units(colours), pixel_loss, style=str(tmp_path))
