import pytest

from tests.helpers.searches import TINY


@pytest.fixture
def tiny():
    """Overrides of runs of a fraction of a second."""
    return list(TINY)
