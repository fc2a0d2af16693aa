import pytest

from localearn.reporting import drawing
from localearn.reporting.drawing import INK, PALETTE, legend_columns, looks, short


def test_baseline_is_black_and_rules_have_looks_of_their_own():
    names = [f"rule {number:02d}" for number in range(20)]
    found = looks([("backprop", True), *((name, False) for name in names)])
    assert found["backprop"].color == INK
    assert all(found[name].color in PALETTE for name in names)
    assert len(set(found.values())) == 21


def test_a_rule_looks_the_same_wherever_it_is_listed():
    assert looks([("b", False), ("a", False), ("base", True)]) == looks([("a", False), ("base", True), ("b", False)])


def test_long_names_keep_both_ends():
    name = short("a_rule_with_quite_a_long_name_variant_17")
    assert len(name) <= 34
    assert name.startswith("a_rule") and name.endswith("17")


def test_legends_have_as_many_columns_as_fit():
    assert legend_columns([]) == 1
    assert legend_columns(["ab", "cd"]) == 2
    assert legend_columns(["x" * 34] * 5) == 1


@pytest.mark.parametrize("text", ["test accuracy (%)", "validation bits per character (less is better)"])
def test_the_label_of_the_y_axis_stays_in_the_plot_and_below_the_legend(text):
    with drawing.style():
        figure, axes = drawing.canvas(3.3, ["backprop"])
        axes.plot([0, 1], [0, 1], label="backprop")
        drawing.label_y(axes, text)
        drawing.legend(figure, axes)
        figure.draw_without_rendering()
        label, (legend,) = axes.yaxis.label.get_window_extent(), figure.legends
        assert label.y0 >= 0 and label.y1 <= legend.get_window_extent().y0
        assert axes.get_ylabel().replace("\n", " ") == text
