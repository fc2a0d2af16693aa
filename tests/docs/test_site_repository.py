"""Links out of the documentation into the repository become links within the site."""

import pytest
import site_docstrings
import site_repository
from site_repository import Mirror


@pytest.mark.parametrize(
    ("link", "written"),
    [
        ("[a](../results/fidelity/table.md)", "[a](repository/results/fidelity/table.md)"),
        ("[a](../CHANGELOG.md#unreleased)", "[a](changelog.md#unreleased)"),
        ("[a `x[0]` b](../CONTRIBUTING.md)", "[a `x[0]` b](contributing.md)"),
        ("[two\nlines](../results/meter/meter.md)", "[two\nlines](repository/results/meter/meter.md)"),
        ("![p](../results/bench/plot.png)", "![p](repository/results/bench/plot.png)"),
        ("[a](../results/fidelity/probes)", "[a](repository/results/fidelity/probes/contents.md)"),
        ("[a](trust.md)", "[a](trust.md)"),
        ("[a](https://arxiv.org/abs/2501.09238)", "[a](https://arxiv.org/abs/2501.09238)"),
        ("[a](../nothing/there.md)", "[a](../nothing/there.md)"),
        ("```\n[a](../CHANGELOG.md)\n```", "```\n[a](../CHANGELOG.md)\n```"),
    ],
)
def test_links_are_rewritten(link, written):
    assert Mirror().rewrite("docs/parallel.md", link) == written


def test_a_page_of_a_folder_links_from_its_own_place():
    text = Mirror().rewrite("docs/rules/cafo.md", "[a](../../results/defaults/table.md)")
    assert text == "[a](../repository/results/defaults/table.md)"
    text = Mirror().rewrite("experiments/fidelity/README.md", "[a](../../docs/trust.md)")
    assert text == "[a](../../../trust.md)"


def test_what_a_linked_page_links_to_comes_along():
    mirror = Mirror()
    mirror.require("experiments/fidelity/README.md")
    assert "repository/results/fidelity/table.md" in mirror.files
    assert mirror.files["repository/results/fidelity/probes/contents.md"] == "results/fidelity/probes"


def test_a_folders_list_links_to_its_records():
    text = site_repository.contents("results/fidelity/probes")
    assert "- [dfa-0.001/run.json](dfa-0.001/run.json)" in text


def test_options_in_a_docstring_become_a_list():
    text = "Equation:\n\n    x: 1\n\nscale: of it, and\n    more. seed: 0\nnoise: none\nKnown weakness: none."
    head, options = site_docstrings.listed(text).split("\n\n- ", 1)
    assert head == "Equation:\n\n    x: 1"
    assert options == "**scale**: of it, and\n    more. seed: 0\n- **noise**: none\n\nKnown weakness: none."


def test_a_page_of_the_repository_is_indented_as_the_parser_wants_it_and_has_a_heading():
    text = "1. a\n\n   b\n   ```\n     c\n   ```\n\nd\n\n    e"
    page = site_repository.as_page("x/y.md", text)
    assert page == "# x/y.md\n\n1. a\n\n    b\n    ```\n      c\n    ```\n\nd\n\n    e\n"
    assert site_repository.as_page("x/y.md", "# Title") == "# Title\n"
