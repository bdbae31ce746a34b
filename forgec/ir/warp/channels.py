"""Channels between groups: rings of slots that are filled, read and freed in turn (Tawa, arXiv 2510.14719).

What is put as number i lies in slot ``i mod depth``. A group that puts counts its puts from 0, and readers name what
they read by the same number. Nothing waits but ``aref.put`` (for an empty slot) and ``aref.get`` (for a full one).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from xdsl.dialects.builtin import IntAttr, StringAttr
from xdsl.ir import Attribute, SSAValue
from xdsl.irdl import (
    AnyAttr,
    IRDLOperation,
    ParamAttrConstraint,
    VarConstraint,
    base,
    irdl_op_definition,
    operand_def,
    prop_def,
    result_def,
    traits_def,
    var_operand_def,
)
from xdsl.traits import MemoryReadEffect, MemoryWriteEffect
from xdsl.utils.exceptions import VerifyException

from forgec.ir.ops.format import Bare
from forgec.ir.tile.types import INDEX
from forgec.ir.warp.types import MEMORIES, RingType, TokenType


@irdl_op_definition
class CreateOp(IRDLOperation):
    """A channel of ``depth`` slots in a memory (``"shared"``, ``"tensor"``); all are empty at first. A slot is empty
    again when ``readers`` times ``aref.consumed`` has named what it holds.
    """

    name = "aref.create"

    depth = prop_def(IntAttr)
    readers = prop_def(IntAttr, default_value=IntAttr(1))
    memory = prop_def(StringAttr)
    ring = result_def(base(RingType))

    custom_directives = (Bare,)

    traits = traits_def(MemoryWriteEffect())

    assembly_format = (
        "`depth` custom<Bare>($depth) (`readers` custom<Bare>($readers)^)? `in` custom<Bare>($memory) attr-dict `:` "
        "type($ring)"
    )

    def __init__(self, kind: Attribute, depth: int, readers: int, memory: str) -> None:
        properties: dict[str, Attribute] = {"depth": IntAttr(depth), "memory": StringAttr(memory)}
        if readers != 1:
            properties["readers"] = IntAttr(readers)
        super().__init__(properties=properties, result_types=[RingType(kind)])

    def verify_(self) -> None:
        if self.depth.data < 1 or self.readers.data < 1:
            raise VerifyException("a channel has at least one slot and one reader")
        if self.memory.data not in MEMORIES[1:]:
            raise VerifyException(f"slots are in shared or in tensor memory, not in {self.memory.data}")


@irdl_op_definition
class PutOp(IRDLOperation):
    """Waits until the slot of number ``index`` is empty, and puts a value there. The slot is full at once, or, with
    ``after``, when these asynchronous ops are done: the one that computes the value then writes it into the slot
    itself.
    """

    name = "aref.put"

    T: ClassVar = VarConstraint("T", AnyAttr())

    ring = operand_def(ParamAttrConstraint(RingType, (T,)))
    index = operand_def(INDEX)
    value = operand_def(T)
    after = var_operand_def(base(TokenType))

    traits = traits_def(MemoryWriteEffect())

    assembly_format = "$ring `[` $index `]` `,` $value (`after` $after^)? attr-dict `:` type($ring)"

    def __init__(self, ring: SSAValue, index: SSAValue, value: SSAValue, after: Sequence[SSAValue] = ()) -> None:
        super().__init__(operands=[ring, index, value, list(after)])


@irdl_op_definition
class GetOp(IRDLOperation):
    """Waits until number ``index`` has been put, and reads its slot. The value is the slot itself: it is undefined from
    the moment on at which the slot is freed.
    """

    name = "aref.get"

    T: ClassVar = VarConstraint("T", AnyAttr())

    ring = operand_def(ParamAttrConstraint(RingType, (T,)))
    index = operand_def(INDEX)
    value = result_def(T)

    traits = traits_def(MemoryReadEffect(), MemoryWriteEffect())

    assembly_format = "$ring `[` $index `]` attr-dict `:` type($ring)"

    def __init__(self, ring: SSAValue, index: SSAValue) -> None:
        assert isinstance(ring.type, RingType), "channels have that type"
        super().__init__(operands=[ring, index], result_types=[ring.type.value])


@irdl_op_definition
class ConsumedOp(IRDLOperation):
    """One reader is done with number ``index``: at once, or, with ``after``, when these asynchronous ops are done."""

    name = "aref.consumed"

    T: ClassVar = VarConstraint("T", AnyAttr())

    ring = operand_def(ParamAttrConstraint(RingType, (T,)))
    index = operand_def(INDEX)
    after = var_operand_def(base(TokenType))

    traits = traits_def(MemoryWriteEffect())

    assembly_format = "$ring `[` $index `]` (`after` $after^)? attr-dict `:` type($ring)"

    def __init__(self, ring: SSAValue, index: SSAValue, after: Sequence[SSAValue] = ()) -> None:
        super().__init__(operands=[ring, index, list(after)])
