"""The commands: `localearn NAME` is `python -m localearn.NAME`. Nothing else of localearn imports them."""

from localearn.composition import CONF, GROUPS, compose, expanded, explain, quoted

__all__ = ["CONF", "GROUPS", "compose", "expanded", "explain", "quoted"]
