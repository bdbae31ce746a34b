"""What the elementwise ops of ``arith`` and ``math`` mean, on CPU tensors, in the simplest way that can be right.

Integers are signless: each op says how it reads its bits, and results wrap. Where MLIR leaves a result undefined
(a division by zero) it is an error here, or (a shift by more bits than there are) a number that nothing expects.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from xdsl.dialects import arith
from xdsl.dialects.builtin import IndexType, IntegerType
from xdsl.ir import Attribute, Operation

from forgec.ir import types
from forgec.ir.evaluator import Evaluator
from forgec.ir.tile.memory_model import fault
from forgec.ir.tile.types import element

Function = Callable[..., Any]

INDEX_BITS = 64
_NOT_EXPECTED = 0x5A5A5A5A5A5A5A5A


def dtype_of(ev: Evaluator, kind: Attribute) -> Any:
    """The torch dtype of a tile's elements, or of a scalar."""
    found = element(kind)
    if isinstance(found, IndexType):
        return ev.torch.int64
    return ev.dtype(types.tensor(found, ()))


def evaluate_elementwise(op: Operation, ev: Evaluator, operands: list[Any]) -> Any | None:
    """The result of an op of ``arith`` or ``math`` (tensors of one shape, of rank 0 for scalars); None for ops that are
    not elementwise ones.
    """
    if isinstance(op, arith.ConstantOp):
        return _constant(op, ev)
    if op.name in _FLOAT:
        result = _FLOAT[op.name](ev.torch, *operands)
    elif op.name in _INTEGER:
        result = _Integers(ev.torch, element(op.operands[0].type)).apply(_INTEGER[op.name], operands)
    elif op.name in _SPECIAL:
        result = _SPECIAL[op.name](op, ev, *operands)
    else:
        return None
    return result.to(dtype_of(ev, op.results[0].type))


def _constant(op: arith.ConstantOp, ev: Evaluator) -> Any:
    value: Any = op.value
    number = getattr(value, "value", None)
    if number is None or not hasattr(number, "data"):
        raise fault(f"a constant of a kernel is a scalar, found {op.result.type}")
    dtype = dtype_of(ev, op.result.type)
    if dtype.is_floating_point:
        return ev.torch.tensor(number.data, dtype=ev.torch.float64).to(dtype)
    return from_number(ev.torch, number.data, dtype)


def from_number(torch: Any, number: bool | int | float, dtype: Any) -> Any:
    """A number as a tensor of rank 0, an integer by its lowest bits."""
    if dtype.is_floating_point or dtype == torch.bool:
        return torch.tensor(number).to(dtype)
    bits = torch.iinfo(dtype).bits
    low = int(number) % (1 << bits)
    return torch.tensor(low - (1 << bits) if dtype.is_signed and low >> (bits - 1) else low, dtype=dtype)


# Integers -------------------------------------------------------------------------------------------------------------


class _Integers:
    """Integers of one width, as signed and as unsigned numbers (of numpy, which has unsigned ones of all widths)."""

    def __init__(self, torch: Any, kind: Attribute) -> None:
        self.torch = torch
        self.bits = kind.width.data if isinstance(kind, IntegerType) else INDEX_BITS

    def apply(self, function: tuple[str, Function], operands: list[Any]) -> Any:
        """The result, as a tensor of numbers of 64 bits whose lowest bits are meant."""
        import numpy

        reading, compute = function
        read = self.signed if reading == "signed" else self.unsigned
        with numpy.errstate(over="ignore", divide="ignore", invalid="ignore"):
            found = numpy.asarray(compute(numpy, self.bits, *map(read, operands)))
        if found.dtype == numpy.bool_:
            return self.torch.from_numpy(found)
        return self.wrapped(self.torch.from_numpy(found.astype(numpy.int64, copy=False)), operands[0].dtype)

    def signed(self, tensor: Any) -> Any:
        """As numpy's int64."""
        return signed(self.torch, tensor).numpy()

    def unsigned(self, tensor: Any) -> Any:
        """As numpy's uint64."""
        return unsigned(self.torch, tensor)

    def wrapped(self, tensor: Any, dtype: Any) -> Any:
        """The lowest bits, as torch stores them."""
        return low_bits(self.torch, tensor, dtype)


