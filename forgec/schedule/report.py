"""What a schedule is, as data for ``--json`` and as text for people."""

from __future__ import annotations

import string
import textwrap
from collections.abc import Sequence
from typing import Any

from forgec.schedule.bounds import lower_bounds, with_most_warps
from forgec.schedule.claims import alone_and_together, combination
from forgec.schedule.machine import Machine
from forgec.schedule.reasons import between, listed
from forgec.schedule.schedule import Bound, Certificate, Phase, Schedule
from forgec.schedule.simulate import Simulation, enough, middle, simulate
from forgec.schedule.timeline import Bar, channels, group_lanes, reserved, unit_lanes

COLUMNS = 72
"""Of the chart in text."""
LINE = 110
"""Characters of a line of text, before it is wrapped."""
TOLERANCE = 0.05
"""Share of the interval by which a simulation may be off without a word about it."""
JOINT = "all constraints together"
"""What binds where the interval is above every bound."""
NOTHING = Certificate((), "not solved here")


def as_data(schedules: Sequence[Schedule], machine: Machine, **more: Any) -> dict[str, Any]:
    """The best schedule's facts; the others', and its own again, under ``schedules`` where there are several.

    Where a kernel has several phases, cycles are those of the one that takes most; ``phases`` has those of each.
    """
    facts = {**more, **schedule_data(schedules[0], machine)}
    if len(schedules) > 1:
        facts["schedules"] = [schedule_data(each, machine) for each in schedules]
    return facts


def schedule_data(schedule: Schedule, machine: Machine) -> dict[str, Any]:
    """The facts of one schedule, as JSON values.

    ``channels``: ``bytes`` are those of one of ``depth`` buffers. ``unit_utilization``: the share of the time for which
    each unit is held when the simulator runs the schedule from beginning to end, so with filling and draining.
    """
    certificate = schedule.certificate or NOTHING
    phase = main_phase(schedule)
    bounds = bounds_of(schedule, phase, machine)
    simulated = simulated_run(schedule, machine)
    return {
        "machine": schedule.machine,
        "ii_cycles": phase.ii,
        "ii_lower_bound": bounds[0].cycles,
        "binding": binding(phase, bounds),
        "status": certificate.status,
        "solve_seconds": certificate.solve_seconds,
        "length_cycles": phase.length,
        "length_lower_bound": length_bound(schedule),
        "stages": phase.stages,
        "tile": dict(phase.graph.tile),
        "groups": [
            {
                "name": group.name,
                "kind": group.kind,
                "warps": group.warps,
                "registers": group.registers,
                "ops": list(group.ops),
            }
            for group in schedule.groups
        ],
        "channels": [
            {
                "name": each.name,
                "depth": each.depth,
                "bytes": each.size,
                "memory": each.memory,
                "producer": each.producer,
                "consumers": list(each.consumers),
                "from": each.giver,
                "to": list(each.takers),
            }
            for each in channels(schedule)
        ],
        "smem_bytes": reserved(schedule, "shared"),
        "tmem_bytes": reserved(schedule, "tensor"),
        "simulated_cycles_per_iteration": per_iteration(schedule, simulated),
        "unit_utilization": simulated.utilization,
        "deadlock": simulated.deadlock,
        "cycles_per_unit_of_work": float(schedule.cost),
        "slack_cycles": schedule.slack,
        "deterministic_time": certificate.deterministic_time,
        "bounds": [{"name": bound.name, "cycles": bound.cycles} for bound in bounds],
        "refuted": [*certificate.refuted, *map(list, certificate.refuted_together)],
        "undecided": [*certificate.undecided, *map(list, certificate.undecided_together)],
        "quantum_cycles": certificate.quantum,
        "alternatives": [dict(each) for each in certificate.alternatives],
        "phases": [phase_data(schedule, each, transition, machine) for each, transition in successive(schedule)],
        "transitions": list(schedule.transitions),
        "depths": dict(schedule.depths),
    }


def length_bound(schedule: Schedule) -> int | None:
    """What no iteration is shorter than; None where there are several loops, of whose lengths the sum is bounded.

    The certificate's is of durations that are rounded up, which the cycles that they stand for may be below.
    """
    if schedule.certificate is None or len(schedule.phases) > 1:
        return None
    return min(schedule.certificate.least_length, main_phase(schedule).length)


