"""Which extents tiles shall have on a machine: every candidate with an estimate from the kernel's own costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import ceil, prod

from xdsl.dialects.builtin import ModuleOp, i8
from xdsl.ir import Attribute

from forgec.ir import types
from forgec.ir.ops.module import SymbolOp
from forgec.ir.tile.cache_sets import PACKED_LIMIT, crowds, left_factors
from forgec.ir.tile.compute import DotOp
from forgec.ir.tile.cost import KernelCost, item_bytes, kernel_cost
from forgec.ir.tile.kernel import KernelOp, LaunchOp
from forgec.ir.tile.types import element, extents
from forgec.passes.tile_machines import TileMachine, machine_of
from forgec.runtime.symbolic import Bounds, Extent, bounds, evaluate, free_symbols

ASSUMED_EXTENT = 128
"""What a dynamic extent is taken for where its range allows it: a short prompt."""
CANDIDATES_LIMIT = 128
"""More combinations are not estimated at once: the largest set of extents is thinned out until so many are left. From
the best of them the parameters of each section of the kernel are then varied by themselves.
"""
NARROW_PRODUCTS = 16
"""Multiply-adds of 16-bit floats that make as much code as one of wider floats: matrix instructions do many at once."""
COPIED_FACTOR = 1.15
"""How much longer products take on a CPU whose left factor is copied for each block of its rows."""
REFINEMENTS = 2
"""How often they are varied."""


@dataclass(frozen=True)
class SymbolUse:
    """What a kernel's symbol stands for at its launches: a range, and a typical value."""

    low: int = 0
    high: int | None = None
    typical: int = ASSUMED_EXTENT


@dataclass(frozen=True)
class Candidate:
    """One choice of tile extents, and what is estimated for it.

    ``seconds`` is the time of a launch for the typical extents, ``busy_seconds`` that of all programs one after
    another; ``limit`` says which limit of the machine it breaks, None if none. The bytes: of tiles that live together,
    and of lines that all programs move.
    """

    bindings: Mapping[str, int]
    seconds: float
    busy_seconds: float
    programs: int
    dot_flops: int
    element_ops: int
    moved_bytes: int
    live_bytes: int
    limit: str | None = None

    @property
    def text(self) -> str:
        """``BM=32,BN=64``."""
        return ",".join(f"{name}={extent}" for name, extent in self.bindings.items())


def candidates(
    kernel: KernelOp,
    target: str | TileMachine,
    uses: Mapping[str, SymbolUse] | None = None,
    fixed: Mapping[str, int] | None = None,
) -> list[Candidate]:
    """All choices for a kernel's tile parameters, the best one first, those that break a limit last.

    ``uses`` says what the kernel's symbols stand for (``symbol_uses``), ``fixed`` are extents that are chosen already.
    Empty if an axis that must be whole has no upper bound, or one above the extent that is fixed for it.
    """
    return estimates(kernel, target, uses, fixed)[1]


def estimates(
    kernel: KernelOp,
    target: str | TileMachine,
    uses: Mapping[str, SymbolUse] | None = None,
    fixed: Mapping[str, int] | None = None,
) -> tuple[KernelCost, list[Candidate]]:
    """The cost of a kernel for the typical extents, over its tile parameters; and its ``candidates``."""
    machine = machine_of(target) if isinstance(target, str) else target
    known = {name: (uses or {}).get(name, SymbolUse()) for name in kernel.symbol_names}
    typical = {name: use.typical for name, use in known.items()}
    cost = kernel_cost(kernel).at(typical)
    choices = _choices(kernel, machine, known, {**(fixed or {}), **kernel.bindings})
    if choices is None:
        return cost, []
    parameters = [parameter.name for parameter in kernel.tiles.data]
    narrow, near = _dots_are_narrow(kernel), _near_bytes(machine, cost)
    factors = list(dict.fromkeys(left_factors(kernel))) if machine.whole_multiple else []
    ops = sum(1 for _ in kernel.walk())
    tiles = sorted({extents(result) for op in kernel.walk() for result in op.results} - {()}, key=str)
    found: dict[tuple[int, ...], Candidate] = {}

    def estimate(chosen: tuple[int, ...]) -> tuple[object, ...]:
        if chosen not in found:
            bindings = dict(zip(parameters, chosen, strict=True))
            values = {**typical, **bindings}
            found[chosen] = _estimate(cost, machine, bindings, values, narrow, ops, _largest(tiles, values), factors)
        return _rank(found[chosen], near)

    few = _thinned(choices)
    best = min(product(*few), key=estimate)
    for group in _groups(cost, parameters) * (REFINEMENTS if few != choices else 0):
        varied = [choices[n] if n in group else (best[n],) for n in range(len(choices))]
        best = min(product(*_thinned(varied)), key=estimate)
    return cost, sorted(found.values(), key=lambda candidate: _rank(candidate, near))


