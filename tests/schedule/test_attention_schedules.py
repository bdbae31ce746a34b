"""What is found for attention: the schedules of FlashAttention-3 and 4, from machine models that know neither."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from forgec.diagnostics import ForgeError
from forgec.schedule import files, machine
from forgec.schedule.check import check
from forgec.schedule.graph import Graph
from forgec.schedule.kernels import attention
from forgec.schedule.machine import Machine
from forgec.schedule.schedule import Schedule
from forgec.schedule.simulate import simulate
from forgec.schedule.solve import schedules

BYTES = {"bf16": 2, "f16": 2, "fp8": 1}


def on_hopper(head: int, dtype: str, hopper: Machine) -> Schedule:
    tiles = attention.tiles(hopper, dtype)
    loops = [[attention.in_registers(hopper, head, dtype, parts, keys, BYTES[dtype])] for parts, keys in tiles]
    return schedules(loops, hopper)[0]


def starts_of(schedule: Schedule, twin: str) -> list[int]:
    phase = schedule.phases[0]
    return [phase.starts[op.name] for op in phase.graph.ops if op.twin == twin]


@pytest.fixture(scope="module")
def hopper() -> Machine:
    return machine.named("sm_90a")


@pytest.fixture(scope="module")
def head_128(hopper: Machine) -> Schedule:
    return on_hopper(128, "bf16", hopper)


def test_hopper_finds_flash_attention_3(hopper: Machine, head_128: Schedule) -> None:
    phase, certificate = head_128.phases[0], head_128.certificate
    assert certificate is not None
    assert check(head_128, hopper) == []
    assert certificate.status == "optimal"
    assert certificate.bounds[0].name == "unit tensor_core"
    assert phase.ii == certificate.bounds[0].cycles
    load, *consumers = head_128.groups
    assert (load.kind, load.warps, set(load.ops)) == ("load", 1, {"load_k", "load_v"})
    assert [group.warps for group in consumers] == [4, 4]
    assert max(group.registers for group in consumers) <= 240
    assert phase.graph.tile["BM"] == 128
    # The next product with keys is issued before this iteration's product with values.
    for qk, pv in zip(starts_of(head_128, "qk"), starts_of(head_128, "pv"), strict=True):
        assert qk + phase.ii < pv
    # The groups take turns: while one has the tensor cores the other takes softmax.
    first, second = starts_of(head_128, "qk")
    assert phase.ii // 4 < (second - first) % phase.ii < 3 * phase.ii // 4
    rings = {name: head_128.depths[name] for name in ("k", "v")}
    sizes = {value.name: value.size for value in phase.graph.values}
    assert min(rings.values()) >= 2
    assert sum(sizes[name] * depth for name, depth in rings.items()) + phase.graph.resident["shared"] <= 227 * 1024


def test_what_is_simulated_is_what_was_solved(hopper: Machine, head_128: Schedule) -> None:
    found = simulate(head_128, hopper, [64])
    assert found.deadlock == {}
    assert found.per_iteration == pytest.approx(head_128.phases[0].ii, rel=0.01)
    assert found.utilization["tensor_core"] > 0.95
    late = simulate(head_128, hopper, [64], lambda op, turn: op.latency * (1 + turn % 3))
    assert late.deadlock == {}
    assert late.cycles >= found.cycles


def test_too_few_buffers_are_a_deadlock(hopper: Machine, head_128: Schedule) -> None:
    # Values that the next iteration overwrites before they have been read: the group waits for itself.
    groups = tuple(
        replace(group, ops=tuple(reversed(group.ops))) if group.kind == "consumer" else group
        for group in head_128.groups
    )
    phase = head_128.phases[0]
    backwards = {name: max(phase.starts.values()) - start for name, start in phase.starts.items()}
    wrong = replace(head_128, phases=(replace(phase, starts=backwards),), groups=groups)
    assert check(wrong, hopper)
    assert simulate(wrong, hopper, [4]).deadlock


@pytest.mark.parametrize("head", [64, 96, 192, 256])
@pytest.mark.parametrize("dtype", ["bf16", "fp8"])
def test_other_heads_and_dtypes_on_hopper(head: int, dtype: str, hopper: Machine) -> None:
    schedule = on_hopper(head, dtype, hopper)
    assert check(schedule, hopper) == []
    assert schedule.certificate is not None
    assert schedule.certificate.status == "optimal"
    assert schedule.groups[0].kind == "load"
    assert sum(group.kind == "consumer" for group in schedule.groups) == schedule.phases[0].graph.tile["consumers"]


def test_blackwell_finds_flash_attention_4() -> None:
    blackwell = machine.named("sm_100a")
    tiles = [(parts, keys) for parts in (1, 2) for keys in (32, 64, 96, 128)]
    loops = [[attention.in_tensor_memory(blackwell, 128, "bf16", parts, keys, 2)] for parts, keys in tiles]
    schedule = schedules(loops, blackwell)[0]
    assert check(schedule, blackwell) == []
    assert schedule.certificate is not None
    assert schedule.certificate.status == "optimal"
    assert sorted(group.kind for group in schedule.groups) == ["correction", "load", "mma", "softmax", "softmax"]
    assert simulate(schedule, blackwell, [16]).deadlock == {}


def lattice(capacity: int, shared: int) -> str:
    """A machine that exists nowhere, as a file."""
    return f"""
