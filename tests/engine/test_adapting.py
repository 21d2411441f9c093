"""A network that adapts while it is measured: what reaches it, when it forgets, and what is left as it was."""

import numpy as np
import pytest
import torch
from stream_method import SEEN

from hardy.data.base import Dataset, Domain
from hardy.data.label_spaces import SPACES
from hardy.engine import protocol
from hardy.engine.adapting import Adapting, chosen
from hardy.engine.protocol import Settings
from hardy.errors import InputError
from hardy.networks.building.create import create
from hardy.recipe import Data, Evaluate, RunSection
from hardy.seed import seeded

METHOD = "stream_method:Learning"
SPACE = SPACES["camvid11"]


class Drawn(Dataset):
    """Images of noise with masks of noise, 32x40; item ``torn`` cannot be read."""

    label_space = SPACE

    def __init__(self, torn=-1):
        self.torn = torn

    def index(self):
        return {}

    def read(self, item):
        if item == self.torn:
            raise InputError(f"{item}.png: torn")
        draw = np.random.default_rng(item)
        return (
            draw.integers(0, 256, (32, 40, 3), dtype=np.uint8),
            draw.integers(0, 11, (32, 40), dtype=np.uint8),
        )


DAY = ("unseen", (Domain("drawn/day", Drawn(), {}), (0, 1, 2)))
NIGHT = ("unseen", (Domain("drawn/night", Drawn(), {}), (3, 4, 5)))
TORN = ("unseen", (Domain("drawn/torn", Drawn(torn=8), {}), (6, 7, 8)))


@pytest.fixture(autouse=True)
def seen():
    SEEN.clear()
    return SEEN


@pytest.fixture
def network():
    with seeded(0, "network"):
        return create("tiny", "camvid11", width=8)


def measured(network, parts, reset="domain", seed=0, tolerant=False, options=None, **evaluate):
    settings = Settings(Data(), evaluate=Evaluate(**evaluate), run=RunSection(device="cpu", workers=0, seed=seed))
    adapt = chosen({"name": METHOD, "reset": reset, **(options or {})})
    return protocol.measure(network, parts, settings, tolerant=tolerant, adapt=adapt)


def test_what_a_guard_does_is_summed_up_over_all_domains(network):
    quiet = {"sure": 0.0, "source": 0.0, "entropy": 0.0, "agreement": 0.0, "classes": 0.0, "prototypes": None}
    quiet |= {"drift": None, "every": 1}
    table = measured(network, [DAY, NIGHT], options={"guard": {**quiet, "budget_ms": 1e-9}})
    assert table.guard.lines() == ["guard: predicted without learning 4 times, by budget; first at image 1: budget"]
    assert table.guard.costs() == {"guard_forwards": 2, "guard_budget": 4}
    assert measured(network, [DAY], options={"guard": quiet}).guard.lines() == ["guard: no action"]
    assert measured(network, [DAY]).guard is None


def images_of(*items):
    return torch.stack([torch.from_numpy(Drawn().read(i)[0]).permute(2, 0, 1).float() / 255 for i in items])


@pytest.mark.parametrize(
    ("reset", "batch", "steps"),
    [
        ("domain", 1, [0, 1, 2, 0, 1, 2]),
        ("never", 1, [0, 1, 2, 3, 4, 5]),
        (2, 1, [0, 1, 0, 1, 0, 1]),
        (4, 1, [0, 1, 2, 3, 0, 1]),
        (1, 2, [0, 0, 0, 0]),
        (3, 2, [0, 1, 0, 1]),
        ("never", 3, [0, 1]),
        (4, 3, [0, 1]),
    ],
)
def test_it_forgets_as_declared_and_sees_every_image_once_in_order(network, seen, reset, batch, steps):
    measured(network, [DAY, NIGHT], reset, batch=batch)
    assert [one.step for one in seen] == steps
    assert [len(one.images) for one in seen] == {1: [1] * 6, 2: [2, 1, 2, 1], 3: [3, 3]}[batch]
    torch.testing.assert_close(torch.cat([one.images for one in seen]), images_of(*range(6)), rtol=0, atol=1e-6)


def test_it_learns_in_its_own_modes_and_the_network_stays_as_it_was(network, seen):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.train()
    with torch.no_grad():
        made = measured(network, [DAY], "never")
    assert all(one.grad and one.trains for one in seen)
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(value.requires_grad and value.grad is None for value in network.parameters())
    assert made != measured(network, [DAY], 1), "what it learned from the first image changes the others"


