"""What a persistent schedule is, and the order of its tiles, as data for ``--json`` and as text for people."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from forgec.schedule import files
from forgec.schedule.check_persistent import together
from forgec.schedule.grid import Grid, Ordered, arrange
from forgec.schedule.machine import Machine
from forgec.schedule.persistent import Persistent
from forgec.schedule.report import JOINT, NOTHING, laid_out, off, table, tile_text
from forgec.schedule.schedule import Schedule
from forgec.schedule.simulate import Simulation, simulate_turns
from forgec.schedule.timeline import reserved

TURNS = 6
"""That are simulated, beside those at either end in which not as many are under way as between."""
MOST_PLACES = 1 << 18
"""Tiles of a grid that are put in order."""
MEANS = {
    "optimal": "optimal: at a bound of the program",
    "optimal for the reduction": "optimal for this schedule of the loops, moved as a whole",
    "feasible": "feasible: not all shorter times were looked at",
    "timeout": "timeout: the limit left shorter times undecided",
}


@dataclass(frozen=True)
class Programs:
    """A persistent schedule as it is shown: with its simulation, and its grid in the best order, where it has one.

    ``loops_alone``: cycles per unit of work of the best schedule of the loops, without what is before and after them.
    """

    schedule: Persistent
    machine: Machine
    simulated: Simulation
    grid: Grid | None = None
    ordered: Ordered | None = None
    loops_alone: Fraction | None = None

    @property
    def simulated_per_tile(self) -> float:
        """Cycles from one output tile to the next."""
        return self.simulated.per_iteration / len(self.schedule.placed)

    @property
    def binding(self) -> str:
        """The bound that the interval of turns is at, or that it is all constraints together."""
        certificate = self.schedule.certificate or NOTHING
        both = (*certificate.bounds, *certificate.reduction)
        return next((bound.name for bound in both if bound.cycles == self.schedule.interval), JOINT)

    @property
    def overlap(self) -> int:
        """Cycles for which a turn is still under way after the next one has begun."""
        return max(self.schedule.span - self.schedule.interval, 0)


def programs(schedule: Persistent, machine: Machine, grid: Grid | None, loops: Schedule | None = None) -> Programs:
    """Run a persistent schedule, and put its grid in order; ``loops``: the best schedule of the loops alone."""
    few = grid is not None and grid.rows * grid.columns <= MOST_PLACES
    ordered = arrange(grid, machine) if grid is not None and few else None
    alone = loops.cost if loops is not None else None
    turns = TURNS + 2 * -(-schedule.span // schedule.interval)
    return Programs(schedule, machine, simulate_turns(schedule, machine, turns), grid, ordered, alone)


def persistent_data(shown: Programs) -> dict[str, Any]:
    """The facts of a persistent schedule, as JSON values."""
    schedule, certificate = shown.schedule, shown.schedule.certificate or NOTHING
    whole = together(schedule)
    return {
        "cycles_per_tile": float(schedule.cycles_per_tile),
        "interval_cycles": schedule.interval,
        "tiles_per_turn": len(schedule.placed),
        "span_cycles": schedule.span,
        "overlap_cycles": shown.overlap,
        "bounds": [{"name": bound.name, "cycles": bound.cycles} for bound in certificate.bounds],
        "reduction_bounds": [{"name": bound.name, "cycles": bound.cycles} for bound in certificate.reduction],
        "binding": shown.binding,
        "status": certificate.status,
        "refuted": list(certificate.refuted),
        "undecided": list(certificate.undecided),
        "quantum_cycles": certificate.quantum,
        "solve_seconds": certificate.solve_seconds,
        "deterministic_time": certificate.deterministic_time,
        "cycles_per_unit_of_work": float(schedule.cost),
        "alternatives": [dict(each) for each in certificate.alternatives],
        "tile": dict(schedule.placed[0].phases[0].graph.tile),
        "loops": [
            {"name": phase.graph.name, "ii_cycles": phase.ii, "trips": phase.graph.trips}
            for phase in schedule.placed[0].phases
        ],
        "groups": [
            {"name": each.name, "kind": each.kind, "warps": each.warps, "registers": each.registers, "ops": [*each.ops]}
            for each in schedule.groups
        ],
        "depths": dict(schedule.depths),
        "smem_bytes": reserved(whole, "shared"),
        "tmem_bytes": reserved(whole, "tensor"),
        "simulated": {
            "cycles_per_tile": shown.simulated_per_tile,
            "unit_utilization": shown.simulated.utilization,
            "deadlock": shown.simulated.deadlock,
        },
    }


def grid_data(shown: Programs) -> dict[str, Any] | None:
    """The order of tiles with its certificate, as JSON values; None where the kernel has no grid of this kind."""
    if shown.grid is None or shown.ordered is None:
        return None
    facts = files.adapter(type(shown.ordered)).dump_python(shown.ordered, mode="json")
    return {"rows": shown.grid.rows, "columns": shown.grid.columns, **facts, "cycles": shown.ordered.cycles}


def order_text(shown: Programs) -> str:
    """An order in words."""
    assert shown.grid is not None
    assert shown.ordered is not None
    order, grid = shown.ordered.order, shown.grid
    count, across = (grid.rows, "column") if order.by == "rows" else (grid.columns, "row")
    if order.group == 1:
        text = "row by row" if order.by == "rows" else "column by column"
    elif order.group >= count:
        text = f"{across} by {across}"
    else:
        text = f"in groups of {order.group} {order.by}, each {across} by {across}"
    return f"{text}{', the longest columns first' * order.longest_first}"


def facts(shown: Programs) -> list[tuple[str, str]]:
    """The lines of the text about one output tile after another: a name and what is said."""
    schedule, certificate = shown.schedule, shown.schedule.certificate or NOTHING
    count = len(schedule.placed)
    status = MEANS.get(certificate.status, certificate.status)
    each = f"{float(schedule.cycles_per_tile):.12g} cycles from one to the next, {status}"
    if count > 1:
        each += f"; a turn of {schedule.interval} makes {count}, whose consumers take turns"
    loops = ", ".join(f"{p.graph.trips} × {p.ii} cycles of {p.graph.name}" for p in schedule.placed[0].phases)
    found = [
        ("tile", f"{tile_text(schedule.placed[0].phases[0].graph.tile)}: {loops}"),
        ("output tiles", each),
    ]
    if certificate.bounds:
        bound = certificate.bounds[0]
        found.append(("bound", f"{bound.cycles} cycles of a turn by {bound.name}, whatever the schedule"))
    if certificate.reduction:
        bound = certificate.reduction[0]
        found.append(("of the loops as they are", f"{bound.cycles} cycles of a turn by {bound.name}"))
    if shown.loops_alone is not None:
        ratio = float(schedule.cost / shown.loops_alone)
        found.append(("work", f"{ratio:.3f} × what the loops above take for as much, without prologue and epilogue"))
    left = sum(each.get("fate") == "not tried" for each in certificate.alternatives)
    if left:
        text = f"the most promising {len(certificate.alternatives) - left} of {len(certificate.alternatives)}"
        found.append(("tiles", f"{text} were looked at; {left} others might be better"))
    what = "from the first load to the last store"
    found.append(("overlap", f"a turn takes {schedule.span} cycles {what}, {shown.overlap} of them under the next one"))
    if shown.simulated.deadlock:
        text = "deadlock: " + "; ".join(f"{name}: {what}" for name, what in shown.simulated.deadlock.items())
    else:
        different = off(shown.simulated_per_tile, float(schedule.cycles_per_tile))
        text = f"{shown.simulated_per_tile:.0f} cycles a tile{f', {different}' * bool(different)}"
    return [*found, ("simulated", text)]


def grid_facts(shown: Programs) -> list[tuple[str, str]]:
    """The lines of the text about the order of tiles."""
    grid, ordered = shown.grid, shown.ordered
    if grid is not None and ordered is None:
        return [("grid", f"no order is looked for: {grid.rows} × {grid.columns} tiles are more than {MOST_PLACES}")]
    if grid is None or ordered is None:
        return [("grid", "no order is looked for: tiles of this kernel share operands only within an expert")]
    floor = max(ordered.work_bound, ordered.traffic_bound)
    found = [
        ("grid", f"{grid.rows} × {grid.columns} tiles on {shown.machine.multiprocessors} multiprocessors"),
        ("order", f"{order_text(shown)}; the best of {ordered.tried}"),
        ("makespan", f"{ordered.makespan_cycles} cycles; no order is below {floor}"),
        ("traffic", f"{ordered.traffic_bytes} bytes, {ordered.memory_cycles} cycles of memory"),
        ("binds", f"{ordered.binds}; multiprocessors are busy for {ordered.tail_efficiency:.1%} of the makespan"),
    ]
    if ordered.parts > 1:
        advice = f"each tile in {ordered.parts} parts: {ordered.parts_makespan_cycles} cycles"
        found.append(("division", advice))
    return found


def persistent_text(shown: Programs, origin: str = "") -> str:
    """All of it."""
    schedule, certificate = shown.schedule, shown.schedule.certificate or NOTHING
    solved = f"in {certificate.solve_seconds:.2f} s{f' ({origin})' * bool(origin)}"
    rows = [("group", "kind", "warps", "registers", "ops")]
    rows += [(g.name, g.kind, str(g.warps), str(g.registers), " ".join(g.ops)) for g in schedule.groups]
    lines = laid_out([*facts(shown), ("solved", solved), *grid_facts(shown)])
    return "\n".join(["persistent program", "", *lines, "", *table(rows, numbers=(2, 3))])
