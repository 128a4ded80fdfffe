"""Measures a run by what comes to its driver: rate and busy seconds in steady state, and the driver."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import deque
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["STAGES", "Meter", "Steady", "Totals"]

#: Stages whose busy seconds are measured.
STAGES = ("fetch", "decode", "model")
#: Moments that are kept of a run, and of each of its devices: memory does not grow with the run.
_MOMENTS = 512
_DEVICE_MOMENTS = 64
#: Times without a block that are kept, to know what waiting costs.
_WAITS = 101
#: The steady state begins with this share of the rows, and ends with that.
_FROM, _TO = 0.25, 0.9
#: Where all devices were busy for less than this share of the time, that time says too little.
_ENOUGH = 0.3


@dataclass(frozen=True)
class Steady:
    """What a run did in its steady state.

    Attributes:
        images_per_second: Finished rows a second.
        seconds: Length of the measured time.
        rows: Rows that came in it.
        devices: Devices that worked in it.
        stage_seconds: Busy seconds of each stage in it, summed over workers.
        driver_seconds: CPU seconds of the driver's process for them, beyond those of waiting.
        blocks: Blocks that came in it.
    """

    images_per_second: float
    seconds: float
    rows: float
    devices: int
    stage_seconds: dict[str, float]
    driver_seconds: float
    blocks: float

    @property
    def driver_ms(self) -> float:
        """The driver's CPU milliseconds for 1,000 images."""
        return 1e6 * self.driver_seconds / max(self.rows, 1e-9)


