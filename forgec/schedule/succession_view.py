"""What the page shows of where one loop, or one output tile, follows another."""

from __future__ import annotations

from typing import Any

from forgec.schedule.drawing import HUES, Drawing, Gantt, shade
from forgec.schedule.machine import Machine
from forgec.schedule.persistent_report import Programs, facts, grid_facts
from forgec.schedule.schedule import Schedule
from forgec.schedule.succession import Succession, between_phases, between_tiles
from forgec.schedule.timeline import Bar

HANDED = ("get", "put")
PARTS = ("prologue", "loop", "epilogue")


def transition(schedule: Schedule, place: int, machine: Machine) -> dict[str, Any]:
    """From one phase to the next: the chart, and the cycles lost."""
    shown = between_phases(schedule, place)
    one, other = schedule.phases[place], schedule.phases[place + 1]

    def fill(bar: Bar) -> str:
        """The phase's hue, iterations by turns darker and lighter."""
        if bar.kind in HANDED:
            return ""
        return shade(HUES[shown.unrolled.segments[bar.segment].place % len(HUES)], bar.iteration % 2, 3)

    return {
        "one": one.graph.name,
        "other": other.graph.name,
        "lost": schedule.transitions[place] if place < len(schedule.transitions) else 0,
        "hues": [(phase.graph.name, HUES[(place + n) % len(HUES)]) for n, phase in enumerate((one, other))],
        "chart": drawn(shown, machine, f"from {one.graph.name} to {other.graph.name}", fill),
    }


def program(shown: Programs) -> dict[str, Any]:
    """A persistent program: figures, bounds, and the chart of where a tile follows the one before."""
    window = between_tiles(shown.schedule, shown.machine)
    segments = window.unrolled.segments
    latest = max(segment.turn for segment in segments)

    def fill(bar: Bar) -> str:
        """By the part of the tile; the later the turn, the lighter."""
        if bar.kind in HANDED:
            return ""
        segment = segments[bar.segment]
        part = next(number for number, name in enumerate(PARTS) if segment.chain.startswith(name))
        return shade(HUES[part], max(segment.turn - latest + 2, 0), 3)

    certificate = shown.schedule.certificate
    bounds = (certificate.reduction or certificate.bounds) if certificate else ()
    there = dict.fromkeys(segment.chain.split()[0] for segment in segments)
    return {
        "facts": facts(shown),
        "grid": grid_facts(shown),
        "groups": shown.schedule.groups,
        "status": certificate.status if certificate else "",
        "interval": shown.schedule.interval,
        "binding": shown.binding,
        "bounds": bounds,
        "widest": max([shown.schedule.interval, *(bound.cycles for bound in bounds)]),
        "parts": [(name, HUES[number]) for number, name in enumerate(PARTS) if name in there],
        "chart": drawn(window, shown.machine, "from one output tile to the next", fill),
    }


def drawn(shown: Succession, machine: Machine, label: str, fill: Any) -> Drawing:
    """Units and groups over the window."""
    chart = Gantt(shown.first, shown.last, label)
    units, groups = shown.lanes(machine)
    segments = shown.unrolled.segments

    def title(bar: Bar) -> str:
        segment = segments[bar.segment]
        what = {"get": " takes over what it reads", "put": " hands on its result", "flight": " runs by itself"}
        return (
            f"{bar.op}{what.get(bar.kind, '')}\n{segment.graph.name}, iteration {bar.iteration}, turn {segment.turn}\n"
            f"cycles {bar.start} to {bar.end} ({bar.end - bar.start})"
        )

    chart.lanes(units, "units", fill, title)
    chart.drawing.height += 8
    chart.lanes(groups, "warp groups", fill, title)
    chart.axis(dict(shown.marks))
    return chart.drawing
