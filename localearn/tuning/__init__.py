"""Search for better options of a rule, on the validation split."""

from localearn.tuning.space import read_space

__all__ = ["read_space"]
