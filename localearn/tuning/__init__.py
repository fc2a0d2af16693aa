"""Search for better options."""

from localearn.tuning.space import read_space

__all__ = ["read_space"]