def phase_data(schedule: Schedule, phase: Phase, transition: int, machine: Machine) -> dict[str, Any]:
    """The facts of one phase; ``transition_cycles``: what is lost before the next one, 0 where there is none."""
    bounds = bounds_of(schedule, phase, machine)
    return {
        "name": phase.graph.name,
        "ii_cycles": phase.ii,
        "ii_lower_bound": bounds[0].cycles,
        "binding": binding(phase, bounds),
        "bounds": [{"name": bound.name, "cycles": bound.cycles} for bound in bounds],
        "length_cycles": phase.length,
        "stages": phase.stages,
        "trips": phase.graph.trips,
        "transition_cycles": transition,
        "starts": dict(phase.starts),
    }


def successive(schedule: Schedule) -> list[tuple[Phase, int]]:
    """Each phase, and the cycles lost between it and the next one."""
    lost = (*schedule.transitions, *[0] * (len(schedule.phases) - len(schedule.transitions)))
    return list(zip(schedule.phases, lost, strict=True))


def main_phase(schedule: Schedule) -> Phase:
    """The phase that takes most of the cycles."""
    return max(reversed(schedule.phases), key=lambda phase: phase.ii * phase.graph.trips)


def bounds_of(schedule: Schedule, phase: Phase, machine: Machine) -> tuple[Bound, ...]:
    """Lower bounds of a phase's interval: those that the certificate states, else computed as those are."""
    place = next(number for number, each in enumerate(schedule.phases) if each is phase)
    stated = (*schedule.certificate.earlier_bounds, schedule.certificate.bounds) if schedule.certificate else ()
    if len(stated) == len(schedule.phases) and stated[place]:
        return stated[place]
    return lower_bounds(with_most_warps([each.graph for each in schedule.phases])[place], machine)


def binding(phase: Phase, bounds: Sequence[Bound]) -> str:
    """The bound that the interval is at, or that it is all constraints together which keep it up."""
    return bounds[0].name if bounds[0].cycles == phase.ii else JOINT


def why(schedule: Schedule, phase: Phase, machine: Machine) -> str:
    """What forbids a smaller interval of a phase, in words."""
    bounds = bounds_of(schedule, phase, machine)
    certificate = schedule.certificate or NOTHING
    if len(schedule.phases) == 1:
        text = between(phase, bounds, certificate.refuted, certificate.quantum)
        if certificate.undecided:
            text += f"; the time limit left {listed(certificate.undecided)} undecided"
        return text
    if bounds[0].cycles == phase.ii:
        return between(phase, bounds, (), 1)
    place = next(number for number, each in enumerate(schedule.phases) if each is phase)
    refuted = alone_and_together(certificate, [each.graph for each in schedule.phases])
    parts = [f"the interval {phase.ii} is above the largest bound, {bounds[0].cycles}"]
    if certificate.quantum > 1:
        parts.append(f"times are multiples of {certificate.quantum} cycles, durations rounded up to these")
    mine = tuple(sorted(ii for ii in refuted.alone[place] if ii < phase.ii))
    if mine:
        parts.append(f"CP-SAT proved that this loop has no schedule at {listed(mine)}, whatever the other loops do")
    beside = sorted(row for row in refuted.together if (row[place] or phase.ii) < phase.ii)
    if beside:
        parts.append(
            "loops share groups, registers and buffers, and it is their cycles together that are the least: CP-SAT "
            f"proved that there is no schedule at {listed([combination(row) for row in beside])}, the intervals of all "
            "loops in their order"
        )
    if certificate.undecided_together:
        left = listed([combination(row) for row in certificate.undecided_together])
        parts.append(f"the time limit left {left} undecided")
    return "; ".join(parts)


def simulated_run(schedule: Schedule, machine: Machine) -> Simulation:
    """Run a schedule; of several phases no more iterations than they have."""
    if len(schedule.phases) == 1:
        return simulate(schedule, machine)
    return simulate(schedule, machine, [min(phase.graph.trips, enough(schedule)) for phase in schedule.phases])


