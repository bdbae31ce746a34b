"""How a weight [N, K] is rounded: to bfloat16, to 8 bits for each row, to 4 bits for each group along a row.

- ``bf16``: to nearest, ties to even. Infinities and NaN stay.
- ``int8``: numbers from -127 to 127, one scale in float32 for each row, the row's largest magnitude divided by 127.
- ``int4``: numbers from 0 to 15, eight to the word of 32 bits (two to the byte where 8 does not divide K), and for each
  group of 32 numbers along K a scale in bfloat16 and a zero point from 0 to 15, so that 0 is among the 16 values and
  the group's least and greatest number are the ends. Where 32 does not divide K, groups are its largest divisor below;
  a weight whose K is odd, or has no divisor from 8 to 32, is stored as ``int8``. (Without zero points, scales of either
  sign in float16 or bfloat16, errors of SmolLM2's weights are 5 to 23 % greater, and embeddings would have to stay at 8
  bits.)

Numbers are rounded to nearest, ties to even, so what a weight becomes is within half a scale of it; for ``int4`` the
rounding of the scale (2⁻⁹ of it) may cost the ends of a group 15 · 2⁻⁹ of a scale more. A row (a group) of zeros stays
zeros. One that holds NaN or an infinity is all NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from xdsl.dialects.builtin import IntAttr, StringAttr, UnitAttr
from xdsl.ir import Attribute, SSAValue

from forgec.ir import types
from forgec.ir.attributes import IntsAttr, ScalarAttr
from forgec.ir.ops.binary import AddOp, BitwiseOrOp, MulOp, ShiftLeftOp, SubOp
from forgec.ir.ops.decomposition import Emitter
from forgec.ir.ops.quantization import WORD, QuantizeOp, numbers_in
from forgec.ir.ops.reduction import AmaxOp, AminOp
from forgec.ir.ops.unary import AbsOp, ClampOp, NegOp

GROUP = 32
"""Numbers that share a scale in ``int4``."""
LEAST_GROUP = 8
"""With fewer, scales would take as much memory as 8-bit numbers."""
LEAST_SCALE = 2.0**-126
"""The least normal number of float32 and of bfloat16: scales are not less, so that 0 divided by one is 0."""

Compute = Callable[[Emitter, SSAValue, Mapping[str, SSAValue]], SSAValue]
"""Makes a part of a weight [N, K], and of the parts that were made before."""


@dataclass(frozen=True)
class Rounded:
    """How a weight is stored: the parts by name, in the order in which they are computed, ``numbers`` last; and the
    properties of a linear, or a dequantisation, that takes them.
    """

    name: str
    parts: Mapping[str, Compute]
    properties: Mapping[str, Attribute] = field(default_factory=dict)


def rounding(precision: str, dtype: str, columns: int) -> Rounded | None:
    """How a weight of a dtype, with rows of ``columns`` numbers, is stored; None if that would save nothing."""
    wide = "f64" if dtype == "f64" else "f32"
    if precision == "bf16":
        if types.ITEM_BYTES[dtype] <= 2:
            return None
        return Rounded("bf16", {"numbers": lambda emit, w, _: emit.cast(w, "bf16")}, {"compute": StringAttr(wide)})
    if types.ITEM_BYTES[dtype] < 2:
        return None
    group = _group(columns)
    if precision == "int8" or group is None:
        return Rounded("int8", {"scales": _row_scales, "numbers": _bytes}, {"compute": StringAttr(wide)})
    parts = _Groups(columns // group, group)
    made = {"scales": parts.scales, "zeros": parts.zeros, "numbers": parts.numbers}
    return Rounded("int4", made, {"compute": StringAttr(wide), "packing": StringAttr("u4")})


def _group(columns: int) -> int | None:
    """How many numbers of a row share a scale."""
    if columns % 2:
        return None
    return next((n for n in range(GROUP, LEAST_GROUP - 1, -1) if columns % n == 0), None)


def _wide(emit: Emitter, value: SSAValue) -> SSAValue:
    return value if types.dtype(value) in ("f32", "f64") else emit.cast(value, "f32")


def _usable(emit: Emitter, scales: SSAValue) -> SSAValue:
    """Scales that can be divided by: not 0, and NaN instead of infinite."""
    nothing = emit.binary(MulOp, scales, 0.0)
    return emit(ClampOp, emit(AddOp, scales, nothing), lower=ScalarAttr.of(LEAST_SCALE))


def _row_scales(emit: Emitter, weight: SSAValue, parts: Mapping[str, SSAValue]) -> SSAValue:
    largest = emit(AmaxOp, emit(AbsOp, _wide(emit, weight)), dims=IntsAttr([1]), keepdim=UnitAttr())
    return emit.cast(_usable(emit, emit.binary(MulOp, largest, 1 / 127)), "f32")


def _bytes(emit: Emitter, weight: SSAValue, parts: Mapping[str, SSAValue]) -> SSAValue:
    return _quantized(emit, _wide(emit, weight), [parts["scales"]], "i8", -127, 127)


def _quantized(
    emit: Emitter, value: SSAValue, parameters: Sequence[SSAValue], dtype: str, lower: int, upper: int
) -> SSAValue:
    properties = {"compute": StringAttr(types.dtype(value)), "lower": IntAttr(lower), "upper": IntAttr(upper)}
    return emit.typed(QuantizeOp, value, *parameters, dtype=dtype, shape=types.shape(value), **properties)


@dataclass(frozen=True)
class _Groups:
    """``count`` groups of ``size`` numbers in each row."""

    count: int
    size: int

    def _apart(self, emit: Emitter, weight: SSAValue) -> SSAValue:
        return emit.reshape(_wide(emit, weight), (types.shape(weight)[0], self.count, self.size))

    def _ends(self, emit: Emitter, weight: SSAValue) -> tuple[SSAValue, SSAValue]:
        """The least and the greatest number of each group, 0 among them: [N, count]."""
        grouped, dims, zero = self._apart(emit, weight), IntsAttr([2]), ScalarAttr.of(0.0)
        least = emit(ClampOp, emit(AminOp, grouped, dims=dims), upper=zero)
        return least, emit(ClampOp, emit(AmaxOp, grouped, dims=dims), lower=zero)

    def scales(self, emit: Emitter, weight: SSAValue, parts: Mapping[str, SSAValue]) -> SSAValue:
        least, most = (emit.binary(MulOp, end, 1 / 15) for end in self._ends(emit, weight))
        return emit.cast(_usable(emit, emit(SubOp, most, least)), "bf16")

    def zeros(self, emit: Emitter, weight: SSAValue, parts: Mapping[str, SSAValue]) -> SSAValue:
        least = emit(NegOp, self._ends(emit, weight)[0])
        return _quantized(emit, least, [parts["scales"]], "ui8", 0, 15)

    def numbers(self, emit: Emitter, weight: SSAValue, parts: Mapping[str, SSAValue]) -> SSAValue:
        found = _quantized(emit, _wide(emit, weight), [parts["scales"], parts["zeros"]], "ui8", 0, 15)
        return packed(emit, found)


def packed(emit: Emitter, numbers: SSAValue) -> SSAValue:
    """Numbers from 0 to 15 [N, K], eight to the word, or two to the byte where 8 does not divide K."""
    rows, columns = types.shape(numbers)
    assert isinstance(columns, int), "weights have known shapes"
    dtype = "ui8" if columns % numbers_in(WORD) else WORD
    count = numbers_in(dtype)
    apart = emit.reshape(emit.cast(numbers, dtype) if dtype == WORD else numbers, (rows, columns // count, count))
    found = emit.slice(apart, 2, 0, 1)
    for place in range(1, count):
        found = emit(BitwiseOrOp, found, emit.binary(ShiftLeftOp, emit.slice(apart, 2, place, 1), 4 * place))
    return emit.reshape(found, (rows, columns // count))
