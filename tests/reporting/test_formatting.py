import pytest

from localearn.reporting import formatting
from localearn.reporting.formatting import Unit
from localearn.reporting.statistics import Estimate

J = Unit("J", 1.0)


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (12.3456, 4, "12.35"),
        (0.00123, 4, "0.001230"),
        (123456.0, 4, "123456"),
        (0, 4, "0"),
        (-2.5, 2, "−2.5"),
        (3e-9, 2, "3.0e-09"),
    ],
)
def test_significant_digits(value, digits, text):
    assert formatting.plain(value, digits) == text


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        (Estimate(461.23, 421.0, 501.46, 3), "461 ± 40 J"),
        (Estimate(12.111, 11.388, 12.834, 3), "12.11 ± 0.72 J"),
        (Estimate(12.111, None, None, 1), "12.11 J"),
        (Estimate(20.0, 20.0, 20.0, 3), "20 ± 0 J"),
        (Estimate(1000.0, 999.99999, 1000.00001, 3), "1000.00 ± <0.01 J"),
        (Estimate(-0.001, -0.3, 0.298, 3), "0.00 ± 0.30 J"),
    ],
)
def test_the_interval_sets_the_digits(estimate, text):
    assert formatting.with_interval(estimate, J) == text


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        (Estimate(0.7523, 0.7012, 0.8071, 3), "×0.75 [0.70, 0.81]"),
        (Estimate(0.7523, 0.7501, 0.7545, 3), "×0.7523 [0.7501, 0.7545]"),
        (Estimate(0.7523, None, None, 1), "×0.752"),
        (Estimate(0.84, 0.84, 0.84, 3), "×0.840 ± 0"),
        (Estimate(250.0, 100.0, 625.0, 3), "×250 [100, 625]"),
    ],
)
def test_ratios(estimate, text):
    assert formatting.ratio(estimate) == text


def test_points_are_signed_percentage_points():
    assert formatting.points(Estimate(0.0048, -0.0028, 0.0123, 3)) == "+0.48 [−0.28, +1.23] points"
    assert formatting.points(Estimate(-0.01, None, None, 1)) == "−1.00 points"


@pytest.mark.parametrize(
    ("values", "symbol"),
    [([461.0, 370.0, 1836.0], "J"), ([4610.0, 1200.0], "kJ"), ([0.004], "mJ"), ([], "nJ"), ([0], "nJ")],
)
def test_a_column_has_one_unit(values, symbol):
    assert formatting.choose_unit(formatting.JOULE, values).symbol == symbol
