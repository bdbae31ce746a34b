"""Persistent grids: what comes before and after the loop of one tile runs beside the loop of the next."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from forgec.diagnostics import ForgeError
from forgec.schedule import files
from forgec.schedule.check_persistent import check_persistent
from forgec.schedule.graph import Graph, Op, Read, Use, Value
from forgec.schedule.machine import Instruction, Machine
from forgec.schedule.persistent import Persistent
from forgec.schedule.simulate import simulate_turns
from forgec.schedule.solve_persistent import persistent, turns
from forgec.schedule.tile import Tile
from tests.schedule.small import random_graph, random_machine
from tests.schedule.tiles import attended, product


@pytest.fixture(scope="module")
def gemm(hopper: Machine) -> Persistent:
    return turns(product(hopper, 2, 64, 192, 64, 32), hopper)


@pytest.fixture(scope="module")
def attention(hopper: Machine) -> Persistent:
    return turns(attended(hopper, 128, 16), hopper)


def first_of(schedule: Persistent, role: str) -> int:
    """When the loop's first op of a role starts in a turn."""
    placed = schedule.placed[0]
    return min(
        base + phase.starts[op.name]
        for base, phase in zip(placed.bases, placed.phases, strict=True)
        for op in phase.graph.ops
        if op.role == role
    )


def end_of(graph: Graph | None, starts: dict[str, int]) -> int:
    assert graph is not None
    return max(starts[op.name] + op.span for op in graph.ops)


def test_the_epilogue_of_a_product_runs_beside_the_loads_of_the_next_tile(hopper: Machine, gemm: Persistent) -> None:
    assert check_persistent(gemm, hopper) == []
    placed = gemm.placed[0]
    stored = end_of(placed.tile.epilogue, dict(placed.epilogue))
    # Filling, the loop, draining and the epilogue one after another would take a whole turn's span.
    assert gemm.interval < stored - first_of(gemm, "load")
    assert first_of(gemm, "load") + gemm.interval < stored
    loop = placed.phases[0]
    assert gemm.interval <= 1.01 * loop.ii * loop.graph.trips
    # Each of the consumers takes its own epilogue while the other one multiplies.
    consumers = [group for group in gemm.groups if any(name.startswith("mma") for name in group.ops)]
    assert len(consumers) == 2
    assert gemm.certificate is not None
    assert gemm.certificate.bounds[0].name == "unit tensor_core"
    assert gemm.certificate.reduction[0].cycles >= gemm.certificate.bounds[0].cycles
    at_bound = gemm.interval == gemm.certificate.bounds[0].cycles
    assert gemm.certificate.status == ("optimal" if at_bound else "optimal for the reduction")


def test_queries_are_loaded_while_the_tile_before_is_finished(hopper: Machine, attention: Persistent) -> None:
    assert check_persistent(attention, hopper) == []
    placed = attention.placed[0]
    done = end_of(placed.tile.epilogue, dict(placed.epilogue))
    assert min(placed.prologue.values()) + attention.interval < done
    loop = placed.phases[0]
    alone = loop.ii * (loop.graph.trips - 1) + loop.length
    assert attention.interval < alone
    assert attention.certificate is not None
    assert attention.certificate.bounds[0].cycles <= attention.interval


def test_simulated_turns_take_what_was_solved(hopper: Machine, gemm: Persistent, attention: Persistent) -> None:
    for schedule, most in ((gemm, 0.01), (attention, 0.06)):
        found = simulate_turns(schedule, hopper, 8)
        assert found.deadlock == {}
        # Groups go on as soon as they can, so that it may be less.
        assert (1 - most) * schedule.interval <= found.per_iteration <= 1.001 * schedule.interval
        late = simulate_turns(schedule, hopper, 8, lambda op, number: op.latency * (1 + number % 2))
        assert late.deadlock == {}


def test_bounds_of_the_program_hold_for_groups_that_run_as_soon_as_they_can(
    hopper: Machine, gemm: Persistent, attention: Persistent
) -> None:
    for schedule in (gemm, attention):
        assert schedule.certificate is not None
        found = simulate_turns(schedule, hopper, 8)
        assert found.per_iteration >= schedule.certificate.bounds[0].cycles
        above = replace(schedule.certificate, bounds=schedule.certificate.reduction, status="optimal")
        said = check_persistent(replace(schedule, certificate=above), hopper)
        assert {violation.rule for violation in said} == {"certificate"}


def test_two_tiles_at_once_take_turns_at_the_tensor_cores(hopper: Machine) -> None:
    # One consumer by itself leaves the tensor cores idle while it converts and stores.
    quick = replace(hopper, instructions={**hopper.instructions, "load": quicker(hopper, "load")})
    tile = product(quick, 1, 64, 256, 64, 16)
    one, two = (turns(tile, quick, copies) for copies in (1, 2))
    for schedule in (one, two):
        assert check_persistent(schedule, quick) == []
        assert simulate_turns(schedule, quick, 6).deadlock == {}
    assert two.cycles_per_tile < one.cycles_per_tile
    assert [name for group in two.groups for name in group.ops].count("load_b") == 1
    assert persistent([tile], quick).cost == two.cost


