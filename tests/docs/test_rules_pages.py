"""Each rule has a page, a figure and a place in the README's tables."""

import re

import pytest
import site_figures
import site_rules
import yaml
from site_repository import ROOT

RULES = site_rules.rule_names()


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_has_a_page(rule):
    page = site_rules.PAGES / f"{rule}.md"
    assert page.is_file(), (
        f"conf/algo/{rule}.yaml has no page: write docs/rules/{rule}.md (docs/rules/mono_forward.md shows one, and "
        f"CONTRIBUTING.md a short one); the navigation finds it by itself"
    )
    text = page.read_text(encoding="utf-8")
    parts = [f"<!-- site: {part} {rule} -->" for part in ("facts", "options", "rows")]
    for part in (*parts, f"algo={rule}"):
        assert part in text, f"{page.name} lacks {part}"
    drawn = set(re.findall(r"figures/(\w+)\.svg", text))
    assert drawn <= set(site_figures.FIGURES), f"docs/tools/site_figures.py draws no {drawn}: add a function to FIGURES"
    assert rule not in site_figures.FIGURES or rule in drawn, f"{page.name} does not show its figure"


def test_what_is_written_out_is_what_the_registry_says():
    for path, text in site_rules.written().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name}: run python docs/tools/site_rules.py"


def test_the_registry_reads_what_the_configurations_say():
    for rule in site_rules.REGISTRY.rules().values():
        assert site_rules.about(rule.name)["class"] == f"{rule.module}.{rule.class_name}"
        assert rule.family in site_rules.FAMILIES


def test_a_column_that_no_table_has_is_found():
    with pytest.raises(
        ValueError, match=r"conf/algo/pepita\.yaml: about\.nets has \['GNN', 'MLP'\]; there are \['CNN'\]"
    ):
        site_rules.cells("pepita", "nets", ("CNN",))


def test_each_page_is_of_a_rule():
    assert {page.stem for page in site_rules.PAGES.glob("*.md")} - {"index"} == set(RULES)


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_is_in_the_api(rule):
    api = (ROOT / "docs" / "api" / "rules.md").read_text(encoding="utf-8")
    assert f"::: {site_rules.class_name(rule)}\n" in api, f"docs/api/rules.md lacks {site_rules.class_name(rule)}"


def test_the_navigation_has_each_rule_once_by_the_readmes_families():
    by_family = site_rules.rules_by_family()
    assert sorted(rule for rules in by_family.values() for rule in rules) == RULES
    assert by_family["Estimators"] == ["forward_gradient", "likelihood_ratio"]


def test_facts_are_the_readmes():
    facts = site_rules.facts("feedback_alignment")
    assert "| nets | MLP, CNN, ResNet, GNN (not GAT), transformer, ViT, mixer |" in facts
    assert "| tasks | classes, values, multi-label, language, autoencoding |" in facts


@pytest.mark.parametrize("tall", [False, True])
@pytest.mark.parametrize("name", sorted(site_figures.FIGURES))
def test_each_committed_figure_is_what_the_script_draws(name, tall):
    committed = site_figures.file_of(name, tall).read_text(encoding="utf-8")
    assert committed == site_figures.svg(name, tall), "run python docs/tools/site_figures.py"


@pytest.mark.parametrize("tall", [False, True])
@pytest.mark.parametrize("name", sorted(site_figures.FIGURES))
def test_what_a_figure_draws_lies_inside_it(name, tall):
    text = site_figures.svg(name, tall)
    width, height = (float(value) for value in re.findall(r'viewBox="0 0 (\d+) (\d+)"', text)[0])
    points = re.findall(r'<text x="([-\d.]+)" y="([-\d.]+)"', text)
    for path in re.findall(r'<path d="(M[^"]+)" class', text):
        points += re.findall(r"([-\d.]+) ([-\d.]+)", path)
    assert points and all(0 <= float(x) <= width and 0 <= float(y) <= height for x, y in points)
    assert not tall or width <= 400, "letters of 15 pixels are 12 on a screen of 360"
    assert tall is ("-tall" in site_figures.file_of(name, tall).name)


@pytest.mark.parametrize("rule", RULES)
def test_each_option_of_a_rule_is_on_its_page(rule):
    values = yaml.safe_load((site_rules.ALGORITHMS / f"{rule}.yaml").read_text(encoding="utf-8"))["algo"]
    named = re.findall(r"^\| `algo\.(\w+)` \| `(.*?)` \| (.*) \|$", site_rules.options(rule), re.MULTILINE)
    assert [name for name, _, _ in named] == [name for name in values if name != "_target_"]
    assert all(yaml.safe_load(default) == values[name] for name, default, _ in named)
    assert all(comment for _, _, comment in named), "an option without a comment"
