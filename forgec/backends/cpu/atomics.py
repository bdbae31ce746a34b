"""Changes of one element in one step for all threads."""

from __future__ import annotations

from xdsl.dialects import llvm
from xdsl.dialects.builtin import DenseArrayBase
from xdsl.ir import Attribute, SSAValue

from forgec.backends.cpu import llvm_ops
from forgec.backends.cpu.emitter import Emitter
from forgec.backends.cpu.llvm_types import i1, i8, i64, integer_like


def combine_in_memory(e: Emitter, kind: str, pointer: SSAValue, change: SSAValue) -> None:
    """Combine the scalar at an address with another: again and again, until nobody else wrote in between."""
    kind_of = change.type
    whole = i8 if kind_of == i1 else integer_like(kind_of)

    def attempt(values: list[SSAValue]) -> tuple[SSAValue, list[SSAValue]]:
        before = values[0]
        value = e.icmp("ne", before, 0) if kind_of == i1 else e.bitcast(before, kind_of)
        combined = e.combine(kind, value, change)
        after = e.zext(combined, i8) if kind_of == i1 else e.bitcast(combined, whole)
        pair = llvm_ops.CmpXchgOp.create(
            operands=(pointer, before, after), result_types=(llvm.LLVMStructType.from_type_list([whole, i1]),)
        )
        e.block.add_op(pair)
        return e.not_(_part(e, pair.res, 1, i1)), [_part(e, pair.res, 0, whole)]

    e.repeat([e.load(whole, pointer)], attempt)


def _part(e: Emitter, pair: SSAValue, position: int, kind: Attribute) -> SSAValue:
    op = llvm.ExtractValueOp(DenseArrayBase.from_list(i64, [position]), pair, kind)
    e.block.add_op(op)
    return op.res