def _near_bytes(machine: TileMachine, cost: KernelCost) -> int:
    """What tiles may fill of the nearest memory. Half of it where there are no products: what such kernels read and
    write goes through it beside them.
    """
    return machine.near_bytes if cost.dot_code != 0 or not machine.over_long else machine.near_bytes // 2


def _rank(candidate: Candidate, near_bytes: int) -> tuple[object, ...]:
    """Among estimates that are about the same (often because memory bounds them all): tiles that the nearest memory
    holds, then those that keep units busy for the shortest time, then the larger ones. Of those that break a limit the
    smallest come first.
    """
    return (
        candidate.limit is not None,
        0 if candidate.limit is None else candidate.live_bytes,
        float(f"{candidate.seconds:.2g}"),
        candidate.live_bytes > near_bytes,
        float(f"{candidate.busy_seconds:.2g}"),
        candidate.seconds,
        -prod(candidate.bindings.values()),
        candidate.text,
    )


def symbol_uses(kernel: KernelOp, module: ModuleOp) -> dict[str, SymbolUse]:
    """What the kernel's symbols stand for at its launches in a module, by the ranges of the module's symbols."""
    ranges: dict[str, Bounds] = {op.sym_name.data: op.bounds for op in module.ops if isinstance(op, SymbolOp)}
    found: dict[str, SymbolUse] = {}
    for launch in module.walk():
        if isinstance(launch, LaunchOp) and launch.kernel.string_value() == kernel.sym_name.data:
            for name, extent in zip(kernel.symbol_names, launch.extents.data, strict=True):
                use = _use(extent, ranges)
                found[name] = use if name not in found else _both(found[name], use)
    return found


def _use(extent: Extent, ranges: Mapping[str, Bounds]) -> SymbolUse:
    low, high = bounds(extent, ranges)
    least = max(low or 0, 0)
    symbols = {name: _typical(*ranges.get(name, (0, None))) for name in free_symbols(extent)}
    value = max(evaluate(extent, symbols), least)
    return SymbolUse(least, high, value if high is None else min(value, high))


def _typical(low: int | None, high: int | None) -> int:
    return max(low or 0, ASSUMED_EXTENT if high is None else min(ASSUMED_EXTENT, high))


def _both(a: SymbolUse, b: SymbolUse) -> SymbolUse:
    high = None if a.high is None or b.high is None else max(a.high, b.high)
    return SymbolUse(min(a.low, b.low), high, max(a.typical, b.typical))


def most(extent: Extent, uses: Mapping[str, SymbolUse]) -> int | None:
    """The largest value that an extent has at any launch, None if there is none to see."""
    return bounds(extent, {name: (use.low, use.high) for name, use in uses.items()})[1]


def _choices(
    kernel: KernelOp, machine: TileMachine, uses: Mapping[str, SymbolUse], fixed: Mapping[str, int]
) -> list[tuple[int, ...]] | None:
    """For each tile parameter the extents that it may have; None if a whole extent is not bounded."""
    in_dots, summed, rows = _names_in_dots(kernel), _names_summed(kernel), _names_of_rows(kernel)
    found: list[tuple[int, ...]] = []
    for parameter in kernel.tiles.data:
        largest = most(parameter.extent, uses)
        chosen = fixed.get(parameter.name)
        if parameter.whole and (largest is None or (chosen is not None and chosen < largest)):
            return None
        if chosen is not None:
            found.append((chosen,))
        elif parameter.whole and largest is not None:
            size = machine.whole(largest)
            found.append((max(size, machine.dot_least) if parameter.name in in_dots else size,))
        else:
            over = machine.over if in_dots else (*machine.over, *machine.over_long)
            sizes = _over(machine, over, largest, parameter.name in in_dots)
            if isinstance(parameter.extent, int) and parameter.name in rows and machine.whole_multiple:
                sizes = _even(parameter.extent, sizes)
            if isinstance(parameter.extent, int) and parameter.name in summed and machine.whole_multiple:
                sizes = _dividing(parameter.extent, sizes, machine)
            if parameter.name in summed and machine.whole_multiple:
                sizes = _multiples(sizes, _summed_at_once(kernel))
            if parameter.name in rows and largest is not None and largest < machine.whole_multiple:
                sizes = (max(1, largest),)  # few rows read the other factor once, for all
            found.append(sizes)
    return found


