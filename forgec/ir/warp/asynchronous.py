"""Ops that run by themselves: a token stands for each, and its result is undefined until that has been waited for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from xdsl.dialects.builtin import StringAttr, TensorType
from xdsl.ir import Attribute, SSAValue
from xdsl.irdl import (
    AnyAttr,
    IRDLOperation,
    VarConstraint,
    base,
    irdl_op_definition,
    operand_def,
    opt_prop_def,
    prop_def,
    result_def,
    traits_def,
    var_operand_def,
)
from xdsl.traits import MemoryReadEffect, MemoryWriteEffect, Pure
from xdsl.utils.exceptions import VerifyException

from forgec.ir.attributes import IntsAttr, ScalarAttr
from forgec.ir.ops.format import Bare
from forgec.ir.tile.compute import DotOp, Product
from forgec.ir.tile.memory import LoadOp, TileAccess
from forgec.ir.tile.types import INDEX, BlockType, extents
from forgec.ir.warp.types import MEMORIES, TOKEN, TokenType


def check_memory(memory: StringAttr) -> None:
    """Raise VerifyException unless this names a memory."""
    if memory.data not in MEMORIES:
        raise VerifyException(f"a tile is in one of {', '.join(MEMORIES)}, not in {memory.data}")


@irdl_op_definition
class AsyncLoadOp(TileAccess):
    """``tile.load`` that runs by itself (a copy by TMA, ``cp.async``), into a memory (``in "shared"``; registers if
    absent) or, where an ``aref.put`` is ``after`` it, into a slot.
    """

    name = "warp.async_load"

    block = operand_def(base(BlockType))
    offsets = var_operand_def(INDEX)
    other = opt_prop_def(ScalarAttr)
    in_bounds = opt_prop_def(IntsAttr)
    memory = prop_def(StringAttr, default_value=StringAttr("register"))
    result = result_def(AnyAttr())
    token = result_def(TOKEN)

    traits = traits_def(MemoryReadEffect(), MemoryWriteEffect())

    assembly_format = (
        "$block `[` $offsets `]` (`other` custom<Bare>($other)^)? (`in_bounds` custom<Bare>($in_bounds)^)? "
        "(`in` custom<Bare>($memory)^)? attr-dict `:` type($block) `->` type($result)"
    )

    def __init__(self, load: LoadOp, operands: Sequence[SSAValue], memory: str = "register") -> None:
        block, *offsets = operands
        properties: dict[str, Attribute | None] = {"other": load.other, "in_bounds": load.in_bounds}
        if memory != "register":
            properties["memory"] = StringAttr(memory)
        super().__init__(operands=[block, offsets], properties=properties, result_types=[load.result.type, TOKEN])

    def verify_(self) -> None:
        self.check_block(self.block, self.result, self.offsets)
        self.check_in_bounds(self.in_bounds, len(self.offsets))
        check_memory(self.memory)
        if isinstance(self.result.type, TensorType) and len(extents(self.result)) != len(self.offsets):
            raise VerifyException("a tile that is loaded has the rank of the block")


@irdl_op_definition
class MmaOp(Product):
    """``tile.dot`` that runs by itself. It reads its operands until it is done. Products of one group are done in the
    order in which they were issued, so that an accumulator may be the result of one that is still running.
    """

    name = "warp.mma"

    memory = prop_def(StringAttr, default_value=StringAttr("register"))
    result = result_def(Product.T)
    token = result_def(TOKEN)

    custom_directives = (Bare,)

    traits = traits_def(MemoryReadEffect(), MemoryWriteEffect())

    assembly_format = Product.format("(`in` custom<Bare>($memory)^)?")

    def __init__(self, dot: DotOp, operands: Sequence[SSAValue], memory: str = "register") -> None:
        lhs, rhs, accumulator, *rows = operands
        properties = dict(dot.properties)
        if memory != "register":
            properties["memory"] = StringAttr(memory)
        super().__init__(
            operands=[lhs, rhs, accumulator, rows], properties=properties, result_types=[dot.result.type, TOKEN]
        )

    def verify_(self) -> None:
        super().verify_()
        check_memory(self.memory)


@irdl_op_definition
class WaitOp(IRDLOperation):
    """Waits until an asynchronous op is done."""

    name = "warp.wait"

    token = operand_def(base(TokenType))

    traits = traits_def(MemoryReadEffect(), MemoryWriteEffect())

    assembly_format = "$token attr-dict"

    def __init__(self, token: SSAValue) -> None:
        super().__init__(operands=[token])


@irdl_op_definition
class DoneOp(IRDLOperation):
    """The token of something that is done: what a loop begins with where nothing has been issued yet."""

    name = "warp.done"

    KIND: ClassVar = TOKEN

    token = result_def(TOKEN)

    traits = traits_def(Pure())

    assembly_format = "attr-dict"

    def __init__(self) -> None:
        super().__init__(result_types=[TOKEN])


@irdl_op_definition
class PoisonOp(IRDLOperation):
    """A value that nothing may depend on: what a loop begins with where there is no value yet (``ub.poison``)."""

    name = "warp.poison"

    result = result_def(AnyAttr())

    traits = traits_def(Pure())

    assembly_format = "attr-dict `:` type($result)"

    def __init__(self, kind: Attribute) -> None:
        super().__init__(result_types=[kind])


@irdl_op_definition
class CopyOp(IRDLOperation):
    """The value in registers of the group's own, from a slot or from tensor memory (or from there into a slot)."""

    name = "warp.copy"

    T: ClassVar = VarConstraint("T", AnyAttr())

    value = operand_def(T)
    result = result_def(T)

    traits = traits_def(MemoryReadEffect())

    assembly_format = "$value attr-dict `:` type($value)"

    def __init__(self, value: SSAValue) -> None:
        super().__init__(operands=[value], result_types=[value.type])
