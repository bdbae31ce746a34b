"""What is found for attention: the schedules of FlashAttention-3 and 4, from machine models that know neither."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from forgec.schedule.check import check
from forgec.schedule.machine import Machine, named
from forgec.schedule.schedule import Schedule
from forgec.schedule.simulate import simulate, spread
from tests.schedule.solved import kernel, per_iteration, solved, starts_of


@pytest.fixture(scope="module")
def head_128() -> Schedule:
    return solved("attention-fwd", "sm_90a", head=128)


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


def test_latencies_that_vary_cost_little_until_the_buffers_are_used_up(hopper: Machine, head_128: Schedule) -> None:
    ii = head_128.phases[0].ii
    ranges = [(1.0, 1.0), (0.5, 1.5), (0.5, 3.0), (1.0, 12.0)]
    found = [spread(head_128, hopper, least=a, most=b, runs=6, trips=[32]) for a, b in ranges]
    medians = [each.median for each in found]
    assert found[0].runs == (found[0].expected,) * 6
    assert medians == sorted(medians)
    # Up to half as much again of a load's latency is within the slack of rings of two or three buffers.
    assert found[1].worst <= 1.02 * ii
    assert found[2].worst <= 1.25 * ii
    assert found[3].median > found[2].median


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


OTHERS = [(64, "bf16"), (96, "bf16"), (192, "bf16"), (256, "bf16"), (128, "f16"), (128, "fp8"), (64, "fp8")]
WIDE = [(96, "fp8"), (192, "fp8"), (256, "fp8"), (64, "f16"), (256, "f16")]


@pytest.mark.parametrize(("head", "dtype"), [*OTHERS, *(pytest.param(*case, marks=pytest.mark.wide) for case in WIDE)])
def test_other_heads_and_dtypes_on_hopper(head: int, dtype: str, hopper: Machine) -> None:
    schedule = solved("attention-fwd", "sm_90a", dtype, head=head)
    phase, certificate = schedule.phases[0], schedule.certificate
    assert certificate is not None
    assert check(schedule, hopper) == []
    assert certificate.status == "optimal"
    assert [group.kind for group in schedule.groups] == ["load", "consumer", "consumer"]
    assert phase.graph.tile["BM"] == 128
    # What binds is a unit: the tensor cores, or the exponentials of short heads in 8 bits.
    assert certificate.bounds[0].name in ("unit tensor_core", "unit sfu")
    assert phase.ii <= 1.02 * certificate.bounds[0].cycles
    assert per_iteration(schedule, hopper) == pytest.approx(phase.ii, rel=0.03)


def test_float16_is_scheduled_like_bfloat16(head_128: Schedule) -> None:
    other = solved("attention-fwd", "sm_90a", "f16", head=128)
    assert (other.phases[0].ii, other.phases[0].graph.tile) == (head_128.phases[0].ii, head_128.phases[0].graph.tile)


@pytest.mark.parametrize(
    ("head", "dtype"),
    [
        (64, "bf16"),
        (192, "bf16"),
        *(pytest.param(head, "bf16", marks=pytest.mark.wide) for head in (96, 128, 256)),
        *(pytest.param(head, "fp8", marks=pytest.mark.wide) for head in (64, 128, 256)),
        pytest.param(128, "f16", marks=pytest.mark.wide),
    ],
)
def test_blackwell_finds_flash_attention_4(head: int, dtype: str) -> None:
    blackwell = named("sm_100a")
    schedule = solved("attention-fwd", "sm_100a", dtype, head=head)
    assert schedule.certificate is not None
    assert check(schedule, blackwell) == []
    assert schedule.certificate.status == "optimal"
    # A group for each part's softmax: tensor memory holds two parts of heads up to 128, and of 256 in 8 bits one.
    parts = schedule.phases[0].graph.tile["parts"]
    assert parts == 2 or head > 128
    softmax = ["softmax"] * parts
    assert sorted(group.kind for group in schedule.groups) == ["correction", "load", "mma", *softmax]
    mma = next(group for group in schedule.groups if group.kind == "mma")
    assert mma.warps == 1
    sums = [value for value in schedule.phases[0].graph.values if value.memory == "tensor"]
    taken = sum(value.size * schedule.depths[value.name] for value in sums)
    assert taken <= blackwell.tensor_bytes
    simulated = simulate(schedule, blackwell, [32])
    assert simulated.deadlock == {}
    if dtype == "bf16" and head != 96:
        assert simulated.per_iteration == pytest.approx(schedule.phases[0].ii, rel=0.03)


def test_ampere_has_no_group_for_loads() -> None:
    ampere = named("sm_80")
    schedule = solved("attention-fwd", "sm_80")
    assert schedule.certificate is not None
    assert check(schedule, ampere) == []
    assert schedule.certificate.status == "optimal"
    # Both groups run the same code: each loads a share, multiplies, and takes the softmax of its rows.
    one, other = (sorted(name.rsplit(".", 1)[0] for name in group.ops) for group in schedule.groups)
    assert one == other == ["exp", "load_k", "load_v", "max", "pv", "qk", "rescale", "sum"]
    assert len({group.registers for group in schedule.groups}) == 1
    # And it is a pipeline: copies are under way while an earlier block is worked on.
    assert schedule.phases[0].stages > 1
    assert per_iteration(schedule, ampere) == pytest.approx(schedule.phases[0].ii, rel=0.03)


@pytest.mark.parametrize(
    ("machine", "rows", "keys"), [("sm_90a", 128, 128), pytest.param("sm_80", 128, 64, marks=pytest.mark.wide)]
)
def test_causal_attention_has_two_loops_of_one_set_of_groups(machine: str, rows: int, keys: int) -> None:
    facts = named(machine)
    tile = {"BM": rows, "BN": keys, "consumers": 2}
    schedule = solved("attention-fwd-causal", machine, least=tile, most=tile)
    full, masked = schedule.phases
    assert schedule.certificate is not None
    assert schedule.certificate.status == "optimal"
    assert check(schedule, facts) == []
    assert {op.name for op in masked.graph.ops} - {op.name for op in full.graph.ops} == {"mask.0", "mask.1"}
    assert masked.ii >= full.ii
    assert full.ii >= schedule.certificate.bounds[0].cycles
    group_of = {name: group.name for group in schedule.groups for name in group.ops}
    assert all(group_of[f"mask.{part}"] == group_of[f"max.{part}"] for part in (0, 1))


@pytest.mark.wide
def test_causal_attention_on_hopper_has_blocks_of_128_keys() -> None:
    # As FlashAttention-3: less is lost to the mask than with the 176 keys of the full case.
    assert solved("attention-fwd-causal", "sm_90a").phases[0].graph.tile == {"BM": 128, "BN": 128, "consumers": 2}


def test_causal_trips_are_those_of_an_average_tile() -> None:
    found = kernel("attention-fwd-causal", "sm_90a", seq=4096)
    full, masked = next(graphs for graphs in found if (graphs[0].tile["BM"], graphs[0].tile["BN"]) == (128, 128))
    # 32 tiles of 128 queries see 0, 1, …, 31 blocks in whole, 15.5 on the average; each has one on the diagonal.
    assert (full.trips, masked.trips) == (16, 1)
    # Work is what the mask leaves of two products for each pair, in 32 heads of 32 tiles in 8 rounds of 132.
    pairs = Fraction(4096 * 4097, 2)
    assert full.work == masked.work
    assert full.work * Fraction(528, 32) == 2 * 128 * pairs / 32 * Fraction(32 * 32, 8 * 132)


@pytest.mark.parametrize("machine", ["sm_90a", "sm_100a", "sm_80"])
@pytest.mark.parametrize("batch", [1, 16])
def test_decoding_is_bound_by_main_memory(machine: str, batch: int) -> None:
    facts = named(machine)
    schedule = solved("attention-decode", machine, batch=batch)
    phase, certificate = schedule.phases[0], schedule.certificate
    assert certificate is not None
    assert check(schedule, facts) == []
    assert certificate.bounds[0].name == "unit memory"
    assert phase.ii == certificate.bounds[0].cycles
    assert per_iteration(schedule, facts) == pytest.approx(phase.ii, rel=0.03)
    # Few sequences: the keys of each are split, so that all multiprocessors have some.
    programs = batch * 8 * phase.graph.tile["splits"]
    assert programs > 0.8 * facts.multiprocessors