def per_iteration(schedule: Schedule, simulated: Simulation) -> float:
    """Cycles between the ends of two iterations of the main phase, over the middle half of those that were run."""
    phase = schedule.phases.index(main_phase(schedule))
    ends: dict[int, int] = {}
    for event in simulated.events:
        if event.phase == phase:
            ends[event.iteration] = max(ends.get(event.iteration, 0), event.done)
    return middle(ends, simulated.cycles)


def off(simulated: float, solved: float) -> str:
    """What to say where the simulator is further from what was solved than the tolerance; nothing where it is not."""
    share = simulated / solved - 1
    if abs(share) <= TOLERANCE:
        return ""
    more = "more" if share > 0 else "less"
    why = "groups that run in order and as soon as they can take units at other times than the schedule does"
    return f"{abs(share):.0%} {more} than the {solved:g} that were solved: {why}"


def proof(schedule: Schedule, machine: Machine) -> str:
    """What an optimal schedule's certificate does not promise: nothing, or that times are multiples of something."""
    certificate = schedule.certificate or NOTHING
    above = any(bounds_of(schedule, phase, machine)[0].cycles < phase.ii for phase in schedule.phases)
    rounded = certificate.status == "optimal" and certificate.quantum > 1 and above
    return f"among times that are multiples of {certificate.quantum} cycles" if rounded else ""


def tile_text(tile: Any) -> str:
    """``BM=128 BN=176``, or a dash."""
    return " ".join(f"{name}={extent}" for name, extent in tile.items()) or "–"


# For people


def as_text(schedules: Sequence[Schedule], machine: Machine, kernel: str, origin: str) -> str:
    """The best schedule with its groups, channels and a chart of one interval, and a line for each other one."""
    schedule = schedules[0]
    certificate = schedule.certificate or NOTHING
    last = main_phase(schedule)
    bound, exact = bounds_of(schedule, last, machine)[0], proof(schedule, machine)
    lines = [f"{kernel} on {machine.name} ({machine.title})", ""]
    facts = [
        ("tile", tile_text(last.graph.tile)),
        ("interval", f"{last.ii} cycles, {certificate.status}{f' {exact}' * bool(exact)}"),
        ("bound", f"{bound.cycles} cycles by {bound.name}"),
        ("", why(schedule, last, machine)),
        ("length", f"{last.length} cycles of one iteration, {last.stages} stages"),
        ("shared memory", memory_text(schedule, machine, "shared")),
    ]
    if machine.tensor_bytes:
        facts.append(("tensor memory", memory_text(schedule, machine, "tensor")))
    facts += [
        ("simulated", simulated_text(schedule, simulated_run(schedule, machine))),
        ("solved", f"in {certificate.solve_seconds:.2f} s{f' ({origin})' * bool(origin)}"),
    ]
    lines += laid_out(facts)
    rows = [("group", "kind", "warps", "registers", "ops")]
    rows += [(g.name, g.kind, str(g.warps), str(g.registers), " ".join(g.ops)) for g in schedule.groups]
    lines += ["", *table(rows, numbers=(2, 3))]
    found = channels(schedule)
    if found:
        rows = [("channel", "depth", "bytes", "memory", "from", "to")]
        rows += [
            (each.name, str(each.depth), str(each.size), each.memory, each.giver, " ".join(each.takers))
            for each in found
        ]
        lines += ["", *table(rows, numbers=(1, 2))]
    if len(schedule.phases) > 1:
        rows = [("loop", "iterations", "interval", "bound", "by", "length", "stages", "lost before the next")]
        for each, lost in successive(schedule):
            data = phase_data(schedule, each, lost, machine)
            trips, bound_there, by = (
                each.graph.trips,
                data["ii_lower_bound"],
                bounds_of(schedule, each, machine)[0].name,
            )
            after = "" if each is schedule.phases[-1] else f"{lost} cycles"
            interval, length, stages = str(each.ii), str(each.length), str(each.stages)
            rows.append((each.graph.name, str(trips), interval, str(bound_there), by, length, stages, after))
        lines += ["", *table(rows, numbers=(1, 2, 3, 5, 6))]
    for phase in schedule.phases:
        lines += ["", *chart(schedule, phase, machine)]
    if len(schedules) > 1:
        rows = [("", "interval", "length", "stages", "slack", "tile", "groups")]
        rows += [
            (str(number), *map(str, (p.ii, p.length, p.stages, each.slack)), tile_text(p.graph.tile), groups_text(each))
            for number, each in enumerate(schedules, 1)
            for p in (main_phase(each),)
        ]
        lines += ["", *table(rows, numbers=(0, 1, 2, 3, 4))]
    return "\n".join(lines)


