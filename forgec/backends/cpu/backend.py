"""Kernels of tiles as machine code for x86-64: for one level of it, the host's (``cpu:host``), or all in one artifact
(``cpu``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

from xdsl.dialects.builtin import ModuleOp
from xdsl.traits import SymbolTable

from forgec.backends import aten
from forgec.backends.aten.table import LOWERINGS
from forgec.backends.base import Backend
from forgec.backends.cpu import driver, variants
from forgec.backends.cpu.concurrency import cost_ns, is_serial, together
from forgec.backends.kernel_cache import KernelCache, kernel_key, versions
from forgec.backends.plan_builder import Place, PlanBuilder
from forgec.diagnostics import error
from forgec.ir import types
from forgec.ir.locations import location_of
from forgec.ir.tile.kernel import KernelOp, LaunchOp
from forgec.ir.tile.memory import CheckOp
from forgec.ir.tile.types import block_type
from forgec.runtime import processor
from forgec.runtime.collector import paused_collector
from forgec.runtime.kernel_table import Kernel, KernelTable, NativeCode
from forgec.runtime.kernels import GRID, NAMESPACE
from forgec.runtime.symbolic import substitute

LEVELS = ("x86-64-v3", "x86-64-v4")
TARGETS = ("cpu", *(f"cpu:{level}" for level in LEVELS), "cpu:host")
WITHOUT = ("f8e4m3fn", "f8e5m2")
"""Dtypes that no tile has here: processors do not compute with them."""
PANEL = 32
"""Rows of a weight that lie together: two registers of float32 with AVX-512, four with AVX2."""
_VECTOR_BYTES = {"x86-64-v3": 32, "x86-64-v4": 64}


@cache
def host_level() -> str | None:
    """The greatest level that this processor has; None where there is none that kernels are compiled for."""
    machine = processor.host()
    return next((level for level in reversed(LEVELS) if processor.refusal(level, (), machine) is None), None)


def levels_of(target: str) -> tuple[str, ...]:
    """The instruction sets of a target, the least first. FORGE-U003 for ``cpu:host`` where this processor has none."""
    level = target.partition(":")[2]
    if level != "host":
        return (level,) if level else LEVELS
    found = host_level()
    if found is None:
        message = f"this processor has not all instructions of {LEVELS[0]}"
        raise error("FORGE-U003", message, help="compile for cpu:aten, which calls torch for everything")
    return (found,)


def level_of(target: str) -> str:
    """The greatest instruction set of a target."""
    return levels_of(target)[-1]


def variants_of(target: str, kernels: Sequence[KernelOp]) -> tuple[str, ...]:
    """The instruction sets that kernels are compiled for: those of the target, the least first, and with them what
    the kernels can make use of beyond the greatest level (``x86-64-v4+avx512vnni+avx512bf16``).

    ``cpu:host`` is the one variant that uses most of what this processor has; ``cpu`` has all, of which the best is
    chosen where it is loaded; a level that is named is that level.
    """
    levels = levels_of(target)
    used = variants.used_by(kernels)
    if target not in ("cpu", "cpu:host") or levels[-1] != LEVELS[-1] or not used:
        return levels
    if target == "cpu":
        return (*levels, *(variants.joined(LEVELS[-1], used[:count]) for count in range(1, len(used) + 1)))
    machine = processor.host()
    return (variants.joined(levels[-1], [n for n in used if processor.refusal(levels[-1], [n], machine) is None]),)


def lower_launch(op: LaunchOp, b: PlanBuilder) -> None:
    """A launch of a kernel: operands as the kernel's parameters say, fresh memory for what it writes."""
    kernel = _kernel(op)
    values = dict(zip(kernel.symbol_names, op.extents.data, strict=True))
    arguments: list[Any] = []
    written: list[Place] = []
    for position, (operand, result) in enumerate(op.parameters()):
        kind = block_type(kernel.parameters[position])
        wanted = types.tensor(
            types.dtype(kind),
            [substitute(extent, values) for extent in types.shape(kind)],
            [substitute(extent, values) for extent in types.strides(kind)],
        )
        if result is not None and operand is not None:
            place = b.update(op.results[result], operand)
        elif result is not None:
            place = b.destination(op.results[result])
        else:
            assert operand is not None, "a parameter is an operand, a result, or both"
            place = b.place(operand)
            if place.type != wanted:
                place = _laid(b, place, wanted)
        arguments.append(place)
        if result is not None:
            written.append(place)
    grid = tuple(substitute(extent, values) for extent in kernel.grid.data)
    b.launch(NAMESPACE + kernel.sym_name.data, [*arguments, *op.extents.data], [(GRID, grid)], writes=written)