def signed(torch: Any, tensor: Any) -> Any:
    """A tensor of integers or booleans as signed numbers, int64; true is -1, the one bit being the sign."""
    if tensor.dtype == torch.bool:
        return -tensor.to(torch.int64)
    if tensor.dtype == torch.uint8:
        return tensor.view(torch.int8).to(torch.int64)
    return tensor.to(torch.int64)


def unsigned(torch: Any, tensor: Any) -> Any:
    """A tensor of integers or booleans as unsigned numbers: numpy's uint64."""
    import numpy

    if tensor.dtype == torch.bool:
        return tensor.numpy().astype(numpy.uint64)
    width = tensor.element_size() * 8
    return tensor.contiguous().numpy().view(f"uint{width}").astype(numpy.uint64)


def low_bits(torch: Any, tensor: Any, dtype: Any) -> Any:
    """The lowest bits of int64 numbers."""
    return (tensor & 1) != 0 if dtype == torch.bool else tensor.to(dtype)


def _divisible(np: Any, bits: int, a: Any, b: Any, *, is_signed: bool) -> None:
    if (b == 0).any():
        raise fault("an integer is divided by zero")
    if is_signed and ((a == -(1 << (bits - 1))) & (b == -1)).any():
        raise fault("the smallest integer is divided by -1")


def _divsi(np: Any, bits: int, a: Any, b: Any) -> Any:
    _divisible(np, bits, a, b, is_signed=True)
    quotient = a // b
    return quotient + ((quotient < 0) & (quotient * b != a))  # towards zero


def _remsi(np: Any, bits: int, a: Any, b: Any) -> Any:
    return a - _divsi(np, bits, a, b) * b


def _floordivsi(np: Any, bits: int, a: Any, b: Any) -> Any:
    _divisible(np, bits, a, b, is_signed=True)
    return a // b


def _ceildivsi(np: Any, bits: int, a: Any, b: Any) -> Any:
    _divisible(np, bits, a, b, is_signed=True)
    return a // b + (a % b != 0)


def _divui(np: Any, bits: int, a: Any, b: Any) -> Any:
    _divisible(np, bits, a, b, is_signed=False)
    return a // b


def _remui(np: Any, bits: int, a: Any, b: Any) -> Any:
    _divisible(np, bits, a, b, is_signed=False)
    return a % b


def _ceildivui(np: Any, bits: int, a: Any, b: Any) -> Any:
    _divisible(np, bits, a, b, is_signed=False)
    return a // b + (a % b != 0)


def _shifted(compute: Function) -> Function:
    """A shift; by as many bits as there are, or more, its result is undefined."""

    def shift(np: Any, bits: int, value: Any, count: Any) -> Any:
        by = count.astype(np.uint64)
        sane = by < bits
        amount = np.where(sane, by, 0).astype(value.dtype)
        return np.where(sane, compute(np, value, amount), np.asarray(_NOT_EXPECTED).astype(value.dtype))

    return shift


def _ipowi(np: Any, bits: int, a: Any, b: Any) -> Any:
    def power(base: int, exponent: int) -> int:
        if exponent < 0:
            if base == 0:
                raise fault("zero is raised to a negative power")
            return base if base == -1 and exponent % 2 else 1 if abs(base) == 1 else 0
        low = pow(base, exponent, 1 << INDEX_BITS)
        return low - (1 << INDEX_BITS) if low >> (INDEX_BITS - 1) else low

    return np.array(
        [power(int(x), int(y)) for x, y in zip(a.reshape(-1), b.reshape(-1), strict=True)], np.int64
    ).reshape(a.shape)


def _by_bits(count: Callable[[int, int], int]) -> Function:
    def counted(np: Any, bits: int, a: Any) -> Any:
        return np.array([count(int(x), bits) for x in a.reshape(-1)], np.int64).reshape(a.shape)

    return counted


_S, _U = "signed", "unsigned"

