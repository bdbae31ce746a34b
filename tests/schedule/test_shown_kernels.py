"""What is said of every kernel by name on every machine, as it is stored: JSON keys against the schedule itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from forgec.diagnostics import ForgeError
from forgec.schedule import kernels, machine, report, store
from forgec.schedule.bounds import lower_bounds
from forgec.schedule.check import check
from forgec.schedule.machine import Machine
from forgec.schedule.page import page
from forgec.schedule.report import JOINT, as_data, as_text, off, proof
from forgec.schedule.schedule import Schedule
from forgec.schedule.succession import between_phases
from tests.schedule.loops import ring, solved

KEYS = {
    "ii_cycles", "ii_lower_bound", "binding", "status", "solve_seconds", "length_cycles", "stages", "tile", "groups",
    "channels", "smem_bytes", "tmem_bytes", "simulated_cycles_per_iteration", "unit_utilization",
}  # fmt: skip


def stored(name: str, facts: Machine) -> Schedule | None:
    """The package's schedule of a kernel, if it has one."""
    try:
        choices = kernels.named(name, facts)
    except ForgeError:
        return None
    key = store.key(choices, facts, 1)
    entry = store.shipped(facts.name).get(key)
    found = store.restored(entry, key, choices, facts, 60.0, []) if entry else None
    return found[0] if found else None


def together(schedule: Schedule, memory: str) -> int:
    """Bytes by the definition: rings of all values there, by name, and what is resident."""
    sizes: dict[str, int] = {}
    for phase in schedule.phases:
        for value in phase.graph.values:
            staged = memory == "shared" and value.memory == "register" and schedule.crossing(value)
            if value.memory == memory or staged:
                sizes[value.name] = max(sizes.get(value.name, 0), value.size * schedule.depths[value.name])
    return sum(sizes.values()) + max(phase.graph.resident.get(memory, 0) for phase in schedule.phases)


def crossing(schedule: Schedule) -> Iterator[str]:
    for phase in schedule.phases:
        for value in phase.graph.values:
            if any(schedule.group_of[read.op] != schedule.group_of[value.producer] for read in value.reads):
                yield value.name


@pytest.mark.parametrize("target", sorted(path.stem for path in machine.FOLDER.glob("*.toml")))
def test_keys_are_those_of_the_schedule(target: str) -> None:
    facts = machine.named(target)
    found = {name: schedule for name in kernels.NAMES if (schedule := stored(name, facts)) is not None}
    assert len(found) >= 4
    for name, schedule in found.items():
        data, certificate = as_data([schedule], facts), schedule.certificate
        assert certificate is not None
        assert data.keys() >= KEYS, name
        main = max(reversed(schedule.phases), key=lambda phase: phase.ii * phase.graph.trips)
        assert (data["ii_cycles"], data["length_cycles"], data["stages"]) == (main.ii, main.length, main.stages)
        assert data["tile"] == main.graph.tile
        bound = lower_bounds(main.graph, facts)[0]
        assert data["ii_lower_bound"] == bound.cycles <= main.ii
        assert data["binding"] == (bound.name if bound.cycles == main.ii else JOINT)
        assert (data["status"], data["solve_seconds"]) == (certificate.status, certificate.solve_seconds)
        for group, row in zip(schedule.groups, data["groups"], strict=True):
            assert row == {
                "name": group.name,
                "kind": group.kind,
                "warps": group.warps,
                "registers": group.registers,
                "ops": list(group.ops),
            }
        sizes = {value.name: value.size for phase in schedule.phases for value in phase.graph.values}
        rows = {(each["name"], each["depth"], each["bytes"]) for each in data["channels"]}
        assert rows == {(value, schedule.depths[value], sizes[value]) for value in crossing(schedule)}, name
        assert data["smem_bytes"] == together(schedule, "shared") <= facts.shared_bytes
        assert data["tmem_bytes"] == together(schedule, "tensor") <= facts.tensor_bytes
        assert data["simulated_cycles_per_iteration"] > 0
        assert data["unit_utilization"].keys() <= facts.units.keys()
        assert all(0 < share <= 1 for share in data["unit_utilization"].values())
        assert data["deadlock"] == {}
        assert data["transitions"] == list(schedule.transitions)
        rows = [(each["ii_cycles"], each["trips"], each["transition_cycles"]) for each in data["phases"]]
        lost = (*schedule.transitions, 0)
        assert rows == [(p.ii, p.graph.trips, t) for p, t in zip(schedule.phases, lost, strict=True)]


def test_where_the_simulator_differs_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert off(104.9, 100) == off(95.1, 100) == ""
    assert off(142, 100).startswith("42% more than the 100 that were solved")
    assert off(90, 100).startswith("10% less")
    facts = machine.named("sm_90a")
    best = solved(facts, 64)
    ii = best[0].phases[0].ii
    for text in (as_text(best, facts, "ring", ""), page(best, facts, "ring")):
        assert "that were solved:" not in text
    monkeypatch.setattr(report, "per_iteration", lambda *_: 1.5 * ii)
    for text in (as_text(best, facts, "ring", ""), page(best, facts, "ring")):
        assert f"50% more than the {ii} that were solved:" in " ".join(text.split())


def test_what_lies_between_two_loops() -> None:
    """Everything of both loops that overlaps the window is there, in cycles from where the second begins."""
    facts = machine.named("sm_90a")
    schedule = stored("attention-fwd-causal", facts) or stored("gemm-epilogue", facts)
    assert schedule is not None
    shown = between_phases(schedule, 0)
    one, other = schedule.phases
    units, groups = shown.lanes(facts)
    assert [lane.name for lane in groups] == [group.name for group in schedule.groups]
    firsts = {
        bar.op: bar.start
        for lane in groups
        for bar in lane.bars
        if bar.kind == "issue" and bar.segment == 1 and bar.iteration == 0
    }
    assert firsts
    assert all(start == other.starts[name] for name, start in firsts.items())
    before = schedule.transitions[0]
    lasts = {
        bar.op: bar.start
        for lane in units
        for bar in lane.bars
        if bar.segment == 0 and bar.iteration == shown.unrolled.segments[0].trips - 1
    }
    assert lasts
    for name, start in lasts.items():
        offsets = {use.offset for use in one.graph.op(name).uses}
        assert start - (one.starts[name] - one.ii - before) in offsets
    assert all(bar.end > shown.first and bar.start < shown.last for lane in (*units, *groups) for bar in lane.bars)


def test_groups_have_names_of_their_own() -> None:
    facts = machine.named("sm_90a")
    best = solved(facts, 128)[0]
    assert len(best.groups) > 1
    same = replace(best, groups=tuple(replace(group, name="alike") for group in best.groups))
    assert f"{len(best.groups)} groups are named alike" in [each.text for each in check(same, facts)]


def test_optimal_among_rounded_times_is_called_so() -> None:
    facts = machine.named("sm_90a")
    best = solved(facts, 128)[0]
    stated, phase = best.certificate, best.phases[0]
    assert stated is not None
    assert proof(best, facts) == ""
    coarse = replace(best, phases=(replace(phase, ii=phase.ii + 16),), certificate=replace(stated, quantum=16))
    assert "multiples of 16 cycles" in proof(coarse, facts)
    assert "multiples of 16 cycles" in as_text([coarse], facts, "ring", "")
    assert ring(facts, 128) == phase.graph
