"""``hardy app``: what its page shows, without Gradio; and the page itself, where Gradio is installed."""

import sys

import numpy as np
import pytest

import hardy
from hardy.commands import app


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("app")
    for name, width in (("dense", 16), ("small", 8)):
        hardy.save(hardy.create("tiny", classes="camvid11", width=width), folder / name)
    return folder


IMAGE = np.random.default_rng(0).integers(0, 256, (48, 80, 3), dtype=np.uint8)


def test_without_gradio_one_line_says_how_to_install_it(refused, runs, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert refused("app", runs / "dense") == "gradio is not installed; install it with: pip install 'hardy[app]'"


def test_what_the_page_shows(runs):
    networks = app.named([runs / "dense", runs / "small"])
    pictures, rows = app.compared(networks, IMAGE, ["small", "dense"], size=None, device="cpu")
    assert [caption.split(":")[0] for _, caption in pictures] == ["dense", "small"]
    assert all(picture.width == 80 for picture, _ in pictures)
    assert [row[0] for row in rows] == ["dense", "small"]
    assert all(float(row[1]) > 0 and row[2].count("%") <= 5 for row in rows)
    assert app.compared(networks, IMAGE, ["small"], size=None, device="cpu")[1][0][0] == "small"
    assert app.compared(networks, None, ["small"], size=None, device="cpu") == ([], [])
    pictures, rows = app.compared(networks, IMAGE[:1], ["small"], size=None, device="cpu")
    assert (pictures, rows[0][1]) == ([], "–")
    assert "needs at least" in rows[0][2]


def test_networks_of_one_name_are_distinguished_and_none_is_given_twice(refused, runs, monkeypatch):
    other = runs / "other" / "small"
    hardy.save(hardy.create("tiny", classes="camvid11", width=8), other)
    assert list(app.named([runs / "small", other])) == [str(runs / "small"), str(other)]
    monkeypatch.setattr(app, "_gradio", lambda: None)
    assert refused("app", other, other) == f"{other}: it is given twice; name each network once"


@pytest.mark.costly
def test_the_page_is_served_on_this_machine_only(runs):
    gradio = pytest.importorskip("gradio", reason="the page is Gradio's: pip install 'hardy[app]'")
    networks = app.named([runs / "dense", runs / "small"])
    made = app.page(gradio, networks, None, "cpu")
    named = [(type(block).__name__, getattr(block, "label", None)) for block in made.blocks.values()]
    boxes = [("Image", "Picture"), ("CheckboxGroup", "Networks"), ("Image", "dense"), ("Image", "small")]
    assert [each for each in named if each[0] in ("Image", "CheckboxGroup")] == boxes
    assert all(
        "share" not in block.buttons for block in made.blocks.values() if getattr(block, "label", "") in networks
    )
    changed = next(iter(made.fns.values())).fn
    dense, small, rows = changed(IMAGE, ["small"])
    assert (dense.visible, dense.value, small.visible) == (False, None, True)
    assert small.label.startswith("small: ")
    assert [row[0] for row in rows] == ["small"]
    assert made.analytics_enabled is False
