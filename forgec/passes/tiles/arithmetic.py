"""Arithmetic on tiles with the meaning that forge's dtypes have: halves compute in float32, unsigned bytes are
unsigned.
"""

from __future__ import annotations

from math import isfinite
from typing import Any

from xdsl.dialects import arith
from xdsl.dialects.builtin import IndexType
from xdsl.ir import Operation

from forgec.ir import types
from forgec.ir.tile import elementwise
from forgec.ir.tile.types import tile
from forgec.passes.tiles.kernel_builder import KernelBuilder, NotLowered, Tile

INTEGERS = ("i64", "i32", "i16", "i8", "ui8")
_WIDTH = {"i64": 64, "i32": 32, "i16": 16, "i8": 8, "ui8": 8, "i1": 1}


def work_dtype(dtype: str) -> str:
    """The dtype in which numbers of a dtype are computed with: float32 for narrower floats, else itself."""
    return "f32" if dtype in types.FLOATS and dtype != "f64" else dtype


def made(k: KernelBuilder, cls: type[Operation], *given: Tile, dtype: str | None = None, **extra: Any) -> Tile:
    """An op of ``arith`` or ``math`` on tiles, aligned first; its result has the dtype of the last operand unless
    said.
    """
    tiles = k.aligned(*given)
    op = cls(*(each.value for each in tiles), **extra)
    return Tile(k.add(op), tiles[0].axes, dtype or tiles[-1].dtype)


def cast(k: KernelBuilder, given: Tile, dtype: str) -> Tile:
    """The numbers in another dtype, as ``forge.cast`` says; ``index`` is a dtype too."""
    source = given.dtype
    if source == dtype:
        return given
    kind = tile(dtype, given.shape)

    def op(cls: type[Operation], value: Tile = given) -> Tile:
        return Tile(k.add(cls(value.value, kind)), given.axes, dtype, given.zero_outside)  # type: ignore[call-arg]

    if "index" in (source, dtype):
        if source == "i1":
            return cast(k, cast(k, given, "i64"), "index")
        if source in types.FLOATS or dtype in types.FLOATS:
            return cast(k, cast(k, given, "i64"), dtype)
        if "ui8" in (source, dtype):
            return cast(k, cast(k, given, "i64"), dtype)
        return op(elementwise.IndexCastOp)
    if dtype == "i1":
        zero = k.constant(0, source)
        if source in types.FLOATS:
            return _compared(k, elementwise.CmpfOp, "une", given, zero)
        return _compared(k, elementwise.CmpiOp, "ne", given, zero)
    if source in types.FLOATS and dtype in types.FLOATS:
        narrow, wide = types.ITEM_BYTES[source], types.ITEM_BYTES[dtype]
        if narrow == wide or (narrow == 1 and wide == 2):  # float16 and bfloat16: through float32, which holds both
            return cast(k, cast(k, given, "f32"), dtype)
        if source == "f64" and wide <= 2:  # torch rounds twice as well
            return cast(k, cast(k, given, "f32"), dtype)
        return op(arith.ExtFOp if narrow < wide else arith.TruncFOp)
    if source in types.FLOATS:
        wide = cast(k, given, work_dtype(source))
        if dtype in ("i64", "i32"):
            return op(elementwise.FPToSIOp, wide)
        whole = Tile(k.add(elementwise.FPToSIOp(wide.value, tile("i64", given.shape))), given.axes, "i64")  # type: ignore[arg-type]
        return cast(k, whole, dtype)  # modulo 2^8 and 2^16, as torch's conversion does
    if dtype in types.FLOATS:
        if dtype not in ("f32", "f64"):
            return cast(k, cast(k, given, "f32"), dtype)
        return op(elementwise.UIToFPOp if source in ("ui8", "i1") else elementwise.SIToFPOp)
    if _WIDTH[source] == _WIDTH[dtype]:
        return Tile(given.value, given.axes, dtype, given.zero_outside)
    if _WIDTH[source] < _WIDTH[dtype]:
        return op(elementwise.ExtUIOp if source in ("ui8", "i1") else elementwise.ExtSIOp)
    return op(elementwise.TruncIOp)


