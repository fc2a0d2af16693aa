from localearn.testing.conformance import RuleConformance, check_rule
from localearn.testing.toys import KINDS, TASKS, Toy, toy

__all__ = ["KINDS", "TASKS", "RuleConformance", "Toy", "check_rule", "toy"]
