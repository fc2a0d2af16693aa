"""A study's table and plots, from rows and their records."""

import json
from dataclasses import replace

import pytest

from localearn.records import Figures, Record
from localearn.reporting.study import StudyRow, page, plot, plot_labels, write_study
from localearn.tasks import Direction, Unit

STUDY = "python -m localearn.study experiments/small"


def row_of(*accuracies, published=None, status="completed", reason=None, seeds=None):
    records = [
        Record(
            status=status,
            seed=seed,
            train_s=1.0,
            metrics={"accuracy": Figures(direction="max", unit="fraction", val=None, test=accuracy)},
        )
        for seed, accuracy in enumerate(accuracies)
    ]
    return StudyRow(
        "a", "A", "B", published, reason, "python -m localearn.run", seeds or [r.seed for r in records], records
    )


@pytest.mark.parametrize(
    ("row", "verdict"),
    [
        (row_of(published=90.0), "not run"),
        (row_of(0.895, 0.896, published=90.0), "agrees"),
        (row_of(0.90, 0.89, published=90.01), "short"),
        (row_of(0.91, 0.92, published=90.0), "better"),
        (row_of(0.91), "nothing published"),
        (row_of(0.895, published=90.0, seeds=[0, 1, 2]), "agrees so far"),
        (row_of(published=90.0, seeds=[0, 1, 2], reason="of the net"), "not run"),
        (row_of(0.1, published=90.0, status="diverged"), "diverged"),
    ],
)
def test_a_row_says_how_ours_stand_to_the_published_number(row, verdict):
    assert row.verdict == verdict
    assert verdict.removesuffix(" so far") in page([row], STUDY)


def valued(*figures, name="rmse", direction: Direction = "min", published=None, unit: Unit = "value"):
    """Return a row whose runs are judged by another metric."""
    records = [
        Record(
            status="completed",
            seed=seed,
            metrics={
                "loss": Figures(direction="min", unit="value", val=None, test=1.0),
                name: Figures(direction=direction, unit=unit, val=None, test=figure),
                "accuracy": Figures(direction="max", unit="fraction", val=None, test=0.1),
            },
        )
        for seed, figure in enumerate(figures)
    ]
    return StudyRow(name, "A", "B", published, None, "python -m localearn.run", [r.seed for r in records], records)


@pytest.mark.parametrize(
    ("row", "verdict"),
    [
        (valued(54.0, 56.0, published=55.2), "agrees"),
        (valued(54.0, 54.2, published=55.0), "better"),
        (valued(56.0, 56.2, published=55.0), "short"),
        (valued(30.0, 30.2, name="psnr", direction="max", published=29.0), "better"),
        (valued(28.0, 28.2, name="psnr", direction="max", published=29.0), "short"),
        (valued(0.41, 0.42, name="recall@10", direction="max", unit="fraction", published=41.5), "agrees"),
    ],
)
def test_a_row_goes_by_its_tasks_first_metric_and_its_direction(row, verdict):
    assert row.verdict == verdict


def test_a_table_of_several_metrics_names_them_with_their_units(tmp_path):
    rows = [
        valued(54.0, 56.0, published=55.0),
        valued(30.0, name="psnr", direction="max"),
        row_of(0.91, published=90.0),
    ]
    rows.append(row_of(published=90.0))
    write_study(rows, tmp_path, STUDY)
    table = (tmp_path / "table.md").read_text()
    assert "| row | published | ours, mean ± 95 % |" in table and "%, mean" not in table
    assert "RMSE |" in table and "30.00 dB PSNR (one seed) |" in table and "91.00 % accuracy (one seed) |" in table
    assert sorted(path.name for path in tmp_path.glob("*.png")) == [
        "plot-accuracy.png",
        "plot-psnr.png",
        "plot-rmse.png",
    ]
    values = json.loads((tmp_path / "table.json").read_text())
    assert values[0]["metric"] == {"name": "rmse", "direction": "min", "unit": "value"}
    assert values[0]["figures"] == [54.0, 56.0] and "accuracies" not in values[0]
    assert values[2]["accuracies"] == [91.0] and "metric" not in values[2]


def test_values_of_several_data_sets_share_no_plot(tmp_path):
    rows = [valued(54.0), valued(52000.0)]
    for row, dataset in zip(rows, ("diabetes", "table"), strict=True):
        row.records[0].dataset = dataset
    write_study(rows, tmp_path, STUDY)
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["plot-diabetes.png", "plot-table.png"]


def test_a_row_that_falls_short_carries_the_reason_and_its_name():
    table = page([row_of(0.80, published=90.0, reason="a smaller net")], STUDY)
    assert "| short: a smaller net |" in table
    assert "<br>`only=a` |" in table and f"`{STUDY} only=ROW`" in table


def test_a_row_without_runs_shows_no_number_and_the_command():
    table = page([row_of(published=90.0)], STUDY)
    assert f"| A<br>B | 90.00 | – | `{STUDY} only=a` |" in table


def test_a_row_that_wants_a_gpu_is_one_command():
    left, run = replace(row_of(published=90.0), gpu=True), replace(row_of(0.9), gpu=True)
    assert f"| a GPU | `{STUDY} only=a device=cuda` |" in page([left], STUDY)
    assert "`only=a device=cuda` |" in page([run], STUDY)


def test_each_row_says_what_machine_ran_it():
    row = row_of(0.9, 0.8, 0.7)
    assert "| not recorded |" in page([row], STUDY)
    row.records[0].device = {"type": "cpu", "name": "AMD | <EPYC>", "threads": 1}
    row.records[1].device = {"type": "cuda", "name": "NVIDIA H200", "threads": None}
    shown = "| AMD \\| &lt;EPYC&gt;, 1 thread (0)<br>NVIDIA H200 (1)<br>not recorded (2) |"
    assert shown in page([row], STUDY)
    for record in row.records:
        record.device = {"type": "cpu", "name": "AMD EPYC", "threads": 2}
    assert "| AMD EPYC, 2 threads |" in page([row], STUDY)


def test_rows_stand_below_their_data_set_with_a_plot_each(tmp_path):
    rows = [replace(row_of(0.9, published=90.0), data="mnist"), replace(row_of(), data="digits")]
    rows += [replace(row_of(0.8), data="mnist"), replace(row_of(0.7), data="cora")]
    (tmp_path / "plot-mine.png").write_bytes(b"\x89PNG of another program")
    (tmp_path / "plot-gone.png").write_bytes(plot(rows[:1]))
    write_study(rows, tmp_path, STUDY)
    text = (tmp_path / "table.md").read_text()
    assert [line for line in text.splitlines() if line.startswith("## ")] == ["## cora", "## digits", "## mnist"]
    assert "| [mnist](#mnist) | 2 | 1 | – | – | – | 1 | – |" in text and "](plot-mnist.png)" in text
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["plot-cora.png", "plot-mine.png", "plot-mnist.png"]


def test_titles_beside_a_plot_are_whole():
    long = "MNIST, a net of which there is a good deal to be said, "
    one, two = plot_labels([f"{long}collaboration: all, seed", f"{long}collaboration: none, seed"])
    assert (one, two) == ("collaboration: all, seed", "collaboration: none, seed")
    (alone,) = plot_labels([f"{long}and $x$"])
    assert alone.replace("\n", " ") == rf"{long}and \$x\$" and max(map(len, alone.split("\n"))) <= 44
    assert plot_labels(["A", "A"]) == ["A", "A"] and plot_labels(["A", "A, b"]) == ["A", "A, b"]
