"""Instruction sets beyond the levels of x86-64 that kernels make use of.

A variant is written as a level and features by LLVM's names, ``x86-64-v4+avx512vnni+avx512bf16``, as images are called.
"""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.dialects.builtin import i8, i32

from forgec.ir.tile.compute import DotOp
from forgec.ir.tile.kernel import KernelOp
from forgec.ir.tile.types import element

BYTES, BF16 = "avx512vnni", "avx512bf16"
"""What processors are said to have that multiply bytes, and bfloat16, several at a time."""
FEATURES = (BYTES, BF16)
"""In the order in which processors came to have them: one with a later one has those before it."""


def feature_of(dot: DotOp) -> str | None:
    """What a product makes use of where its extents allow it."""
    if dot.precision.data == "bf16":
        return BF16
    return BYTES if (element(dot.lhs), element(dot.accumulator)) == (i8, i32) else None


def features_of(kernel: KernelOp) -> tuple[str, ...]:
    """What a kernel makes use of beyond a level, in the order of ``FEATURES``."""
    found = {feature_of(op) for op in kernel.body.walk() if isinstance(op, DotOp)}
    return tuple(name for name in FEATURES if name in found)


def used_by(kernels: Sequence[KernelOp]) -> tuple[str, ...]:
    """What some of the kernels make use of."""
    found = {name for kernel in kernels for name in features_of(kernel)}
    return tuple(name for name in FEATURES if name in found)


def split(variant: str) -> tuple[str, tuple[str, ...]]:
    """The level and the features of a variant."""
    level, *features = variant.split("+")
    return level, tuple(features)


def joined(level: str, features: Sequence[str]) -> str:
    """The variant of a level with features."""
    return "+".join((level, *features))


def of_kernel(variant: str, kernel: KernelOp) -> str:
    """As much of a variant as a kernel makes use of: what it is compiled for."""
    level, features = split(variant)
    used = features_of(kernel)
    return joined(level, [name for name in features if name in used])