def laid_out(facts: Sequence[tuple[str, str]]) -> list[str]:
    """Names, and beside them what is said of each, in lines of a length that can be read."""
    width = max(len(name) for name, _ in facts)
    lines: list[str] = []
    for name, text in facts:
        first, *more = textwrap.wrap(text, LINE - width - 2, break_long_words=False) or [""]
        lines += [f"{name:<{width}}  {first}", *(f"{'':<{width}}  {line}" for line in more)]
    return lines


def memory_text(schedule: Schedule, machine: Machine, memory: str) -> str:
    """How much of a memory is taken."""
    return f"{reserved(schedule, memory)} of {machine.memory_bytes(memory)} bytes"


def simulated_text(schedule: Schedule, simulated: Simulation) -> str:
    """What the simulator achieved."""
    if simulated.deadlock:
        return "deadlock: " + "; ".join(f"{group}: {what}" for group, what in simulated.deadlock.items())
    shares = ", ".join(f"{unit} {share:.0%}" for unit, share in simulated.utilization.items())
    each = per_iteration(schedule, simulated)
    different = off(each, main_phase(schedule).ii)
    return f"{each:.0f} cycles per iteration{f', {different}' * bool(different)}; {shares}"


def groups_text(schedule: Schedule) -> str:
    """The groups in short."""
    return " ".join(f"{group.name}({group.warps})" for group in schedule.groups)


def table(rows: Sequence[Sequence[str]], numbers: Sequence[int] = ()) -> list[str]:
    """Columns that line up, those of numbers at the right; the last is as long as it is."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if column in numbers else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def chart(schedule: Schedule, phase: Phase, machine: Machine) -> list[str]:
    """One interval of the steady state, a row for each unit and group, a letter for each op."""
    first = (phase.stages - 1) * phase.ii
    last = first + phase.ii
    letters = dict(zip((op.name for op in phase.graph.ops), string.ascii_letters + string.digits, strict=False))
    lanes = unit_lanes(phase, machine, first, last) + group_lanes(schedule, phase, machine, first, last)
    width = max(len(each.name) for each in lanes)
    columns = min(COLUMNS, phase.ii)
    lines = [f"{phase.graph.name}: one interval of {phase.ii} cycles, {-(-phase.ii // columns)} a column"]
    for each in lanes:
        streams = [bar for bar in each.bars if bar.kind != "flight"]
        for row in range(max((bar.row for bar in streams), default=0) + 1):
            drawn = drawn_row([bar for bar in streams if bar.row == row], letters, first, phase.ii, columns)
            lines.append(f"{each.name if not row else '':<{width}} |{drawn}|")
    stage = {op.name: phase.starts[op.name] // phase.ii for op in phase.graph.ops}
    legend = [f"{letters.get(name, '#')} {name} (stage {stage[name]})" for name in stage]
    return [*lines, *wrapped(legend, width + columns + 3)]


def drawn_row(bars: Sequence[Bar], letters: dict[str, str], first: int, ii: int, columns: int) -> str:
    """What goes on at the middle of each column; bars shorter than a column are shown where nothing else is."""
    cells = ["."] * columns
    for bar in sorted(bars, key=lambda bar: bar.end - bar.start):
        mark = letters.get(bar.op, "#")
        covered = [
            column for column in range(columns) if bar.start <= first + (2 * column + 1) * ii // (2 * columns) < bar.end
        ]
        start = max(bar.start, first)
        for column in covered or [min((start - first) * columns // ii, columns - 1)]:
            if covered or cells[column] == ".":
                cells[column] = mark
    return "".join(cells)


def wrapped(items: Sequence[str], width: int) -> list[str]:
    """Items in lines of at most so many characters, if one fits."""
    lines: list[str] = []
    for item in items:
        if lines and len(lines[-1]) + 2 + len(item) <= width:
            lines[-1] += f", {item}"
        else:
            lines.append(item)
    return lines
