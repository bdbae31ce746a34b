"""Offsets for buffers in one arena, so that buffers that live at the same time never share bytes.

The compiler calls it for static plans, the runtime once per call signature for dynamic ones. Three orders are tried
and the lowest peak wins; the search ends as soon as a peak meets the lower bound (the most bytes that live at one
time):

1. linear scan in time (Poletto & Sarkar 1999) with a best-fit free list, coalescing;
2. the same against time, which sees long-lived late buffers first;
3. greedy by size (Pisarchyk & Lee 2020, "Efficient memory management for deep neural net inference"), as in TFLite.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass

MAX_PAIRS = 150_000
"""Greedy by size looks at pairs of buffers that live at the same time; with more pairs than this it is left out."""


@dataclass(frozen=True, slots=True)
class Interval:
    """``nbytes`` bytes that are live in the half-open range [first, last) of launch numbers."""

    nbytes: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Allocation:
    """``offsets`` in bytes, one per interval; ``peak_bytes`` is the arena's size, ``lower_bound_bytes`` what no
    allocation can beat."""

    offsets: tuple[int, ...]
    peak_bytes: int
    lower_bound_bytes: int


def allocate(intervals: Sequence[Interval], alignment: int = 64) -> Allocation:
    """Offsets that are multiples of ``alignment`` bytes, a power of two. Sizes count rounded up to it.

    Deterministic. ``ValueError`` for a negative size or a live range that ends before it begins.
    """
    sizes: list[int] = []
    for interval in intervals:
        if interval.nbytes < 0 or interval.last < interval.first:
            raise ValueError(f"not an interval: {interval}")
        sizes.append(-(-interval.nbytes // alignment) * alignment if interval.last > interval.first else 0)
    events = _events(intervals, sizes)
    bound = _lower_bound(events, sizes)
    best, peak = _linear_scan(events, sizes)
    if peak > bound:
        backwards = [(not begins, index) for begins, index in reversed(events)]
        best, peak = min((best, peak), _linear_scan(backwards, sizes), key=lambda result: result[1])
    if peak > bound:
        overlaps = _overlaps(events, len(sizes))
        if overlaps is not None:
            by_size = sorted(range(len(sizes)), key=lambda index: (-sizes[index], intervals[index].first, index))
            best, peak = min((best, peak), _greedy(by_size, overlaps, sizes), key=lambda result: result[1])
    return Allocation(tuple(best), peak, bound)


def _events(intervals: Sequence[Interval], sizes: Sequence[int]) -> list[tuple[bool, int]]:
    """(begins, index) in time order; at one time ends come before begins, and larger buffers begin first."""
    order: list[tuple[int, int, int, int]] = []
    for index, interval in enumerate(intervals):
        if sizes[index]:
            order.append((interval.first, 1, -sizes[index], index))
            order.append((interval.last, 0, -sizes[index], index))
    order.sort()
    return [(kind == 1, index) for _, kind, _, index in order]


def _lower_bound(events: Sequence[tuple[bool, int]], sizes: Sequence[int]) -> int:
    live = most = 0
    for begins, index in events:
        live += sizes[index] if begins else -sizes[index]
        most = max(most, live)
    return most


def _linear_scan(events: Sequence[tuple[bool, int]], sizes: Sequence[int]) -> tuple[list[int], int]:
    """Best fit among the free blocks below the current end; else the last free block is extended, or the arena
    grows."""
    offsets = [0] * len(sizes)
    starts: list[int] = []  # free blocks by offset
    ends: dict[int, int] = {}  # start of a free block → its end
    by_size: list[tuple[int, int]] = []  # (size, start) of the same blocks, sorted
    peak = 0
    for begins, index in events:
        size = sizes[index]
        if begins:
            slot = bisect_left(by_size, (size, -1))
            if slot < len(by_size):
                _, start = by_size.pop(slot)
                starts.pop(bisect_left(starts, start))
                end = ends.pop(start)
            elif starts and ends[starts[-1]] == peak:
                start = starts.pop()
                end = ends.pop(start)
                by_size.pop(bisect_left(by_size, (end - start, start)))
                peak = end = start + size
            else:
                start = peak
                peak = end = start + size
            offsets[index] = start
            if start + size < end:
                insort(starts, start + size)
                ends[start + size] = end
                insort(by_size, (end - start - size, start + size))
            continue
        start, end = offsets[index], offsets[index] + size
        slot = bisect_left(starts, start)
        if slot < len(starts) and starts[slot] == end:
            end = ends.pop(starts.pop(slot))
            by_size.pop(bisect_left(by_size, (end - start - size, start + size)))
        if slot and ends[starts[slot - 1]] == start:
            previous = starts.pop(slot - 1)
            del ends[previous]
            by_size.pop(bisect_left(by_size, (start - previous, previous)))
            start = previous
        insort(starts, start)
        ends[start] = end
        insort(by_size, (end - start, start))
    return offsets, peak


def _overlaps(events: Sequence[tuple[bool, int]], count: int) -> list[list[int]] | None:
    """For each buffer those that live at the same time, or None when there are more than ``MAX_PAIRS`` pairs."""
    overlaps: list[list[int]] = [[] for _ in range(count)]
    live: dict[int, None] = {}
    pairs = 0
    for begins, index in events:
        if not begins:
            del live[index]
            continue
        pairs += len(live)
        if pairs > MAX_PAIRS:
            return None
        overlaps[index].extend(live)
        for other in live:
            overlaps[other].append(index)
        live[index] = None
    return overlaps


def _greedy(order: Sequence[int], overlaps: Sequence[Sequence[int]], sizes: Sequence[int]) -> tuple[list[int], int]:
    """Places buffers in the given order, each in the smallest gap between those placed that it overlaps in time."""
    offsets = [-1] * len(sizes)
    peak = 0
    for index in order:
        size = sizes[index]
        if not size:
            offsets[index] = 0
            continue
        placed = [other for other in overlaps[index] if offsets[other] >= 0]
        taken = sorted((offsets[other], offsets[other] + sizes[other]) for other in placed)
        best_start, best_gap, end = -1, -1, 0
        for start, stop in taken:
            gap = start - end
            if gap >= size and (best_gap < 0 or gap < best_gap):
                best_start, best_gap = end, gap
            end = max(end, stop)
        offsets[index] = best_start if best_gap >= 0 else end
        peak = max(peak, offsets[index] + size)
    return offsets, peak