class Totals:
    """Running totals at some moments; when there are too many, every second one is dropped.

    Args:
        most: Moments that are kept.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._step = 1
        self._skipped = 0
        self.moments: list[float] = []
        self._values: list[tuple[float, ...]] = []
        self._last_is_extra = False

    def add(self, moment: float, values: tuple[float, ...]) -> None:
        """Set the totals at a moment, which is not before the last one."""
        if self._last_is_extra:
            self.moments.pop()
            self._values.pop()
        self._skipped = (self._skipped + 1) % self._step
        self._last_is_extra = self._skipped != 0
        self.moments.append(moment)
        self._values.append(values)
        if len(self.moments) > self._most:
            self.moments = self.moments[::2]
            self._values = self._values[::2]
            self._step *= 2
            self._skipped = 0
            self._last_is_extra = self.moments[-1] != moment
            if self._last_is_extra:
                self.moments.append(moment)
                self._values.append(values)

    def at(self, moment: float) -> tuple[float, ...]:
        """Return the totals at a moment: zero before the first, and on a line between two."""
        place = bisect_right(self.moments, moment)
        if place == 0:
            return tuple(0.0 for _ in self._values[0])
        before = self._values[place - 1]
        if place == len(self.moments):
            return before
        start, stop = self.moments[place - 1 : place + 1]
        share = (moment - start) / (stop - start)
        after = self._values[place]
        return tuple(a + share * (b - a) for a, b in zip(before, after, strict=True))

    def within(self, low: float, high: float) -> tuple[float, float] | None:
        """Return the first and last moment at which the first total is within limits."""
        found = [
            moment
            for moment, values in zip(self.moments, self._values, strict=True)
            if low <= values[0] <= high
        ]
        return (found[0], found[-1]) if len(found) > 1 and found[0] < found[-1] else None


class Meter:
    """Notes when finished blocks came to the driver, and what they took.

    Between two blocks of a device its rows are taken to come evenly: so a time between the blocks of
    others is measured as well as one that ends with a block.

    Args:
        clock: Seconds from an arbitrary start, as of ``time.monotonic``.
        cpu: CPU seconds of this process.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        cpu: Callable[[], float] = time.process_time,
    ) -> None:
        self._clock = clock
        self._cpu = cpu
        self._cpu_before = cpu()
        self._rows = 0
        self._blocks = 0
        self._busy = dict.fromkeys(STAGES, 0.0)
        self._all = Totals(_MOMENTS)
        self._devices: dict[str, Totals] = {}
        self._device_rows: dict[str, int] = {}
        self._first_rows = 0
        self._heard = (clock(), self._cpu_before)
        self._waits: deque[float] = deque(maxlen=_WAITS)

    def wait(self) -> None:
        """Note that no block came since the last call of this or of :meth:`add`.

        What the driver's process does then, such as to ask Ray for news, is not the price of a block.
        """
        now, cpu = self._clock(), self._cpu()
        before, cpu_before = self._heard
        self._heard = now, cpu
        if now > before:
            self._waits.append((cpu - cpu_before) / (now - before))

    def add(self, devices: Mapping[str, int], busy: Mapping[str, float]) -> None:
        """Note a finished block.

        Args:
            devices: Its rows by the device that scored them.
            busy: Busy seconds of its rows by stage.
        """
        now = self._clock()
        self._blocks += 1
        self._rows += sum(devices.values())
        self._first_rows = self._first_rows or self._rows
        for stage, seconds in busy.items():
            self._busy[stage] += seconds
        totals = (self._rows, self._blocks, self.driver_seconds, *self._busy.values())
        self._all.add(now, totals)
        self._heard = now, self._cpu()
        for device, rows in devices.items():
            self._device_rows[device] = self._device_rows.get(device, 0) + rows
            history = self._devices.setdefault(device, Totals(_DEVICE_MOMENTS))
            history.add(now, (self._device_rows[device],))

    @property
    def blocks(self) -> int:
        """Finished blocks."""
        return self._blocks

    @property
    def driver_seconds(self) -> float:
        """CPU seconds of the driver's process so far."""
        return self._cpu() - self._cpu_before

    @property
    def devices(self) -> int:
        """Devices that have finished a block."""
        return len(self._devices)

    def start_up(self, began: float, steady: Steady | None) -> float | None:
        """Return the seconds until the steady state could begin: None without finished rows.

        That is the time until the first rows, without what they would take in the steady state.

        Args:
            began: When the command began, by the clock.
            steady: The steady state, as far as it is known.
        """
        if not self._all.moments:
            return None
        first = self._all.moments[0] - began
        each = steady.devices * self._first_rows / steady.images_per_second if steady else 0.0
        return max(0.0, first - each)

    def steady(self) -> Steady | None:
        """Return the time from a quarter of the rows to nine tenths; None if few blocks came."""
        window = self._all.within(_FROM * self._rows, _TO * self._rows)
        return self._between(*window) if window else None

    def all_busy(self) -> Steady | None:
        """Return the time in which all devices were at work; None if few blocks came.

        It begins when each has finished its first block, which warms it up, and ends when the first
        has finished its last one. Where that is short, it is that of :meth:`steady`.
        """
        window = self._all_busy()
        return self._between(*window) if window else self.steady()

    def seconds_of_all_busy(self) -> float:
        """Return the seconds for which :meth:`all_busy` would measure, 0 if that can't be said."""
        window = self._all_busy()
        return window[1] - window[0] if window else 0.0

    def _all_busy(self) -> tuple[float, float] | None:
        histories = self._devices.values()
        begin = max((each.moments[0] for each in histories), default=0.0)
        end = min((each.moments[-1] for each in histories), default=0.0)
        whole = self._all.moments[-1] - self._all.moments[0] if histories else 0.0
        return (begin, end) if end - begin > _ENOUGH * whole else None

    def _between(self, begin: float, end: float) -> Steady:
        totals = zip(self._all.at(begin), self._all.at(end), strict=True)
        _, blocks, driver, *busy = (after - before for before, after in totals)
        waiting = median(self._waits) if self._waits else 0.0
        rows = [each.at(end)[0] - each.at(begin)[0] for each in self._devices.values()]
        return Steady(
            images_per_second=sum(rows) / (end - begin),
            seconds=end - begin,
            rows=sum(rows),
            devices=sum(count > 0 for count in rows),
            stage_seconds=dict(zip(STAGES, busy, strict=True)),
            driver_seconds=max(0.0, driver - waiting * (end - begin)),
            blocks=blocks,
        )
