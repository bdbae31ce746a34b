"""Loops for tests: a small one on Hopper for what is shown and stored of schedules, and attention at a tile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

from forgec.schedule.graph import Dependence, Graph, Read, Value
from forgec.schedule.kernels.attention import SIZES, Block, one_block
from forgec.schedule.kernels.problem import Problem
from forgec.schedule.machine import Machine
from forgec.schedule.schedule import Group, Phase, Schedule
from forgec.schedule.solve import schedules


def ring(machine: Machine, columns: int = 128, name: str = "ring") -> Graph:
    """Copies into shared memory, products of 64 rows in registers, and arithmetic on them."""
    size = 64 * columns
    load = machine.op("load", {"load": 2 * size}, role="load")
    dot = machine.op("dot", {"mma.bf16": 64 * size}, role="mma")
    add = machine.op("add", {"arithmetic": size}, role="sum")
    values = (
        Value("tiles", "load", "shared", 2 * size, (Read("dot", dot.latency),)),
        Value("product", "dot", "register", 4 * size, (Read("add", add.issue),)),
    )
    carried = (Dependence("add", "add", add.latency, 1),)
    return Graph(
        name,
        (load, dot, add),
        values,
        carried,
        work=Fraction(size),
        tile={"BN": columns},
        resident={"shared": 64},
        traffic=size,
    )


def attention(machine: Machine, parts: int, keys: int, head: int = 128) -> Graph:
    """The loop of attention over blocks of keys, with the rows of one product in each part."""
    problem = Problem("attention-fwd", machine, {**SIZES, "head": head}, "bf16")
    return one_block(problem, Block(parts, problem.mma.rows, keys), sharers=8)


def solved(machine: Machine, *columns: int, k: int = 1) -> list[Schedule]:
    """Its schedules, at one tile for each number of columns."""
    return schedules([[ring(machine, each)] for each in columns or (128,)], machine, k=k)


def renamed(schedule: Schedule, called: Callable[[str], str]) -> Schedule:
    """The same schedule with other names of ops, values and groups."""

    def graph(old: Graph) -> Graph:
        return replace(
            old,
            name=called(old.name),
            ops=tuple(replace(op, name=called(op.name), role=called(op.role)) for op in old.ops),
            values=tuple(
                replace(
                    value,
                    name=called(value.name),
                    producer=called(value.producer),
                    reads=tuple(replace(read, op=called(read.op)) for read in value.reads),
                )
                for value in old.values
            ),
            dependences=tuple(
                replace(each, source=called(each.source), target=called(each.target)) for each in old.dependences
            ),
            tile={called(name): extent for name, extent in old.tile.items()},
        )

    def group(old: Group) -> Group:
        return replace(old, name=called(old.name), kind=called(old.kind), ops=tuple(map(called, old.ops)))

    return replace(
        schedule,
        phases=tuple(
            Phase(graph(each.graph), each.ii, {called(name): at for name, at in each.starts.items()})
            for each in schedule.phases
        ),
        groups=tuple(map(group, schedule.groups)),
        depths={called(name): depth for name, depth in schedule.depths.items()},
    )
