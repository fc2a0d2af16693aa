from typing import TYPE_CHECKING

from localearn import registry

if TYPE_CHECKING:  # written by docs/tools/site_rules.py
    from localearn.trainers.paired.counter_current import CounterCurrent as CounterCurrent

__all__, __getattr__, __dir__ = registry.lazily(__name__)  # pyright: ignore[reportUnsupportedDunderAll]
