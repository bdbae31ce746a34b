"""Strides of views: what a rearrangement does to the addresses of its operand, when addresses can say it.

Every function takes shape and strides (elements) and returns the strides of the result, or None where only a copy will
do.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from xdsl.dialects.builtin import AnyTensorType

from forgec.ir import types
from forgec.runtime.symbolic import Extent

Extents = Sequence[Extent]


def reshape_strides(shape: Extents, strides: Extents, target: Extents) -> tuple[Extent, ...] | None:
    """Strides that show ``shape``/``strides`` as ``target`` without moving elements, or None.

    The rule of torch's ``view``: dimensions of the operand that are contiguous with one another form chunks, and each
    chunk must be a whole number of target dimensions.
    """
    if any(extent == 0 for extent in target):
        return types.contiguous_strides(target)
    old = [(n, s) for n, s in zip(shape, strides, strict=True) if n != 1]
    result: list[Extent] = [0] * len(target)
    position = len(target) - 1
    while old:
        chunk, inner = old.pop()
        while old and old[-1][1] == inner * chunk:
            chunk = chunk * old.pop()[0]
        filled: Extent = 1
        while position >= 0 and (filled != chunk or target[position] == 1):
            result[position] = inner * filled
            filled = filled * target[position]
            position -= 1
        if filled != chunk:
            return None
    following: Extent = 1
    for index in range(len(target) - 1, -1, -1):
        if index <= position:
            if target[index] != 1:
                return None
            result[index] = following
        following = result[index] * target[index]
    return tuple(result)


def broadcast_strides(shape: Extents, strides: Extents, target: Extents) -> tuple[Extent, ...]:
    """Strides of a broadcast: zero along new dimensions and along those of extent 1 that grow."""
    lead = len(target) - len(shape)
    grown = [0 if n == 1 and t != 1 else s for n, s, t in zip(shape, strides, target[lead:], strict=True)]
    return (*([0] * lead), *grown)


def span_bytes(kind: AnyTensorType) -> Extent:
    """Bytes from the first to the last element of a stored type."""
    shape, strides = types.shape(kind), types.strides(kind)
    item = types.ITEM_BYTES[types.dtype(kind)]
    if types.is_contiguous(kind):
        return types.nbytes(kind)
    if any(extent == 0 for extent in shape):
        return 0
    last: Extent = 0
    for extent, stride in zip(shape, strides, strict=True):
        last = last + (extent - 1) * stride
    return (last + 1) * item


@lru_cache(maxsize=65536)
def stored_bytes(kind: AnyTensorType) -> Extent:
    """Bytes of the elements of a stored type, those in one place counted once: what reading all of it moves."""
    if types.is_contiguous(kind):
        return types.nbytes(kind)
    shape, strides = types.shape(kind), types.strides(kind)
    if any(extent == 0 for extent in shape):
        return 0
    count: Extent = 1
    for extent, stride in zip(shape, strides, strict=True):
        count = count if stride == 0 else count * extent
    size, span = count * types.ITEM_BYTES[types.dtype(kind)], span_bytes(kind)
    return min(size, span) if isinstance(size, int) and isinstance(span, int) else size  # windows overlap


def all_different(shape: Extents, strides: Extents) -> bool | None:
    """True if each dimension steps over all that those with smaller strides reach: then no two elements are in the same
    place. None if an extent or a stride is symbolic.
    """
    if any(extent == 0 for extent in shape):
        return True
    places: list[tuple[int, int]] = []
    for stride, extent in zip(strides, shape, strict=True):
        if extent == 1:
            continue
        if not isinstance(stride, int) or not isinstance(extent, int):
            return None
        places.append((stride, extent))
    reach = 0
    for stride, extent in sorted(places):
        if stride <= reach:
            return False
        reach += (extent - 1) * stride
    return True