def _compared(k: KernelBuilder, cls: Any, predicate: str, left: Tile, right: Tile) -> Tile:
    left, right = k.aligned(left, right)
    return Tile(k.add(cls(left.value, right.value, predicate)), left.axes, "i1")


_FLOAT_PREDICATES = {"eq": "oeq", "ne": "une", "lt": "olt", "le": "ole", "gt": "ogt", "ge": "oge"}


def compare(k: KernelBuilder, predicate: str, left: Tile, right: Tile) -> Tile:
    """``eq``, ``ne``, ``lt``, ``le``, ``gt`` or ``ge`` of two tiles of one dtype; false where one is NaN, but for
    ``ne``.
    """
    dtype = left.dtype
    if dtype in types.FLOATS:
        wide = work_dtype(dtype)
        return _compared(k, elementwise.CmpfOp, _FLOAT_PREDICATES[predicate], cast(k, left, wide), cast(k, right, wide))
    if predicate not in ("eq", "ne"):
        predicate = ("u" if dtype in ("ui8", "i1") else "s") + predicate
    return _compared(k, elementwise.CmpiOp, predicate, left, right)


def select(k: KernelBuilder, condition: Tile, then: Tile, otherwise: Tile) -> Tile:
    """``then`` where the condition holds, else ``otherwise``."""
    condition, then, otherwise = k.aligned(condition, then, otherwise)
    return Tile(k.add(elementwise.SelectOp(condition.value, then.value, otherwise.value)), then.axes, then.dtype)


_FLOAT = {
    "add": arith.AddfOp, "sub": arith.SubfOp, "mul": arith.MulfOp, "div": arith.DivfOp,
    "max": arith.MaximumfOp, "min": arith.MinimumfOp,
}  # fmt: skip
_INTEGER = {
    "add": arith.AddiOp, "sub": arith.SubiOp, "mul": arith.MuliOp, "and": arith.AndIOp, "or": arith.OrIOp,
    "xor": arith.XOrIOp,
}  # fmt: skip


def binary(k: KernelBuilder, name: str, left: Tile, right: Tile) -> Tile:
    """``add``, ``sub``, ``mul``, ``div`` (floats), ``max``, ``min`` (NaN wins), ``and``, ``or``, ``xor`` of two tiles
    of one dtype,
    rounded to it. Booleans: ``add`` and ``max`` are or, ``mul`` and ``min`` are and.
    """
    dtype = left.dtype
    if dtype in types.FLOATS:
        wide = work_dtype(dtype)
        return cast(k, made(k, _FLOAT[name], cast(k, left, wide), cast(k, right, wide)), dtype)
    if dtype == "i1":
        name = {"add": "or", "max": "or", "mul": "and", "min": "and"}.get(name, name)
    if name in ("max", "min"):
        unsigned = {"max": arith.MaxUIOp, "min": arith.MinUIOp}
        signed = {"max": arith.MaxSIOp, "min": arith.MinSIOp}
        return made(k, (unsigned if dtype == "ui8" else signed)[name], left, right)
    return made(k, _INTEGER[name], left, right)


def unary(k: KernelBuilder, cls: type[Operation], given: Tile) -> Tile:
    """A function of ``math`` (or ``arith.negf``) of floats, rounded to their dtype."""
    wide = cast(k, given, work_dtype(given.dtype))
    return cast(k, made(k, cls, wide), given.dtype)


def number(k: KernelBuilder, value: bool | int | float, dtype: str) -> Tile:
    """A Python number in a dtype, as torch converts it."""
    if dtype in types.FLOATS:
        return cast(k, k.constant(float(value), work_dtype(dtype)), dtype)
    if dtype == "i1":
        return k.constant(bool(value), dtype)
    if not isfinite(value):
        raise NotLowered(f"{value} is no number of {dtype}")
    width = _WIDTH[dtype]
    wrapped = (int(value) + (1 << (width - 1))) % (1 << width) - (1 << (width - 1))
    return k.constant(wrapped, dtype)


def is_index(given: Tile) -> bool:
    """True for a tile of places."""
    return isinstance(given.value.type, IndexType) or given.dtype == "index"
