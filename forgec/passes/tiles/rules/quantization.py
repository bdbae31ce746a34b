"""Quantised numbers become floats where they are read: in registers, next to what uses them."""

from __future__ import annotations

from typing import Any

from xdsl.dialects import arith, math
from xdsl.ir import SSAValue

from forgec.ir import types
from forgec.ir.ops.quantization import WORD, DequantizeOp, held_number, numbers_in
from forgec.ir.tile.types import tile
from forgec.passes.tiles.arithmetic import binary as apply
from forgec.passes.tiles.arithmetic import cast, made, number
from forgec.passes.tiles.axes import Place
from forgec.passes.tiles.kernel_builder import KernelBuilder, Tile
from forgec.passes.tiles.rule import computes
from forgec.runtime.symbolic import Extent, floordiv


@computes(DequantizeOp)
def dequantize(k: KernelBuilder, op: Any, result: int, place: Place) -> Tile:
    """``(numbers - zeros) · scales``, each step in the dtype in which the op says it is computed."""
    if _is_exact(op):
        return _multiply_added(k, op, place)
    shape = op.unpacked_shape(op.quantized)
    compute = op.compute.data
    value = k.value(op.quantized, place) if op.packing is None else _Packed(k, op, place).number(k)
    value = cast(k, value, compute)
    is_last = op.zeros_last is not None
    if op.zeros is not None and not is_last:
        value = apply(k, "sub", value, _parameter(k, op.zeros, shape, place, compute))
    if op.scales is not None:
        product = op.product_dtype(op.quantized, op.scales, op.zeros)
        value = apply(k, "mul", cast(k, value, product), _parameter(k, op.scales, shape, place, product))
    if op.zeros is not None and is_last:
        value = apply(k, "sub", value, _parameter(k, op.zeros, shape, place, value.dtype))
    return cast(k, value, types.dtype(op.result))


def _is_exact(op: Any) -> bool:
    """True if float32 holds products of a 4-bit number, or a zero point, and a scale: then ``number · scale - zero ·
    scale`` is the same bits as what the op says, and the second product is that of a whole block. With ``zeros_last``
    the product of numbers is enough.
    """
    parameters = [op.zeros, op.scales]
    if None in parameters or op.packing is None or op.packing.data != "u4" or op.compute.data != "f32":
        return False
    scales, zeros, result = (types.dtype(value) for value in (op.scales, op.zeros, op.result))
    fits = zeros == "ui8" if op.zeros_last is None else zeros in ("f16", "bf16", "f32")
    return scales in ("f16", "bf16") and fits and result == "f32"


def _multiply_added(k: KernelBuilder, op: Any, place: Place) -> Tile:
    """Numbers above the lowest of a byte, or a word, are not shifted: 16 times as large for each 4 bits that they stand
    higher, they meet so much less of the scale.
    """
    shape, packed = op.unpacked_shape(op.quantized), _Packed(k, op, place)
    zeros, scales = (_parameter(k, value, shape, place, "f32") for value in (op.zeros, op.scales))
    offset = made(k, arith.NegfOp, zeros)
    if op.zeros_last is None:
        offset = apply(k, "mul", offset, scales)
    exponent = cast(k, k.index((127 - 4 * packed.below) * (1 << 23)), "i32")  # the bits of 1, 1/16, 1/256, …
    axes = sorted({*exponent.axes, *scales.axes}, key=lambda axis: axis.order)
    exponent = k.spread(exponent, axes)
    factor = Tile(k.add(arith.BitcastOp(exponent.value, tile("f32", exponent.shape))), exponent.axes, "f32")
    numbers = cast(k, packed.lifted(k), "f32")
    return made(k, math.FmaOp, numbers, apply(k, "mul", scales, factor), offset)


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


class _Packed:
    """The byte or word, as i32, that holds the number at a place; and where in it: ``upper`` is 0 for the lowest 4
    bits, 1 for the next.
    """

    def __init__(self, k: KernelBuilder, op: Any, place: Place) -> None:
        self.is_word = types.dtype(op.quantized) == WORD
        self.packing = op.packing.data
        if self.is_word:
            word, self.upper = k.axes.divide(place[-1], numbers_in(WORD))
            self.value = k.value(op.quantized, (*place[:-1], word))
            return
        run = op.run.data
        pair, within = k.axes.divide(place[-1], 2 * run)
        half, rest = k.axes.divide(within, run)
        byte = k.value(op.quantized, (*place[:-1], pair * run + rest))
        self.value = cast(k, Tile(byte.value, byte.axes, "ui8", byte.zero_outside), "i32")
        self.upper = half if op.high_first is None else 1 - half

    @property
    def last(self) -> Extent:
        """1 for the highest number of a word, whose uppermost bit would be a sign."""
        return floordiv(self.upper, 7) if self.is_word else 0

    @property
    def below(self) -> Extent:
        """The numbers that stand below the one at the place in ``lifted``."""
        return self.upper - 7 * self.last

    def lifted(self, k: KernelBuilder) -> Tile:
        """The number times 16 for each that stands below, as i32."""
        value = self._shifted(k, 28 * self.last) if self.is_word else self.value
        places = cast(k, k.index(4 * self.below), "i32")
        axes = sorted({*value.axes, *places.axes}, key=lambda axis: axis.order)
        mask = made(k, arith.ShLIOp, k.constant(15, "i32"), k.spread(places, axes))
        return apply(k, "and", k.spread(value, axes), mask)

    def number(self, k: KernelBuilder) -> Tile:
        """The number, as i32."""
        if self.packing == "u4":
            return apply(k, "and", self._shifted(k, 4 * self.upper), k.constant(15, "i32"))
        left = cast(k, k.index(28 - 4 * self.upper), "i32")
        return made(k, arith.ShRSIOp, made(k, arith.ShLIOp, self.value, left), k.constant(28, "i32"))

    def _shifted(self, k: KernelBuilder, by: Extent) -> Tile:
        return made(k, arith.ShRUIOp, self.value, cast(k, k.index(by), "i32"))
