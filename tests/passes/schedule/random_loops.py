"""Random loops over tiles, with graphs of random durations, and machines that have room for them."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from xdsl.ir import Operation, SSAValue

from forgec.ir.tile.compute import DotOp
from forgec.ir.tile.kernel import KernelOp
from forgec.ir.tile.memory import LoadOp, StoreOp
from forgec.passes.schedule.body import Body, loops_of
from forgec.passes.schedule.extract import Extracted
from forgec.schedule.graph import Dependence, Graph, Op, Read, Use, Value
from forgec.schedule.machine import Machine
from tests.ir.build import parse
from tests.schedule.small import random_machine

IN = "!tile.block<tensor<4x?xf32, #forge.tensor<[n0 * 4]>>>"
TILE = "tensor<4x4xf32>"
KINDS = ("load", "load", "dot", "sum", "sum", "max", "half", "row", "spread")


def random_kernel(random: Random, *trips: int | None) -> KernelOp:
    """Loops with loads, products, sums, carried values and perhaps a store. Loop n runs ``trips[n]`` times, None: as
    often as its symbol ``n0``, ``n1`` says. A loop begins with what the one before has made.
    """
    carried = random.randint(1, 3)
    kinds = ", ".join([TILE] * carried)
    starts = [random.choice(("%w", "%one")) for _ in range(carried)]
    loops: list[str] = []
    for number, turns in enumerate(trips):
        lines, yielded = random_body(random, f"l{number}", carried, starts, stores=number == len(trips) - 1)
        bounds = f"n{number} * 4" if turns is None else str(turns * 4)
        initial = ", ".join(f"%c{number}_{place} = {start}" for place, start in enumerate(starts))
        results = [f"%r{number}_{place}" for place in range(carried)]
        loops.append(f"""
  %end{number} = tile.index {bounds}() : () -> index
  {", ".join(results)} = scf.for %i = %zero to %end{number} step %step iter_args({initial}) -> ({kinds}) {{
    {chr(10).join(lines)}
    scf.yield {", ".join(yielded)} : {kinds}
  }}""")
        starts = [random.choice([*results, result, result, "%w"]) for result in results]
        if random.random() < 0.3:
            loops.append(f"  %s{number} = arith.addf {results[0]}, %w : {TILE}")
            starts[0] = f"%s{number}"
    stores = "\n".join(
        f"tile.store %r{len(trips) - 1}_{place}, %y{place}[%zero, %zero] : {TILE}, !tile.block<tensor<4x4xf32>>"
        for place in range(carried)
    )
    outputs = ", ".join(f"%y{number}: !tile.block<tensor<4x4xf32>>" for number in range(carried))
    symbols = ", ".join(f"n{number}" for number in range(len(trips)))
    text = f"""
