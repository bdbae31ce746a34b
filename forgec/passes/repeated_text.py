"""Repeats of a text of numbers: what occurs more than once in it, by a suffix array."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass
class Candidate:
    """A text that occurs more than once. ``bound``: at most so many ops are saved by it."""

    length: int
    starts: list[int]
    bound: int


def candidates_in(text: Sequence[int], min_ops: int) -> list[Candidate]:
    """The maximal repeats of a text."""
    if len(text) < 2 * min_ops:
        return []
    order = _suffixes(text)
    common = _common_prefixes(text, order)
    found: list[Candidate] = []
    stack: list[tuple[int, int]] = []
    for index in range(1, len(order) + 1):
        length = common[index] if index < len(order) else 0
        left = index - 1
        while stack and stack[-1][0] > length:
            size, left = stack.pop()
            if size >= min_ops and not _is_run(order[left : min(left + 3, index)], size):
                starts = sorted(order[left:index])
                # Where all are preceded by one op, the longer repeat that begins there is another candidate.
                if len({text[start - 1] if start else None for start in starts}) > 1 or _periodic(starts, size):
                    count = min(len(starts), len(text) // size)
                    found.append(Candidate(size, starts, size * (count - 1)))
        if length and (not stack or stack[-1][0] < length):
            stack.append((length, left))
    return found


def _is_run(neighbours: Sequence[int], size: int) -> bool:
    """True for a text that is itself a shorter one several times: that is the better candidate, and there are too many
    of these. In the suffix array the starts of a run are neighbours.
    """
    return any(2 * abs(a - b) <= size for a, b in pairwise(neighbours))


def _periodic(starts: Sequence[int], size: int) -> bool:
    return any(b - a <= size for a, b in pairwise(starts))


def _suffixes(text: Sequence[int]) -> list[int]:
    """The suffix array, by doubling."""
    names = {code: number for number, code in enumerate(sorted(set(text)))}
    rank = [names[code] for code in text]
    count, width = len(text), 1
    while True:
        keys = [(rank[i] + 1) * (count + 2) + (rank[i + width] + 1 if i + width < count else 0) for i in range(count)]
        order = sorted(range(count), key=keys.__getitem__)
        number, previous = -1, None
        for index in order:
            if keys[index] != previous:
                number, previous = number + 1, keys[index]
            rank[index] = number
        if number == count - 1:
            return order
        width *= 2


def _common_prefixes(text: Sequence[int], order: Sequence[int]) -> list[int]:
    """For each suffix in order, how much it shares with the one before (Kasai)."""
    rank = [0] * len(order)
    for index, suffix in enumerate(order):
        rank[suffix] = index
    common, shared = [0] * len(order), 0
    for suffix in range(len(text)):
        if rank[suffix]:
            other = order[rank[suffix] - 1]
            end = len(text) - max(suffix, other)
            while shared < end and text[suffix + shared] == text[other + shared]:
                shared += 1
            common[rank[suffix]] = shared
            shared = max(shared - 1, 0)
        else:
            shared = 0
    return common
