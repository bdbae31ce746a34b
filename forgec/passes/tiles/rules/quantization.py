"""Quantised numbers become floats where they are read: in registers, next to what uses them."""

from __future__ import annotations

from typing import Any

from xdsl.dialects import arith, math
from xdsl.ir import SSAValue

from forgec.ir import types
from forgec.ir.ops.quantization import BYTES, DequantizeOp, held_number
from forgec.passes.tiles.arithmetic import binary as apply
from forgec.passes.tiles.arithmetic import cast, made, number
from forgec.passes.tiles.axes import Place
from forgec.passes.tiles.kernel_builder import KernelBuilder, Tile
from forgec.passes.tiles.rule import computes
from forgec.runtime.symbolic import Extent

SIGNIFICANT_BITS = {"bf16": 8, "f16": 11}


@computes(DequantizeOp)
def dequantize(k: KernelBuilder, op: Any, result: int, place: Place) -> Tile:
    """``(numbers - zeros) · scales``, each step in the dtype in which the op says it is computed."""
    shape = op.unpacked_shape(op.quantized)
    compute = op.compute.data
    value = cast(k, _halves(k, op, place) if op.packing is not None else k.value(op.quantized, place), compute)
    if _is_exact(op):
        return _multiply_added(k, op, value, place)
    if op.zeros is not None:
        value = apply(k, "sub", value, _parameter(k, op.zeros, shape, place, compute))
    if op.scales is not None:
        product = op.product_dtype(op.quantized, op.scales, op.zeros)
        value = apply(k, "mul", cast(k, value, product), _parameter(k, op.scales, shape, place, product))
    return cast(k, value, types.dtype(op.result))


def _is_exact(op: Any) -> bool:
    """True if float32 holds products of a number, or a zero point, and a scale: then ``number · scale - zero · scale``
    is the same bits as what the op says, and the second product is that of a whole block.
    """
    if op.zeros is None or op.scales is None or op.compute.data != "f32" or types.dtype(op.result) != "f32":
        return False
    bits = SIGNIFICANT_BITS.get(types.dtype(op.scales))
    numbers = 4 if op.packing is not None else 8
    return (
        bits is not None
        and types.dtype(op.quantized) in BYTES
        and types.dtype(op.zeros) in BYTES
        and (bits + 1 + numbers <= 24 and bits + 8 <= 24)
    )


def _multiply_added(k: KernelBuilder, op: Any, numbers: Tile, place: Place) -> Tile:
    shape = op.unpacked_shape(op.quantized)
    zeros, scales = (_parameter(k, value, shape, place, "f32") for value in (op.zeros, op.scales))
    offset = apply(k, "mul", made(k, arith.NegfOp, zeros), scales)
    return made(k, math.FmaOp, numbers, scales, offset)


def _parameter(k: KernelBuilder, value: SSAValue, shape: tuple[Extent, ...], place: Place, dtype: str) -> Tile:
    """Scales or zero points of the block that a place belongs to."""
    held = held_number(value)
    if held is not None:
        return number(k, held, dtype)
    at: list[Extent] = []
    for where, extent, blocks in zip(place, shape, types.shape(value), strict=False):
        if blocks == 1:
            at.append(0)
        else:
            at.append(where if blocks == extent else k.axes.divide(where, extent // blocks)[0])
    return cast(k, k.value(value, tuple(at)), dtype)


def _halves(k: KernelBuilder, op: Any, place: Place) -> Tile:
    """The 4-bit number at a place, as i32: its byte, shifted by where in the byte it is."""
    run = op.run.data
    pair, within = k.axes.divide(place[-1], 2 * run)
    half, rest = k.axes.divide(within, run)
    byte = k.value(op.quantized, (*place[:-1], pair * run + rest))
    wide = cast(k, Tile(byte.value, byte.axes, "ui8", byte.zero_outside), "i32")
    upper = 1 - half if op.high_first is not None else half
    if op.packing.data == "u4":
        shift = cast(k, k.index(4 * upper), "i32")
        return apply(k, "and", made(k, arith.ShRUIOp, wide, shift), k.constant(15, "i32"))
    left = cast(k, k.index(28 - 4 * upper), "i32")
    return made(k, arith.ShRSIOp, made(k, arith.ShLIOp, wide, left), k.constant(28, "i32"))
