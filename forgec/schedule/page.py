"""A schedule as one page that needs nothing else: no network, and no script to be read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from forgec.schedule import drawing, report, succession_view, timeline
from forgec.schedule.drawing import HUES, Drawing, Gantt, shade
from forgec.schedule.graph import Op
from forgec.schedule.machine import Machine
from forgec.schedule.persistent_report import Programs
from forgec.schedule.reasons import reason
from forgec.schedule.schedule import Phase, Schedule
from forgec.schedule.simulate import Simulation
from forgec.schedule.timeline import Bar

if TYPE_CHECKING:
    from forgec.schedule.obstacles import Obstacle

SHOWN_TILES = 12
"""Alternatives that are shown at once; the others are folded away."""
SHOWN_BOUNDS = 10
"""Bounds that are shown at once."""
INTERVALS = 2
"""Of the steady state that are shown."""


def page(
    schedules: Sequence[Schedule],
    machine: Machine,
    title: str,
    programs: Programs | None = None,
    obstacles: Sequence[Obstacle | None] = (),
) -> str:
    """The best schedule in full, the others in a table with a chart each.

    ``programs``: the persistent program. ``obstacles``: for each loop what stands in the way of a smaller interval.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    environment.filters["numbers"] = numbers
    schedule = schedules[0]
    certificate = schedule.certificate or report.NOTHING
    simulated = report.simulated_run(schedule, machine)
    main = report.main_phase(schedule)
    template = environment.get_template("schedule.html")
    return template.render(
        title=title,
        machine=machine,
        schedule=schedule,
        certificate=certificate,
        main=main,
        binding=report.binding(main, report.bounds_of(schedule, main, machine)),
        per_iteration=report.per_iteration(schedule, simulated),
        off=report.off(report.per_iteration(schedule, simulated), main.ii),
        exact=report.proof(schedule, machine),
        transitions=[succession_view.transition(schedule, place, machine) for place in range(len(schedule.phases) - 1)],
        programs=succession_view.program(programs) if programs else None,
        facts=facts(schedule, machine, simulated),
        phases=[
            {**phase_view(schedule, phase, machine), "obstacle": obstacle}
            for phase, obstacle in zip_longest(schedule.phases, obstacles)
        ],
        roles=list(role_hues(schedule).items()),
        hues=HUES,
        channels=timeline.channels(schedule),
        buffers=[buffer_view(schedule, machine, memory) for memory in memories(machine)],
        tiles=tile_rows(schedule),
        shown_tiles=SHOWN_TILES,
        shown_bounds=SHOWN_BOUNDS,
        simulated=simulated,
        utilization=utilization(schedule, machine, simulated.utilization),
        others=[other_view(each, machine) for each in schedules] if len(schedules) > 1 else [],
    )


def number(value: int | float) -> str:
    """With thin spaces between thousands."""
    return (f"{value:,}" if isinstance(value, int) else f"{value:,.4g}").replace(",", "\N{NARROW NO-BREAK SPACE}")


def numbers(text: str) -> str:
    """A text whose long numbers have thin spaces."""
    return re.sub(r"(?<![\w.=])\d{4,}(?![\w.]*\w)", lambda found: number(int(found[0])), text)


def memories(machine: Machine) -> list[str]:
    """The memories that the machine has."""
    return ["shared", *(["tensor"] if machine.tensor_bytes else [])]


def facts(schedule: Schedule, machine: Machine, simulated: Simulation) -> list[tuple[str, str, str]]:
    """The figures at the top: a name, a number, and a remark."""
    certificate = schedule.certificate or report.NOTHING
    main = report.main_phase(schedule)
    bound = report.bounds_of(schedule, main, machine)[0]
    each = report.per_iteration(schedule, simulated)
    found = [
        ("interval", f"{number(main.ii)}", f"cycles; lower bound {number(bound.cycles)}"),
        ("simulated", "deadlock", "see below")
        if simulated.deadlock
        else ("simulated", f"{number(round(each))}", f"cycles an iteration, {each / main.ii - 1:+.1%}"),
        ("length", f"{number(main.length)}", f"cycles of an iteration, {main.stages} stage{'s' * (main.stages != 1)}"),
        ("warps", str(sum(group.warps for group in schedule.groups)), f"in {len(schedule.groups)} groups"),
    ]
    for memory in memories(machine):
        taken, room = timeline.reserved(schedule, memory), machine.memory_bytes(memory)
        found.append((f"{memory} memory", f"{taken / 1024:.0f} KiB", f"of {room / 1024:.0f} KiB"))
    return [*found, ("solved in", f"{certificate.solve_seconds:.2f} s", f"status: {certificate.status}")]


