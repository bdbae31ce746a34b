"""Kernels by name as persistent programs: what comes before and after the loops of one output tile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from forgec.diagnostics import error
from forgec.schedule.graph import Dependence, Graph, Op, Read, Value
from forgec.schedule.kernels import named
from forgec.schedule.kernels.problem import BYTES
from forgec.schedule.machine import Machine
from forgec.schedule.tile import Tile

LAST = {"attention-fwd": "pv", "attention-fwd-causal": "pv", "gemm": "mma", "grouped-gemm": "mma"}
"""Kernels whose loops leave sums behind, with the product that does."""
WHOLE = ("gemm-epilogue", "rms-norm-gemm")
"""Kernels whose last loop stores."""
CHUNK = 64
"""Columns that are converted and stored at once."""
STAGED = 2
"""Blocks of columns of a part that have shared memory at one time."""


def tile_program(
    name: str, machine: Machine, shape: Mapping[str, int] | None = None, dtype: str = "bf16"
) -> list[Tile]:
    """One output tile of a kernel, for each choice of tile; arguments and errors as of ``named``.

    Raises:
        ForgeError: FORGE-U010 also for kernels that have no output tiles of this kind.
    """
    if name not in LAST and name not in WHOLE:
        known = ", ".join((*LAST, *WHOLE))
        raise error("FORGE-U010", f"there is no persistent program of {name}", notes=(f"there are {known}",))
    kernels = named(name, machine, shape, dtype)
    if name in WHOLE:
        return [Tile(kernel[0].name, tuple(kernel)) for kernel in kernels]
    return [with_ends(kernel, machine, LAST[name], BYTES[dtype]) for kernel in kernels]


def with_ends(kernel: tuple[Graph, ...], machine: Machine, last: str, bytes_each: int) -> Tile:
    """The loops with what loads the queries, if there are any, and what converts and stores the sums."""
    loop = kernel[-1]
    before: list[Op] = []
    after: list[Op] = []
    values: list[Value] = []
    inside: list[Value] = []
    waits: list[Dependence] = []
    stays: dict[str, str] = {}
    resident = dict(loop.resident)
    for op in loop.ops:
        if op.twin == "qk":
            rows, _, head = op.shape
            load = machine.op(f"load_q.{op.part}", {"load": rows * head * bytes_each}, role="load")
            before.append(load)
            size = rows * head * bytes_each
            resident["shared"] = resident.get("shared", 0) - size
            values.append(Value(f"q.{op.part}", load.name, "shared", size, (Read(op.name, op.latency),)))
        if op.twin == last:
            output(op, loop, machine, bytes_each, after, values, inside, waits, stays)
    phases = tuple(replace(graph, resident={k: max(n, 0) for k, n in resident.items()}) for graph in kernel)
    prologue = Graph(f"{loop.name} prologue", tuple(before)) if before else None
    epilogue = Graph(f"{loop.name} epilogue", tuple(after), tuple(inside), tuple(waits))
    return Tile(loop.name, phases, prologue, epilogue, tuple(values), stays=stays)


def output(
    op: Op,
    loop: Graph,
    machine: Machine,
    bytes_each: int,
    after: list[Op],
    values: list[Value],
    inside: list[Value],
    waits: list[Dependence],
    stays: dict[str, str],
) -> None:
    """What converts and stores what a product leaves, a block of columns after another."""
    sums = next(value for value in loop.values if value.producer == op.name and value.memory in ("register", "tensor"))
    rows, columns = op.shape[0], op.shape[1]
    reads: list[Read] = []
    stores: list[Op] = []
    for first in range(0, columns, CHUNK):
        wide = min(CHUNK, columns - first)
        suffix = f"{op.part}.{first}"
        size = rows * wide * bytes_each
        work = {"arithmetic": 2 * rows * wide}
        if "write_shared" in machine.instructions:
            work["write_shared"] = size
        if sums.memory == "tensor":
            work["read_tensor"] = rows * wide * 4
        convert = machine.op(f"convert.{suffix}", work, role="epilogue", shape=(rows, wide))
        store = machine.op(f"store.{suffix}", {"store": size}, role="store", shape=(rows, wide))
        after += [convert, store]
        stores.append(store)
        reads.append(Read(convert.name, max(convert.issue, convert.latency)))
        # A block takes the place of one before it, which has been stored by then.
        if len(stores) > STAGED:
            waits.append(Dependence(stores[-1 - STAGED].name, convert.name, stores[-1 - STAGED].latency))
            size = 0
        inside.append(Value(f"out.{suffix}", convert.name, "shared", size, (Read(store.name, store.latency),)))
    for place in range(min(STAGED, len(stores))):
        held = inside[place - len(stores)]
        users = tuple(Read(store.name, store.latency) for store in stores[place::STAGED])
        inside[place - len(stores)] = replace(held, reads=users)
    # In tensor memory they stay where they are; in registers they are what the group has in its hands.
    begin = sums.begin if sums.memory == "tensor" else op.latency
    values.append(Value(f"{sums.name} done", op.name, sums.memory, sums.size, tuple(reads), begin))
    if sums.memory == "tensor":
        stays[f"{sums.name} done"] = sums.name
