"""Intervals of the loops of one kernel, in the order of what they cost together.

**Longer intervals.** Where a graph *stretches* (``graph.stretches``), what is impossible at an interval is impossible
at every shorter one. Take a legal schedule at interval :math:`a`, and let :math:`f(t) = t + (b - a) \\lfloor t / a
\\rfloor` move its starts, for some :math:`b > a`: a gap of :math:`b - a` cycles opens between turns, and instance
:math:`k` of an op that started at :math:`\\sigma + k a` starts at :math:`f(\\sigma) + k b`. Instances keep their
order, and no two of them come closer. What the constraints ask of times is that a later start is a number of cycles, at
least 0, behind an earlier one: dependences, streams and buffers say so, and a unit or registers are held by no more at
a time than before if each holds them from its start on. So the schedule stays legal, with the same groups, buffers and
grants. It is not so where ops hold one unit at different offsets, or where the storage of a value in registers is taken
after its producer starts: then a gap may put two things at one time that were apart.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence


class Intervals:
    """Intervals of all phases, from ``least`` to ``most``, in the order of the cycles that they cost together.

    ``refuted``: for each phase, intervals that are impossible whatever the other phases do; they are left out.
    ``stretch``: the phases that stretch.
    """

    def __init__(
        self, least: Sequence[int], most: Sequence[int], trips: Sequence[int], stretch: Sequence[bool] = ()
    ) -> None:
        self.least, self.trips = tuple(least), trips
        self.most = [max(pair) for pair in zip(least, most, strict=True)]
        self.stretch = tuple(stretch) or (False,) * len(trips)
        self.refuted: list[set[int]] = [set() for _ in trips]
        self.together: list[tuple[int, ...]] = []
        self.heap = [(self.cycles(least), tuple(least))]
        self.seen = {tuple(least)}

    def cycles(self, iis: Sequence[int]) -> int:
        """What they cost together."""
        return sum(ii * n for ii, n in zip(iis, self.trips, strict=True))

    def refute(self, place: int, ii: int) -> None:
        """Leave out an interval of a phase, and all shorter ones where it stretches."""
        self.refuted[place].update(range(self.least[place] if self.stretch[place] else ii, ii + 1))

    def refute_together(self, iis: tuple[int, ...]) -> None:
        """Leave out what is impossible together; and what is shorter in all phases, if these stretch."""
        if all(self.stretch):
            self.together = [each for each in self.together if not below(each, iis)]
        self.together.append(iis)

    def refuting(self, iis: tuple[int, ...]) -> tuple[int, ...] | None:
        """Intervals that are impossible together, by which these are as well."""
        if not all(self.stretch):
            return iis if iis in self.together else None
        return next((each for each in self.together if below(iis, each)), None)

    @property
    def count(self) -> int:
        """Of what is left out."""
        return len(self.together) + sum(map(len, self.refuted))

    def peek(self) -> tuple[int, ...] | None:
        """The cheapest that are left."""
        while self.heap:
            iis = self.heap[0][1]
            place = next((place for place, ii in enumerate(iis) if ii in self.refuted[place]), None)
            if place is not None:
                # All that come after and are not left out have a longer interval of this phase.
                heapq.heappop(self.heap)
                self._longer(iis, place, iis[place])
                continue
            known = self.refuting(iis)
            if known is None:
                return iis
            # All that come after and are not left out have an interval of some phase that is longer than that.
            heapq.heappop(self.heap)
            for place, ii in enumerate(known):
                self._longer(iis, place, ii)
        return None

    def pop(self) -> None:
        """Leave out the cheapest."""
        iis = heapq.heappop(self.heap)[1]
        for place, ii in enumerate(iis):
            self._longer(iis, place, ii)

    def _longer(self, iis: tuple[int, ...], place: int, ii: int) -> None:
        """The next interval of one phase after ``ii``, if there is one."""
        ii += 1
        while ii in self.refuted[place]:
            ii += 1
        longer = (*iis[:place], ii, *iis[place + 1 :])
        if ii <= self.most[place] and longer not in self.seen:
            self.seen.add(longer)
            heapq.heappush(self.heap, (self.cycles(longer), longer))


def below(iis: Sequence[int], others: Sequence[int]) -> bool:
    """Whether none is longer than the other's of its phase."""
    return all(ii <= other for ii, other in zip(iis, others, strict=True))
