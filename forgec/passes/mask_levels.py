"""Which numbers a mask adds to scores that it masks."""

from __future__ import annotations

from xdsl.ir import BlockArgument, SSAValue

from forgec.ir import types
from forgec.ir.ops.shape import BroadcastOp, CopyOp, ReshapeOp, SliceOp, TransposeOp
from forgec.ir.ops.unary import CastOp
from forgec.passes.mask_elements import Element, Leaf, Node, Number
from forgec.passes.number_ranges import rounded
from forgec.passes.patterns import through

MANY = 16
"""Numbers that one mask holds, at most: more are none that mask."""
BIAS = 256.0
"""Numbers of this size and more are no biases."""


def levels(element: Element, dtype: str) -> frozenset[float]:
    """The numbers that an element may be, with 0 for each part that is no number but a bias. A choice is one of its
    sides; a sum is each sum of two numbers, as the dtype rounds it.
    """
    match element:
        case Number(value=value):
            return frozenset((float(value),))
        case Node(name="where", arguments=(_, then, otherwise)):
            return levels(then, dtype) | levels(otherwise, dtype)
        case Node(name="add", arguments=arguments, place=place):
            dtype = dtype if place is None else types.dtype(place[0])
            sums = frozenset((0.0,))
            for argument in arguments:
                added = levels(argument, dtype)
                if len(added) * len(sums) > MANY:
                    return sums | added | {-float("inf"), float("nan")}
                sums = frozenset(rounded(one + other, dtype) for one in sums for other in added)
            return sums
    return frozenset((0.0,))


def holds_masks(element: Element, dtype: str) -> bool:
    """True if an element may be a finite number that masks, or comes from outside as it is."""
    if any(value != -float("inf") and not abs(value) < BIAS for value in levels(element, dtype)):
        return True
    return any(_is_given(leaf.value) for leaf in _leaves(element))


def _leaves(element: Element) -> list[Leaf]:
    if isinstance(element, Node):
        values = element.arguments[1:] if element.name == "where" else element.arguments
        return [leaf for argument in values for leaf in _leaves(argument)]
    return [element] if isinstance(element, Leaf) else []


def _is_given(value: SSAValue) -> bool:
    rearranged = through(value, ReshapeOp, TransposeOp, BroadcastOp, SliceOp, CopyOp, CastOp)
    return isinstance(rearranged, BlockArgument)
