"""Halves of bytes: how models take two 4-bit numbers out of one byte."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.ir import SSAValue

from forgec.ir import types
from forgec.ir.ops.aten import AtenOp
from forgec.ir.ops.binary import BinaryOp, BitwiseAndOp, FloorDivOp, RemainderOp, ShiftLeftOp, ShiftRightOp
from forgec.ir.ops.quantization import BYTES
from forgec.ir.ops.unary import CastOp
from forgec.passes.patterns import made_by, number

WIDER = ("i16", "i32", "i64")


@dataclass(frozen=True)
class Nibble:
    """The lower or the upper half of each element of ``byte``, as a number from 0 to 15 or (signed) from -8 to 7."""

    byte: SSAValue
    high: bool
    signed: bool


def nibble_of(value: SSAValue) -> Nibble | None:
    """What a value is half of: ``b & 15``, ``b >> 4``, ``(b >> 4) & 15``, ``(b << 4) >> 4``, ``b % 16`` and
    ``b // 16``.
    """
    masked = _with(value, BitwiseAndOp, 15)
    if masked is not None:
        shifted = _with(masked, ShiftRightOp, 4)
        return _half(masked if shifted is None else shifted, shifted is not None, signed=False)
    shifted = _with(value, ShiftRightOp, 4)
    if shifted is not None:
        lifted = _with(_same_bits(shifted), ShiftLeftOp, 4)
        if lifted is None:
            return _half(shifted, True, signed=_is_signed(shifted))
        # 8 bits wide, so that what is shifted out of them is lost
        narrow = types.dtype(shifted) in BYTES and types.dtype(lifted) in BYTES
        return _half(lifted, False, signed=types.dtype(shifted) == "i8") if narrow else None
    for kind, high in ((RemainderOp, False), (FloorDivOp, True)):
        found = _with(value, kind, 16)
        if found is not None:
            signed = high and _is_signed(found)
            return _half(found, high, signed=signed)
    return None


def _with(value: SSAValue, kind: type[BinaryOp], operand: int) -> SSAValue | None:
    """x of ``kind(x, operand)``."""
    op = made_by(value, kind)
    if op is None:
        return None
    if op.scalar is not None:
        return op.lhs if op.scalar.value == operand else None
    assert op.rhs is not None, "an op without a number has a second operand"
    fits = number(op.rhs) == operand and types.shape(op.lhs) == types.shape(value)
    return op.lhs if fits else None


def _half(value: SSAValue, high: bool, *, signed: bool) -> Nibble | None:
    byte = _byte(value)
    return None if byte is None else Nibble(byte, high, signed)


def _byte(value: SSAValue) -> SSAValue | None:
    """The bytes that a value holds, perhaps in a wider integer."""
    cast = made_by(value, CastOp)
    if cast is not None and types.dtype(value) in WIDER and types.dtype(cast.input) in BYTES:
        value = cast.input
    return _same_bits(value) if types.dtype(value) in BYTES else None


def _is_signed(value: SSAValue) -> bool:
    """True if the upper bit of the byte counts as a sign."""
    cast = made_by(value, CastOp)
    if cast is not None and types.dtype(value) in WIDER:
        value = cast.input
    return types.dtype(value) == "i8"


def _same_bits(value: SSAValue) -> SSAValue:
    """The value before casts and views between signed and unsigned bytes."""
    while types.dtype(value) in BYTES:
        op = made_by(value, CastOp, AtenOp)
        if isinstance(op, AtenOp) and op.callee.data != "aten::view.dtype":
            break
        if op is None or types.dtype(op.operands[0]) not in BYTES:
            break
        value = op.operands[0]
    return value
