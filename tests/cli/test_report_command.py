"""``hardy report`` as a user types it."""

import json

import pytest
from report_runs import write_run, write_story


def test_a_page_from_a_folder_of_runs_that_names_a_torn_line(call, tmp_path):
    runs, page = write_story(tmp_path / "my runs"), tmp_path / "a page.html"
    with (runs / "half" / "records.jsonl").open("a") as end:
        end.write('{"recipe"')
    said = call("report", runs, "--to", page, "--budget-ms", "6", "--title", "Mine")
    assert (said.code, said.out) == (
        0,
        f"{page}: 4 networks; open it in a browser; it needs no connection\n",
    )
    assert said.err.startswith(f"hardy: {runs / 'half' / 'records.jsonl'}:")
    assert said.err.endswith(": the last line is incomplete and was left out\n")
    text = page.read_text(encoding="utf-8")
    assert "<strong>half</strong>" in text
    assert "<h1>Mine</h1>" in text


@pytest.mark.parametrize("words", [("--budget-ms", "0"), ("--budget-ms", "nan")])
def test_a_budget_that_is_none_is_refused(refused, tmp_path, words):
    run = write_run(tmp_path / "run", 0.8, kept=False)
    assert "it must be above 0 milliseconds" in refused("report", run, *words, "--out", tmp_path / "page.html")


def test_no_records_and_other_classes_are_one_line_and_no_page(refused, tmp_path):
    run, other = (
        write_run(tmp_path / "a", 0.8, kept=False),
        write_run(tmp_path / "b", 0.8, classes=("x", "y"), kept=False),
    )
    page = tmp_path / "page.html"
    assert "there is no records.jsonl at or below it" in refused("report", tmp_path / "none", "--to", page)
    assert "cannot be compared; make two reports" in refused("report", run, other, "--out", page)


def test_a_class_that_occurs_in_no_domain_of_a_run_is_still_one_of_its_classes(call, tmp_path):
    run, other = (write_run(tmp_path / name, 0.8, kept=False) for name in "ab")
    lines = [json.loads(line) for line in (other / "records.jsonl").read_text().splitlines()]
    absent = next(line["metric"] for line in lines if line["metric"].startswith("iou/"))
    for line in lines:
        line["value"] = None if line["metric"] == absent else line["value"]
    (other / "records.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert call("report", run, other, "--to", tmp_path / "page.html").code == 0