def _groups(cost: KernelCost, parameters: Sequence[str]) -> list[set[int]]:
    """The numbers of parameters that are best chosen together: those over which the programs of one section run; the
    others one by one.
    """
    ranges = [free_symbols(count) for _, count in cost.sections]
    found = [{n for n, name in enumerate(parameters) if name in names} for names in ranges]
    return [*found, *({n} for n in range(len(parameters)) if not any(n in group for group in found))]


def _thinned(choices: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Fewer extents of each parameter, so that their combinations are not too many."""
    found = list(choices)
    while prod(map(len, found)) > CANDIDATES_LIMIT:
        longest = max(range(len(found)), key=lambda n: len(found[n]))
        found[longest] = found[longest][len(found[longest]) % 2 == 0 :: 2]  # keeps the largest
    return found


def _over(machine: TileMachine, over: Sequence[int], largest: int | None, in_dots: bool) -> tuple[int, ...]:
    """Powers of two up to the first that is not below the extent; instead of that one the extent itself, where the
    machine takes a smaller multiple of its lanes for it.
    """
    least = machine.dot_least if in_dots else 1
    sizes = [size for size in over if size >= least]
    if largest is not None:
        enough = next((size for size in sizes if size >= largest), sizes[-1])
        whole = max(machine.whole(largest), least)
        sizes = [*(size for size in sizes if size < min(enough, whole)), min(enough, whole)]
    return tuple(sizes)


def _names_in_dots(kernel: KernelOp) -> set[str]:
    """The names in extents of products' operands."""
    dots = [op for op in kernel.walk() if isinstance(op, DotOp)]
    return {name for op in dots for v in (op.lhs, op.rhs) for extent in extents(v) for name in free_symbols(extent)}


def _names_of_rows(kernel: KernelOp) -> set[str]:
    """The names in extents of left factors' rows, and of no other side of a product: lanes do not run along these."""
    dots = [op for op in kernel.walk() if isinstance(op, DotOp)]
    others = {name for op in dots for extent in (extents(op.lhs)[1], *extents(op.rhs)) for name in free_symbols(extent)}
    return {name for op in dots for name in free_symbols(extents(op.lhs)[0])} - others


def _even(extent: int, sizes: tuple[int, ...]) -> tuple[int, ...]:
    """For each size the least one of which no more are needed: the last tile has about as many rows as the others."""
    return tuple(sorted({ceil(max(extent, 1) / ceil(max(extent, 1) / size)) for size in sizes}))


def _names_summed(kernel: KernelOp) -> set[str]:
    """The names in extents along which products sum."""
    dots = [op for op in kernel.walk() if isinstance(op, DotOp)]
    return {name for op in dots for name in free_symbols(extents(op.lhs)[1])}


def _dividing(extent: int, sizes: tuple[int, ...], machine: TileMachine) -> tuple[int, ...]:
    """Of the sizes, and the greatest divisor of the extent, those with which no tile reaches beyond the end; all sizes
    where these are small: sums in small pieces cost more than some zeros at the end.
    """
    greatest = next(size for size in range(max(1, min(extent, machine.over[-1])), 0, -1) if extent % size == 0)
    if greatest < min(extent, machine.sum_least):
        return sizes
    found = {greatest, *(size for size in sizes if extent % size == 0 and size >= machine.sum_least)}
    return tuple(sorted(found))


def _summed_at_once(kernel: KernelOp) -> int:
    """How many products processors' instructions add to a sum at once: four of bytes, two of bfloat16."""
    sizes = [item_bytes(element(op.lhs)) for op in kernel.walk() if isinstance(op, DotOp) and _is_short(op)]
    return max((4 // size for size in sizes), default=1)


def _is_short(dot: DotOp) -> bool:
    return dot.precision.data == "bf16" or element(dot.lhs) == i8


def _multiples(sizes: tuple[int, ...], of: int) -> tuple[int, ...]:
    """Each size, or the next multiple of a number."""
    return tuple(sorted({-(-size // of) * of for size in sizes}))


def _dots_are_narrow(kernel: KernelOp) -> bool:
    """True if all products are of 16-bit or smaller elements."""
    kinds: list[Attribute] = [element(op.lhs) for op in kernel.walk() if isinstance(op, DotOp)]
    return bool(kinds) and all(item_bytes(kind) <= types.ITEM_BYTES["bf16"] for kind in kinds)


def _largest(tiles: list[tuple[Extent, ...]], values: Mapping[str, int]) -> int:
    """The elements of the largest tile."""
    return max((prod(evaluate(extent, values) for extent in shape) for shape in tiles), default=1)


def _estimate(
    cost: KernelCost,
    machine: TileMachine,
    bindings: Mapping[str, int],
    values: Mapping[str, int],
    narrow: bool,
    ops: int,
    largest: int,
    factors: Sequence[tuple[Extent, int, int | None]],
) -> Candidate:
    """A roofline: a program, of each section of the kernel, takes as long as the slowest of its parts, programs fill
    units in waves, and memory is shared by all; of cores each has its share, so that too few programs leave some of it
    unused. Functions of ``math`` count as one operation: what they take more is alike for all candidates.
    """
    live = cost.live_bytes_at(values)
    footprint = evaluate(cost.footprint_bytes, values)
    near_rate = machine.near_rate if live <= _near_bytes(machine, cost) else machine.middle_rate
    packed = _packed_bytes(factors, values)
    copied = COPIED_FACTOR if packed is None else 1.0
    programs = dot_flops = element_ops = line_bytes = far_bytes = far_runs = 0
    busy = longest = 0.0
    for each, count in cost.sections:
        number = evaluate(count, values)
        dots, work, elements, lines, tiles, far, runs = (
            evaluate(part, values)
            for part in (
                each.dot_flops,
                each.dot_work,
                each.element_ops,
                each.line_bytes,
                each.tile_bytes,
                each.far_bytes,
                each.far_runs,
            )
        )
        computing = work / (machine.narrow_dot_flops if narrow else machine.dot_flops)
        computing += elements / machine.element_ops
        program = copied * max(computing, tiles / near_rate, lines / machine.middle_rate)
        program += machine.program_seconds + ops * machine.op_seconds / len(cost.sections)
        busy, longest = busy + number * program, max(longest, program)
        programs, dot_flops, element_ops = programs + number, dot_flops + number * dots, element_ops + number * elements
        line_bytes, far_bytes = line_bytes + number * lines, far_bytes + number * far
        far_runs += number * runs
    far_bytes -= (packed or 0) * programs  # they are packed once for many programs
    again = max(far_bytes - footprint, 0) if footprint > machine.middle_bytes else 0
    moving = (footprint + again) / machine.memory_rate
    if footprint > machine.middle_bytes and cost.dot_code == 0:
        moving += far_runs * machine.run_seconds
    waves = ceil(programs / machine.units)
    computing = max(waves * busy / max(programs, 1), longest)
    if not machine.alone_seconds:
        seconds = max(computing, moving)
    elif max(busy, moving) <= machine.alone_seconds:
        seconds = max(busy, moving)
    else:
        seconds = max(computing, moving * waves * machine.units / max(programs, 1))
    return Candidate(
        bindings=dict(bindings),
        seconds=seconds,
        busy_seconds=busy,
        programs=programs,
        dot_flops=dot_flops,
        element_ops=element_ops,
        moved_bytes=line_bytes,
        live_bytes=live,
        limit=_broken_limit(cost, machine, values, live, largest, narrow),
    )


def _packed_bytes(factors: Sequence[tuple[Extent, int, int | None]], values: Mapping[str, int]) -> int | None:
    """The bytes of products' left factors that a program finds packed; None if they do not fit the memory for them."""
    taken = 0
    for rows, row_bytes, apart in factors:
        count = evaluate(rows, values)
        if count > 1 and (apart is None or crowds(apart, count)):
            taken += count * row_bytes
    return taken if taken <= PACKED_LIMIT else None


def _broken_limit(
    cost: KernelCost, machine: TileMachine, values: Mapping[str, int], live: int, largest: int, narrow: bool
) -> str | None:
    if live > machine.live_limit:
        return f"{live} bytes of tiles live together, {machine.name} holds {machine.live_limit}"
    staged = cost.dot_bytes_at(values) * machine.dot_stages
    if machine.dot_limit is not None and staged > machine.dot_limit:
        return f"operands of products take {staged} bytes of shared memory, {machine.name} has {machine.dot_limit}"
    unrolled = evaluate(cost.dot_code, values) // (NARROW_PRODUCTS if narrow else 1)
    if machine.unrolled_limit is not None and unrolled > machine.unrolled_limit:
        return f"products are unrolled to {unrolled} instructions, for {machine.name} at most {machine.unrolled_limit}"
    if largest > machine.elements_limit:
        return f"a tile has {largest} elements, {machine.name} takes {machine.elements_limit}"
    return None