_INTEGER: dict[str, tuple[str, Function]] = {
    "arith.addi": (_S, lambda np, bits, a, b: a + b),
    "arith.subi": (_S, lambda np, bits, a, b: a - b),
    "arith.muli": (_S, lambda np, bits, a, b: a * b),
    "arith.divsi": (_S, _divsi),
    "arith.remsi": (_S, _remsi),
    "arith.floordivsi": (_S, _floordivsi),
    "arith.ceildivsi": (_S, _ceildivsi),
    "arith.divui": (_U, _divui),
    "arith.remui": (_U, _remui),
    "arith.ceildivui": (_U, _ceildivui),
    "arith.minsi": (_S, lambda np, bits, a, b: np.minimum(a, b)),
    "arith.maxsi": (_S, lambda np, bits, a, b: np.maximum(a, b)),
    "arith.minui": (_U, lambda np, bits, a, b: np.minimum(a, b)),
    "arith.maxui": (_U, lambda np, bits, a, b: np.maximum(a, b)),
    "arith.andi": (_S, lambda np, bits, a, b: a & b),
    "arith.ori": (_S, lambda np, bits, a, b: a | b),
    "arith.xori": (_S, lambda np, bits, a, b: a ^ b),
    "arith.shli": (_U, _shifted(lambda np, a, b: a << b)),
    "arith.shrui": (_U, _shifted(lambda np, a, b: a >> b)),
    "arith.shrsi": (_S, _shifted(lambda np, a, b: a >> b)),
    "math.absi": (_S, lambda np, bits, a: np.abs(a)),
    "math.ipowi": (_S, _ipowi),
    "math.ctlz": (_U, _by_bits(lambda x, bits: bits - x.bit_length())),
    "math.cttz": (_U, _by_bits(lambda x, bits: bits if x == 0 else (x & -x).bit_length() - 1)),
    "math.ctpop": (_U, _by_bits(lambda x, bits: x.bit_count())),
}


# Floats ---------------------------------------------------------------------------------------------------------------


def _maximum(torch: Any, a: Any, b: Any) -> Any:
    """NaN if one is NaN; +0.0 is larger than -0.0."""
    return torch.where(a == b, torch.where(torch.signbit(a), b, a), torch.maximum(a, b))


def _minimum(torch: Any, a: Any, b: Any) -> Any:
    return torch.where(a == b, torch.where(torch.signbit(a), a, b), torch.minimum(a, b))


def _fma(torch: Any, a: Any, b: Any, c: Any) -> Any:
    return a.double() * b.double() + c.double()  # of at most 32 bits: one rounding, but for ties that 64 bits make


def _round(torch: Any, a: Any) -> Any:
    """To the nearest integer, half away from zero; keeps the sign of zero."""
    whole = torch.trunc(a)
    away = torch.where((a - whole).abs() >= 0.5, whole + torch.sign(a), whole)
    return torch.copysign(away, a)


def _cbrt(torch: Any, a: Any) -> Any:
    import numpy

    return torch.from_numpy(numpy.asarray(numpy.cbrt(a.double().numpy())))


def _plain(name: str) -> Function:
    return lambda torch, *operands: getattr(torch, name)(*operands)


def _remainder(torch: Any, a: Any, b: Any) -> Any:
    """C's; torch's vectors have NaN where the quotient is beyond a float."""
    import numpy

    with numpy.errstate(invalid="ignore"):
        return torch.as_tensor(numpy.fmod(a.double().numpy(), b.double().numpy()))


_FLOAT: dict[str, Function] = {
    "arith.addf": lambda torch, a, b: a + b,
    "arith.subf": lambda torch, a, b: a - b,
    "arith.mulf": lambda torch, a, b: a * b,
    "arith.divf": lambda torch, a, b: a / b,
    "arith.remf": _remainder,
    "arith.negf": lambda torch, a: -a,
    "arith.maximumf": _maximum,
    "arith.minimumf": _minimum,
    "arith.maxnumf": _plain("fmax"),
    "arith.minnumf": _plain("fmin"),
    "math.absf": _plain("abs"),
    "math.roundeven": _plain("round"),
    "math.round": _round,
    "math.cbrt": _cbrt,
    "math.powf": _plain("pow"),
    "math.fpowi": lambda torch, a, b: a.double() ** b,
    "math.fma": _fma,
    **{
        f"math.{name}": _plain(name)
        for name in (
            "acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "ceil", "copysign", "cos", "cosh", "erf",
            "erfc", "exp", "exp2", "expm1", "floor", "log", "log10", "log1p", "log2", "rsqrt", "sin", "sinh", "sqrt",
            "tan", "tanh", "trunc",
        )
    },
}  # fmt: skip


