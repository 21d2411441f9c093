"""Training of the style perturbation: its terms, what learns from which, its calibration and its artefact."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

import hardy
from hardy.algorithms.style_vae import StyleVAE, _partners
from hardy.errors import InputError
from hardy.networks.building.create import create
from hardy.networks.styles.dsp import load_dsp
from hardy.ops.style import adain, statistics
from hardy.ops.style_vae import divergence, style_of
from hardy.ops.vgg import VGG19
from hardy.seed import seed_all
from hardy.types import Batch


@pytest.fixture
def tiny():
    torch.manual_seed(0)
    return create("tiny", "camvid11", width=8)


def tinted(seed, count=6, size=(32, 48)):
    """Noise on ramps, each image with a tint and a contrast of its own."""
    draw = torch.Generator().manual_seed(seed)
    ramp = torch.linspace(0, 1, size[1]).expand(count, 3, *size)
    noise = 0.2 * torch.rand(count, 3, *size, generator=draw)
    light, tint = torch.rand(count, 1, 1, 1, generator=draw), torch.rand(count, 3, 1, 1, generator=draw)
    images = (0.1 + 0.5 * tint + (0.2 + 0.3 * light) * (ramp - 0.5) + noise).clamp(0, 1)
    labels = torch.zeros(count, *size, dtype=torch.long)
    return Batch(images, labels, torch.arange(count) % 2)


def test_terms_are_those_of_the_formula(tiny):
    """Worked out again with the noise and the partners of the same seed."""
    torch.manual_seed(1)
    algorithm = StyleVAE(tiny, None, style=2.0, kl=3.0, reconstruction=5.0, image=7.0)
    batch = tinted(0)
    seed_all(4)
    terms = algorithm(batch)
    seed_all(4)
    maps = algorithm.encoder(batch.images)
    style = style_of(maps[-1])
    psi, xi = algorithm.vae.encode(style)
    found = algorithm.vae.decode(psi + torch.randn(psi.shape) * xi)
    partner = _partners(batch.domains)
    target = adain(maps[-1], *found[partner].chunk(2, 1))
    drawn = algorithm.decoder(target)
    again = algorithm.encoder(drawn)
    styles = [
        F.mse_loss(a, b[partner])
        for one, two in zip(again, maps, strict=True)
        for a, b in zip(statistics(one), statistics(two), strict=True)
    ]
    outside = (drawn - drawn.clamp(0, 1)).square().mean()
    expected = {
        "kl": 3 * divergence(psi, xi),
        "reconstruction": 5 * F.mse_loss(found, style),
        "content": F.mse_loss(again[-1], target),
        "style": 2 * sum(styles),
        "image": 7 * (F.mse_loss(algorithm.decoder(maps[-1]), batch.images) + outside),
    }
    assert terms.keys() == expected.keys()
    assert {key: value.item() for key, value in terms.items()} == pytest.approx(
        {key: value.item() for key, value in expected.items()}, rel=1e-5
    )
    assert "image" not in StyleVAE(tiny, None, image=0.0)(batch)


def test_the_decoder_learns_from_the_drawing_and_the_vae_from_the_styles(tiny):
    algorithm = StyleVAE(tiny, None)
    terms = algorithm(tinted(0))
    parts = {"vae": list(algorithm.vae.parameters()), "decoder": list(algorithm.decoder.parameters())}
    reached = {
        (term, part): any(
            g is not None and bool(g.any())
            for g in torch.autograd.grad(value, weights, retain_graph=True, allow_unused=True)
        )
        for term, value in terms.items()
        for part, weights in parts.items()
    }
    assert {term for (term, part), found in reached.items() if found and part == "vae"} == {"kl", "reconstruction"}
    assert {term for (term, part), found in reached.items() if found and part == "decoder"} == {
        "content",
        "style",
        "image",
    }


def test_partners_are_of_another_domain_where_there_is_one():
    torch.manual_seed(0)
    for _ in range(20):
        domains = torch.tensor([0, 0, 1, 2, 2])
        assert bool((domains[_partners(domains)] != domains).all())
        assert bool((_partners(torch.zeros(4)) != torch.arange(4)).all())
    assert _partners(torch.zeros(1)).tolist() == [0]


@pytest.mark.costly
def test_encoded_styles_have_unit_deviation_after_calibration(tiny, tmp_path):
    torch.manual_seed(0)
    algorithm = StyleVAE(tiny, None, image=10.0)
    optimiser = torch.optim.Adam([*algorithm.vae.parameters(), *algorithm.decoder.parameters()], lr=2e-3)
    first = last = 0.0
    for step in range(40):
        optimiser.zero_grad()
        terms = algorithm(tinted(step, count=8))
        last = sum(terms.values())
        first = first or float(last.detach())
        last.backward()
        optimiser.step()
    assert float(last.detach()) < first
    algorithm.keep(tmp_path)
    assert all(p.requires_grad for p in (*algorithm.vae.parameters(), *algorithm.decoder.parameters()))
    dsp = load_dsp(tmp_path)
    with torch.no_grad():
        psi, xi = algorithm.vae.encode(style_of(algorithm.encoder(tinted(999, count=200).images)[-1]))
        codes = psi + torch.randn_like(xi) * xi
        white = torch.linalg.solve(dsp.root, (codes - dsp.centre).T)
    deviation = white.std(1)
    assert deviation.min() > 0.5
    assert deviation.max() < 2
    assert white.mean(1).abs().max() < 1


def test_styles_of_a_folder_of_pictures(tiny, tmp_path):
    draw = np.random.default_rng(0)
    for number, size in enumerate([(20, 90), (70, 30)]):
        picture = draw.integers(0, 80, (*size, 3), dtype=np.uint8) + np.array([170, 0, 0], np.uint8)
        Image.fromarray(picture).save(tmp_path / f"{number}.png")
    algorithm = StyleVAE(tiny, None, pictures=str(tmp_path))
    torch.manual_seed(0)
    styled = algorithm._drawn(8, torch.zeros(8, 3, 32, 48))
    assert styled.shape == (8, 3, 32, 48)
    assert styled[:, 0].min() > 0.6
    assert styled[:, 1:].max() < 0.35
    psi, xi = algorithm.vae.encode(style_of(algorithm.encoder(styled)[-1]))
    torch.manual_seed(0)
    term = algorithm(tinted(0, count=8))["kl"]
    assert term.item() == pytest.approx(divergence(psi, xi).item(), rel=1e-5)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no images"):
        StyleVAE(tiny, None, pictures=str(tmp_path / "empty"))


def test_wrong_options_are_refused_in_one_line(tiny, tmp_path):
    with pytest.raises(InputError, match=r"StyleVAE.kl: -1"):
        StyleVAE(tiny, None, kl=-1)
    with pytest.raises(InputError, match="no such weights file"):
        StyleVAE(tiny, None, encoder=str(tmp_path / "vgg.pth"))


@pytest.mark.slow
def test_vgg_is_trained_without_the_image_part(tiny, tmp_path):
    torch.manual_seed(0)
    torch.save(VGG19().state_dict(), tmp_path / "vgg.pth")
    algorithm = StyleVAE(tiny, None, encoder=str(tmp_path / "vgg.pth"))
    terms = algorithm(tinted(0, count=2, size=(20, 28)))
    assert set(terms) == {"kl", "reconstruction", "content", "style"}
    sum(terms.values()).backward()
    trained = {key: p for key, p in algorithm.named_parameters() if not key.startswith("network.")}
    assert all(p.grad is not None for p in trained.values())
    assert sum(p.numel() for p in algorithm.decoder.parameters()) == 3_505_219


@pytest.mark.costly
@pytest.mark.slow
def test_a_run_leaves_the_network_as_it_was_and_its_artefact_beside_it(town, tmp_path):
    sections = {
        "data": {"sources": ["folder"], "crop": [32, 48], "datasets": {"folder": {"root": str(town)}}},
        "algorithm": {"name": "style_vae"},
        "evaluate": {"select": "last"},
        "optim": {"name": "adam", "lr": 1e-3, "batch": 4},
        "steps": 3,
    }
    found = []
    for folder in ("one", "two"):
        torch.manual_seed(0)
        network = create("tiny", str(town / "classes.yaml"), width=8)
        before = {key: value.clone() for key, value in network.state_dict().items()}
        torch.rand(len(found))  # what was drawn before a run does not matter
        run = {"device": "cpu", "workers": 0, "threads": 1}
        hardy.train(network, **sections, run=run, folder=tmp_path / folder)
        assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
        found.append(load_dsp(tmp_path / folder).state_dict())
    assert all(torch.equal(value, found[1][key]) for key, value in found[0].items())
