"""Rows in order: a stable radix sort, least significant byte first."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.dialects.builtin import IntegerType
from xdsl.ir import SSAValue

from forgec.backends.cpu.emitter import Emitter
from forgec.backends.cpu.llvm_types import i32, i64
from forgec.backends.cpu.memory_access import Memory
from forgec.backends.cpu.tiles import Kernel
from forgec.backends.cpu.value_emitter import Operand
from forgec.ir import types
from forgec.ir.tile.memory import SortOp
from forgec.ir.tile.types import block_type

BUCKETS = 256
_INFINITY = {"f16": 0x7C00, "bf16": 0x7F80, "f32": 0x7F800000, "f64": 0x7FF0000000000000}


@dataclass(frozen=True)
class Keys:
    """A row of elements of a dtype, ``stride`` elements apart, as unsigned numbers whose order is that of the sort."""

    e: Emitter
    pointer: SSAValue
    stride: Operand
    dtype: str
    descending: bool

    @property
    def item_bytes(self) -> int:
        return types.ITEM_BYTES[self.dtype]

    def at(self, index: SSAValue) -> SSAValue:
        """The key of the element at a place (i64), as i64."""
        e, whole, top = self.e, IntegerType(8 * self.item_bytes), 1 << (8 * self.item_bytes - 1)
        bits = e.load(whole, e.element(self.pointer, e.mul(index, self.stride), whole))
        if self.dtype in _INFINITY:
            size = e.and_(bits, _signed(top - 1, top))
            bits = e.select(e.icmp("eq", size, 0), 0, bits)  # -0 equals 0
            positive, negative = e.xor(bits, _signed(top, top)), e.xor(bits, -1)
            ordered = e.select(e.icmp("slt", bits, 0), negative, positive)
            bits = e.select(e.icmp("sgt", size, _INFINITY[self.dtype]), -1, ordered)  # NaN is the greatest
        elif self.dtype not in ("i1", "ui8"):
            bits = e.xor(bits, _signed(top, top))
        if self.descending:
            bits = e.xor(bits, -1)
        return bits if whole == i64 else e.zext(bits, i64)


def _signed(number: int, top: int) -> int:
    return number - 2 * top if number >= top else number


def sort_row(k: Kernel, op: SortOp, row: Memory, target: Memory) -> None:
    """``tile.sort``. Until the end the two halves of
    that memory hold places of 32 bits: each turn goes from one to the other, by one byte of the keys. A byte that is
    the same in all keys has no turn.
    """
    e = k.e
    keys = Keys(e, row.pointer, k.ssa(row.strides[0]), types.dtype(block_type(op.block)), op.descending is not None)
    places, length, digits = target.pointer, k.ssa(row.shape[0]), keys.item_bytes
    counters = e.alloca(i32, digits * BUCKETS)

    def sort() -> list[SSAValue]:
        e.loop(0, digits * BUCKETS, 1, (), lambda at, _: _set(e, counters, at, e.const(i32, 0)))

        def count_all(at: SSAValue, _: object) -> list[SSAValue]:
            key = keys.at(at)
            for digit in range(digits):
                bucket = e.add(_byte(e, key, 8 * digit), digit * BUCKETS)
                _set(e, counters, bucket, e.add(_get(e, counters, bucket), 1))
            return _set(e, places, at, e.trunc(at, i32))

        e.loop(e.const(i64, 0), length, e.const(i64, 1), (), count_all)
        first = keys.at(e.const(i64, 0))
        total = e.trunc(length, i32)

        def turn(digit: SSAValue, carried: list[SSAValue]) -> list[SSAValue]:
            source, begin, shift = carried[0], e.mul(digit, BUCKETS), e.mul(digit, 8)
            same = e.icmp("eq", _get(e, counters, e.add(begin, _byte(e, first, shift))), total)
            return e.if_(same, lambda: [source], lambda: [_turn(keys, counters, begin, shift, places, source, length)])

        (last,) = e.loop(e.const(i64, 0), e.const(i64, digits), e.const(i64, 1), [e.const(i64, 0)], turn)
        _widen(e, places, last, length)
        return []

    e.if_(e.icmp("sgt", length, 0), sort, list)


def _turn(
    keys: Keys,
    counters: SSAValue,
    begin: SSAValue,
    shift: SSAValue,
    places: SSAValue,
    source: SSAValue,
    count: SSAValue,
) -> SSAValue:
    """Move the places from the half that begins at ``source`` to the other, whose beginning is the result."""
    e = keys.e
    target = e.sub(count, source)

    def start(at: SSAValue, carried: list[SSAValue]) -> list[SSAValue]:
        bucket = e.add(begin, at)
        here = _get(e, counters, bucket)
        _set(e, counters, bucket, carried[0])
        return [e.add(carried[0], here)]

    e.loop(0, BUCKETS, 1, [e.const(i32, 0)], start)

    def move(at: SSAValue, _: object) -> list[SSAValue]:
        place = _get(e, places, e.add(source, at))
        bucket = e.add(begin, _byte(e, keys.at(e.zext(place, i64)), shift))
        to = _get(e, counters, bucket)
        _set(e, counters, bucket, e.add(to, 1))
        return _set(e, places, e.add(target, e.zext(to, i64)), place)

    e.loop(e.const(i64, 0), count, e.const(i64, 1), (), move)
    return target


def _widen(e: Emitter, places: SSAValue, source: SSAValue, count: SSAValue) -> None:
    """Places of 32 bits in one half as i64 in both: from the second half forwards, from the first backwards, so that
    none is overwritten before it is read.
    """
    backwards = e.icmp("eq", source, 0)

    def widen(number: SSAValue, _: object) -> list[SSAValue]:
        at = e.select(backwards, e.sub(e.sub(count, number), 1), number)
        place = e.zext(_get(e, places, e.add(source, at)), i64)
        e.store(place, e.element(places, at, i64))
        return []

    e.loop(e.const(i64, 0), count, e.const(i64, 1), (), widen)


def _byte(e: Emitter, key: SSAValue, shift: Operand) -> SSAValue:
    return e.and_(e.lshr(key, shift), BUCKETS - 1)


def _get(e: Emitter, pointer: SSAValue, at: SSAValue) -> SSAValue:
    return e.load(i32, e.element(pointer, at, i32))


def _set(e: Emitter, pointer: SSAValue, at: SSAValue, value: SSAValue) -> list[SSAValue]:
    e.store(value, e.element(pointer, at, i32))
    return []