# Between kinds --------------------------------------------------------------------------------------------------------


def _cmpf(op: Operation, ev: Evaluator, a: Any, b: Any) -> Any:
    assert isinstance(op, arith.CmpfOp)
    name = arith.CMPF_COMPARISON_OPERATIONS[op.predicate.value.data]
    torch = ev.torch
    unordered = torch.isnan(a) | torch.isnan(b)
    if name in ("false", "true"):
        return torch.full_like(unordered, name == "true")
    if name in ("ord", "uno"):
        return unordered if name == "uno" else ~unordered
    found = _COMPARE[name[1:]](a, b)
    return found | unordered if name[0] == "u" else found & ~unordered


def _cmpi(op: Operation, ev: Evaluator, a: Any, b: Any) -> Any:
    assert isinstance(op, arith.CmpiOp)
    import numpy

    name = arith.CMPI_COMPARISON_OPERATIONS[op.predicate.value.data]
    if name.startswith("u"):
        left, right = unsigned(ev.torch, a), unsigned(ev.torch, b)
        return ev.torch.from_numpy(numpy.asarray(_COMPARE[name[1:]](left, right)))
    return _COMPARE[name.removeprefix("s")](signed(ev.torch, a), signed(ev.torch, b))


_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
}


def _to_integer(op: Operation, ev: Evaluator, value: Any, *, is_signed: bool) -> Any:
    """Towards zero; what does not fit becomes the nearest that does, and NaN becomes 0."""
    torch, kind = ev.torch, element(op.results[0].type)
    bits = kind.width.data if isinstance(kind, IntegerType) else INDEX_BITS
    low = -(1 << (bits - 1)) if is_signed else 0
    high = (1 << (bits - 1 if is_signed else bits)) - 1
    whole = [
        0 if x != x else low if x <= low else high if x >= high else int(x) for x in value.double().reshape(-1).tolist()
    ]
    wrapped = [x - (1 << INDEX_BITS) if x >> (INDEX_BITS - 1) == 1 else x for x in whole]
    numbers = torch.tensor(wrapped, dtype=torch.int64).reshape(value.shape)
    return low_bits(torch, numbers, dtype_of(ev, op.results[0].type))


def _from_unsigned(op: Operation, ev: Evaluator, value: Any) -> Any:
    import numpy

    to = dtype_of(ev, op.results[0].type)
    wide = numpy.float64 if to == ev.torch.float64 else numpy.float32
    return ev.torch.from_numpy(numpy.asarray(unsigned(ev.torch, value).astype(wide))).to(to)


def _from_signed(op: Operation, ev: Evaluator, value: Any) -> Any:
    return signed(ev.torch, value).to(dtype_of(ev, op.results[0].type))


def _low_bits(op: Operation, ev: Evaluator, value: Any) -> Any:
    return low_bits(ev.torch, signed(ev.torch, value), dtype_of(ev, op.results[0].type))


def _extui(op: Operation, ev: Evaluator, value: Any) -> Any:
    return ev.torch.from_numpy(unsigned(ev.torch, value).astype("int64"))


def _bitcast(op: Operation, ev: Evaluator, value: Any) -> Any:
    """The same bits: those of the types that the IR says, also where floats are wider here."""
    exact = Evaluator()
    narrow = value.to(dtype_of(exact, op.operands[0].type)).contiguous()
    return narrow.view(dtype_of(exact, op.results[0].type))


def _select(op: Operation, ev: Evaluator, condition: Any, a: Any, b: Any) -> Any:
    return ev.torch.where(condition, a, b)


_SPECIAL: dict[str, Function] = {
    "arith.cmpf": _cmpf,
    "arith.cmpi": _cmpi,
    "arith.select": _select,
    "arith.fptosi": lambda op, ev, x: _to_integer(op, ev, x, is_signed=True),
    "arith.fptoui": lambda op, ev, x: _to_integer(op, ev, x, is_signed=False),
    "arith.sitofp": _from_signed,
    "arith.uitofp": _from_unsigned,
    "arith.extf": lambda op, ev, x: x,
    "arith.truncf": lambda op, ev, x: x,
    "arith.extsi": _low_bits,
    "arith.trunci": _low_bits,
    "arith.index_cast": _low_bits,
    "arith.extui": _extui,
    "arith.bitcast": _bitcast,
}
