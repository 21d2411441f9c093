"""The Pareto front by hand, and a page that a browser shows without the network."""

import math
import shutil
import subprocess

import pytest

from hardy.errors import InputError
from hardy.report.pareto import Point, figure, front, write

POINTS = [
    Point("slow and good", 9.0, 70.0, "a"),
    Point("quick", 1.0, 50.0, "a"),
    Point("beaten in both", 3.0, 49.0, "b"),
    Point("as good but slower", 2.0, 50.0, "b"),
    Point("between", 4.0, 60.0, "b"),
    Point("twin of between", 4.0, 60.0, "a"),
]


def test_the_front_by_hand() -> None:
    assert [one.name for one in front(POINTS)] == ["quick", "between", "twin of between", "slow and good"]
    assert front(POINTS[:1]) == POINTS[:1]


def test_a_figure_shows_every_point_and_the_front() -> None:
    drawn = figure(POINTS, title="t", score="mIoU %")
    line, *groups = drawn.data
    assert list(line.x) == [1.0, 4.0, 4.0, 9.0]
    assert [(group.name, len(group.x)) for group in groups] == [("a", 3), ("b", 3)]
    assert {name for group in groups for name in group.text} == {one.name for one in POINTS}


def test_names_stand_away_from_their_neighbours_and_inside_the_axes() -> None:
    drawn = figure(
        [Point("low", 20.0, 50.0), Point("just above", 21.0, 51.0), Point("far", 300.0, 90.0)], title="", score=""
    )
    (_, group), axis = drawn.data, drawn.layout.xaxis
    assert list(group.textposition) == ["bottom center", "top center", "top center"]
    assert axis.range[0] < math.log10(20) < math.log10(300) < axis.range[1]
    shown = [text for at, text in zip(axis.tickvals, axis.ticktext, strict=True) if 20 <= at <= 300]
    assert shown == ["20", "50", "100", "200"]


def test_nothing_to_plot_is_said() -> None:
    with pytest.raises(InputError, match="nothing to plot"):
        figure([], title="t", score="mIoU %")


@pytest.mark.costly
@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
@pytest.mark.slow
def test_a_browser_shows_the_page(tmp_path) -> None:
    page = tmp_path / "page.html"
    write(page, [figure(POINTS, title="All of them", score="mIoU %")], title="Networks", table="<p>a table</p>")
    assert "http" not in page.read_text(encoding="utf-8").split("<body>")[0]
    shown = subprocess.run(
        ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=4000", "--dump-dom", page],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    ).stdout
    for text in ("slow and good", "Pareto front", "All of them", "a table"):
        assert f">{text}<" in shown
