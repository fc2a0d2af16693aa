"""The grid of a country, and the refusal of what is none."""

import pytest

from localearn.energy.codecarbon import grid
from localearn.errors import UserError


def test_a_known_country_has_an_intensity():
    poland, norway = grid("POL"), grid(" nor ")
    assert (poland.country, norway.country) == ("POL", "NOR")
    assert 0.3 < poland.intensity_kg_per_kwh < 1.0
    assert norway.intensity_kg_per_kwh < 0.1
    assert poland.kg(3.6e6) == pytest.approx(poland.intensity_kg_per_kwh)


@pytest.mark.parametrize(
    ("wrong", "near"), [("PL", "POL"), ("POLL", "POL"), ("Poland", "POL"), ("FRANCE", "FRA"), ("GER", "DEU")]
)
def test_an_unknown_code_is_refused_with_the_nearest(wrong: str, near: str):
    with pytest.raises(UserError, match=rf"{wrong}.*did you mean.* '{near}' \("):
        grid(wrong)


@pytest.mark.parametrize("wrong", ["", "@@@", "world"])
def test_nothing_falls_back_on_a_world_average(wrong: str):
    with pytest.raises(UserError, match="no country code"):
        grid(wrong)
