"""Operations of MLIR's ``llvm`` dialect that xDSL's lacks, or whose verifiers xDSL restricts to scalars.

They have MLIR's names and print in the generic form. ``to_llvm`` translates them together with xDSL's own.
"""

from __future__ import annotations

from xdsl.dialects.builtin import DenseArrayBase, IntegerAttr, UnitAttr
from xdsl.dialects.llvm import FastMathAttr
from xdsl.irdl import (
    IRDLOperation,
    irdl_op_definition,
    operand_def,
    opt_prop_def,
    prop_def,
    result_def,
    traits_def,
    var_operand_def,
)
from xdsl.traits import NoMemoryEffect, Pure


class _Cast(IRDLOperation):
    arg = operand_def()
    result = result_def()
    traits = traits_def(NoMemoryEffect())


@irdl_op_definition
class UIToFPOp(_Cast):
    """Unsigned integer to float, scalars or vectors."""

    name = "llvm.uitofp"


@irdl_op_definition
class ExtractElementOp(IRDLOperation):
    """``vector[position]``, the position an integer value."""

    name = "llvm.extractelement"
    vector = operand_def()
    position = operand_def()
    res = result_def()
    traits = traits_def(NoMemoryEffect())


@irdl_op_definition
class PoisonOp(IRDLOperation):
    """A value that nothing may depend on, such as the second operand of a shuffle of one vector."""

    name = "llvm.mlir.poison"
    res = result_def()
    traits = traits_def(NoMemoryEffect())


@irdl_op_definition
class SelectOp(IRDLOperation):
    """``cond ? lhs : rhs``; a vector of i1 selects by lane (xDSL's op takes one i1)."""

    name = "llvm.select"
    cond = operand_def()
    lhs = operand_def()
    rhs = operand_def()
    res = result_def()
    fastmathFlags = prop_def(FastMathAttr, default_value=FastMathAttr(None))
    traits = traits_def(Pure())


@irdl_op_definition
class FCmpOp(IRDLOperation):
    """Comparison of floats, scalars or vectors (xDSL's op takes scalars)."""

    name = "llvm.fcmp"
    lhs = operand_def()
    rhs = operand_def()
    res = result_def()
    predicate = prop_def(IntegerAttr)
    fastmathFlags = prop_def(FastMathAttr, default_value=FastMathAttr(None))
    traits = traits_def(Pure())


@irdl_op_definition
class GEPOp(IRDLOperation):
    """Address arithmetic with one index, which may be a vector (xDSL's op takes scalars)."""

    name = "llvm.getelementptr"
    ptr = operand_def()
    ssa_indices = var_operand_def()
    elem_type = prop_def()
    noWrapFlags = prop_def(IntegerAttr)
    rawConstantIndices = prop_def(DenseArrayBase)
    inbounds = opt_prop_def(UnitAttr)
    result = result_def()
    traits = traits_def(NoMemoryEffect())


@irdl_op_definition
class FenceOp(IRDLOperation):
    """What was written before is seen by other threads before what is written after, also writes past the caches."""

    name = "llvm.fence"


@irdl_op_definition
class CmpXchgOp(IRDLOperation):
    """Writes ``val`` if the integer at ``ptr`` is ``cmp``, in one step for all threads; gives what was there, and
    whether it was that.
    """

    name = "llvm.cmpxchg"
    ptr = operand_def()
    cmp = operand_def()
    val = operand_def()
    res = result_def()
