"""Reports name the metric that runs are judged by, with its unit, and call better what is better by its direction."""

import json
from typing import Any

import pytest

from localearn.reporting import read_runs, write_report
from localearn.reporting.comparison import compare
from localearn.reporting.formatting import difference
from localearn.reporting.metrics import ACCURACY, axis, full, with_unit
from localearn.reporting.statistics import Estimate
from localearn.reporting.verdict import verdict
from localearn.tasks import Metric

RMSE = {"backprop": 55.0, "mono_forward": 52.0, "direct_feedback_alignment": 58.0}


def judged(factory, algo: str, seed: int, figures: dict[str, Any], test: float, **changes: Any) -> dict[str, Any]:
    """Return a record of this schema, judged by one metric."""
    made = factory.record(algo, seed, dataset="diabetes", schema=2, **changes)
    made["config"]["dataset"]["name"] = made["dataset"]
    name, direction, unit = figures["name"], figures["direction"], figures["unit"]
    metric = {"direction": direction, "unit": unit, "val": test, "test": test}
    loss = {"direction": "min", "unit": "value", "val": 1.0, "test": 1.0}
    return made | {"metrics": {"loss": loss, name: metric}}


def write(factory, top, made, name=None, falls_to=None):
    """Write a run, and a curve of its metric that halves its distance to a last figure."""
    folder = factory.write_run(top, made, name)
    metric = next(name for name in made["metrics"] if name != "loss")
    last = made["metrics"][metric]["test"] if falls_to is None else falls_to
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        del line["val_accuracy"]
        line[f"val_{metric}"] = last + 40 * 0.5 ** line["epoch"]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


REGRESSION = {"name": "rmse", "direction": "min", "unit": "value"}


@pytest.fixture
def regressions(tmp_path, factory):
    """Runs of three rules and three seeds, judged by an RMSE."""
    for number, (algo, rmse) in enumerate(RMSE.items()):
        for seed in range(3):
            made = judged(factory, algo, seed, REGRESSION, rmse + seed * (0.1 + 0.02 * number))
            write(factory, tmp_path / "runs", made)
    return tmp_path / "runs"


def measures(comparison, key) -> dict[str, Any]:
    return {rule.algo: rule.measure(key) for rule in comparison.groups[0].rules}


def test_less_is_better_where_the_metric_says_so(regressions):
    comparison = compare(read_runs(regressions))
    (group,) = comparison.groups
    found = measures(comparison, "test_rmse")
    assert found["mono_forward"].ratio.mean == pytest.approx(-3, abs=0.1) and found["mono_forward"].differs
    words = verdict(group, "backprop")
    assert "mono_forward in test RMSE −2.98" in words and "direct_feedback_alignment in test RMSE +3.04" in words
    better, worse = words.index("(better)"), words.index("(worse)")
    assert words.index("mono_forward") < better and words.index("direct_feedback_alignment") < worse
    assert "accuracy" not in words and "points" not in words


def test_the_common_figure_is_the_lowest_that_all_runs_reached(regressions):
    comparison = compare(read_runs(regressions))
    (group,) = comparison.groups
    curves = {
        path.parent.name: [json.loads(line) for line in path.read_text().splitlines()]
        for path in regressions.glob("*/metrics.jsonl")
    }
    assert group.common == max(min(line["val_rmse"] for line in lines) for lines in curves.values())
    for algo in RMSE:
        ours = [lines for name, lines in curves.items() if name.startswith(algo)]
        for key, name in (("common_rmse_j", "train_j"), ("common_rmse_s", "train_s")):
            first = [next(line[name] for line in lines if line["val_rmse"] <= group.common) for lines in ours]
            assert measures(comparison, key)[algo].values[0].estimate.mean == pytest.approx(sum(first) / 3)


def test_no_page_speaks_of_accuracy_or_per_cent_of_it(regressions, tmp_path):
    write_report(read_runs(regressions), tmp_path / "out")
    names = {path.name for path in (tmp_path / "out" / "plots").iterdir()}
    assert any(name.startswith("rmse_energy-") for name in names) and not any("accuracy" in name for name in names)
    for name in ("report.md", "report.html", "report.csv", "report.json"):
        assert "accuracy" not in (tmp_path / "out" / name).read_text().lower(), name
    page = (tmp_path / "out" / "report.md").read_text()
    assert "**RMSE, time and energy of training**" in page and "| Rule | Test RMSE | Training time" in page
    assert "for RMSE the difference in its own unit, of which less is better" in page
    assert "The common RMSE of a group is the lowest validation RMSE that all of its runs reached" in page
    assert "Energy to validation RMSE 58.28" in page
    assert "On the Pareto front: mono_forward" in page and "backprop" not in page.split("Pareto front: ")[-1][:40]
    row = next(line for line in page.splitlines() if line.startswith("| mono_forward"))
    assert "%" not in row and "(better)" in row
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    (group,) = report["groups"]
    assert group["metric"] == REGRESSION and group["common_rmse"] == pytest.approx(58.28, abs=1e-3)
    measure = group["rules"][1]["measures"]["test_rmse"]
    assert (measure["unit"], measure["compared_as"]) == ("value", "difference")


