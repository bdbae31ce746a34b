"""Why nothing fits: an irreducible set of constraints in conflict, and how much each of them would have to give."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ortools.sat.python import cp_model

from forgec.diagnostics import error
from forgec.schedule.graph import Graph
from forgec.schedule.machine import Machine
from forgec.schedule.model import FAMILIES, Model

Run = Callable[[Model], tuple[cp_model.CpSolver, str]]


def conflicting(graphs: Sequence[Graph], iis: Sequence[int], unit: int, machine: Machine, run: Run) -> list[str]:
    """Families of constraints that no schedule meets together, each of which is needed for that.

    By a deletion filter (Chinneck and Dravnieks 1991): a family without which there still is no schedule is left out
    for good. What the time limit leaves undecided stays in.
    """
    without: set[str] = set()
    for family in FAMILIES:
        _, outcome = run(Model(graphs, iis, machine, unit, frozenset(without | {family})))
        if outcome == "infeasible":
            without.add(family)
    return [family for family in FAMILIES if family not in without]


def needed(
    graphs: Sequence[Graph],
    iis: Sequence[int],
    unit: int,
    machine: Machine,
    run: Run,
    conflict: Sequence[str],
    family: str,
) -> tuple[int, int, str] | None:
    """What schedules that meet the rest of a conflict need of a family at the least, what there is, and of what."""
    without = frozenset(each for each in FAMILIES if each not in conflict or each == family)
    model = Model(graphs, iis, machine, unit, without, measured=family)
    if family not in model.demands:
        return None
    demand, room, what = model.demands[family]
    model.cp.minimize(demand)
    solver, outcome = run(model)
    return (solver.value(demand), room, what) if outcome == "optimal" else None


def no_schedule(
    kernel: Sequence[Graph], graphs: Sequence[Graph], iis: Sequence[int], unit: int, machine: Machine, run: Run
) -> Exception:
    """The error for a kernel (and its scaled phases) that fits at no interval."""
    conflict = conflicting(graphs, iis, unit, machine, run)
    notes = []
    for family in conflict:
        facts = needed(graphs, iis, unit, machine, run, conflict, family)
        amount = (
            "" if facts is None else f"; with them it takes {facts[0]} {facts[2]} at the least, there are {facts[1]}"
        )
        notes.append(f"without the constraints on {family} there is a schedule{amount}")
    return error(
        "FORGE-S001",
        f"{kernel[0].name} does not fit machine {machine.name}: {', '.join(conflict)} conflict",
        notes=tuple(notes),
    )
