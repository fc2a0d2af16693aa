"""Looks of rules, names and legends that plots share, and which a reader tells apart who sees no red or green."""

from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray

from localearn.reporting import drawing
from localearn.reporting.drawing import INK, PALE, PALETTE, legend_columns, plot_styles, short


def test_baseline_is_black_and_rules_have_looks_of_their_own():
    names = [f"rule {number:02d}" for number in range(20)]
    found = plot_styles([("backprop", True), *((name, False) for name in names)])
    assert found["backprop"].color == INK
    assert all(found[name].color in PALETTE for name in names)
    assert len(set(found.values())) == 21


def test_a_rule_looks_the_same_wherever_it_is_listed():
    listed = [("b", False), ("a", False), ("base", True)]
    assert plot_styles(listed) == plot_styles([listed[1], listed[2], listed[0]])


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


# Machado, Oliveira and Fernandes (2009), table 1 at severity 1.0: on linear RGB.
SIGHT = {
    "trichromacy": [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
XYZ_OF_LINEAR_RGB = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
WHITE_XYZ = XYZ_OF_LINEAR_RGB.sum(axis=1)
# A CIE76 difference of about 2.3 is just noticeable side by side; a mark and its legend stand apart.
LEAST_DIFFERENCE = 15.0


def linear_rgb(color: str) -> NDArray[np.float64]:
    """Return linear RGB of "#rrggbb", (3,) in 0 to 1."""
    rgb = np.array([int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)])
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def lab(color: str, sight: str) -> NDArray[np.float64]:
    """Return CIELAB of "#rrggbb" as it is seen, (3,)."""
    seen = np.clip(np.array(SIGHT[sight]) @ linear_rgb(color), 0.0, 1.0)
    share = XYZ_OF_LINEAR_RGB @ seen / WHITE_XYZ
    x, y, z = np.where(share > (6 / 29) ** 3, np.cbrt(share), share / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def contrast(one: str, other: str) -> float:
    """Return WCAG 2's ratio of two colours' relative luminances."""
    dark, light = sorted(float(XYZ_OF_LINEAR_RGB[1] @ linear_rgb(color)) for color in (one, other))
    return (light + 0.05) / (dark + 0.05)


def difference(one: str, other: str, sight: str) -> float:
    """Return the CIE76 difference of two colours as they are seen."""
    return float(np.linalg.norm(lab(one, sight) - lab(other, sight)))


@pytest.mark.parametrize("sight", SIGHT)
def test_colours_stay_apart(sight):
    close = [
        (one, other, round(difference(one, other, sight), 1))
        for one, other in combinations((*PALETTE, INK), 2)
        if difference(one, other, sight) < LEAST_DIFFERENCE
    ]
    assert close == []


def test_the_simulation_finds_the_pairs_that_are_known_to_fail():
    """Red and green of one lightness, and blue and green, are close to those who lack the cones between them."""
    assert difference("#c04000", "#408000", "trichromacy") > 60
    assert difference("#c04000", "#808000", "deuteranopia") < LEAST_DIFFERENCE
    assert difference("#0080a0", "#008060", "trichromacy") > LEAST_DIFFERENCE
    assert difference("#0080a0", "#008070", "tritanopia") < LEAST_DIFFERENCE


@pytest.mark.parametrize("page", ("#ffffff", "#14171a"))
def test_every_mark_stands_out_from_the_page_by_its_colour_or_its_edge(page):
    """At least 3:1, as WCAG 2 asks of what a plot draws; ink is the page's own, so its contrast is that of text."""
    faint = [color for color in PALETTE if color not in PALE and contrast(color, page) < 3]
    assert faint == []
    edges = {
        style.color: style.edge for style in plot_styles((f"rule {number}", False) for number in range(7)).values()
    }
    assert edges == {color: INK if color in PALE else color for color in PALETTE}


def test_a_mark_or_a_dash_tells_rules_apart_where_colour_does_not():
    """In grey print too: no two of twenty rules and two baselines share both."""
    names = [(f"rule {number:02d}", False) for number in range(20)]
    cues = [
        (style.marker, style.dashes) for style in plot_styles([*names, ("backprop", True), ("adam", True)]).values()
    ]
    assert len(set(cues)) == len(cues) == 22
