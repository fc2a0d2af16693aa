"""Search for better options of a rule, on the validation split."""

from localearn.tuning.plan import read_space

__all__ = ["read_space"]