tile.kernel @loop(%x0: {IN}, %x1: {IN}, %p: !tile.block<tensor<4x4xf32>>, %z: {IN}, {outputs}) symbols [{symbols}]
    writes [{", ".join(map(str, range(3, 4 + carried)))}] grid [1] {{
  %zero = tile.index 0() : () -> index
  %step = tile.index 4() : () -> index
  %f = arith.constant 1.0 : f32
  %e = arith.constant 0.125 : f32
  %one = tile.broadcast %f along [] : f32 -> {TILE}
  %eighth = tile.broadcast %e along [] : f32 -> {TILE}
  %u = tile.load %p[%zero, %zero] : !tile.block<tensor<4x4xf32>> -> {TILE}
  %w = arith.mulf %u, %eighth : {TILE}
  {"".join(loops)}
  {stores}
  tile.return
}}"""
    (kernel,) = parse(text.replace("n0 * 4>", f"{symbols.replace(', ', ' * 4 + ')} * 4>")).ops
    assert isinstance(kernel, KernelOp)
    return kernel


def random_body(
    random: Random, prefix: str, carried: int, outside: list[str], *, stores: bool
) -> tuple[list[str], list[str]]:
    """The ops of a loop, and what it yields."""
    lines: list[str] = []
    values = [f"%c{prefix[1:]}_{number}" for number in range(carried)]
    made: list[str] = []
    rows: list[str] = []
    for number in range(random.randint(1, 6)):
        name, kind = f"%{prefix}v{number}", random.choice(KINDS)
        pick = values + made + (outside if random.random() < 0.2 else [])
        if kind == "load":
            lines.append(f"{name} = tile.load %x{random.randint(0, 1)}[%zero, %i] : {IN} -> {TILE}")
        elif kind == "dot" and made:
            a, b, c = random.choice(made), random.choice(made), random.choice(pick)
            lines.append(f"{name}h = arith.mulf %w, {a} : {TILE}")
            lines.append(f"{name} = tile.dot {name}h, %w into {c} : {TILE}, {TILE} -> {TILE}")
            if random.random() < 0.3:
                lines[-1] = f"{name} = tile.dot %w, {b} into {c} : {TILE}, {TILE} -> {TILE}"
        elif kind == "half":
            lines.append(f"{name} = arith.mulf %w, {random.choice(pick)} : {TILE}")
        elif kind == "row":
            rows.append(f"{name}r")
            lines.append(f'{name}r = tile.reduce "max" {random.choice(pick)} axis 1 : {TILE} -> tensor<4xf32>')
            continue
        elif kind == "spread" and rows:
            lines.append(f"{name} = tile.broadcast {random.choice(rows)} along [0] : tensor<4xf32> -> {TILE}")
        else:
            op = "maximumf" if kind == "max" else random.choice(("addf", "subf"))
            lines.append(f"{name} = arith.{op} {random.choice(pick)}, {random.choice(pick)} : {TILE}")
        made.append(name)
    if not made:
        made.append(f"%{prefix}v9")
        lines.append(f"%{prefix}v9 = tile.load %x0[%zero, %i] : {IN} -> {TILE}")
    if stores and random.random() < 0.4:
        lines.append(f"tile.store {random.choice(made)}, %z[%zero, %i] : {TILE}, {IN}")
    return lines, [random.choice([*made, *made, *values]) for _ in range(carried)]


def random_extracted(random: Random, kernel: KernelOp, target: Machine) -> list[Extracted]:
    """Graphs of the kernel's loops: an op for each op of the body that is not free, with durations at random. The same
    copies in several loops have one name, and their values one ring.
    """
    made: dict[str, Op] = {}
    found = []
    for number, loop in enumerate(loops_of(kernel)):
        body = Body(kernel, loop)
        names = {node: f"op{number}_{place}" for place, node in enumerate(body.nodes)}
        loads = [node for node in body.nodes if isinstance(node, LoadOp)]
        names |= {node: f"load{place}" for place, node in enumerate(loads)}
        for node in body.nodes:
            made.setdefault(names[node], random_op(random, names[node], node, target))
        values: list[Value] = []
        held: dict[str, SSAValue] = {}
        for node in body.nodes:
            for result in node.results:
                reads = tuple(
                    Read(names[reader], random.choice((0, 1, 2)), distance) for reader, distance in body.readers(result)
                )
                memory = "shared" if isinstance(node, LoadOp) else "register"
                if isinstance(node, DotOp) and random.random() < 0.5:
                    memory = "tensor"
                name = names[node] if isinstance(node, LoadOp) else f"v{number}_{len(values)}"
                crossing = memory == "register" and random.random() < 0.6
                values.append(Value(name, names[node], memory, 128, reads, crossing=crossing))
                held[name] = result
        order = tuple(Dependence(names[node], names[node], 1, 1) for node in body.nodes if isinstance(node, StoreOp))
        graph = Graph("random", tuple(made[names[node]] for node in body.nodes), tuple(values), order)
        found.append(Extracted(graph, loop, {names[node]: (node,) for node in body.nodes}, held, 1, None))
    return found


def random_op(random: Random, name: str, node: Operation, target: Machine) -> Op:
    """An op that issues quickly where it runs by itself."""
    issue, latency = random.choice((0, 1, 1, 2, 3)), random.choice((0, 1, 2, 4))
    if isinstance(node, (LoadOp, DotOp)):
        latency = issue + random.choice((0, 1, 3, 6))
    uses = tuple(
        Use(unit, random.choice((1, 2)), random.choice((0, 0, 1)), random.randint(1, target.units[unit].capacity))
        for unit in random.sample(sorted(target.units), random.choice((0, 1, 1, 2)))
    )
    return Op(name, "op", issue, latency, uses, variable=isinstance(node, LoadOp) and random.random() < 0.5)


def roomy(random: Random) -> Machine:
    """A random machine with room for everything."""
    found = random_machine(random)
    return replace(
        found,
        shared_bytes=1 << 20,
        tensor_bytes=1 << 20,
        most_warps=64,
        isolate=random.choice(("none", "loads", "waits")),
        registers=replace(found.registers, total=1 << 20, most=64, reserve=0, uniform=False),
    )