def quicker(hopper: Machine, kind: str) -> Instruction:
    instruction = hopper.instructions[kind]
    return replace(instruction, charges=tuple(replace(c, per_cycle=4 * c.per_cycle) for c in instruction.charges))


def test_what_is_moved_is_found_out(hopper: Machine, gemm: Persistent) -> None:
    placed = gemm.placed[0]
    rules = set()
    for name in placed.epilogue:
        early = dict(placed.epilogue)
        early[name] -= 2000
        rules |= {v.rule for v in check_persistent(replace(gemm, placed=(replace(placed, epilogue=early),)), hopper)}
    assert {"dependences"} <= rules
    sooner = {v.rule for v in check_persistent(replace(gemm, interval=gemm.interval - 200), hopper)}
    assert {"units", "streams"} & sooner
    assert "certificate" in sooner
    fewer = {**gemm.depths, "b": 1}
    assert "buffers" in {v.rule for v in check_persistent(replace(gemm, depths=fewer), hopper)}
    more = {**gemm.depths, "b": 9}
    assert "memories" in {v.rule for v in check_persistent(replace(gemm, depths=more), hopper)}
    tight = tuple(replace(group, registers=40) for group in gemm.groups)
    assert "registers" in {v.rule for v in check_persistent(replace(gemm, groups=tight), hopper)}
    lost = tuple(replace(group, ops=group.ops[1:]) for group in gemm.groups)
    assert {v.rule for v in check_persistent(replace(gemm, groups=lost), hopper)} == {"structure"}


def solved(tile: Tile, machine: Machine, copies: int) -> Persistent | None:
    try:
        return turns(tile, machine, copies)
    except ForgeError as caught:
        if caught.code != "FORGE-S001":
            raise
        return None


def random_tile(random: Random, machine: Machine) -> Tile:
    """A random loop, with an op before it that brings something and one after it that takes something away."""
    loop = random_graph(random, machine, 3)
    # In order, what waits for a buffer that a later op of its own group empties waits for ever: storage from the start.
    values = tuple(replace(value, begin=0) for value in loop.values)
    loop = replace(loop, values=values, trips=random.randint(1, 4), resident={})
    ends = []
    for name in ("before", "after"):
        uses = (Use("a", random.choice((1, 2))),) if random.random() < 0.5 else ()
        ends.append(Op(name, "op", random.choice((1, 1, 2)), random.choice((1, 3)), uses))
    reader, maker = random.choice(loop.ops), random.choice(loop.ops)
    memory = random.choice(("shared", "register", "tensor"))
    size = 128 if memory == "register" else 1
    begin = random.randint(0, maker.latency)
    links = (
        Value("brought", "before", "shared", 1, (Read(reader.name, reader.latency),)),
        Value("taken", maker.name, memory, size, (Read("after", ends[1].issue, random.choice((0, 0, 1))),), begin),
    )
    return Tile("random", (loop,), Graph("before", (ends[0],)), Graph("after", (ends[1],)), links)


def test_random_tiles_are_legal_and_run() -> None:
    fitting = overlapping = slow = 0
    for seed in range(36):
        random = Random(seed)
        made_up = random_machine(random)
        tile = random_tile(random, made_up)
        for copies in (1, 2):
            schedule = solved(tile, made_up, copies)
            if schedule is None:
                continue
            assert check_persistent(schedule, made_up) == [], f"seed {seed}, {copies} copies"
            ran = simulate_turns(schedule, made_up, 8)
            assert ran.deadlock == {}, f"seed {seed}, {copies} copies"
            # In order and as soon as may be is not always soonest: a unit that is taken early delays others.
            slow += ran.per_iteration > schedule.interval
            assert ran.per_iteration <= schedule.interval * 4 / 3, f"seed {seed}, {copies} copies"
            fitting, overlapping = fitting + 1, overlapping + (schedule.interval < schedule.span)
    assert fitting >= 30
    assert overlapping >= 20
    assert slow <= fitting // 8


def test_a_tile_is_read_as_it_was_written(hopper: Machine, gemm: Persistent, tmp_path: Path) -> None:
    files.write(gemm, tmp_path / "persistent.json")
    assert files.read(Persistent, tmp_path / "persistent.json") == gemm
    tile = attended(hopper, 64, 2)
    files.write(tile, tmp_path / "tile.json")
    assert files.read(Tile, tmp_path / "tile.json") == tile
    with pytest.raises(ForgeError, match=r"two ops named load_q\.0"):
        replace(tile, epilogue=tile.prologue)
    with pytest.raises(ForgeError, match="names the op nobody"):
        replace(tile, values=(Value("x", "nobody", "shared", 1, ()),))