@pytest.mark.parametrize("allow_unlike", [False, True])
def test_regressions_beside_classifications_stand_apart(regressions, factory, tmp_path, allow_unlike):
    """Even of one data set, as its name says, and even where unlike runs are to be compared."""
    for seed in range(3):
        for algo in ("backprop", "cafo"):
            made = factory.record(algo, seed, dataset="diabetes")
            made["config"]["dataset"]["name"] = "diabetes"
            factory.write_run(regressions, made, f"classes-{algo}-{seed}")
        # Without a baseline of their own, the regressions have none.
        (regressions / f"backprop-diabetes-{seed}" / "run.json").unlink()
    comparison = compare(read_runs(regressions), allow_unlike=allow_unlike)
    assert [group.metric.name for group in comparison.groups] == ["accuracy", "rmse"]
    assert len({group.name for group in comparison.groups}) == 2 == len({group.key for group in comparison.groups})
    rules: dict[str, Any] = {rule.algo: rule for rule in comparison.groups[1].rules}
    rmse = rules["mono_forward"].measure("test_rmse")
    assert rmse.ratio is None and rmse.refusal == ("absent in backprop" if allow_unlike else "not comparable")
    assert "metric rmse (min, value) against accuracy (max, fraction)" in rules["mono_forward"].unlike
    write_report(read_runs(regressions), tmp_path / "out", allow_unlike=allow_unlike)
    page = (tmp_path / "out" / "report.md").read_text()
    assert "## diabetes · mlp_2x256 · matched protocol · rmse (min, value)" in page


def test_a_metric_may_be_below_zero_and_its_name_may_be_anything(tmp_path, factory):
    hostile = {"name": "<b>$r_2$</b>\x1b[31m", "direction": "max", "unit": "value"}
    for number, algo in enumerate(("backprop", "mono_forward")):
        for seed in range(3):
            made = judged(factory, algo, seed, hostile, -0.2 + 0.3 * number + 0.01 * seed)
            write(factory, tmp_path / "runs", made)
    page = write_report(read_runs(tmp_path / "runs"), tmp_path / "out").read_text()
    assert "<b>$" not in page and "\x1b" not in page and "&lt;b&gt;$r 2$" in page
    assert "(better)" in page and "+0.3" in page


def test_an_error_rate_is_in_per_cent_and_less_of_it_is_better(tmp_path, factory):
    errors = {"name": "error_rate", "direction": "min", "unit": "fraction"}
    for number, algo in enumerate(("backprop", "mono_forward")):
        for seed in range(3):
            made = judged(factory, algo, seed, errors, 0.02 + 0.01 * number + 0.001 * seed * (number + 1))
            write(factory, tmp_path / "runs", made)
    comparison = compare(read_runs(tmp_path / "runs"))
    assert "mono_forward in test error rate +1.10" in verdict(comparison.groups[0], "backprop")
    assert "points (worse)" in verdict(comparison.groups[0], "backprop")


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        (Estimate(3.04, 2.988, 3.092, 3), "+3.04 [+2.99, +3.09]"),
        (Estimate(-0.04, -0.6, 0.52, 3), "0.0 [−0.6, +0.5]"),
        (Estimate(-12345.6, -20000.0, -4000.0, 3), "−12346 [−20000, −4000]"),
        (Estimate(0.25, None, None, 1), "+0.250"),
        (Estimate(-0.5, -0.5, -0.5, 3), "−0.500 ± 0"),
        (Estimate(0.0, 0.0, 0.0, 3), "0 ± 0"),
    ],
)
def test_a_difference_has_a_sign_and_digits_enough(estimate, text):
    assert difference(estimate) == text


def test_a_metric_in_words():
    assert (axis(ACCURACY), axis(Metric("rmse", "min", "value"))) == ("accuracy (%)", "RMSE (less is better)")
    assert (with_unit(ACCURACY, 0.97218), with_unit(Metric("rmse", "min", "value"), 55.3149)) == ("97.22 %", "55.31")
    assert full(Metric("r2", "max", "value")) == "r2 (max, value)"