name = "lattice"
title = "made up"
multiprocessors = 3
clock_ghz = 1.0
shared_bytes = {shared}
tensor_bytes = 0
cache_bytes = 1000
memory_bytes_per_cycle = 1.0
most_warps = 12
isolate = "loads"
[units.grid]
capacity = {capacity}
source = "made up"
[units.port]
capacity = 1
source = "made up"
[instructions."mma.bf16"]
charges = [{{ unit = "grid", per_cycle = 512 }}]
issue = 4
latency = 10
warps = 2
rows = 32
column_step = 8
most_columns = 64
depth = 8
accumulator = ["register"]
left = ["register"]
source = "made up"
[instructions.load]
charges = [{{ unit = "port", per_cycle = "33/2" }}]
issue = 2
latency = 100
variable = true
source = "made up"
[instructions.exp2]
charges = [{{ unit = "port", per_cycle = 64 }}]
source = "made up"
[instructions.arithmetic]
charges = [{{ unit = "grid", per_cycle = 256, amount = {capacity} }}]
source = "made up"
[registers]
total = 32768
granularity = 4
least = 16
most = 128
reserve = 8
group_warps = 2
source = "made up"
[handover]
put = 1
get = 2
latency = 5
bytes_per_cycle = 64
source = "made up"
"""


@pytest.mark.parametrize(("capacity", "shared"), [(1, 40_000), (3, 12_000)])
def test_machines_that_exist_nowhere(capacity: int, shared: int, tmp_path: Path) -> None:
    path = tmp_path / "lattice.toml"
    path.write_text(lattice(capacity, shared))
    made_up = machine.named(str(path))
    tiles = [(parts, keys) for parts in (1, 2) for keys in (16, 32, 64)]
    loops: Sequence[Sequence[Graph]] = [
        [attention.in_registers(made_up, 32, "bf16", parts, keys, 2)] for parts, keys in tiles
    ]
    schedule = schedules(loops, made_up)[0]
    assert check(schedule, made_up) == []
    assert schedule.certificate is not None
    assert schedule.certificate.status == "optimal"
    assert simulate(schedule, made_up, [8]).deadlock == {}
    # And it is read again as it was written.
    files.write(schedule, tmp_path / "schedule.json")
    assert files.read(Schedule, tmp_path / "schedule.json") == schedule


def test_a_file_that_is_no_machine_says_where(tmp_path: Path) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(
        lattice(1, 1000).replace('capacity = 1\nsource = "made up"\n[units.port]', "colour = 1\n[units.port]")
    )
    with pytest.raises(ForgeError) as caught:
        machine.named(str(path))
    assert caught.value.code == "FORGE-U010"
    assert "units.grid" in str(caught.value)
