"""Device functions that a kernel's source brings along when it calls them."""

from __future__ import annotations

HELPERS: dict[str, str] = {
    "floor_div": """
@triton.jit
def floor_div(a, b):
    quotient = a // b  # rounds towards zero
    return tl.where((a % b != 0) & ((a < 0) != (b < 0)), quotient - 1, quotient)
""",
    "ceil_div": """
@triton.jit
def ceil_div(a, b):
    quotient = a // b  # rounds towards zero
    return tl.where((a % b != 0) & ((a < 0) == (b < 0)), quotient + 1, quotient)
""",
    "floor_mod": """
@triton.jit
def floor_mod(a, b):
    remainder = a % b  # has the sign of a
    return tl.where((remainder != 0) & ((remainder < 0) != (b < 0)), remainder + b, remainder)
""",
    "maximum": """
@triton.jit
def maximum(a, b):
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)
""",
    "minimum": """
@triton.jit
def minimum(a, b):
    return tl.minimum(a, b, propagate_nan=tl.PropagateNan.ALL)
""",
    "multiply": """
@triton.jit
def multiply(a, b):
    return a * b
""",
    "bitwise_and": """
@triton.jit
def bitwise_and(a, b):
    return a & b
""",
    "bitwise_or": """
@triton.jit
def bitwise_or(a, b):
    return a | b
""",
    "first_largest": """
@triton.jit
def first_largest(a, i, b, j):
    # NaN is larger than any number; of equal elements the first.
    larger = (a > b) | ((a != a) & (b == b))
    equal = (a == b) | ((a != a) & (b != b))
    left = larger | (equal & (i < j))
    return tl.where(left, a, b), tl.where(left, i, j)
""",
    "first_smallest": """
@triton.jit
def first_smallest(a, i, b, j):
    # NaN is smaller than any number; of equal elements the first.
    smaller = (a < b) | ((a != a) & (b == b))
    equal = (a == b) | ((a != a) & (b != b))
    left = smaller | (equal & (i < j))
    return tl.where(left, a, b), tl.where(left, i, j)
""",
    "to_place": """
@triton.jit
def to_place(x):
    # What does not fit is outside every tensor of the kernel, and stays so.
    return tl.minimum(tl.maximum(x, -2147483648), 2147483647).to(tl.int32)
""",
    "to_integer": """
@triton.jit
def to_integer(x, LOW: tl.constexpr, HIGH: tl.constexpr, LEAST: tl.constexpr, MOST: tl.constexpr, TYPE: tl.constexpr):
    # What does not fit becomes the nearest number that does, NaN becomes 0.
    whole = tl.where((x > LOW) & (x < HIGH), x, 0.0).to(TYPE)
    least = tl.full((), LEAST, TYPE)
    most = tl.full((), MOST, TYPE)
    return tl.where(x >= HIGH, most, tl.where(x <= LOW, least, whole))
""",
    "to_float8e4nv": """
@triton.jit
def to_float8e4nv(x):
    # The hardware saturates; what rounds to more than 448 is NaN.
    return tl.where(tl.abs(x) > 464.0, float("nan"), x).to(tl.float8e4nv)
""",
    "to_float8e5": """
@triton.jit
def to_float8e5(x):
    # The hardware saturates; what rounds to more than 57344 is infinite.
    bits = x.to(tl.float8e5).to(tl.int8, bitcast=True)
    infinity = tl.where(x > 0.0, tl.full((), 0x7C, tl.int8), tl.full((), -4, tl.int8))
    return tl.where(tl.abs(x) >= 61440.0, infinity, bits).to(tl.float8e5, bitcast=True)
""",
    "atomic_maximum": """
@triton.jit
def atomic_maximum(pointer, value, mask, SIGNED: tl.constexpr, UNSIGNED: tl.constexpr):
    # Floats of one sign are ordered as integers are; a NaN without a sign is the largest of all.
    bits = tl.where(value != value, float("nan"), value).to(SIGNED, bitcast=True)
    tl.atomic_max(pointer.to(tl.pointer_type(SIGNED), bitcast=True), bits, mask=mask & (bits >= 0), sem="relaxed")
    bits_u = bits.to(UNSIGNED, bitcast=True)
    tl.atomic_min(pointer.to(tl.pointer_type(UNSIGNED), bitcast=True), bits_u, mask=mask & (bits < 0), sem="relaxed")
""",
    "atomic_minimum": """
@triton.jit
def atomic_minimum(pointer, value, mask, SIGNED: tl.constexpr, UNSIGNED: tl.constexpr):
    # Floats of one sign are ordered as integers are; a NaN with a sign is the smallest of all.
    bits = value.to(SIGNED, bitcast=True)
    bits = tl.where(value != value, bits | (tl.full((), 1, SIGNED) << (SIGNED.primitive_bitwidth - 1)), bits)
    tl.atomic_min(pointer.to(tl.pointer_type(SIGNED), bitcast=True), bits, mask=mask & (bits >= 0), sem="relaxed")
    bits_u = bits.to(UNSIGNED, bitcast=True)
    tl.atomic_max(pointer.to(tl.pointer_type(UNSIGNED), bitcast=True), bits_u, mask=mask & (bits < 0), sem="relaxed")
""",
}