def role_hues(schedule: Schedule) -> dict[str, int]:
    """A hue for each role of an op, in their order."""
    roles = dict.fromkeys(role_of(op) for phase in schedule.phases for op in phase.graph.ops)
    return {role: HUES[place % len(HUES)] for place, role in enumerate(roles)}


def role_of(op: Op) -> str:
    """What an op is coloured by."""
    return op.role or op.kind


# Charts


def phase_view(schedule: Schedule, phase: Phase, machine: Machine) -> dict[str, Any]:
    """The charts of a phase, and why its interval is what it is."""
    bounds = report.bounds_of(schedule, phase, machine)
    first = (phase.stages - 1) * phase.ii
    last = first + INTERVALS * phase.ii
    edges = [first + turn * phase.ii for turn in range(INTERVALS + 1)]
    curves = [timeline.register_curve(schedule, phase, machine, group, first, last) for group in schedule.groups]
    idle = [curve for curve in curves if curve.most <= machine.registers.reserve]
    curves += [timeline.memory_curve(schedule, phase, machine, memory, first, last) for memory in memories(machine)]
    return {
        "phase": phase,
        "steady": steady(schedule, phase, machine),
        "prologue": prologue(schedule, phase, machine) if phase.stages > 1 else None,
        "prologue_cycles": first,
        "stages": list(range(phase.stages)),
        "shade": lambda step: shade(HUES[0], step, phase.stages),
        "iteration_hue": lambda turn: shade(HUES[turn % len(HUES)], 1, 3),
        "curves": [(curve, drawing.curve_drawing(curve, first, last, edges)) for curve in curves if curve not in idle],
        "constant": idle,
        "bounds": bounds,
        "widest": max([phase.ii, *(bound.cycles for bound in bounds)]),
        "reasons": [(bound, reason(bound, phase.graph, machine)) for bound in bounds],
        "why": report.why(schedule, phase, machine),
        "ops": op_rows(schedule, phase),
    }


