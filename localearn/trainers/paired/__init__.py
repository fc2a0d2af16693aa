from localearn.trainers.paired.counter_current import CounterCurrent

__all__ = ["CounterCurrent"]
