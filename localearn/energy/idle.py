"""What each part draws while nothing is done, and how often its counter moves."""

from dataclasses import dataclass

from localearn.energy.clock import Clock
from localearn.energy.sources import Counter, LostError, Mark, Part

POLL_S = 0.002  # a card's counter moves every 20 to 100 ms; a tenth of that tells its moves apart


def idle_power_w(counters: list[Counter], idle_s: float, clock: Clock) -> dict[Part, float | None]:
    """Leave the machine alone for `idle_s` seconds and return each part's mean power, None where a reading was lost.

    A counter that moves every 100 ms, read at both ends of one second, is off by up to a tenth. So where a counter
    shows its raw value the power is taken between two of its moves, and their mean distance settles its update period.
    """
    watches = [_Watch(counter, clock) for counter in counters]
    slow = [watch for watch in watches if watch.raw is not None]
    end_s = clock.now() + idle_s
    while (left_s := end_s - clock.now()) > 0:
        clock.sleep(min(left_s, POLL_S) if slow else left_s)
        for watch in slow:
            watch.poll()
    return {watch.counter.part: watch.power_w() for watch in watches}


@dataclass(slots=True)
class _Moment:
    now_s: float
    mark: Mark


class _Watch:
    """Watches one counter from here on; `raw` is None where it does not show its moves."""

    def __init__(self, counter: Counter, clock: Clock) -> None:
        self.counter = counter
        self.raw: float | None = None
        self._clock = clock
        self._lost = False
        self._moves: list[_Moment] = []
        try:
            self._begin = self._moment()
            self.raw = counter.moving()
        except LostError:
            self._lost = True

    def _moment(self) -> _Moment:
        return _Moment(self._clock.now(), self.counter.read())

    def poll(self) -> None:
        """Note a move, if there was one since the last look."""
        try:
            raw = self.counter.moving()
            if raw != self.raw:
                self.raw = raw
                self._moves.append(self._moment())
        except LostError:
            self._lost = True

    def power_w(self) -> float | None:
        """Return the mean power, between the first and the last move where there were three or more."""
        if self._lost:
            return None
        try:
            first, last, gaps = self._begin, self._moment(), len(self._moves) - 1
            if gaps >= 2:
                first, last = self._moves[0], self._moves[-1]
                self.counter.settle((last.now_s - first.now_s) / gaps)
            return self.counter.joules(first.mark, last.mark) / (last.now_s - first.now_s)
        except LostError:
            return None
