import csv
import json
import re
import struct
from html.parser import HTMLParser

import pytest

from localearn.errors import UserError
from localearn.reporting import read_runs, write_report

VOID = {"meta", "br", "wbr", "img", "hr", "input", "link"}
SVG_OUTLINES = {"path", "use", "rect", "circle", "line"}


class Page(HTMLParser):
    """Checks that elements are closed in order; keeps the text, the ids and what a page could fetch or run."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.ids: list[str] = []
        self.labels: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name == "aria-label" and tag == "svg":
                self.labels.append(value or "")
            if name in ("href", "src", "xlink:href", "data", "srcset", "action"):
                self.links.append(value or "")
            assert not name.startswith("on")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def six_runs(top, factory, **changes):
    for seed in range(3):
        factory.write_run(top, factory.record("backprop", seed))
        factory.write_run(top, factory.record("mono_forward", seed, **changes))
    return top


@pytest.fixture(scope="module")
def report(tmp_path_factory, factory):
    """A report on six runs, one more that diverged, and its page."""
    top = six_runs(tmp_path_factory.mktemp("runs"), factory)
    bad = factory.record("mono_forward", 3, status="diverged", error="<script>alert('loss')</script> & |pipes|")
    factory.write_run(top, bad)
    out = tmp_path_factory.mktemp("report") / "new" / "folder"
    page = write_report(read_runs(top), out, title="Six <runs>", command="python -m localearn.compare algos=[a,b]")
    assert page == out / "report.html"
    return out


def test_every_file_is_there_and_named(report):
    files = {path.relative_to(report).as_posix() for path in report.rglob("*") if path.is_file()}
    assert {"report.html", "report.md", "report.csv", "report.json"} < files
    kinds = {name.split("/")[1].split("-")[0] for name in files if name.startswith("plots/")}
    assert kinds == {"accuracy_energy", "curves_epochs", "curves_seconds", "curves_joules", "memory", "ratios"}
    assert set(json.loads((report / "report.json").read_text())["files"]) == files


def test_page_stands_alone_and_is_well_formed(report):
    text = (report / "report.html").read_text()
    page = Page(text)
    assert "script" not in page.tags
    assert all(link.startswith("#") for link in page.links)
    assert not re.search(r"https?://|@import|url\((?!#)", text)
    assert len(page.ids) == len(set(page.ids))
    assert {link[1:] for link in page.links} <= set(page.ids)
    assert len(page.labels) == page.tags.count("svg") == 6
    assert all(len(label) > 40 for label in page.labels)


def test_page_follows_light_and_dark_narrow_screens_and_paper(report):
    text = (report / "report.html").read_text()
    for wanted in (
        "prefers-color-scheme: dark",
        "max-width: 46rem",
        "@media print",
        "currentColor",
        "width=device-width",
    ):
        assert wanted in text
    assert "#1b1b1b" not in re.sub(r"<style>.*?</style>", "", text, flags=re.DOTALL)


def test_text_of_records_is_shown_and_not_obeyed(report):
    page = Page((report / "report.html").read_text())
    assert "<script>alert('loss')</script> & |pipes|" in page.text
    assert "Six <runs>" in page.text
    markdown = (report / "report.md").read_text()
    assert "&lt;script&gt;alert('loss')&lt;/script&gt; &amp; \\|pipes\\|" in markdown
    assert "<script" not in markdown


def test_every_joule_carries_its_label(report):
    text = (report / "report.html").read_text()
    cells = re.findall(r'<td data-label="Energy[^"]*"><div>(.*?)</div></td>', text)
    assert len(cells) == 8
    assert all("estimated, codecarbon, cpu" in cell for cell in cells)


def test_the_sections_a_reader_needs(report):
    text = Page((report / "report.html").read_text()).text
    for wanted in (
        "Verdict Against backprop these differences are larger than their 95 % interval: mono_forward",
        "Not completed",
        "How to read the numbers",
        "Method",
        "AMD EPYC 7763",
        "2.15.0",
        "python -m localearn.compare algos=[a,b]",
        "python -m localearn.run -m algo=mono_forward dataset=digits net=mlp algo.lr=0.001",
    ):
        assert wanted in text


def test_csv_and_json_hold_the_same_numbers(report):
    with open(report / "report.csv", newline="") as file:
        rows = {(row["rule"], row["quantity"]): row for row in csv.DictReader(file)}
    rules = json.loads((report / "report.json").read_text())["groups"][0]["rules"]
    for rule in rules:
        for key, measure in rule["measures"].items():
            row = rows[rule["rule"], key]
            if measure["values"] and measure["values"][0]["mean"] is not None:
                assert float(row["mean"]) == measure["values"][0]["mean"]
            else:
                assert row["mean"] == ""
            assert (row["ratio"] or None) == (
                None if measure["to_baseline"] is None else str(measure["to_baseline"]["mean"])
            )
    assert rows["mono_forward", "train_j"]["label"] == "estimated"
    assert rows["mono_forward", "train_j"]["unit"] == "J"


def test_markdown_links_plots_that_exist_with_alt_text(report):
    images = re.findall(r"!\[(.+?)\]\((\S+?)\)", (report / "report.md").read_text())
    assert len(images) == 6
    assert all(len(alt) > 40 and (report / path).is_file() for alt, path in images)


def test_markdown_tables_are_even(report):
    for table in re.findall(r"(?:^\|.*\|\n)+", (report / "report.md").read_text(), flags=re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


def test_plots_are_pictures_of_a_useful_size(report):
    for plot in (report / "plots").iterdir():
        content = plot.read_bytes()
        assert content.startswith(b"\x89PNG")
        width, height = struct.unpack(">II", content[16:24])
        assert 800 <= width <= 1000
        assert 200 <= height <= 1000


def test_the_same_records_give_the_same_bytes(tmp_path, factory):
    runs = read_runs(six_runs(tmp_path / "runs", factory))
    for out in ("one", "two"):
        write_report(runs, tmp_path / out)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert len(files) == 10
    assert all((tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes() for file in files)


def test_absent_energy_is_said_and_never_zero(tmp_path, factory):
    top = six_runs(tmp_path / "runs", factory, energy=factory.no_energy())
    write_report(read_runs(top), tmp_path / "out")
    text = (tmp_path / "out" / "report.html").read_text()
    cells = re.findall(r'<td data-label="Energy, gross"><div>(.*?)</div>', text)
    assert cells[1] == '<span class="refusal">absent</span>'
    assert "Not drawn, without estimated energy of this source: mono_forward" in text
    with open(tmp_path / "out" / "report.csv", newline="") as file:
        (row,) = [row for row in csv.DictReader(file) if (row["algo"], row["quantity"]) == ("mono_forward", "train_j")]
    assert (row["mean"], row["label"], row["n"], row["not_compared"]) == ("", "absent", "0", "absent")


def test_no_energy_at_all_draws_no_joules(tmp_path, factory):
    factory.write_run(tmp_path / "runs", factory.record(energy=factory.no_energy()))
    write_report(read_runs(tmp_path / "runs"), tmp_path / "out")
    kinds = {path.name.split("-")[0] for path in (tmp_path / "out" / "plots").iterdir()}
    assert kinds == {"curves_epochs", "curves_seconds", "memory"}
    assert "accuracy against energy is not drawn" in (tmp_path / "out" / "report.md").read_text()


def test_unlike_settings_stand_in_the_table_if_compared(tmp_path, factory):
    top = six_runs(tmp_path / "runs", factory, batch_size=64)
    write_report(read_runs(top), tmp_path / "refused")
    write_report(read_runs(top), tmp_path / "asked", allow_unlike=True)
    refused, asked = ((tmp_path / name / "report.md").read_text() for name in ("refused", "asked"))
    assert "not comparable" in refused and "×" not in refused.split("## How to read")[0]
    assert "unlike settings" in asked and "batch size 64 against 128" in asked


def test_flags_are_explained(tmp_path, factory):
    made = factory.record()
    made["energy"]["flags"] = ["foreign_process", "sunspots"]
    factory.write_run(tmp_path / "runs", made)
    write_report(read_runs(tmp_path / "runs"), tmp_path / "out")
    text = Page((tmp_path / "out" / "report.html").read_text()).text
    assert "⚑ foreign_process (1 of 1)" in text
    assert "⚑ foreign_process: another process used the card" in text
    assert "⚑ sunspots: set by the meter; this version knows no explanation." in text


def test_nothing_completed_is_still_a_report(tmp_path, factory):
    factory.write_run(tmp_path / "runs", factory.record(status="interrupted", test_accuracy=None))
    write_report(read_runs(tmp_path / "runs"), tmp_path / "out")
    text = Page((tmp_path / "out" / "report.html").read_text()).text
    assert "No run completed" in text
    assert "interrupted" in text


def test_an_empty_record_is_enough(tmp_path, factory):
    """Every field that may be null is null."""
    made = {key: None for key in factory.record()}
    made |= {"schema": 1, "status": "completed", "algo": "backprop", "dataset": "d", "net": "n", "seed": 0}
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "run.json").write_text(json.dumps(made))
    write_report(read_runs(tmp_path / "runs"), tmp_path / "out")
    assert "absent" in (tmp_path / "out" / "report.md").read_text()


def test_memory_against_depth_needs_two_depths_of_one_family(tmp_path, factory):
    for depth in (4, 16):
        for algo in ("backprop", "mono_forward"):
            made = factory.record(algo, net=f"mlp_{depth}x512", peak_memory_bytes=depth * 2**20)
            made["config"]["net"]["widths"] = [512] * depth
            factory.write_run(tmp_path / "runs", made, name=f"{algo}-{depth}")
    write_report(read_runs(tmp_path / "runs"), tmp_path / "out")
    assert (tmp_path / "out" / "plots" / "memory_depth-1.png").is_file()
    assert "mono\\_forward 4.000 at 4, 16.00 at 16" in (tmp_path / "out" / "report.md").read_text().replace(
        "mono_forward", "mono\\_forward"
    )


def test_nets_of_two_widths_are_no_family(tmp_path, factory):
    for width, depth in ((256, 4), (512, 16)):
        made = factory.record(net=f"mlp_{depth}x{width}")
        made["config"]["net"]["widths"] = [width] * depth
        factory.write_run(tmp_path / "runs", made, name=f"{depth}")
    write_report(read_runs(tmp_path / "runs"), tmp_path / "out")
    assert not list((tmp_path / "out" / "plots").glob("memory_depth*"))


def test_names_that_a_formula_or_a_font_would_trip_over(tmp_path, factory):
    for seed in range(2):
        factory.write_run(tmp_path / "runs", factory.record(seed=seed))
        factory.write_run(tmp_path / "runs", factory.record("規則$\\frac{1}$_" + "x" * 60, seed), name=f"odd-{seed}")
    write_report(read_runs(tmp_path / "runs"), tmp_path / "out")
    assert "規則$\\frac{1}$_" in Page((tmp_path / "out" / "report.html").read_text()).text.replace("_ ", "_")


def test_rebuilding_replaces_an_earlier_report_and_removes_its_stale_plots(tmp_path, factory):
    six_runs(tmp_path, factory)
    write_report(read_runs(tmp_path), tmp_path)
    (tmp_path / "plots" / "mine.png").write_bytes(b"mine")
    for folder in tmp_path.glob("*-digits-*"):
        (folder / "metrics.jsonl").unlink()
    write_report(read_runs(tmp_path), tmp_path)
    assert not list((tmp_path / "plots").glob("curves*"))
    assert (tmp_path / "plots" / "mine.png").read_bytes() == b"mine"


@pytest.mark.parametrize("name", ["report.html", "report.json"])
def test_files_of_others_are_left_alone(tmp_path, factory, name):
    six_runs(tmp_path / "runs", factory)
    (tmp_path / name).write_text('{"kind": "mine"}')
    with pytest.raises(UserError, match=f"{name} exists and is not an earlier report's"):
        write_report(read_runs(tmp_path / "runs"), tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.name != "runs"] == [name]


def test_out_that_is_a_file(tmp_path, factory):
    six_runs(tmp_path / "runs", factory)
    (tmp_path / "out").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_report(read_runs(tmp_path / "runs"), tmp_path / "out")


def test_the_users_matplotlib_settings_are_left_alone(tmp_path, factory):
    import matplotlib

    before = dict(matplotlib.rcParams)
    factory.write_run(tmp_path / "runs", factory.record())
    write_report(read_runs(tmp_path / "runs"), tmp_path / "out")
    assert dict(matplotlib.rcParams) == before
