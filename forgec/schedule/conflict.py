"""Why nothing fits: an irreducible set of constraints in conflict, and how much each of them would have to give."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ortools.sat.python import cp_model

from forgec.diagnostics import error
from forgec.schedule.graph import Graph
from forgec.schedule.machine import Machine
from forgec.schedule.misfits import misfits
from forgec.schedule.model import FAMILIES, MOST_DEPTH, Model

Run = Callable[[Model], tuple[cp_model.CpSolver, str]]


WORDS = {
    "streams": "a group does one thing at a time",
    "units": "a unit is held by no more than its capacity",
    "dependences": "an op starts when what it waits for is there",
    "buffers": f"a buffer is written again when its readers are done with it, and a value has at most {MOST_DEPTH}",
    "shared memory": "all buffers fit",
    "tensor memory": "all buffers fit",
    "registers": "what is live fits what a group is granted",
    "register file": "all grants fit",
    "warps": "all groups fit",
    "isolation": "nothing waits in line behind what may take any time",
}
"""What each family asks for."""


def conflicting(graphs: Sequence[Graph], iis: Sequence[int], unit: int, machine: Machine, run: Run) -> list[str]:
    """Families of constraints that no schedule meets together, each of which is needed for that.

    By a deletion filter (Chinneck and Dravnieks 1991): a family without which there still is no schedule is left out
    for good. What the time limit leaves undecided stays in.
    """
    return filtered(graphs, iis, unit, machine, run)[0]


def filtered(
    graphs: Sequence[Graph], iis: Sequence[int], unit: int, machine: Machine, run: Run, alone: int | None = None
) -> tuple[list[str], set[str]]:
    """Families in conflict, and those among them of which it is not decided whether they are needed.

    ``alone``: the number of a loop whose times alone are asked for.
    """
    without: set[str] = set()
    undecided: set[str] = set()
    for family in FAMILIES:
        _, outcome = run(Model(graphs, iis, machine, unit, frozenset(without | {family}), alone=alone))
        if outcome == "infeasible":
            without.add(family)
        elif outcome == "unknown":
            undecided.add(family)
    return [family for family in FAMILIES if family not in without], undecided


def needed(
    graphs: Sequence[Graph],
    iis: Sequence[int],
    unit: int,
    machine: Machine,
    run: Run,
    conflict: Sequence[str],
    family: str,
    alone: int | None = None,
) -> tuple[int, int, str] | None:
    """What schedules that meet the rest of a conflict need of a family at the least, what there is, and of what."""
    without = frozenset(each for each in FAMILIES if each not in conflict or each == family)
    model = Model(graphs, iis, machine, unit, without, measured=family, alone=alone)
    if family not in model.demands:
        return None
    demand, room, what = model.demands[family]
    model.cp.minimize(demand)
    solver, outcome = run(model)
    return (solver.value(demand), room, what) if outcome == "optimal" else None


def no_schedule(
    kernel: Sequence[Graph], graphs: Sequence[Graph], iis: Sequence[int], unit: int, machine: Machine, run: Run
) -> Exception:
    """The error for a kernel (and its scaled phases) that fits at no interval.

    What is too large by itself is said of ops and values; else the constraints are named that are in conflict, and
    how much of each would be enough.
    """
    tile = " ".join(f"{name}={extent}" for name, extent in kernel[0].tile.items())
    what = f"{kernel[0].name}{f' with {tile}' * bool(tile)} does not fit machine {machine.name}"
    plain = misfits(kernel, machine, MOST_DEPTH)
    if plain:
        return error("FORGE-S001", f"{what}: {plain[0]}", notes=tuple(plain[1:]))
    conflict, undecided = filtered(graphs, iis, unit, machine, run)
    notes = []
    for family in conflict:
        if family in undecided:
            notes.append(f"whether it takes the constraints on {family} ({WORDS[family]}) was not decided in time")
            continue
        facts, amount = needed(graphs, iis, unit, machine, run, conflict, family), ""
        if facts is not None:
            amount = f"; with them it takes at the least {facts[0]} {facts[2]}"
            # Of registers it is counted what is beyond those there are.
            amount += "" if family == "registers" else f", there are {facts[1]}"
        notes.append(f"without the constraints on {family} ({WORDS[family]}) there is a schedule{amount}")
    names = " and ".join([", ".join(conflict[:-1]), conflict[-1]] if len(conflict) > 1 else conflict)
    return error("FORGE-S001", f"{what}: {names} conflict", notes=tuple(notes))