def test_a_domain_does_not_depend_on_those_before_it_unless_it_never_forgets(network):
    alone = measured(network, [NIGHT]).rows[0]
    assert measured(network, [DAY, NIGHT]).rows[1] == alone
    assert measured(network, [DAY, NIGHT], "never").rows[1] != alone


@pytest.mark.parametrize("reset", ["domain", "never", 2])
def test_it_gets_the_domain_and_an_error_restores_the_one_before(network, seen, reset):
    measured(network, [DAY, TORN, NIGHT], reset, tolerant=True)
    assert [one.domain for one in seen] == ["drawn/day"] * 3 + ["drawn/torn"] + ["drawn/night"] * 3
    adapting = Adapting(network, chosen({"name": METHOD, "reset": reset}), seed=0)
    adapting.method.enter("before")
    with adapting.domain("drawn/day"), adapting.domain():
        assert adapting.method.domain is None
    assert adapting.method.domain == "before"


@pytest.mark.parametrize("reset", ["domain", "never", 4])
def test_a_domain_that_cannot_be_read_leaves_it_as_it_was(network, seen, reset):
    wanted = measured(network, [DAY, NIGHT], reset)
    without = [(one.step, one.draw) for one in seen]
    seen.clear()
    made = measured(network, [DAY, TORN, NIGHT], reset, tolerant=True)
    assert made.failed == {"drawn/torn": "8.png: torn"}
    assert len(seen) == 7, "the torn domain's first image was seen, the next was read ahead"
    assert [(one.step, one.draw) for one in seen[:3] + seen[4:]] == without
    assert made.rows == wanted.rows


def test_the_runs_seed_decides_its_draws(network, seen):
    for seed in (1, 1, 2):
        measured(network, [DAY], "never", seed=seed)
    first, again, other = ([one.draw for one in seen[at : at + 3]] for at in (0, 3, 6))
    assert first == again
    assert not set(first) & set(other)
    assert len(set(first)) == 3


@pytest.mark.parametrize(
    ("views", "said"),
    [
        ({"flip": True}, "by flip; leave it out"),
        ({"scales": (1.0, 0.5)}, "by scales; leave it out"),
        ({"window": (32, 32), "flip": True}, "by window and flip; leave them out"),
    ],
)
def test_what_would_show_it_an_image_twice_is_refused(network, seen, views, said):
    with pytest.raises(
        InputError, match=f"^adapt: {METHOD} would learn more than once from an image {said}, or do not"
    ):
        measured(network, [DAY], **views)
    assert not seen


def test_one_that_diverges_is_refused_and_forgets_that_domain(network, seen):
    with pytest.raises(InputError, match=r"^adapt: the logits of stream_method:Learning hold NaN after 3 batches"):
        measured(network, [DAY], options={"breaks": 2})
    made = measured(network, [DAY, NIGHT], "never", tolerant=True, options={"breaks": 2})
    assert set(made.failed) == {"drawn/day", "drawn/night"}
    assert [one.step for one in seen[3:]] == [0, 1, 2, 0, 1, 2]


def test_source_measures_what_the_network_without_it_does(network):
    settings = Settings(Data(), run=RunSection(device="cpu", workers=0))
    plain = protocol.measure(network, [DAY, NIGHT], settings)
    assert protocol.measure(network, [DAY, NIGHT], settings, adapt=chosen("source")) == plain


@pytest.mark.parametrize(
    ("given", "words", "said"),
    [
        ("sorce", (), r"there is no adaptation 'sorce'; did you mean 'source'"),
        ({"name": "source", "rate": 1}, (), "Source has no option 'rate'; it has: none"),
        ({"name": "source", "reset": 0}, (), r"adapt.reset: give domain, never, or a whole number .* \(got 0\)"),
        ({"name": "source", "reset": True}, (), r"adapt.reset: give domain, never, .* \(got True\)"),
        (None, ["adapt.name=source", "adapt.reset=allways"], "adapt.reset: give domain, never"),
        (None, ["adapt.reset=never"], "adapt.name is missing"),
        (None, ["optim.lr=1"], "'optim.lr=1': only adapt.key=value can be given here"),
    ],
)
def test_what_it_cannot_take_is_refused_in_one_line(given, words, said):
    with pytest.raises(InputError, match=said):
        chosen(given, words)


def test_words_choose_as_a_mapping_does():
    words = ["adapt.reset=3", f"adapt.name={METHOD}", "adapt.rate=0.5"]
    made = chosen(None, words)
    assert made == chosen({"name": METHOD, "reset": 3, "rate": 0.5})
    assert made.model_dump() == {"name": METHOD, "reset": 3, "rate": 0.5, "breaks": -1}
    assert chosen("source").model_dump() == {"name": "source", "reset": "domain"}
    assert chosen(None) is None
