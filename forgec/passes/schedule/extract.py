"""The dependence graph of a tile kernel's loop, for ``forgec.schedule``.

    extracted = extract(kernel, machine.named("sm_90a"), parts=2)
    schedules([[extracted.graph]], machine)

What becomes an op of the graph, and how synchronous code is gathered in few ops, say ``body.py`` and ``stretches.py``;
how much work they are, ``amounts.py``; in which memory values lie, ``placement.py``.

**Parts.** With ``parts = n`` the graph is that of n programs which are neighbours along one axis of the grid, as one:
part p runs as program ``n * pid + p``. What does not depend on the axis (the keys of an attention, the weights of a
linear layer) is there once and read by all parts. The axis is the one along which most products have other rows and the
same columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from xdsl.dialects import scf
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation, SSAValue

from forgec.diagnostics import error
from forgec.ir.context import context
from forgec.ir.locations import location_of
from forgec.ir.tile.compute import DotOp
from forgec.ir.tile.kernel import KernelOp
from forgec.ir.tile.places import Places
from forgec.passes import ir_source
from forgec.passes.patterns import missed
from forgec.passes.schedule.body import Body, bytes_of, end_if_run, is_copy, loops_around, loops_of
from forgec.passes.schedule.graph_builder import GraphBuilder, Names
from forgec.passes.tile_sizes import ASSUMED_EXTENT
from forgec.runtime.symbolic import Extent, evaluate, free_symbols, substitute
from forgec.schedule.graph import Graph
from forgec.schedule.machine import Machine

MOST_PARTS = 3
"""Choices of parts that ``graphs`` makes: more consumers than three leave each too few registers on any machine."""


@dataclass(frozen=True)
class Extracted:
    """The graph of a loop, and what its names stand for.

    ``ops``: the ops of the loop's body that an op of the graph carries out, in the body's order; none for what only the
    machine needs (a copy out of tensor memory). ``NAME.1`` of part 1 stands for the same ops as ``NAME.0``. Ops of the
    body that are in none of them are free (addresses, constants, broadcasts, transposed factors): whoever reads their
    results computes them again. ``values``: the value of the kernel that a value of the graph holds; one may be held
    by several, where it is copied from one memory into another or where several groups have it. ``axis``: the axis of
    the grid along which ``parts`` are neighbours; None where nothing is divided into parts: then ops are named without
    a number.
    """

    graph: Graph
    loop: scf.ForOp
    ops: Mapping[str, tuple[Operation, ...]]
    values: Mapping[str, SSAValue]
    parts: int
    axis: int | None


def extract(
    kernel: KernelOp,
    machine: Machine,
    *,
    parts: int = 1,
    loop: scf.ForOp | None = None,
    shape: Mapping[str, int] | None = None,
) -> Extracted:
    """The graph of one loop of a kernel whose tile extents are bound.

    Args:
        kernel: the kernel.
        machine: what it shall run on.
        parts: so many neighbouring programs as one.
        loop: which of its loops; may be left out where it has one.
        shape: extents of the kernel's symbols, for the number of iterations; others are assumed, with a remark.

    Raises:
        ForgeError: FORGE-U010, with the kernel's name: where it has no loop of tiles, or several and none is named;
            extents that are not bound; products or operations that the machine has no instructions for; no axis along
            which neighbours share a factor of a product, or a grid that ``parts`` do not divide.
    """
    found = loops_of(kernel)
    if loop is None:
        if len(found) != 1:
            count = "no loop" if not found else f"{len(found)} loops"
            raise _refused(kernel, f"has {count} of tiles, one is needed")
        loop = found[0]
    return _extract(kernel, machine, parts, [loop], shape)[0]


def phases(
    kernel: KernelOp,
    machine: Machine,
    *,
    parts: int = 1,
    loops: Sequence[scf.ForOp] | None = None,
    shape: Mapping[str, int] | None = None,
) -> list[Extracted]:
    """The graphs of all loops of a kernel, or of some of them, in the order in which they run.

    Ops and values of several loops have one name where they are the same copy or the same product. Raises as
    ``extract``.
    """
    found = loops_of(kernel) if loops is None else loops
    if not found:
        raise _refused(kernel, "has no loop of tiles")
    return _extract(kernel, machine, parts, found, shape)


def kernels_of(source: ModuleOp | Path, name: str = "the module") -> list[KernelOp]:
    """The kernels with loops of tiles in a module (which errors call ``name``), or in a file of IR.

    Raises:
        ForgeError: FORGE-U010 where there are none; what is wrong with a file.
    """
    module = source if isinstance(source, ModuleOp) else _read(source)
    every = [op for op in module.walk() if isinstance(op, KernelOp)]
    found = [op for op in every if loops_of(op)]
    if not found:
        name = name if isinstance(source, ModuleOp) else str(source)
        if every:
            names = tuple(kernel.sym_name.data for kernel in every)
            raise error(
                "FORGE-U010", f"no kernel of {name} has a loop of tiles, which is what is scheduled", notes=names
            )
        raise error(
            "FORGE-U010",
            f"{name} has no tile kernel",
            help="forgec opt FILE -p '@O2,lower-to-tile,bind-tiles{target=\"cuda:sm_90a\"}' makes kernels of a model",
        )
    return found


def graphs(
    path: Path, machine: Machine, shape: Mapping[str, int] | None = None, *, name: str | None = None
) -> list[tuple[Graph, ...]]:
    """The loops of the kernel in a file, once for each number of parts that it may be divided into, as
    ``solve.schedules`` takes them.

    Raises:
        ForgeError: FORGE-U010, where there is no such kernel, or several and none is named; as ``extract``.
    """
    module = _read(path)
    every = kernels_of(module, str(path))
    found = [kernel for kernel in every if name in (None, kernel.sym_name.data)]
    if len(found) != 1:
        named = [op for op in module.walk() if isinstance(op, KernelOp) and op.sym_name.data == name]
        if named and not found:
            raise _refused(named[0], "has no loop of tiles, which is what is scheduled")
        have = f"no kernel {name} with a loop" if name else f"{len(found)} kernels with loops, one is needed"
        names = tuple(kernel.sym_name.data for kernel in every)
        help = f"name one of them: {path}:{names[0]}"
        raise error("FORGE-U010", f"{path} has {have}", notes=names, help=help)
    (kernel,) = found
    made = [tuple(each.graph for each in phases(kernel, machine, shape=shape))]
    for parts in range(2, MOST_PARTS + 1):
        if _why_not(kernel, parts, _axis(kernel), shape or {}) is None:
            made.append(tuple(each.graph for each in phases(kernel, machine, parts=parts, shape=shape)))
    return made


def _read(path: Path) -> ModuleOp:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as caught:
        raise error("FORGE-U001", f"{path} cannot be read: {caught}") from None
    (piece,) = ir_source.split(str(path), text, at_separators=False)
    return ir_source.parse(piece, context()).module


def _refused(kernel: KernelOp, why: str, help: str | None = None) -> Exception:
    return error("FORGE-U010", f"kernel {kernel.sym_name.data} {why}", location=location_of(kernel), help=help)


def _extract(
    kernel: KernelOp, machine: Machine, parts: int, loops: Iterable[scf.ForOp], shape: Mapping[str, int] | None
) -> list[Extracted]:
    shape = dict(shape or {})
    if not kernel.is_bound:
        raise _refused(kernel, "has tile extents that are not bound", "choose them with bind-tiles")
    unknown = sorted(shape.keys() - set(kernel.symbol_names))
    if unknown:
        raise _refused(kernel, f"has no symbol {', '.join(unknown)}; it has {', '.join(kernel.symbol_names) or 'none'}")
    axis = _axis(kernel)
    reason = _why_not(kernel, parts, axis, shape)
    if reason is not None:
        raise _refused(kernel, reason)
    names = Names()
    results, loops = [], list(loops)
    for number, loop in enumerate(loops, 1):
        body = Body(kernel, loop)
        builder = GraphBuilder(body, machine, parts, axis, names)
        graph = builder.graph(_trips(kernel, loop, shape))
        if len(loops) > 1:
            graph = replace(graph, name=f"{graph.name} loop {number}")
        results.append(Extracted(graph, loop, builder.tile_ops, builder.tile_values, parts, axis))
    return results


def _why_not(kernel: KernelOp, parts: int, axis: int | None, shape: Mapping[str, int]) -> str | None:
    """Why a kernel cannot be divided into so many parts, None if it can."""
    if parts < 1:
        return f"cannot be divided into {parts} parts"
    if parts == 1:
        return None
    if axis is None:
        return (
            f"has no product whose rows alone depend on an axis of the grid, along which {parts} programs could be one"
        )
    extent = _known(kernel.grid.data[axis], {**kernel.bindings, **shape})
    if extent is not None and extent % parts:
        return f"has {extent} programs along axis {axis} of its grid, which {parts} parts do not divide"
    return None


def _known(extent: Extent, values: Mapping[str, int]) -> int | None:
    found = substitute(extent, values)
    return found if isinstance(found, int) else None


def _axis(kernel: KernelOp) -> int | None:
    """The axis along which most products have other rows and the same columns; of equals the one along which the least
    is copied for each program by itself.
    """
    bodies = [Body(kernel, loop) for loop in loops_of(kernel)]
    best: tuple[int, int] | None = None
    chosen: int | None = None
    for axis, extent in enumerate(kernel.grid.data):
        if extent == 1 or not bodies:
            continue
        apart = bodies[0].depends_on(axis)
        nodes = [node for body in bodies for node in body.nodes]
        products = sum(isinstance(node, DotOp) and node.lhs in apart and node.rhs not in apart for node in nodes)
        copied = sum(bytes_of(node.results[0]) for node in nodes if is_copy(node) and node.results[0] in apart)
        key = (products, -copied)
        if products and (best is None or key > best):
            best, chosen = key, axis
    return chosen


def _trips(kernel: KernelOp, loop: scf.ForOp, shape: Mapping[str, int]) -> int:
    """How often a loop runs, in all turns of the loops around it; in the middle of the grid (and of these turns), where
    that depends on the program.
    """
    places = Places(kernel)
    turns = places.turns_to(loop, end_if_run(loop))
    for outer in loops_around(loop, kernel) or ():
        more = places.turns_to(outer, end_if_run(outer))
        turns = None if turns is None or more is None else turns * more
    if turns is None:
        missed(loop, f"how often a loop of {kernel.sym_name.data} runs is not known", f"{ASSUMED_EXTENT} is assumed")
        return ASSUMED_EXTENT
    turns = substitute(places.middle(turns), {**kernel.bindings, **shape})
    assumed = sorted(free_symbols(turns))
    if assumed:
        missed(
            loop,
            f"how often a loop of {kernel.sym_name.data} runs depends on {', '.join(assumed)}",
            f"{ASSUMED_EXTENT} is assumed for each",
        )
    return max(evaluate(turns, dict.fromkeys(assumed, ASSUMED_EXTENT)), 1)
