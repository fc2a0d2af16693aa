"""The commands: `localearn NAME` is `python -m localearn.NAME`. Nothing else of localearn imports them."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from localearn.composition import CONF, GROUPS, compose, expanded, explain, quoted

__all__ = ["CONF", "GROUPS", "compose", "expanded", "explain", "quoted"]


def __getattr__(name: str) -> Any:
    """Return a name of `localearn.composition`, which is imported only now, for it needs torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from localearn import composition

    return getattr(composition, name)