def steady(schedule: Schedule, phase: Phase, machine: Machine, arrows: bool = True) -> Drawing:
    """Units and groups over intervals in which all stages are under way."""
    first = (phase.stages - 1) * phase.ii
    last = first + INTERVALS * phase.ii
    hues, ops = role_hues(schedule), {op.name: op for op in phase.graph.ops}

    def fill(bar: Bar) -> str:
        if bar.kind in ("get", "put"):
            return ""
        return shade(hues[role_of(ops[bar.op])], phase.starts[bar.op] // phase.ii, phase.stages)

    chart = Gantt(first, last, f"steady state of {phase.graph.name}: units and groups over time")

    def title(bar: Bar) -> str:
        return tooltip(bar, phase)

    chart.lanes(timeline.unit_lanes(phase, machine, first, last), "units", fill, title)
    chart.drawing.height += 8
    chart.lanes(timeline.group_lanes(schedule, phase, machine, first, last), "warp groups", fill, title)
    if arrows:
        chart.arrows(schedule, phase, machine, timeline.channels(schedule))
    chart.axis({first + turn * phase.ii: f"interval {phase.stages + turn}" for turn in range(INTERVALS)} | {last: ""})
    return chart.drawing


def prologue(schedule: Schedule, phase: Phase, machine: Machine) -> Drawing:
    """Groups from the first iteration's start until one interval after all stages are under way."""
    last = (phase.stages + 1) * phase.ii

    def fill(bar: Bar) -> str:
        return "" if bar.kind in ("get", "put") else shade(HUES[bar.iteration % len(HUES)], 1, 3)

    chart = Gantt(0, last, f"the first iterations of {phase.graph.name}")
    lanes = timeline.group_lanes(schedule, phase, machine, 0, last, begin=0)
    chart.lanes(lanes, "warp groups", fill, lambda bar: tooltip(bar, phase))
    marks = {turn * phase.ii: f"interval {turn + 1}" for turn in range(phase.stages + 1)}
    chart.axis(marks)
    return chart.drawing


KINDS = {
    "use": "holds the unit",
    "issue": "is issued",
    "get": "takes over what it reads",
    "put": "hands on its result",
    "flight": "runs by itself",
}


def tooltip(bar: Bar, phase: Phase) -> str:
    """All about a bar."""
    stage = phase.starts[bar.op] // phase.ii
    return (
        f"{bar.op} {KINDS[bar.kind]}\niteration {bar.iteration}, stage {stage}\n"
        f"cycles {bar.start} to {bar.end} ({bar.end - bar.start})"
    )


# Tables


def op_rows(schedule: Schedule, phase: Phase) -> list[dict[str, Any]]:
    """A row for each op."""
    rows = []
    for op in phase.graph.ops:
        start = phase.starts[op.name]
        rows.append(
            {
                "op": op,
                "role": role_of(op),
                "group": schedule.groups[schedule.group_of[op.name]].name,
                "start": start,
                "stage": start // phase.ii,
                "slot": start % phase.ii,
                "units": ", ".join(
                    f"{use.unit} {use.cycles}{f' × {use.amount}' * (use.amount != 1)}" for use in op.uses if use.cycles
                ),
            }
        )
    return rows


def buffer_view(schedule: Schedule, machine: Machine, memory: str) -> dict[str, Any]:
    """How a memory is divided."""
    room = machine.memory_bytes(memory)
    resident = max(phase.graph.resident.get(memory, 0) for phase in schedule.phases)
    sizes = timeline.allotted(schedule, memory)
    rows: list[tuple[str, int, int]] = [("for the whole loop", 1, resident)] if resident else []
    rows += [(name, schedule.depths[name], size) for name, size in sizes.items() if size]
    taken = resident + sum(sizes.values())
    return {"memory": memory, "rows": rows, "room": room, "taken": taken, "free": room - taken}


def tile_rows(schedule: Schedule) -> dict[str, Any]:
    """The tiles that were looked at, the cheapest first: extents, least cost over the schedule's, what became of them.

    The schedule's own cost is what it costs, whatever was still asked of its tile after it was found.
    """
    own = ("least_cost", "refuted", "fate")
    tile, cost = dict(report.main_phase(schedule).graph.tile), float(schedule.cost)
    certificate = schedule.certificate or report.NOTHING
    names = list(dict.fromkeys(name for row in certificate.alternatives for name in row if name not in own))
    rows = []
    for row in certificate.alternatives:
        extents = {name: row[name] for name in names if name in row}
        best = extents == tile
        rows.append(
            {
                "extents": [row.get(name, "") for name in names],
                "cost": 1.0 if best else float(row.get("least_cost", 0.0)) / cost,
                "refuted": row.get("refuted", 0),
                "fate": row.get("fate", ""),
                "best": best,
            }
        )
    return {"names": names, "rows": sorted(rows, key=lambda row: (row["cost"], not row["best"]))}


def utilization(schedule: Schedule, machine: Machine, simulated: Mapping[str, float]) -> list[tuple[str, float, float]]:
    """For each unit the share of the time that it is held: in the main phase's interval, and as simulated."""
    phase = report.main_phase(schedule)
    held: dict[str, int] = {}
    for op in phase.graph.ops:
        for use in op.uses:
            held[use.unit] = held.get(use.unit, 0) + use.cycles * use.amount
    return [
        (unit, held.get(unit, 0) / (facts.capacity * phase.ii), simulated.get(unit, 0.0))
        for unit, facts in machine.units.items()
        if held.get(unit) or simulated.get(unit)
    ]


def other_view(schedule: Schedule, machine: Machine) -> dict[str, Any]:
    """One of several schedules: its figures and its chart."""
    phase = report.main_phase(schedule)
    return {
        "phase": phase,
        "tile": report.tile_text(phase.graph.tile),
        "groups": report.groups_text(schedule),
        "slack": schedule.slack,
        "cost": float(schedule.cost),
        "steady": steady(schedule, phase, machine, arrows=False),
    }
