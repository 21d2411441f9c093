"""The page in headless Chromium: it sorts, filters, explains, slides, and asks nobody for anything."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from report_runs import CLASSES, write_run, write_story

from hardy import counts, records
from hardy.errors import InputError
from hardy.records import Record
from hardy.report.page import build
from hardy.report.page.drawing import Mark, scatter

NEEDS = pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")

LISTEN = """<script>
window.faults = [];
addEventListener("error", (event) => faults.push(String(event.message)));
addEventListener("securitypolicyviolation", (event) => faults.push(`${event.violatedDirective} ${event.blockedURI}`));
for (const kind of ["error", "warn"]) console[kind] = (...said) => faults.push(said.join(" "));
</script>"""

ACT = Path(__file__).with_name("act_on_page.js").read_text(encoding="utf-8")


class Outline(HTMLParser):
    """The headings, the ids, and what lacks a name on a page."""

    def __init__(self):
        super().__init__()
        self.headings, self.ids, self.links, self.nameless, self.inside = [], [], [], [], 0

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.ids += [found["id"]] if "id" in found else []
        self.links += [found["href"]] if tag == "a" else []
        self.inside += tag == "label"
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag in ("input", "select") and not self.inside and "aria-label" not in found:
            self.nameless.append(found)
        if tag == "img" and "alt" not in found:
            self.nameless.append(found)

    def handle_endtag(self, tag):
        self.inside -= tag == "label"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    home = tmp_path_factory.mktemp("report")
    build.write([write_story(home / "runs")], home / "report.html", title="A <b> & report")
    return home / "report.html"


def test_pictures_keep_their_place_until_they_are_decoded(page):
    assert page.read_text(encoding="utf-8").count('width="64" height="32" loading="lazy"') == 4 * 3 * 2 * 3


def test_networks_of_one_class_per_image_have_their_page(tmp_path):
    names = ("dog", "horse", "person")
    table = np.eye(3, dtype=np.int64)[[0, 0, 1, 2]][:, :, None] * np.eye(3, dtype=np.int64)[[0, 1, 1, 2]][:, None]
    found = {"pacs/photo": "source-val", "pacs/sketch": "unseen"}
    lines = [
        Record("r", "train", ("pacs/photo",), target, 0, "accuracy", value)
        for target, value in (("pacs/photo", 0.75), ("pacs/sketch", 0.5), ("intra", 0.75), ("unseen", 0.5))
    ]
    records.append(tmp_path / "run" / "records.jsonl", lines)
    kept = {
        name: counts.Counts(("a.jpg", "b.jpg", "c.jpg", "d.jpg"), table, names, group) for name, group in found.items()
    }
    counts.write(tmp_path / "run", kept)
    build.write([tmp_path / "run"], tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "has the highest accuracy over unseen domains, 50.0 %" in text
    assert "These networks give one class per image: there are no masks." in text
    assert "dog is called horse" in text
    assert "mIoU" not in text.split("<body")[1].split("<script")[0]


def visible(clip):
    """The part of the width, in percent, of a layer that CSS cuts by ``inset(TOP RIGHT BOTTOM LEFT)``."""
    sides = [int(side) for side in re.findall(r"(\d+)(?:px|%)", clip)]
    right, left = (
        sides[1] if len(sides) > 1 else sides[0],
        sides[3] if len(sides) > 3 else sides[min(1, len(sides) - 1)],
    )
    return left, max(left, 100 - right)


def shown(page, text, size="1200,900"):
    """What the page said after it was acted upon in a window of this size."""
    acted = page.with_name(f"acted-{size}.html")
    acted.write_text(
        text.replace("<head>", f"<head>{LISTEN}", 1).replace("</body>", f"<script>{ACT}</script></body>"),
        encoding="utf-8",
    )
    words = ["--headless", "--no-sandbox", "--disable-gpu", f"--window-size={size}", "--virtual-time-budget=3000"]
    done = subprocess.run(
        ["chromium", *words, "--dump-dom", acted.as_uri()], capture_output=True, text=True, check=True, timeout=200
    )
    return json.loads(re.search(r'id="said">(.*?)</script>', done.stdout, re.DOTALL).group(1))


@pytest.mark.costly
@NEEDS
@pytest.mark.slow
def test_a_browser_sorts_filters_explains_slides_and_asks_nobody(page):
    said = shown(page, page.read_text(encoding="utf-8"))
    assert said["faults"] == []
    assert said["requests"] == []
    assert said["start"] == ["beaten", "dense", "half", "quarter"]
    assert (said["slowest"], said["sorted"]) == (["dense", "beaten", "half", "quarter"], "descending")
    assert said["fastest"] == ["quarter", "half", "beaten", "dense"]
    assert (said["filtered"], said["shown"]) == (["quarter", "half", "dense"], "3 of 4 shown")
    assert said["hover"][0] is False
    assert said["hover"][1].startswith("beaten: ")
    assert said["away"] is True
    assert said["focus"][0] is False
    assert "at 3 ms" in said["focus"][1]
    assert said["escaped"] is True
    assert said["six"].startswith("half: ")
    assert said["none"] == "none: no network is that fast; the fastest, quarter, takes 3 ms."
    layers = [(visible(truth), visible(prediction)) for truth, prediction, _ in said["slides"]]
    assert layers == [
        ((0, 0), (0, 0)),
        ((0, 50), (0, 0)),
        ((0, 100), (0, 0)),
        ((50, 100), (0, 50)),
        ((100, 100), (0, 100)),
    ]
    words = [word for _, _, word in said["slides"]]
    assert words[0::2] == ["image", "truth", "prediction"]
    assert words[3] == "prediction on the left 50 percent, truth on the right"
    assert said["stop"] == "50"
    assert said["panels"][2] is False
    assert said["panels"].count(False) == 1
    assert said["theme"][0] != said["theme"][1]
    assert said["wide"] is True
    assert [row[:4] for row in said["numbers"]] == [["half", "prune", "streets/night", "iou/road"]]
    number = int(said["numbers"][0][6])
    text = page.read_text(encoding="utf-8")
    assert re.search(
        rf'<th scope="row" data-sort="{number}">{number}</th><td>prune</td><td><code>hardy prune half', text
    )


def test_the_page_is_one_file_that_names_everything(page):
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", text)
    assert not re.search(r"url\(|@import|https?://", text)
    assert "default-src 'none'" in text
    assert "<title>A &lt;b&gt; &amp; report</title>" in text
    outline = Outline()
    outline.feed(text)
    assert outline.nameless == []
    assert outline.headings[:2] == [1, 2]
    assert all(after - before <= 1 for before, after in zip(outline.headings, outline.headings[1:], strict=False))
    assert len(set(outline.ids)) == len(outline.ids)
    assert {link[1:] for link in outline.links} <= set(outline.ids)
    assert outline.links[1:] == [f"#{name}" for name in build.TITLES if name in outline.ids]
    for part in ("ship", "tradeoff", "networks", "domains", "images", "classes", "confusion", "curves", "steps"):
        assert f'<section id="{part}"' in text


def test_the_same_records_give_the_same_bytes(page):
    again = page.with_name("again.html")
    build.write([page.parent / "runs"], again, title="A <b> & report")
    assert again.read_bytes() == page.read_bytes()


def test_a_run_alone_without_anything_kept_says_what_keeps_it(tmp_path):
    build.write([write_run(tmp_path / "alone", 0.8, kept=False)], tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    for said in (
        "hardy bench RUN",
        "evaluate.keep_counts: true",
        "hardy evaluate RUN DOMAINS --worst 2",
        "curves.jsonl",
    ):
        assert said in text
    assert 'id="tradeoff"' not in text
    assert "#tradeoff" not in text


def cells_of(text, section, name):
    """The texts of the cells of the row of ``name`` in a section of the page."""
    table = text.split(f'<section id="{section}"')[1].split("</section>")[0]
    row = next(row for row in re.findall("<tr.*?</tr>", table, re.DOTALL) if f">{name}" in row)
    return [re.sub("<[^>]+>", "", cell) for cell in re.findall("<td.*?</td>", row, re.DOTALL)]


def test_what_was_timed_in_turns_and_what_separately_is_said_beside_the_numbers(page, tmp_path):
    text = page.read_text(encoding="utf-8")
    assert "All were timed in turns with dense, so that " in text
    assert "separate" not in text.split('<section id="networks"')[0]
    assert 'class="mark best hollow"' not in text
    assert cells_of(text, "networks", "half")[3:5] == ["6", "× 0.60"]
    shutil.copytree(page.parent / "runs", tmp_path / "runs")
    alone = write_run(tmp_path / "runs" / "alone", 0.95, notes={"teacher": str(tmp_path / "runs" / "dense")})
    line = Record("r", "bench", (), "onnxruntime", 0, "milliseconds_p50", 12.0, {}, {}, {"batch": 1})
    records.append(alone / "records.jsonl", [line])
    build.write([tmp_path / "runs"], tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    ship, tradeoff = (text.split(f'<section id="{name}"')[1].split("</section>")[0] for name in ("ship", "tradeoff"))
    assert "may have been different: alone. The others were timed in turns with dense;" in ship
    assert "Hollow points were timed separately." in tradeoff
    assert tradeoff.count('class="mark best hollow"') == tradeoff.count('hollow"') == 1
    assert "% mIoU at 12 ms, timed separately, worst " in tradeoff
    assert "% mIoU at 6 ms (× 0.60 of dense), worst " in tradeoff
    assert cells_of(text, "networks", "alone")[3:5] == ["12", "separate"]
    assert cells_of(text, "networks", "dense")[3:5] == ["10", "× 1.00"]
    assert cells_of(text, "steps", "alone")[4] == "× 1.20 separate"
    assert cells_of(text, "steps", "half")[4] == "× 0.60"


@pytest.mark.parametrize(("load", "said"), [("2.50", False), ("2.52", True), ("unknown", False)])
def test_times_from_a_busy_machine_are_named(tmp_path, load, said):
    run = write_run(tmp_path / "alone", 0.8, kept=False)
    versions = {"load": load, "cores": "2"}
    line = Record("r", "bench", (), "onnxruntime", 0, "milliseconds_p50", 12.0, {}, versions, {"batch": 1})
    records.append(run / "records.jsonl", [line])
    subject, _ = build.write([run], tmp_path / "page.html")
    words = f"The machine was busy while networks were timed (load {load[:3]} on 2 cores), so times"
    ship = (tmp_path / "page.html").read_text(encoding="utf-8").split('<section id="tradeoff"')[0]
    assert (words in ship, bool(subject.busy())) == (said, said)


def test_an_int8_file_shows_what_its_domains_lost(tmp_path):
    run = write_run(tmp_path / "alone", 0.8, kept=False)
    measured = {"streets/day": (0.5, 0.49), "streets/night": (0.4, 0.38), "streets/fog": (0.3, 0.3)}
    records.append(
        run / "records.jsonl",
        [
            Record("ralone", "quantize", ("streets/day",), domain, 0, metric, value, {}, {}, {"file": "to/small.onnx"})
            for domain, (before, after) in measured.items()
            for metric, value in {"miou_int8": after, "miou_float": before, "agreement": 0.98}.items()
        ],
    )
    build.write([run], tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    row = next(row for row in re.findall("<tr.*?</tr>", text, re.DOTALL) if "small.onnx" in row)
    cells = [re.sub("<[^>]+>", "", cell) for cell in re.findall("<td.*?</td>", row, re.DOTALL)]
    assert cells == ["quantize", "alone", "98.00 % of pixels agree", "–", "–", "−1.0", "−1.0", "−2.0"]


def test_a_stream_is_compared_with_the_source_network_on_the_same_frames(tmp_path):
    run = write_run(tmp_path / "alone", 0.8, kept=False)

    def streamed(method, kind, score, worst, ms, size=None):
        stream = {"kind": kind, "folder": f"state/{method}"}
        notes = {"adapt": {"name": method}, "stream": stream, "domains": ["streets/fog"], "size": size}
        values = {"online_miou": score, "worst_window_miou": worst, "ms_per_frame": ms, "source_ms_per_frame": 10.0}
        lines = {"frames": 40, **values}.items()
        made = [Record("r", "stream", (), "stream", 0, name, value, notes=notes) for name, value in lines]
        return [*made, Record("r", "stream", (), "stream", 0, "online_miou", 0.9, notes={**notes, "round": 1})]

    lines = streamed("tent", "abrupt", 0.9, 0.9, 99.0) + streamed("source", "abrupt", 0.5, 0.3, 10.0)
    lines += streamed("tent", "abrupt", 0.52, 0.25, 25.0) + streamed("tent", "mixed", 0.4, 0.2, 20.0)
    lines += streamed("tent", "abrupt", 0.3, 0.1, 30.0, size=[96, 192])
    records.append(run / "records.jsonl", lines)
    subject, _ = build.write([run], tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert [one.name for one in subject.networks] == ["alone"]
    steps = text[text.index("What each step cost") :]
    found = [
        [re.sub("<[^>]+>", "", cell) for cell in re.findall("<t[dh].*?</t[dh]>", row, re.DOTALL)]
        for row in re.findall("<tr.*?</tr>", steps[: steps.index("</table>")], re.DOTALL)
    ]
    assert [row for row in found if "stream" in row] == [
        ["alone tent, abrupt", "stream", "alone", "40 frames", "–", "× 2.50", "–", "+2.0", "−5.0"],
        ["alone source, abrupt", "stream", "alone", "40 frames", "–", "× 1.00", "–", "50.0", "30.0"],
        ["alone tent, mixed", "stream", "alone", "40 frames", "–", "× 2.00", "–", "40.0", "20.0"],
        ["alone tent, abrupt", "stream", "alone", "40 frames", "–", "× 3.00", "–", "30.0", "10.0"],
    ]


def test_of_many_networks_the_front_and_the_best_are_shown_in_detail(tmp_path):
    for place in range(12):
        cost = {"milliseconds_p50_eager_after": 10.0 - place / 2, "parameters_after": 1.0}
        write_run(tmp_path / f"r{place:02}", 0.9 - place / 50, stage="prune", cost=cost, kept=False)
    subject, _ = build.write([tmp_path], tmp_path / "page.html", budget=0.1)
    assert [one.name for one in subject.detailed] == [f"r{place:02}" for place in range(8)]
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Shown are 8 of 12 networks" in text
    assert "no network is that fast; the fastest, r11, takes 4.5 ms." in text
    assert text.count('class="mark') == 12
    assert all(f">{name}<" in text for name in CLASSES)


def test_names_of_points_do_not_cover_each_other():
    marks = [
        Mark(10.0, 40.0, "behind", "behind", 0, front=False),
        Mark(10.1, 40.1, "first", "first", 1, front=True),
        Mark(20.0, 30.0, "apart", "apart", 2, front=False),
        Mark(30.0, 20.0, "plain", "plain", None, front=False),
    ]
    drawn = scatter(marks, [], ("y", "x"), "four points")
    assert re.findall(r'class="name"[^>]*>(\w+)<', drawn) == ["apart", "first"]
    assert drawn.count('class="mark') == 4


def test_a_page_that_cannot_be_written_is_one_line(tmp_path):
    run = write_run(tmp_path / "run", 0.8, kept=False)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        build.write([run], tmp_path / "file" / "page.html")
    with pytest.raises(InputError, match="budget -1: it must be above 0 milliseconds"):
        build.write([run], tmp_path / "page.html", budget=-1)
