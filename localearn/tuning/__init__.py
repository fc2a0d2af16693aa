"""Search for better options."""

from localearn.tuning.plan import read_space

__all__ = ["read_space"]
