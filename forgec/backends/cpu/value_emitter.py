"""Emission of values: constants, arithmetic, comparisons, casts and lanes of vectors.

``Emitter`` adds memory, reductions and control flow. Ops are made with ``create``, which is three times as fast as
their constructors.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any, TypeVar

from xdsl.dialects import llvm
from xdsl.dialects.builtin import (
    UNKNOWN_LOC,
    DenseArrayBase,
    FloatAttr,
    IntegerAttr,
    IntegerType,
    StringAttr,
)
from xdsl.ir import Attribute, Block, Operation, SSAValue

from forgec.backends.cpu import llvm_ops
from forgec.backends.cpu.constants import constant_attribute, wrapped
from forgec.backends.cpu.llvm_types import (
    HALVES,
    bf16,
    bits,
    element_type,
    f16,
    f32,
    f64,
    i1,
    i16,
    i32,
    i64,
    integer_like,
    is_float,
    lanes,
    mangled,
    vector,
    with_element,
)

T = TypeVar("T")
Operand = SSAValue | int | float
"""What arithmetic takes: a number stands for a constant of the other operand's type."""

_NUMBERS = (int, float)
_NO_OVERFLOW_FLAGS = IntegerAttr(0, 32)
_NSW = IntegerAttr(1, 32)
_NO_FLAGS = llvm.FastMathAttr(None)
_ICMP = {flag.value: IntegerAttr(flag.to_int(), i64) for flag in llvm.ICmpPredicateFlag}
_FCMP = {flag.value: IntegerAttr(flag.to_int(), i64) for flag in llvm.FCmpPredicateFlag}
_NO_BUNDLES = DenseArrayBase.from_list(i32, ())
_SEGMENTS: dict[int, DenseArrayBase] = {n: DenseArrayBase.from_list(i32, (n, 0)) for n in range(8)}


