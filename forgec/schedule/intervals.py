"""Intervals of several loops together, in the order of what they cost."""

from __future__ import annotations

import heapq
from collections.abc import Sequence


class Intervals:
    """Intervals of all phases, from ``least`` to ``most``, in the order of the cycles that they cost together.

    ``refuted``: for each phase, intervals that are impossible whatever the other phases do; they are left out.
    """

    def __init__(self, least: Sequence[int], most: Sequence[int], trips: Sequence[int]) -> None:
        self.trips = trips
        self.most = [max(pair) for pair in zip(least, most, strict=True)]
        self.refuted: list[set[int]] = [set() for _ in trips]
        self.heap = [(self.cycles(least), tuple(least))]
        self.seen = {tuple(least)}

    def cycles(self, iis: Sequence[int]) -> int:
        """What they cost together."""
        return sum(ii * n for ii, n in zip(iis, self.trips, strict=True))

    def refute(self, place: int, ii: int) -> None:
        """Leave out an interval of a phase."""
        self.refuted[place].add(ii)

    def peek(self) -> tuple[int, ...] | None:
        """The cheapest that are left."""
        while self.heap:
            iis = self.heap[0][1]
            place = next((place for place, ii in enumerate(iis) if ii in self.refuted[place]), None)
            if place is None:
                return iis
            # All that come after and are not left out have a longer interval of this phase.
            heapq.heappop(self.heap)
            self._longer(iis, place)
        return None

    def pop(self) -> None:
        """Leave out the cheapest."""
        iis = heapq.heappop(self.heap)[1]
        for place in range(len(iis)):
            self._longer(iis, place)

    def _longer(self, iis: tuple[int, ...], place: int) -> None:
        """The next interval of one phase, if there is one."""
        ii = iis[place] + 1
        while ii in self.refuted[place]:
            ii += 1
        longer = (*iis[:place], ii, *iis[place + 1 :])
        if ii <= self.most[place] and longer not in self.seen:
            self.seen.add(longer)
            heapq.heappush(self.heap, (self.cycles(longer), longer))
