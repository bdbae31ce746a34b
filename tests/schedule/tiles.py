"""Output tiles of a matrix product and of attention on Hopper, written down by hand."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from forgec.schedule.graph import Graph, Op, Read, Value
from forgec.schedule.machine import Machine
from forgec.schedule.tile import Tile
from tests.schedule.loops import attention


def product(machine: Machine, parts: int, rows: int, columns: int, depth: int, trips: int, chunk: int = 64) -> Tile:
    """C = A B: each part has ``rows`` rows of A; a part's sums are converted and stored ``chunk`` columns at a time."""
    ops: list[Op] = [machine.op("load_b", {"load": columns * depth * 2}, role="load")]
    values: list[Value] = []
    last: list[Op] = []
    out: list[Value] = []
    sums: list[Value] = []
    b_reads: list[Read] = []
    for part in range(parts):
        load = machine.op(f"load_a.{part}", {"load": rows * depth * 2}, part=part, twin="load_a", role="load")
        mma = machine.op(f"mma.{part}", {"mma.bf16": rows * columns * depth}, part=part, twin="mma", role="mma")
        ops += [load, mma]
        values.append(Value(f"a.{part}", load.name, "shared", rows * depth * 2, (Read(mma.name, mma.latency),)))
        values.append(Value(f"acc.{part}", mma.name, "register", rows * columns * 4, (Read(mma.name, 0, 1),)))
        b_reads.append(Read(mma.name, mma.latency))
        reads = []
        for place in range(columns // chunk):
            size = rows * chunk * 2
            name = f"convert.{part}.{place}"
            convert = machine.op(name, {"arithmetic": rows * chunk, "exchange": rows * chunk // 2}, role="epilogue")
            store = machine.op(f"store.{part}.{place}", {"store": size}, role="store")
            last += [convert, store]
            out.append(Value(f"c.{part}.{place}", convert.name, "shared", size, (Read(store.name, store.latency),)))
            reads.append(Read(convert.name, convert.issue))
        sums.append(Value(f"sums.{part}", mma.name, "register", rows * columns * 4, tuple(reads), mma.latency))
    values.append(Value("b", "load_b", "shared", columns * depth * 2, tuple(b_reads)))
    work = Fraction(parts * rows * columns * depth)
    loop = Graph("product", tuple(ops), tuple(values), work=work, trips=trips)
    return Tile("product", (loop,), None, Graph("store", tuple(last), tuple(out)), tuple(sums))


def attended(machine: Machine, keys: int, trips: int, parts: int = 2, head: int = 128) -> Tile:
    """Attention: queries are loaded before the loop, and divided, converted and stored after it."""
    rows = 64
    loop = attention(machine, parts, keys, head)
    loop = replace(loop, resident={}, trips=trips)
    size = rows * head * 2
    first: list[Op] = []
    last: list[Op] = []
    values: list[Value] = []
    out: list[Value] = []
    for part in range(parts):
        load = machine.op(f"load_q.{part}", {"load": size}, role="load")
        qk, pv = loop.op(f"qk.{part}"), loop.op(f"pv.{part}")
        divide = machine.op(f"divide.{part}", {"arithmetic": 2 * rows * head}, role="epilogue")
        store = machine.op(f"store.{part}", {"store": size}, role="store")
        first.append(load)
        last += [divide, store]
        values.append(Value(f"q.{part}", load.name, "shared", size, (Read(qk.name, qk.latency),)))
        values.append(
            Value(f"out.{part}", pv.name, "register", 2 * size, (Read(divide.name, divide.issue),), pv.latency)
        )
        out.append(Value(f"c.{part}", divide.name, "shared", size, (Read(store.name, store.latency),)))
    return Tile(
        "attention", (loop,), Graph("queries", tuple(first)), Graph("output", tuple(last), tuple(out)), tuple(values)
    )
