from localearn.testing.conformance import RuleConformance, check_rule
from localearn.testing.toys import KINDS, TASKS, Toy, register_kind, register_task, toy

__all__ = ["KINDS", "TASKS", "RuleConformance", "Toy", "check_rule", "register_kind", "register_task", "toy"]
