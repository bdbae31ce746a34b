"""Which element of an operand a rearrangement puts where, for elements at symbolic indices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TypeAlias

from xdsl.ir import Operation

from forgec.ir import types
from forgec.ir.ops.shape import BroadcastOp, CopyOp, ReshapeOp, SliceOp, TransposeOp
from forgec.runtime.symbolic import Extent, is_nonnegative


@dataclass(frozen=True)
class Linear:
    """An integer: ``Σ factor · index of axis + constant``."""

    axes: tuple[tuple[int, int], ...] = ()
    constant: Extent = 0

    def plus(self, other: Linear, sign: int = 1) -> Linear:
        """The sum, or the difference."""
        factors = dict(self.axes)
        for axis, factor in other.axes:
            factors[axis] = factors.get(axis, 0) + sign * factor
        axes = tuple(sorted((axis, factor) for axis, factor in factors.items() if factor))
        return Linear(axes, self.constant + sign * other.constant)

    def times(self, factor: int) -> Linear:
        """The product with a number."""
        if factor == 0:
            return Linear()
        return Linear(tuple((axis, factor * by) for axis, by in self.axes), factor * self.constant)

    @property
    def is_nonnegative(self) -> bool:
        """True if it is certain to be 0 or more, as an index must be."""
        return all(factor > 0 for _, factor in self.axes) and is_nonnegative(self.constant)


ZERO = Linear()
Index: TypeAlias = "tuple[Linear, ...]"


def source_index(op: Operation, index: Index, extents: Mapping[int, Extent]) -> Index | None:
    """The index of the operand's element that a rearrangement puts at an index over axes of these extents."""
    source, target = types.shape(op.operands[0]), types.shape(op.results[0])
    match op:
        case CopyOp():
            return index
        case BroadcastOp():
            return index[len(index) - len(source) :] if source else ()
        case TransposeOp():
            found = [ZERO] * len(source)
            for place, dim in enumerate(op.permutation.data):
                found[dim] = index[place]
            return tuple(found)
        case SliceOp():
            step = op.step.data
            if not isinstance(step, int):
                return None
            dim = op.dim.data
            at = index[dim].times(step).plus(Linear((), op.start.data))
            return (*index[:dim], at, *index[dim + 1 :])
        case ReshapeOp():
            found = _regrouped(source, [pair for pair in zip(target, index, strict=True) if pair[0] != 1], extents)
            rest = iter(found or ())
            return None if found is None else tuple(ZERO if extent == 1 else next(rest) for extent in source)
    return None


def _regrouped(
    source: Sequence[Extent], target: list[tuple[Extent, Linear]], extents: Mapping[int, Extent]
) -> list[Linear] | None:
    """The index in each dimension of ``source`` that is not 1, of an element of what it was reshaped to: neighbours may
    have become one dimension, or one dimension neighbours.
    """
    old, new, found = [extent for extent in source if extent != 1], list(target), []
    while old and new:
        merged = next((n for n in range(1, len(new) + 1) if prod((e for e, _ in new[:n]), start=1) == old[0]), None)
        if merged is not None:
            at = new[0][1]
            for extent, inner in new[1:merged]:
                if not isinstance(extent, int):
                    return None
                at = at.times(extent).plus(inner)
            found.append(at)
            del old[:1], new[:merged]
            continue
        count = next((n for n in range(2, len(old) + 1) if prod(old[:n], start=1) == new[0][0]), None)
        parts = None if count is None else _parts(new[0][1], old[:count], extents)
        if count is None or parts is None:
            return None
        found += parts
        del old[:count], new[:1]
    return None if old or new else found


def _parts(at: Linear, split: Sequence[Extent], extents: Mapping[int, Extent]) -> list[Linear] | None:
    """An index of a dimension as indices of the dimensions that it was made of."""
    found: list[Linear] = []
    for extent in reversed(split[1:]):
        if not isinstance(extent, int) or not isinstance(at.constant, int):
            return None
        outer, rest = divmod(at.constant, extent)
        inner = Linear(tuple((axis, factor) for axis, factor in at.axes if factor % extent), rest)
        greatest = rest
        for axis, factor in inner.axes:
            size = extents.get(axis)
            if not isinstance(size, int) or factor < 0:
                return None
            greatest += factor * (size - 1)
        if greatest >= extent:
            return None
        found.append(inner)
        at = Linear(tuple((axis, factor // extent) for axis, factor in at.axes if factor % extent == 0), outer)
    return [at, *reversed(found)]