def _laid(b: PlanBuilder, place: Place, wanted: Any) -> Place:
    """A copy of what lies otherwise than a kernel reads it."""
    fresh = b.allocate(wanted, False)
    b.launch("aten::copy_", [fresh, place], writes=[fresh])
    return fresh


def _kernel(op: LaunchOp) -> KernelOp:
    found = SymbolTable.lookup_symbol(op, op.kernel)
    if not isinstance(found, KernelOp):
        raise error("FORGE-B002", f"there is no kernel {op.kernel.root_reference.data}", location=location_of(op))
    return found


def native(module: ModuleOp, target: str) -> tuple[NativeCode, ...]:
    """Machine code of a module's kernels, an image for each level of the target; none where it has no kernels.

    The levels share the kernels as they are bound, and with them the plan and its grids.
    """
    kernels = [op for op in module.ops if isinstance(op, KernelOp)]
    chosen = variants_of(target, kernels) if kernels else ()
    return tuple(_image(kernels, variant, objects) for variant, objects in objects_of(kernels, chosen).items())


def _image(kernels: Sequence[KernelOp], variant: str, objects: Mapping[str, bytes]) -> NativeCode:
    from forgec.backends.cpu.link import link

    image = link({**objects, **driver.objects()})
    level, features = variants.split(variant)
    entries = tuple(_entry(kernel, image.functions) for kernel in kernels)
    table = KernelTable(level, entries, features, driver=driver.place(image.functions))
    return NativeCode(table, image.code)


def objects_of(kernels: Sequence[KernelOp], chosen: Sequence[str]) -> dict[str, dict[str, bytes]]:
    """The object code of bound kernels, by instruction set and name, out of the cache if it was compiled before.

    A kernel that makes no use of what a variant has beyond its level is compiled for the level, once for both.

    One thread makes LLVM IR of kernels while another one has LLVM compile those before: about half of the time each.
    """
    cache, pending = KernelCache(), list[tuple[str, str, str, Future[bytes]]]()
    made: dict[tuple[str, str], bytes] = {}
    wanted = {v: {k.sym_name.data: variants.of_kernel(v, k) for k in kernels} for v in chosen}
    with paused_collector(), ThreadPoolExecutor(1, "forgec-llvm") as llvm:
        for variant in chosen:
            for kernel in kernels:
                name = kernel.sym_name.data
                own = wanted[variant][name]
                if (own, name) in made:
                    continue
                key = kernel_key(kernel, name, own, versions(Path(__file__).parent, "llvmlite", "xdsl"))
                found = cache.find(key)
                if found is None:
                    pending.append((own, name, key, _compiling(kernel, own, llvm)))
                made[own, name] = found or b""
        for own, name, key, future in pending:
            made[own, name] = future.result()
            cache.keep(key, made[own, name])
    return {variant: {name: made[own, name] for name, own in names.items()} for variant, names in wanted.items()}


def _compiling(kernel: KernelOp, variant: str, llvm: ThreadPoolExecutor) -> Future[bytes]:
    from forgec.backends.cpu.compile import compile_printed, printed

    level, features = variants.split(variant)
    module, added = lowered_kernel(kernel, variant), ",".join(f"+{name}" for name in features)
    return llvm.submit(compile_printed, printed(module, cpu=level, features=added, vector_bits=vector_bits(level)))


def vector_bits(level: str) -> int:
    """How wide the registers of a level of x86-64 are."""
    return 8 * _VECTOR_BYTES[level]


def lowered_kernel(kernel: KernelOp, variant: str) -> ModuleOp:
    """The module of LLVM's dialect of one kernel, with vectors as wide as the registers of a level of x86-64, and the
    instructions that the variant has beyond it.
    """
    from forgec.backends.cpu.tile_to_llvm import kernel_module

    level, features = variants.split(variants.of_kernel(variant, kernel))
    return kernel_module([kernel], vector_bytes=_VECTOR_BYTES[level], features=features)


def _entry(kernel: KernelOp, functions: Mapping[str, int]) -> Kernel:
    name = kernel.sym_name.data
    checks: dict[int, str] = {}
    for op in kernel.body.walk():
        if isinstance(op, CheckOp):
            checks[op.number.data] = op.message.data
    messages = tuple(checks.get(number, "") for number in range(1, max(checks, default=0) + 1))
    parameters, symbols = len(kernel.parameters), len(kernel.symbol_names)
    return Kernel(
        name, functions[name], parameters, symbols, messages, is_serial(kernel), cost_ns(kernel), together(kernel)
    )


BACKEND = Backend(
    "cpu", TARGETS, {**LOWERINGS, LaunchOp: lower_launch}, aten.composite.covers, native,
    kernels=True, without=WITHOUT, panel=PANEL,
)  # fmt: skip
