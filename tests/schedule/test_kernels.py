"""Kernels by name: what they may be asked for, what their graphs share, and what is found for them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from forgec.diagnostics import ForgeError
from forgec.schedule import files
from forgec.schedule.bounds import lower_bounds
from forgec.schedule.check import check
from forgec.schedule.graph import Graph, Op, Use
from forgec.schedule.implied import implied_units
from forgec.schedule.kernels import NAMES
from forgec.schedule.kernels import named as kernel_named
from forgec.schedule.kernels.problem import warps_of
from forgec.schedule.machine import Machine, named
from forgec.schedule.schedule import Schedule
from forgec.schedule.simulate import simulate
from forgec.schedule.solve import schedules
from tests.schedule.solved import kernel, per_iteration, solved

MADE_UP = Path(__file__).parent / "machines"


@pytest.mark.parametrize(
    ("name", "shape", "dtype", "text"),
    [
        ("attention", {}, "bf16", "no kernel attention"),
        ("gemm", {"head": 64}, "bf16", "no size head"),
        ("gemm", {"m": 0}, "bf16", "no positive integer"),
        ("gemm", {}, "int3", "not made in int3"),
        ("attention-fwd", {"head": 72}, "bf16", "multiple of 16"),
        ("attention-decode", {"heads": 30}, "bf16", "evenly"),
        ("attention-decode", {"queries": 65}, "bf16", "rows of one product"),
    ],
)
def test_what_there_is_not_is_said(name: str, shape: Mapping[str, int], dtype: str, text: str) -> None:
    with pytest.raises(ForgeError) as caught:
        kernel_named(name, named("sm_90a"), shape, dtype)
    assert caught.value.code == "FORGE-U010"
    assert text in str(caught.value)


def test_ampere_has_no_products_of_8_bits() -> None:
    with pytest.raises(ForgeError, match=r"no instruction mma\.fp8"):
        kernel("gemm", "sm_80", "fp8")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("machine", ["sm_80", "sm_90a", "sm_100a"])
def test_every_kernel_is_there_at_several_tiles_on_every_machine(name: str, machine: str) -> None:
    found = kernel(name, machine)
    assert len({str(graphs[0].tile) for graphs in found}) > 5
    facts = named(machine)
    for graphs in found:
        shared = max(graph.resident.get("shared", 0) for graph in graphs)
        assert shared <= facts.shared_bytes
        assert all(graph.trips >= 1 and graph.tile == graphs[0].tile for graph in graphs)
        # Phases share ops by name, and what an op is does not depend on the phase.
        ops: dict[str, object] = {}
        for graph in graphs:
            for op in graph.ops:
                assert ops.setdefault(op.name, op) == op


@pytest.mark.parametrize("machine", ["sm_80", "sm_90a", "sm_100a"])
@pytest.mark.parametrize("name", ["gemm", "grouped-gemm"])
def test_products_run_at_the_bound_of_the_tensor_cores(name: str, machine: str) -> None:
    facts = named(machine)
    schedule = solved(name, machine)
    phase, certificate = schedule.phases[0], schedule.certificate
    assert certificate is not None
    assert check(schedule, facts) == []
    assert certificate.status == "optimal"
    assert certificate.bounds[0].name == "unit tensor_core"
    assert phase.ii == certificate.bounds[0].cycles
    assert per_iteration(schedule, facts) == pytest.approx(phase.ii, rel=0.01)
    assert phase.graph.tile["BM"] * phase.graph.tile["BN"] >= 128 * 192
    kinds = [group.kind for group in schedule.groups]
    if machine == "sm_80":
        # No group for loads: both groups copy their rows of A and a share of B.
        one, other = (sorted(op.rsplit(".", 1)[0] for op in group.ops) for group in schedule.groups)
        assert one == other == ["load_a", "load_b", "mma"]
    else:
        # Hopper's sums are in the registers of two groups, Blackwell's in tensor memory, with one group for both.
        assert kinds == (["load", "mma", "mma"] if machine == "sm_90a" else ["load", "mma"])
        # A ring of copies.
        assert all(schedule.depths[value.name] >= 2 for value in phase.graph.values if value.memory == "shared")
    assert phase.stages > 1


def test_tiles_go_by_the_shape() -> None:
    # Of 16 rows, one product's are enough: main memory binds, and 128 rows would multiply nothing.
    few = solved("gemm", "sm_90a", m=16).phases[0].graph
    assert few.tile["BM"] == 64
    assert solved("gemm", "sm_90a", m=4096, n=4096, k=4096).phases[0].graph.tile["BM"] > 64
    # Experts with few rows each.
    assert solved("grouped-gemm", "sm_90a", m=64 * 48).phases[0].graph.tile["BM"] == 64


@pytest.mark.parametrize("machine", ["sm_80", "sm_90a", "sm_100a"])
@pytest.mark.parametrize("name", ["gemm-epilogue", "rms-norm-gemm"])
def test_what_follows_a_product_has_its_sums(name: str, machine: str) -> None:
    facts = named(machine)
    tile = {"BM": 128, "BN": 128, "BK": 64, "parts": 1 if machine == "sm_100a" else 2}
    schedule = solved(name, machine, least=tile, most=tile)
    loop, after = schedule.phases
    assert schedule.certificate is not None
    assert schedule.certificate.status == "optimal"
    assert check(schedule, facts) == []
    group_of = {op: group for group in schedule.groups for op in group.ops}
    for part in range(loop.graph.tile["parts"]):
        if facts.tensor_bytes == 0:
            # Sums in registers are finished by the group that has them.
            assert group_of[f"finish.{part}"] is group_of[f"mma.{part}"]
        if name == "rms-norm-gemm":
            assert group_of[f"finish.{part}"] is group_of[f"squares.{part}"]
    assert after.graph.trips == 2
    assert loop.ii >= lower_bounds(loop.graph, facts)[0].cycles
    assert after.ii >= lower_bounds(after.graph, facts)[0].cycles


def test_a_groups_warps_are_those_of_all_that_shares_its_registers() -> None:
    graphs = next(
        each for each in kernel("gemm-epilogue", "sm_90a") if each[0].tile["BN"] == 128 and each[0].tile["parts"] == 2
    )
    found = warps_of(graphs)
    # Arithmetic alone would be done by one warp; here it has the sums of four.
    assert found["finish.0"] == found["mma.0"] == 4
    assert found["load_b"] == 1


@pytest.mark.parametrize("machine", ["kiln", "heron"])
@pytest.mark.parametrize("name", ["attention-fwd", "gemm"])
def test_machines_that_exist_nowhere(machine: str, name: str, tmp_path: Path) -> None:
    facts = files.read(Machine, MADE_UP / f"{machine}.toml")
    shape = {"gemm": {"m": 512, "n": 512, "k": 512}, "attention-fwd": {"head": 64, "seq": 1024}}[name]
    schedule = schedules(kernel_named(name, facts, shape), facts)[0]
    assert check(schedule, facts) == []
    assert schedule.certificate is not None
    assert schedule.certificate.status == "optimal"
    assert per_iteration(schedule, facts) == pytest.approx(schedule.phases[0].ii, rel=0.03)
    # And it is read again as it was written.
    files.write(schedule, tmp_path / "schedule.json")
    assert files.read(Schedule, tmp_path / "schedule.json") == schedule
    used = simulate(schedule, facts, [32]).utilization
    if machine == "kiln":
        # Two matrix units: products of both parts run beside each other.
        assert used["press"] > 0.5
        if name == "attention-fwd":
            assert [group.kind for group in schedule.groups] == ["load", "consumer", "consumer"]
    else:
        assert used["wing"] > 0.9


def test_exponentials_that_run_by_themselves_leave_their_group_free() -> None:
    heron = files.read(Machine, MADE_UP / "heron.toml")
    op = heron.op("exp", {"exp2": 4096})
    assert op.issue == 8
    assert op.latency == 4096 // 32 + 12 + 20


def test_a_file_that_is_no_machine_says_where(tmp_path: Path) -> None:
    path = tmp_path / "wrong.toml"
    text = (MADE_UP / "kiln.toml").read_text(encoding="utf-8")
    path.write_text(text.replace('capacity = 2\nsource = "made up: either', 'colour = 1\nsource = "made up: either'))
    with pytest.raises(ForgeError) as caught:
        named(str(path))
    assert caught.value.code == "FORGE-U010"
    assert "units.press" in str(caught.value)


def test_copies_that_threads_issue_cost_them_time() -> None:
    ampere, hopper = named("sm_80"), named("sm_90a")
    small, large = (ampere.op("load", {"load": size}).issue for size in (4096, 32768))
    assert large - small == (32768 - 4096) // 256
    assert hopper.op("load", {"load": 4096}).issue == hopper.op("load", {"load": 32768}).issue


def test_interleaved_work_holds_a_unit_for_what_its_kinds_need_together() -> None:
    hopper = named("sm_90a")
    arithmetic, exp = hopper.op("a", {"arithmetic": 9600}), hopper.op("e", {"exp2": 3200})
    both = hopper.op("b", {"arithmetic": 9600, "exp2": 3200})

    def area(op: Op) -> int:
        return sum(use.cycles * use.amount for use in op.uses if use.unit == "issue")

    assert area(both) == pytest.approx(area(arithmetic) + area(exp), rel=0.1)
    assert both.issue < arithmetic.issue + exp.issue


def test_units_that_others_imply_are_left_out_of_the_model() -> None:
    hopper, ampere = named("sm_90a"), named("sm_80")
    (graph,) = next(graphs for graphs in kernel("gemm", "sm_90a") if graphs[0].tile["BN"] == 256)
    # Operands are read for less time than they are multiplied, and copies come from main memory as they go by.
    assert implied_units(graph, hopper) == {"shared", "memory", "sfu", "issue"}
    (graph,) = next(graphs for graphs in kernel("gemm", "sm_90a", m=64) if graphs[0].tile["BN"] == 256)
    assert "memory" not in implied_units(graph, hopper)
    (graph,) = next(graphs for graphs in kernel("attention-fwd", "sm_80") if graphs[0].tile["BM"] == 64)
    # Warps that read all keys for 16 rows each take longer to read than to multiply.
    assert "shared" not in implied_units(graph, ampere)


def test_a_unit_that_one_op_holds_twice_is_not_implied() -> None:
    hopper = named("sm_90a")
    wide = Use("tensor_core", 8)
    once = Graph("once", (Op("a", "a", 0, 8, (wide, Use("shared", 8))), Op("b", "b", 0, 8, (wide, Use("shared", 4)))))
    assert "shared" in implied_units(once, hopper)
    later = Graph("later", (Op("a", "a", 0, 8, (wide, Use("shared", 8, 1))),))
    assert "shared" not in implied_units(later, hopper)
    twice = Graph("twice", (Op("a", "a", 0, 8, (wide, Use("shared", 8), Use("shared", 8))),))
    assert "shared" not in implied_units(twice, hopper)
