"""What ops compute, as numbers: equal numbers for equal computations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from xdsl.dialects.builtin import TensorType
from xdsl.ir import Block, BlockArgument, Operation, SSAValue
from xdsl.traits import is_side_effect_free

from forgec.ir import types
from forgec.ir.ops.base import ForgeOp
from forgec.ir.ops.module import ParamRefOp
from forgec.passes.outlining import free_values


class Codes:
    """Numbers for what ops are, equal for equal ops."""

    def __init__(self) -> None:
        self.known: dict[Any, int] = {}
        self.attributes: dict[int, tuple[int, Any]] = {}

    def of(self, op: Operation, without: str = "") -> int:
        """The code of an op; values that its regions take from outside count as operands. The property ``without`` may
        differ.
        """
        key: list[Any] = [type(op)]
        for name, value in (*op.properties.items(), *op.attributes.items()):
            if name != without:
                key += (name, self._attribute(value))
        for values in (op.operands, op.results):
            key.append(-1)
            key += [self._attribute(value.type) for value in values]
        if op.regions:
            key.append(self._regions(op))
        return self.known.setdefault(tuple(key), len(self.known))

    def _attribute(self, attribute: Any) -> int:
        """Most equal attributes are one object, whose hash need not be computed twice."""
        found = self.attributes.get(id(attribute))
        if found is None:
            number = self.known.setdefault(("attribute", attribute), len(self.known))
            found = self.attributes[id(attribute)] = (number, attribute)  # kept, so that no other gets its id
        return found[0]

    def _regions(self, op: Operation) -> tuple[Any, ...]:
        """What the regions of an op compute, with numbers for values."""
        numbers = {value: -1 - index for index, value in enumerate(sources(op))}
        key: list[Any] = []
        for region in op.regions:
            key.append("region")
            for block in region.blocks:
                key.append("block")
                for argument in block.args:
                    numbers[argument] = len(numbers)
                    key.append(self._attribute(argument.type))
                for inner in block.ops:
                    key += [self.of(inner), *(numbers[value] for value in sources(inner))]
                    for result in inner.results:
                        numbers[result] = len(numbers)
        return tuple(key)


def sources(op: Operation) -> Sequence[SSAValue]:
    """The values that an op uses, in its regions too."""
    return [*op.operands, *(v for v in free_values([op]) if v not in op.operands)] if op.regions else op.operands


class Tables:
    """The values of a block that are computed from positions, lengths and masks alone: from integers and conditions
    among the arguments, numbers, and parameters that are vectors (the frequencies of rotary embeddings) or of which it
    is known what they hold (a triangle), whatever their name.
    """

    def __init__(self, block: Block, codes: Codes) -> None:
        self._numbers: dict[SSAValue, int] = {}
        self._made: set[SSAValue] = set()
        known: dict[Any, int] = {}
        for argument in block.args:
            if isinstance(argument.type, TensorType) and types.dtype(argument) not in (*types.FLOATS, *types.COMPLEX):
                self._numbers[argument] = known.setdefault(argument, len(known))
        for op in block.ops:
            if not isinstance(op, ForgeOp) or any(operand not in self._numbers for operand in op.operands):
                continue
            is_parameter = isinstance(op, ParamRefOp)
            if (types.rank(op.result) > 1 and op.holds is None) if is_parameter else not is_side_effect_free(op):
                continue
            told = is_parameter and op.holds is not None  # every layer may have a triangle of its own
            key = (codes.of(op, "param" if told else ""), *(self._numbers[operand] for operand in op.operands))
            for index, result in enumerate(op.results):
                self._numbers[result] = known.setdefault((key, index), len(known))
                if told or not is_parameter:
                    self._made.add(result)

    def number_of(self, value: SSAValue) -> int | None:
        """A number that equal tables have alike; None for other values."""
        return self._numbers[value] if value in self._made else None

    def definition(self, value: SSAValue) -> tuple[list[Operation], list[BlockArgument]]:
        """The ops that compute a table, and the arguments that they take, in no order."""
        ops: dict[Operation, None] = {}
        arguments: dict[BlockArgument, None] = {}
        pending = [value]
        while pending:
            current = pending.pop()
            if isinstance(current, BlockArgument):
                arguments[current] = None
            elif isinstance(current.owner, Operation) and current.owner not in ops:
                ops[current.owner] = None
                pending += current.owner.operands
        return list(ops), list(arguments)
