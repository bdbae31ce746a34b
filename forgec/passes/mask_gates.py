"""Gates: factors of 0 and 1, which say what is kept as booleans do."""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.ir import SSAValue

from forgec.ir import types
from forgec.passes.mask_elements import Element, Elements, Linear, Node, Number, as_condition, is_condition
from forgec.passes.mask_structure import Condition, conditions
from forgec.runtime.symbolic import Extent


class Gates:
    """What values that broadcast to scores of one shape say of a score, read once for each value."""

    def __init__(self, shape: Sequence[Extent]) -> None:
        self.shape = tuple(shape)
        self.elements = Elements(self.shape)

    def element(self, value: SSAValue) -> Element:
        """The element of a value that belongs to one score."""
        rank = len(self.shape)
        return self.elements(value, tuple(Linear(((axis, 1),)) for axis in range(rank - types.rank(value), rank)))

    def is_gate(self, value: SSAValue) -> bool:
        """True if every element of a value is certain to be 0 or 1, or true or false."""
        return types.dtype(value) == "i1" or _is_gate(self.element(value))

    def kept(self, value: SSAValue, negated: bool = False) -> list[Condition]:
        """The conditions under which a gate is open (``negated``: shut)."""
        element = self.element(value)
        condition = as_condition(element)
        return list(conditions(element if condition is None else condition, negated))

    def levels(self, value: SSAValue) -> tuple[list[Condition], float] | None:
        """For numbers that are 0 under some conditions and one other number elsewhere: conditions and number."""
        match self.element(value):
            case Node(name="where", arguments=(condition, Number(value=then), Number(value=otherwise))):
                if then == 0 and otherwise != 0:
                    return list(conditions(condition)), float(otherwise)
                if otherwise == 0 and then != 0:
                    return list(conditions(condition, True)), float(then)
        return None


def _is_gate(element: Element) -> bool:
    match element:
        case Number(value=value):
            return value in (0, 1)
        case Linear(axes=(), constant=constant):
            return constant in (0, 1)
        case Node(name="where", arguments=(_, then, otherwise)):
            return _is_gate(then) and _is_gate(otherwise)
    return is_condition(element)
