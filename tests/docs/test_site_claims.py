"""Each figure that is typed in a page is a link to its record, and is what the record says."""

import pytest
import site_claims
from site_claims import Claim

PAGES = site_claims.pages()
ROW = "fidelity/mnist_mlp-forward_forward"


@pytest.mark.parametrize("page", PAGES)
def test_each_typed_figure_is_its_records(page):
    wrong = [told for claim in site_claims.claims(page) if (told := site_claims.problem(claim))]
    assert not wrong, f"{page}: " + "\n".join(wrong)


@pytest.mark.parametrize("page", PAGES)
def test_each_measurement_has_a_record(page):
    lines = site_claims.unheld(page)
    assert not lines, f"{page}: link each figure to its row or record, see docs/tools/site_claims.py:\n" + "\n".join(
        lines
    )


def test_the_rules_pages_have_figures():
    assert sum(len(list(site_claims.claims(page))) for page in PAGES if page.startswith("docs/rules/")) > 50


def told(text, target, row="", where=""):
    """What is wrong with a figure."""
    return site_claims.problem(Claim("docs/rules/x.md", text, target, row, where))


def test_a_figure_that_is_not_its_rows_is_found():
    assert not told("98.29 ± 0.74 %", "docs/results.md", ROW)
    assert told("98.30 ± 0.74 %", "docs/results.md", ROW) == f"98.30 ± 0.74 %: row {ROW} has 98.29 ± 0.74 %"
    assert not told("98.55 %", "docs/results.md", ROW, "published")
    assert told("98.29 %", "docs/results.md", ROW, "published").endswith("has 98.55 %")
    assert "no row" in told("98.29 %", "docs/results.md", "fidelity/nothing")
    assert "a row has no 'loss'" in told("98.29 %", "docs/results.md", ROW, "loss")


def test_a_figure_that_is_not_on_its_line_is_found():
    page = "results/one_gpu/asked.md"
    assert not told("×0.58", page, where="mnist-mono_forward, matched")
    assert "has" in told("×0.59", page, where="mnist-mono_forward, matched")
    assert "2 lines" in told("×0.58", page, where="mnist-mono_forward")
    assert "0 lines" in told("×0.58", page)
    assert not told("7.0 times", page, where="product_feedback_alignment, captured step")
    assert "neither" in told("×0.58", "docs/faq.md", where="x")


@pytest.mark.parametrize(
    ("line", "held"),
    [
        ("It takes half the time.", True),
        ("It reached 98.29 %.", False),
        ("It takes ×0.7 of it.", False),
        ("It needs 3 GiB, or 1.5 of them.", False),
        ("The 95 % interval of arXiv 2501.09238 with `scale=0.5` and $\\beta = 0.99$ needs Python 3.11.", True),
        ("[98.29 %](results.md#x)", True),
        ("[in 3.5 steps](faq.md)", False),
        ("| mono_forward<br>seeds 0, 1, 2 | 96.8 ± 1.1 %<br>+0.46 \\[−0.98, +1.90\\] points |", True),
        ("| mono_forward<br>seeds 0, 1, 2 | 96.9 ± 1.1 % |", False),
    ],
)
def test_measurements_without_a_record_are_found(line, held):
    report = "| 96.8 ± 1.1 %<br>+0.46 \\[−0.98, +1.90\\] points |"
    found = site_claims.measurements(f"A line.\n\n{line}\n```\n12.5 %\n```\n", [report])
    assert found == ([] if held else [line.replace("[in 3.5 steps](faq.md)", "in 3.5 steps")])
