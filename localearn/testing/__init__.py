from localearn.testing.conformance import RuleConformance, check_rule
from localearn.testing.toys import KINDS, Toy, toy

__all__ = ["KINDS", "RuleConformance", "Toy", "check_rule", "toy"]
