"""Linear scan: no two live buffers share bytes, the peak is near the bound, and it is fast."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forgec.runtime.linear_scan import Allocation, Interval, allocate

intervals = st.lists(
    st.builds(
        lambda nbytes, first, length: Interval(nbytes, first, first + length),
        st.integers(0, 5000),
        st.integers(0, 40),
        st.integers(0, 12),
    ),
    max_size=60,
)


def live_bytes(chosen: list[Interval], alignment: int) -> int:
    """The most bytes that live at one time, by looking at every time."""
    sized = [(interval, -(-interval.nbytes // alignment) * alignment) for interval in chosen]
    times = {interval.first for interval in chosen}
    return max((sum(n for i, n in sized if i.first <= t < i.last) for t in times), default=0)


def check(chosen: list[Interval], result: Allocation, alignment: int) -> None:
    for index, a in enumerate(chosen):
        assert result.offsets[index] % alignment == 0
        assert result.offsets[index] >= 0
        if a.first < a.last:
            assert result.offsets[index] + a.nbytes <= result.peak_bytes
        for other in range(index):
            b = chosen[other]
            if max(a.first, b.first) < min(a.last, b.last) and a.nbytes and b.nbytes:
                left, right = result.offsets[index], result.offsets[other]
                assert left + a.nbytes <= right or right + b.nbytes <= left


@given(intervals, st.sampled_from([1, 16, 64, 256]))
def test_live_buffers_never_overlap(chosen: list[Interval], alignment: int) -> None:
    result = allocate(chosen, alignment)
    check(chosen, result, alignment)
    assert result.lower_bound_bytes == live_bytes(chosen, alignment)
    assert result.peak_bytes >= result.lower_bound_bytes
    assert allocate(chosen, alignment) == result


def test_empty() -> None:
    assert allocate([]) == Allocation((), 0, 0)


def test_reuses_bytes_of_the_dead() -> None:
    result = allocate([Interval(100, 0, 2), Interval(100, 1, 3), Interval(100, 2, 4)])
    assert result.peak_bytes == 256
    assert result.offsets[0] == result.offsets[2]


@pytest.mark.parametrize("interval", [Interval(-1, 0, 1), Interval(1, 2, 1)])
def test_refuses_what_is_no_interval(interval: Interval) -> None:
    with pytest.raises(ValueError, match="not an interval"):
        allocate([interval])


def transformer(layers: int, hidden: int, heads: int, kv_heads: int, inner: int, tokens: int) -> list[Interval]:
    """The buffers of a decoder in the order of their launches: (elements, launches until the last use)."""
    head = hidden // heads
    layer = [
        (tokens * hidden, 13),  # residual
        (tokens * hidden, 4),  # norm
        (tokens * hidden, 3),  # q
        (tokens * kv_heads * head, 3),  # k
        (tokens * kv_heads * head, 5),  # v
        (tokens * hidden, 3),  # rope of q
        (tokens * kv_heads * head, 2),  # rope of k
        (heads * tokens * tokens, 2),  # scores
        (tokens * hidden, 2),  # context
        (tokens * hidden, 2),  # projection
        (tokens * hidden, 7),  # residual
        (tokens * hidden, 3),  # norm
        (tokens * inner, 2),  # gate
        (tokens * inner, 3),  # activation
        (tokens * inner, 2),  # up
        (tokens * inner, 2),  # product
        (tokens * hidden, 2),  # down
    ]
    found: list[Interval] = []
    for index, (elements, life) in enumerate(layer * layers):
        found.append(Interval(4 * elements, index, index + life))
    return found


@pytest.mark.parametrize("tokens", [1, 7, 128, 1000])
@pytest.mark.parametrize("sizes", [(576, 9, 3, 1536), (768, 12, 12, 3072), (4096, 32, 8, 14336)])
def test_transformers_come_within_a_tenth_of_the_bound(tokens: int, sizes: tuple[int, int, int, int]) -> None:
    hidden, heads, kv_heads, inner = sizes
    chosen = transformer(12, hidden, heads, kv_heads, inner, tokens)
    result = allocate(chosen)
    check(chosen, result, 64)
    assert result.peak_bytes <= 1.1 * result.lower_bound_bytes


def test_three_thousand_buffers_take_milliseconds() -> None:
    chosen = transformer(177, 576, 9, 3, 1536, 128)[:3000]
    seconds = min(_time(chosen) for _ in range(3))
    assert seconds < 0.1  # about 0.015 on an idle machine


def test_pathological_graphs_stay_fast() -> None:
    draw = random.Random(0)
    chosen = [
        Interval(draw.randint(1, 1 << 20), first, first + draw.randint(1, 1500))
        for first in (draw.randint(0, 1500) for _ in range(3000))
    ]
    assert min(_time(chosen) for _ in range(2)) < 0.3
    result = allocate(chosen)
    assert result.peak_bytes <= 1.1 * result.lower_bound_bytes


def _time(chosen: list[Interval]) -> float:
    start = time.perf_counter()
    allocate(chosen)
    return time.perf_counter() - start