class ValueEmitter:
    """Appends ops to the end of ``block``, a block of ``func``.

    Float arithmetic carries ``fastmath``: no flags unless the caller sets them, for example to
    ``llvm.FastMathAttr((FastMathFlag.ALLOW_CONTRACT,))``. Constants stand once, at the front of the entry block.
    Arithmetic on float16 and bfloat16 is computed in float32 and rounded, which gives the correctly rounded result of
    one operation (24 ≥ 2 · 11 + 2 bits; S. Figueroa, "When is double rounding innocuous?", SIGNUM Newsletter 30,
    1995).
    """

    def __init__(self, func: llvm.FuncOp, block: Block | None = None) -> None:
        self.func = func
        self.entry = func.body.blocks[0]
        self.block = self.entry if block is None else block
        self.fastmath = _NO_FLAGS
        self.register_bytes = 0
        """The size of the target's vector registers, for who asks; 0: not known."""
        self.features: frozenset[str] = frozenset()
        """What the target has beyond its level, by LLVM's names."""
        self._constants: dict[tuple[int, bytes], tuple[SSAValue, Attribute]] = {}
        self._integers: dict[tuple[int, int | float], tuple[SSAValue, Attribute]] = {}
        self._last_constant: Operation | None = None
        self._remembered: dict[Hashable, tuple[Block, Any]] = {}

    # -- insertion --

    def _emit(
        self,
        op_type: type[Operation],
        operands: Sequence[SSAValue],
        result: Attribute,
        properties: Mapping[str, Attribute] = MappingProxyType({}),
    ) -> SSAValue:
        op = op_type.create(operands=operands, result_types=(result,), properties=properties, location=UNKNOWN_LOC)
        self.block.add_op(op)
        return op.results[0]

    def _insert_in_entry(self, op: Operation) -> SSAValue:
        if self._last_constant is not None:
            self.entry.insert_op_after(op, self._last_constant)
        elif (first := self.entry.first_op) is not None:
            self.entry.insert_op_before(op, first)
        else:
            self.entry.add_op(op)
        self._last_constant = op
        return op.results[0]

    def remember(self, key: Hashable, compute: Callable[[], T]) -> T:
        """What ``compute`` emits, or what it did before for an equal key, if no other block was begun since."""
        found = self._remembered.get(key)
        if found is None or found[0] is not self.block:
            result = compute()
            found = self._remembered[key] = (self.block, result)
        return found[1]

    # -- constants --

    def const(self, type: Attribute, value: int | float | bool) -> SSAValue:
        """The number as a value of ``type``, in each lane of a vector. Integers wrap; floats round to the nearest."""
        if value.__class__ is not int:  # 0.0 and -0.0 are equal
            return self._constant(type, (value,))
        key = (id(type), value)
        if (known := self._integers.get(key)) is None:
            known = self._integers[key] = (self._constant(type, (value,)), type)
        return known[0]

    def const_vector(self, element: Attribute, values: Sequence[int | float]) -> SSAValue:
        """The vector of these lanes."""
        return self._constant(vector(element, len(values)), tuple(values))

    def iota(self, element: Attribute, count: int, start: int = 0) -> SSAValue:
        """The vector ``[start, start + 1, …]``."""
        return self.const_vector(element, range(start, start + count))

    def zero(self, type: Attribute) -> SSAValue:
        """Zero in each lane; the null pointer."""
        if isinstance(type, llvm.LLVMPointerType):
            return self._emit(llvm.ZeroOp, (), type)
        return self._constant(type, (0,))

    def poison(self, type: Attribute) -> SSAValue:
        key = (id(type), b"poison")
        if (known := self._constants.get(key)) is None:
            value = self._insert_in_entry(llvm_ops.PoisonOp.create(result_types=(type,)))
            self._constants[key] = known = (value, type)
        return known[0]

    def _constant(self, type: Attribute, values: tuple[int | float, ...]) -> SSAValue:
        element = element_type(type)
        if is_float(element):
            packed = struct.pack(f"{len(values)}d", *values)
        else:
            width = bits(element)
            # An attribute may hold the signed or the unsigned number of the same bits; one form makes equal ones equal.
            packed = struct.pack(f"{len(values)}q", *(wrapped(int(v), width) for v in values))
        key = (id(type), packed)
        if (known := self._constants.get(key)) is None:
            properties = {"value": constant_attribute(type, packed)}
            op = llvm.ConstantOp.create(result_types=(type,), properties=properties)
            self._constants[key] = known = (
                self._insert_in_entry(op),
                type,
            )  # the type is kept, so that its id stays its own
        return known[0]

    def _pair(self, a: Operand, b: Operand) -> tuple[SSAValue, SSAValue]:
        # Not isinstance(a, SSAValue): that is an abstract class, of which to ask takes ten times as long.
        if isinstance(a, _NUMBERS):
            if isinstance(b, _NUMBERS):
                raise TypeError("one of the operands must be a value")
            return self.const(b.type, a), b
        return a, self.const(a.type, b) if isinstance(b, _NUMBERS) else b

    # -- integers --

    def _int(self, op_type: type[Operation], a: Operand, b: Operand, **properties: Attribute) -> SSAValue:
        left, right = self._pair(a, b)
        return self._emit(op_type, (left, right), left.type, dict(properties))

    def add(self, a: Operand, b: Operand, *, nsw: bool = False) -> SSAValue:
        return self._int(llvm.AddOp, a, b, overflowFlags=_NSW if nsw else _NO_OVERFLOW_FLAGS)

    def sub(self, a: Operand, b: Operand, *, nsw: bool = False) -> SSAValue:
        return self._int(llvm.SubOp, a, b, overflowFlags=_NSW if nsw else _NO_OVERFLOW_FLAGS)

    def mul(self, a: Operand, b: Operand, *, nsw: bool = False) -> SSAValue:
        return self._int(llvm.MulOp, a, b, overflowFlags=_NSW if nsw else _NO_OVERFLOW_FLAGS)

    def sdiv(self, a: Operand, b: Operand) -> SSAValue:
        """Rounds to zero. The divisor must not be 0, and not -1 if the dividend may be the least number."""
        return self._int(llvm.SDivOp, a, b)

    def udiv(self, a: Operand, b: Operand) -> SSAValue:
        return self._int(llvm.UDivOp, a, b)

    def srem(self, a: Operand, b: Operand) -> SSAValue:
        """Has the dividend's sign. Undefined where ``sdiv`` is."""
        return self._int(llvm.SRemOp, a, b)

    def urem(self, a: Operand, b: Operand) -> SSAValue:
        return self._int(llvm.URemOp, a, b)

    def and_(self, a: Operand, b: Operand) -> SSAValue:
        return self._int(llvm.AndOp, a, b)

    def or_(self, a: Operand, b: Operand) -> SSAValue:
        return self._int(llvm.OrOp, a, b)

    def xor(self, a: Operand, b: Operand) -> SSAValue:
        return self._int(llvm.XOrOp, a, b)

    def not_(self, a: SSAValue) -> SSAValue:
        return self._int(llvm.XOrOp, a, -1)

    def shl(self, a: Operand, b: Operand) -> SSAValue:
        """The amount must be less than the width."""
        return self._int(llvm.ShlOp, a, b, overflowFlags=_NO_OVERFLOW_FLAGS)

    def lshr(self, a: Operand, b: Operand) -> SSAValue:
        return self._int(llvm.LShrOp, a, b)

    def ashr(self, a: Operand, b: Operand) -> SSAValue:
        return self._int(llvm.AShrOp, a, b)

    def smin(self, a: Operand, b: Operand) -> SSAValue:
        return self.intrinsic("llvm.smin", self._pair(a, b))

    def smax(self, a: Operand, b: Operand) -> SSAValue:
        return self.intrinsic("llvm.smax", self._pair(a, b))

    def umin(self, a: Operand, b: Operand) -> SSAValue:
        return self.intrinsic("llvm.umin", self._pair(a, b))

    def umax(self, a: Operand, b: Operand) -> SSAValue:
        return self.intrinsic("llvm.umax", self._pair(a, b))

    def iabs(self, a: SSAValue) -> SSAValue:
        """|a|; the least number stays itself."""
        return self.intrinsic("llvm.abs", (a, self.const(i1, 0)))

    # -- floats --

    def _float(self, op_type: type[Operation], a: Operand, b: Operand) -> SSAValue:
        left, right = self._pair(a, b)
        if isinstance(element_type(left.type), HALVES):
            return self.narrow(self._float(op_type, self.widen(left), self.widen(right)), left.type)
        return self._emit(op_type, (left, right), left.type, {"fastmathFlags": self.fastmath})

    def fadd(self, a: Operand, b: Operand) -> SSAValue:
        return self._float(llvm.FAddOp, a, b)

    def fsub(self, a: Operand, b: Operand) -> SSAValue:
        return self._float(llvm.FSubOp, a, b)

    def fmul(self, a: Operand, b: Operand) -> SSAValue:
        return self._float(llvm.FMulOp, a, b)

    def fdiv(self, a: Operand, b: Operand) -> SSAValue:
        return self._float(llvm.FDivOp, a, b)

    def fneg(self, a: SSAValue) -> SSAValue:
        """Flips the sign bit, also of NaN and zero."""
        if isinstance(element_type(a.type), HALVES):
            whole = self.bitcast(a, integer_like(a.type))
            return self.bitcast(self.xor(whole, 0x8000), a.type)
        return self._emit(llvm.FNegOp, (a,), a.type, {"fastmathFlags": _NO_FLAGS})

    def fabs(self, a: SSAValue) -> SSAValue:
        if isinstance(element_type(a.type), HALVES):
            whole = self.bitcast(a, integer_like(a.type))
            return self.bitcast(self.and_(whole, 0x7FFF), a.type)
        return self.intrinsic("llvm.fabs", (a,))

    def fma(self, a: Operand, b: Operand, c: Operand) -> SSAValue:
        """a · b + c with one rounding, float32 or float64."""
        like = next(v.type for v in (a, b, c) if isinstance(v, SSAValue))
        values = tuple(v if isinstance(v, SSAValue) else self.const(like, v) for v in (a, b, c))
        if isinstance(element_type(like), HALVES):
            raise TypeError(f"fma of {like}: float32 does not round it as one operation does")
        return self._emit(llvm.FMAOp, values, like, {"fastmathFlags": _NO_FLAGS})

    def sqrt(self, a: SSAValue) -> SSAValue:
        """Correctly rounded."""
        if isinstance(element_type(a.type), HALVES):
            return self.narrow(self.sqrt(self.widen(a)), a.type)
        return self.intrinsic("llvm.sqrt", (a,))

    def copysign(self, magnitude: Operand, sign: SSAValue) -> SSAValue:
        return self.intrinsic("llvm.copysign", self._pair(magnitude, sign))

    def fmin(self, a: Operand, b: Operand) -> SSAValue:
        """The lesser, NaN if one is NaN (as torch.minimum); of zeros of both signs either."""
        left, right = self._pair(a, b)
        lesser = self.select(self.fcmp("olt", left, right), left, right)
        return self.select(self.fcmp("uno", left, left), left, lesser)

    def fmax(self, a: Operand, b: Operand) -> SSAValue:
        """The greater, NaN if one is NaN (as torch.maximum); of zeros of both signs either."""
        left, right = self._pair(a, b)
        greater = self.select(self.fcmp("ogt", left, right), left, right)
        return self.select(self.fcmp("uno", left, left), left, greater)

    # -- comparisons --

    def icmp(self, predicate: str, a: Operand, b: Operand) -> SSAValue:
        """``eq ne slt sle sgt sge ult ule ugt uge`` of integers."""
        left, right = self._pair(a, b)
        result = with_element(left.type, i1)
        return self._emit(llvm.ICmpOp, (left, right), result, {"predicate": _ICMP[predicate]})

    def fcmp(self, predicate: str, a: Operand, b: Operand) -> SSAValue:
        """``oeq ogt oge olt ole one ord`` are false of NaN, ``ueq ugt uge ult ule une uno`` are true of it."""
        left, right = self._pair(a, b)
        if isinstance(element_type(left.type), HALVES):
            left, right = self.widen(left), self.widen(right)
        result = with_element(left.type, i1)
        properties: dict[str, Attribute] = {"predicate": _FCMP[predicate], "fastmathFlags": _NO_FLAGS}
        return self._emit(llvm_ops.FCmpOp, (left, right), result, properties)

    def select(self, condition: SSAValue, a: Operand, b: Operand) -> SSAValue:
        """``a`` where the condition holds (one i1, or one for each lane), else ``b``."""
        left, right = self._pair(a, b)
        return self._emit(llvm_ops.SelectOp, (condition, left, right), left.type, {"fastmathFlags": _NO_FLAGS})

    # -- casts --

    def _cast(self, op_type: type[Operation], a: SSAValue, element: Attribute) -> SSAValue:
        return self._emit(op_type, (a,), with_element(a.type, element), {})

    def trunc(self, a: SSAValue, element: Attribute) -> SSAValue:
        return self._cast(llvm.TruncOp, a, element)

    def zext(self, a: SSAValue, element: Attribute) -> SSAValue:
        return self._cast(llvm.ZExtOp, a, element)

    def sext(self, a: SSAValue, element: Attribute) -> SSAValue:
        return self._cast(llvm.SExtOp, a, element)

    def bitcast(self, a: SSAValue, type: Attribute) -> SSAValue:
        """The same bits as another type: of the same width in all, or an address as a number and back."""
        if a.type == type:
            return a
        if isinstance(element_type(a.type), llvm.LLVMPointerType):
            return self._emit(llvm.PtrToIntOp, (a,), type)
        if isinstance(element_type(type), llvm.LLVMPointerType):
            return self._emit(llvm.IntToPtrOp, (a,), type)
        return self._emit(llvm.BitcastOp, (a,), type)

    def widen(self, a: SSAValue) -> SSAValue:
        """float16 or bfloat16 to float32, exact."""
        if element_type(a.type) == bf16:
            whole = self.zext(self.bitcast(a, with_element(a.type, i16)), i32)
            return self.bitcast(self.shl(whole, 16), with_element(a.type, f32))
        return self._cast(llvm.FPExtOp, a, f32)

    def narrow(self, a: SSAValue, type: Attribute) -> SSAValue:
        """float32 to float16 or bfloat16, to the nearest, ties to even."""
        if element_type(type) == f16:
            return self._cast(llvm.FPTruncOp, a, f16)
        whole = self.bitcast(a, with_element(a.type, i32))
        count = lanes(a.type)
        if count is not None and self.register_bytes == 64:  # AVX-512 adds under a mask
            odd = self.icmp("ne", self.and_(whole, 0x10000), 0)
            rounded = self.add(whole, self.select(odd, self.const(whole.type, 0x8000), 0x7FFF))
        else:
            rounded = self.add(self.add(whole, 0x7FFF), self.and_(self.lshr(whole, 16), 1))
        # Of a NaN only the quiet bit is set: the carry could make it an infinity or a zero.
        kept = self.select(self.fcmp("uno", a, a), self.or_(whole, 0x400000), rounded)
        if count is not None and 4 * count > self.register_bytes == 64:  # one permutation takes of two vectors
            shorts = self.bitcast(kept, vector(i16, 2 * count))
            return self.bitcast(self.shuffle(shorts, range(1, 2 * count, 2)), with_element(a.type, bf16))
        return self.bitcast(self.trunc(self.lshr(kept, 16), i16), with_element(a.type, bf16))

    def fptosi_sat(self, a: SSAValue, element: IntegerType) -> SSAValue:
        """Float to signed integer, rounded to zero; out of range gives the nearest integer of the type, NaN 0."""
        return self._saturate("llvm.fptosi.sat", a, element)

    def fptoui_sat(self, a: SSAValue, element: IntegerType) -> SSAValue:
        """Float to unsigned integer, rounded to zero; out of range gives the nearest integer of the type, NaN 0."""
        return self._saturate("llvm.fptoui.sat", a, element)

    def _saturate(self, name: str, a: SSAValue, element: IntegerType) -> SSAValue:
        if isinstance(element_type(a.type), HALVES):
            a = self.widen(a)
        result = with_element(a.type, element)
        return self.intrinsic(name, (a,), result, overloaded=(result, a.type))

    def convert(self, a: SSAValue, element: Attribute, *, signed: bool = True) -> SSAValue:
        """``a`` as values of ``element``, as ``Tensor.to`` converts.

        ``signed`` says how integers on either side are read (i1 is unsigned). To i1 anything but zero is true. Float
        to integers of 8 and 16 bits goes through a wider integer and wraps, as ATen's casts do; to 32 and 64 bits it
        saturates, with NaN as 0, where C++ leaves the result undefined. float64 is rounded to float32 first on the
        way to float16 and bfloat16, as c10::Half and c10::BFloat16 do.
        """
        source = element_type(a.type)
        if source == element:
            return a
        if element == i1:
            return self.fcmp("une", a, 0.0) if is_float(source) else self.icmp("ne", a, 0)
        if is_float(source):
            if isinstance(source, HALVES):
                return self.convert(self.widen(a), element, signed=signed)
            if is_float(element):
                if isinstance(element, HALVES):
                    return self.narrow(self._cast(llvm.FPTruncOp, a, f32) if source == f64 else a, element)
                return self._cast(llvm.FPTruncOp if element == f32 else llvm.FPExtOp, a, element)
            assert isinstance(element, IntegerType)
            if bits(element) < 32:
                return self.trunc(self.fptosi_sat(a, i32 if signed else i64), element)
            return self.fptosi_sat(a, element) if signed else self.fptoui_sat(a, element)
        signed = signed and source != i1
        if is_float(element):
            if isinstance(element, HALVES):
                return self.narrow(self.convert(a, f32, signed=signed), element)
            return self._cast(llvm.SIToFPOp if signed else llvm_ops.UIToFPOp, a, element)
        if bits(element) < bits(source):
            return self.trunc(a, element)
        return self.sext(a, element) if signed else self.zext(a, element)

    # -- lanes --

    def shuffle(self, a: SSAValue, mask: Sequence[int], b: SSAValue | None = None) -> SSAValue:
        """The lanes of ``a`` and, counted on, of ``b`` that ``mask`` names; -1 is any value."""
        result = vector(element_type(a.type), len(mask))
        other = self.poison(a.type) if b is None else b
        return self._emit(llvm.ShuffleVectorOp, (a, other), result, {"mask": _lanes(tuple(mask))})

    def splat(self, a: SSAValue, count: int) -> SSAValue:
        """The scalar in each of ``count`` lanes."""
        if isinstance(a.owner, llvm.ConstantOp):
            attribute = a.owner.value
            if isinstance(attribute, FloatAttr | IntegerAttr):
                return self.const(vector(a.type, count), attribute.value.data)
        first = self.insert(self.poison(vector(a.type, count)), a, 0)
        return self.shuffle(first, (0,) * count)

    def extract(self, a: SSAValue, lane: Operand) -> SSAValue:
        position = lane if isinstance(lane, SSAValue) else self.const(i64, lane)
        return self._emit(llvm_ops.ExtractElementOp, (a, position), element_type(a.type))

    def insert(self, a: SSAValue, value: SSAValue, lane: Operand) -> SSAValue:
        position = lane if isinstance(lane, SSAValue) else self.const(i64, lane)
        return self._emit(llvm.InsertElementOp, (a, value, position), a.type)

    def slice(self, a: SSAValue, start: int, count: int) -> SSAValue:
        """The lanes ``start … start + count - 1``."""
        return self.shuffle(a, range(start, start + count))

    def concat(self, a: SSAValue, b: SSAValue) -> SSAValue:
        """The lanes of ``a``, then those of ``b``, as many; of two numbers a vector of two lanes."""
        count = lanes(a.type)
        if count is None:
            return self.insert(self.splat(a, 2), b, 1)
        return self.shuffle(a, range(2 * count), b)

    # -- intrinsics --

    def intrinsic(
        self,
        name: str,
        operands: Sequence[SSAValue],
        result: Attribute | None = None,
        *,
        overloaded: Sequence[Attribute] | None = None,
    ) -> SSAValue:
        """Call LLVM's intrinsic ``name``, whose full name has the ``overloaded`` types as suffixes.

        The result's type is that of the first operand unless given; it alone is overloaded unless said otherwise.
        """
        result = operands[0].type if result is None else result
        op = self._intrinsic(name, operands, (result,), (result,) if overloaded is None else overloaded)
        return op.results[0]

    def _intrinsic(
        self, name: str, operands: Sequence[SSAValue], results: Sequence[Attribute], overloaded: Sequence[Attribute]
    ) -> Operation:
        properties: dict[str, Attribute] = {
            "intrin": StringAttr(".".join((name, *map(mangled, overloaded)))),
            "fastmathFlags": _NO_FLAGS,
            "op_bundle_sizes": _NO_BUNDLES,
            "operandSegmentSizes": _SEGMENTS[len(operands)],
        }
        op = llvm.CallIntrinsicOp.create(operands=operands, result_types=results, properties=properties)
        self.block.add_op(op)
        return op


@lru_cache(maxsize=1024)
def _lanes(mask: tuple[int, ...]) -> DenseArrayBase:
    return DenseArrayBase.from_list(i32, mask)
