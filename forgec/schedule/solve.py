"""The search for the best schedule: tiles by what they can cost at best, intervals upward, then length, then slack.

The objective, in this order: cycles per unit of work; bytes moved from memory per unit of work; how late results may
be that the graph calls uncertain (``Op.late``) before anything waits; length of an iteration; groups; the smallest
slack of a dependence that is carried into a later iteration. At equal interval a solver is free to put an op just
where its operand arrives by the model's latencies; what may be late is left room for their error.

Everything is proved: a tile is left out because its lower bounds cost more than a schedule that was found, an interval
because CP-SAT refutes it. Where a time limit leaves one of these open, the certificate says ``timeout``, and the
schedule is the best of what iterative modulo scheduling (``heuristic.py``) and the solver found.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from forgec.diagnostics import error
from forgec.schedule.check import certificate as certificate_faults
from forgec.schedule.conflict import no_schedule
from forgec.schedule.graph import Graph
from forgec.schedule.machine import Machine
from forgec.schedule.schedule import Schedule
from forgec.schedule.search import Found, Kernel, Search
from forgec.schedule.solver import Budget, Solver

GUESSES = 4
"""Tiles that the heuristic looks at when the time is over, where as many schedules as are asked for are found."""


def schedules(
    kernels: Sequence[Kernel], machine: Machine, *, k: int = 1, limit: float = 60.0, seed: int = 0
) -> list[Schedule]:
    """The ``k`` best distinct schedules of a kernel that may be had at several tiles, the best first.

    Args:
        kernels: one for each choice of tile.
        machine: what they run on.
        k: how many; two are distinct where a stage, a group, the interval or the tile differs.
        limit: deterministic time for all of it, in about seconds of one core.
        seed: of the solver; a schedule depends on nothing but the arguments.

    Raises:
        ForgecError: FORGE-S001 where no kernel fits the machine, with a least set of constraints that conflict;
            FORGE-S002 where the limit ended the search before any was found; FORGE-U010 where a graph uses a unit
            that the machine does not have.
    """
    began = time.perf_counter()
    for kernel in kernels:
        for graph in kernel:
            know_units(graph, machine)
    solver = Solver(machine, Budget(limit), seed)
    searches = [Search(kernel, machine) for kernel in kernels]
    found = best_of(searches, solver, k)
    open_ones = [search for search in searches if search.undecided]
    if not found:
        for search in sorted(open_ones, key=lambda search: search.key):
            found = sorted(search.guessed() or search.halve(solver), key=lambda each: each.key)[:k]
            if found:
                break
    if not found:
        if open_ones:
            name = kernels[0][0].name
            why = next((search.stuck for search in open_ones if search.stuck), "")
            if solver.budget.left and why:
                raise error("FORGE-S002", f"no schedule of {name} was found: {why}")
            raise error("FORGE-S002", f"no schedule of {name} was found within the time limit of {limit:g}")
        first = min(searches, key=lambda search: search.key)
        if not first.ready:
            first.prepare()
        raise no_schedule(first.kernel, first.graphs, first.serial, first.unit, solver.machine, solver.run)
    if open_ones:
        found = improved(found, open_ones, solver, k)
    seconds = time.perf_counter() - began
    fates = tuple(search.account() for search in searches) if len(searches) > 1 else ()
    results = []
    for each in found:
        certificate = each.search.certified(each.schedule)
        proved = replace(
            certificate,
            status=status_of(each, open_ones),
            alternatives=fates,
            solve_seconds=seconds,
            deterministic_time=solver.budget.used,
        )
        schedule = replace(each.schedule, certificate=proved)
        wrong = list(certificate_faults(schedule))
        if wrong:
            raise error("FORGE-X001", f"the schedule of {kernels[0][0].name} is not as proved: {wrong[0].text}")
        results.append(schedule)
    return results


def best_of(searches: Sequence[Search], solver: Solver, k: int) -> list[Found]:
    """The ``k`` best schedules: tiles by what they cost at the least, until none can be better.

    A tile whose phases are each known to be possible at some intervals promises what those cost. What costs more than
    the best promise need not be looked at: it is lowered as far as it goes, and others are asked whether they can be as
    good, not how good they are.
    """
    found: list[Found] = []
    guessed = 0
    while True:
        promised = [(cost, n) for n, search in enumerate(searches) if k == 1 and (cost := search.promise) is not None]
        cost, place = min(promised, default=(None, 0))
        best = searches[place] if cost is not None else None
        costs = [cost, found[-1].key[0] if len(found) >= k else None]
        most = min((each for each in costs if each is not None), default=None)
        rows = [search for search in searches if search.fate == "open" and (most is None or search.key[0] <= most)]
        if len(found) >= k:
            rows = [search for search in rows if search.key < found[-1].key]
        if not rows:
            return found
        search = (
            best
            if best is not None and best in rows and best.bracketed
            else min(rows, key=lambda search: (search.settled, search.key))
        )
        over = search.ready and not solver.budget.left
        # What the heuristic takes is no deterministic time: once that is over, it looks at few tiles.
        more = search.leave_open(len(found) < k or guessed < GUESSES) if over else search.step(solver, k, most)
        guessed += over
        found = sorted([*found, *more], key=lambda each: each.key)[:k]


def know_units(graph: Graph, machine: Machine) -> None:
    """Raise FORGE-U010 where an op holds a unit that the machine does not have."""
    for op in graph.ops:
        for use in op.uses:
            if use.unit not in machine.units:
                raise error(
                    "FORGE-U010",
                    f"op {op.name} of graph {graph.name} uses the unit {use.unit}, which {machine.name} has not",
                    notes=("it has " + ", ".join(sorted(machine.units)),),
                )


def status_of(found: Found, undecided: Sequence[Search]) -> str:
    """Of the certificate: whether what is undecided could cost less, or as much in less length."""
    if any(search.least_open[:2] < found.key[:2] for search in undecided):
        return "timeout"
    shorter = any(search.least_open < found.key for search in undecided)
    assert found.schedule.certificate is not None
    return "feasible" if shorter else found.schedule.certificate.status


def improved(found: list[Found], searches: Sequence[Search], solver: Solver, k: int) -> list[Found]:
    """Better schedules of kernels whose least intervals are undecided, by halving what is between, while time lasts."""
    for search in sorted(searches, key=lambda search: search.key):
        more = search.halve(solver) if k == 1 else []
        found = sorted([*found, *more], key=lambda each: each.key)[:k]
    return found
