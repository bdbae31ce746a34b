"""Kernels by name, as loops at every tile that they may have on a machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from forgec.diagnostics import error
from forgec.schedule.graph import Graph
from forgec.schedule.kernels import attention, decode, gemm
from forgec.schedule.kernels.problem import BYTES, Problem
from forgec.schedule.machine import Machine

Kernel = tuple[Graph, ...]
"""The phases of one kernel at one tile."""


@dataclass(frozen=True)
class Recipe:
    """How a kernel is made: the keys of its shape with what they are unless told, and its loops at each tile."""

    sizes: Mapping[str, int]
    build: Callable[[Problem], Sequence[Kernel]]


RECIPES: Mapping[str, Recipe] = {
    "attention-fwd": Recipe(attention.SIZES, attention.forward),
    "attention-fwd-causal": Recipe(attention.SIZES, attention.causal),
    "attention-decode": Recipe(decode.SIZES, decode.decode),
    "gemm": Recipe(gemm.SIZES, gemm.plain),
    "gemm-epilogue": Recipe(gemm.SIZES, gemm.with_epilogue),
    "grouped-gemm": Recipe(gemm.GROUPED_SIZES, gemm.grouped),
    "rms-norm-gemm": Recipe(gemm.SIZES, gemm.with_norm),
}
NAMES: tuple[str, ...] = tuple(RECIPES)


def named(name: str, machine: Machine, shape: Mapping[str, int] | None = None, dtype: str = "bf16") -> list[Kernel]:
    """A kernel's loops, once for each choice of tile that the machine's memories may hold.

    Args:
        name: one of ``NAMES``.
        machine: what it runs on.
        shape: sizes of the problem by key (``head``, ``seq``, ``m``, ``n``, ``k``); those left out have defaults.
        dtype: of the operands of matrix products: ``bf16``, ``f16`` or ``fp8``.

    Raises:
        ForgeError: FORGE-U010 for a name, a key, a size or a dtype that there is not; where the machine lacks an
            instruction that the kernel needs.
    """
    if name not in RECIPES:
        raise error("FORGE-U010", f"there is no kernel {name}", notes=("there are " + ", ".join(NAMES),))
    if dtype not in BYTES:
        raise error("FORGE-U010", f"kernels are not made in {dtype}", notes=("they are in " + ", ".join(BYTES),))
    recipe = RECIPES[name]
    for key, size in (shape or {}).items():
        if key not in recipe.sizes:
            raise error("FORGE-U010", f"kernel {name} has no size {key}", notes=("it has " + ", ".join(recipe.sizes),))
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise error("FORGE-U010", f"the size {key} of kernel {name} is {size}, which is no positive integer")
    problem = Problem(name, machine, {**recipe.sizes, **(shape or {})}, dtype)
    found = list(recipe.build(problem))
    fitting = [kernel for kernel in found if problem.may_fit(kernel)]
    # Where none fits, the solver says what conflicts.
    return fitting or found[:1]
