"""The search for the best schedule: tiles by what they can cost at best, intervals upward, then length, then slack.

The objective, in this order: cycles per unit of work, bytes moved from memory per unit of work, length of an iteration,
the smallest slack of a dependence on a recurrence. At equal interval a solver is free to put an op just where its
operand arrives by the model's latencies; slack is what is left for their error.

Everything is proved: a tile is left out because its lower bounds cost more than a schedule that was found, an interval
because CP-SAT refutes it. Where a time limit leaves one of these open, the certificate says ``timeout``.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import count

from ortools.sat.python import cp_model

from forgec.diagnostics import error
from forgec.schedule.bounds import critical_path, lower_bounds
from forgec.schedule.graph import Graph
from forgec.schedule.machine import Machine
from forgec.schedule.model import FAMILIES, Model
from forgec.schedule.scale import quantum, scaled
from forgec.schedule.schedule import Bound, Certificate, Group, Phase, Schedule

Kernel = Sequence[Graph]
"""The phases of one kernel at one tile: loops that run one after another with the same groups and buffers."""


@dataclass
class Budget:
    """Deterministic time for all of a search (about seconds of one core), and what it has used of it."""

    limit: float = 60.0
    used: float = 0.0

    @property
    def left(self) -> float:
        """What may still be used."""
        return max(self.limit - self.used, 0.0)


@dataclass
class Solver:
    """One run of the search on a machine."""

    machine: Machine
    budget: Budget = field(default_factory=Budget)
    seed: int = 0

    def run(self, model: Model, hint: cp_model.CpSolver | None = None) -> tuple[cp_model.CpSolver, str]:
        """Solve a model with one worker: ``optimal``, ``feasible``, ``infeasible`` or ``unknown``."""
        if not self.budget.left:
            return cp_model.CpSolver(), "unknown"
        solver = cp_model.CpSolver()
        solver.parameters.num_workers = 1
        solver.parameters.random_seed = self.seed
        # Times are integers in disjunctions: the linear relaxation says nothing of them, and costs most of the time.
        solver.parameters.linearization_level = 0
        solver.parameters.max_deterministic_time = self.budget.left
        status = solver.solve(model.cp)
        self.budget.used += solver.response_proto.deterministic_time
        return solver, solver.status_name(status).lower()


@dataclass(frozen=True)
class Found:
    """A solution of one kernel: the schedule, and the key by which schedules are compared."""

    schedule: Schedule
    key: tuple[Fraction, Fraction, int, int]


def schedules(kernels: Sequence[Kernel], machine: Machine, *, k: int = 1, limit: float = 60.0) -> list[Schedule]:
    """The ``k`` best distinct schedules of a kernel that may be had at several tiles, the best first.

    Args:
        kernels: one for each choice of tile.
        machine: what they run on.
        k: how many; two are distinct where a stage, a group or the tile differs.
        limit: deterministic time for all of it.

    Raises:
        ForgecError: FORGE-P009 where no kernel fits the machine, with a least set of constraints that conflict;
            FORGE-P010 where the limit ended the search before any was found.
    """
    began = time.perf_counter()
    solver = Solver(machine, Budget(limit))
    order = sorted(range(len(kernels)), key=lambda index: least_key(kernels[index], machine))
    found: list[Found] = []
    fates: list[dict[str, str | int | float]] = []
    complete = True
    for index in order:
        kernel = kernels[index]
        least = least_key(kernel, machine)
        fate: dict[str, str | int | float] = {**kernel[0].tile, "least_cost": float(least[0])}
        fates.append(fate)
        if len(found) >= k and least >= found[-1].key[:3]:
            fate["fate"] = "cannot be better"
            continue
        worst = found[-1].key[:2] if len(found) >= k else None
        several, outcome = solve_kernel(kernel, solver, k, worst)
        fate["fate"] = outcome
        complete = complete and outcome not in ("timeout", "undecided")
        found = sorted([*found, *several], key=lambda each: each.key)[:k]
    if not found:
        if not complete:
            raise error("FORGE-P010", f"no schedule of {kernels[0][0].name} was found within the time limit of {limit:g}")
        raise no_schedule(kernels[order[0]], solver)
    seconds = time.perf_counter() - began
    results = []
    for each in found:
        certificate = each.schedule.certificate
        assert certificate is not None
        status = certificate.status if complete else "timeout"
        results.append(
            replace(
                each.schedule,
                certificate=replace(
                    certificate,
                    status=status,
                    alternatives=tuple(fates) if len(kernels) > 1 else (),
                    solve_seconds=seconds,
                    deterministic_time=solver.budget.used,
                ),
            )
        )
    return results


def least_key(kernel: Kernel, machine: Machine) -> tuple[Fraction, Fraction, int]:
    """Cost, traffic and length that no schedule of the kernel can be below."""
    cycles = sum(lower_bounds(graph, machine)[0].cycles * graph.trips for graph in kernel)
    work = sum(graph.work * graph.trips for graph in kernel)
    traffic = sum(graph.traffic * graph.trips for graph in kernel)
    return Fraction(cycles) / work, Fraction(traffic) / work, max(critical_path(graph) for graph in kernel)


def intervals(bounds: Sequence[int], trips: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Intervals of all phases from the bounds upward, in the order of the cycles that they cost together."""
    import heapq

    heap = [(sum(ii * n for ii, n in zip(bounds, trips, strict=True)), tuple(bounds))]
    seen = {tuple(bounds)}
    while heap:
        cost, iis = heapq.heappop(heap)
        yield iis
        for place in range(len(iis)):
            longer = (*iis[:place], iis[place] + 1, *iis[place + 1 :])
            if longer not in seen:
                seen.add(longer)
                heapq.heappush(heap, (cost + trips[place], longer))


def solve_kernel(
    kernel: Kernel, solver: Solver, k: int, worst: tuple[Fraction, Fraction] | None
) -> tuple[list[Found], str]:
    """The best schedules of a kernel at one tile, unless they cost more than ``worst``; and what became of it."""
    machine = solver.machine
    sizes = [quantum(graph, machine) for graph in kernel]
    unit = min(size for size, _ in sizes)
    graphs = [scaled(graph, unit) for graph in kernel]
    bounds = [lower_bounds(graph, machine) for graph in graphs]
    least = [bound[0].cycles for bound in bounds]
    trips = [graph.trips for graph in kernel]
    work = sum(graph.work * graph.trips for graph in kernel)
    traffic = Fraction(sum(graph.traffic * graph.trips for graph in kernel)) / work
    serial = [serial_interval(graph, machine, unit) for graph in graphs]
    refuted: list[int] = []
    undecided: list[int] = []
    for iis in intervals(least, trips):
        cost = Fraction(sum(ii * n for ii, n in zip(iis, trips, strict=True)) * unit) / work
        if worst is not None and (cost, traffic) > worst:
            return [], "cannot be better"
        if all(ii > most for ii, most in zip(iis, serial, strict=True)):
            return [], "undecided" if undecided else "does not fit"
        if len(refuted) == 3 and not fits(graphs, serial, solver, unit):
            # Looked at late, since it is a solve of its own that most kernels do not need.
            return [], "does not fit"
        found, outcome = solve_at(graphs, iis, solver, k, unit)
        if outcome == "infeasible":
            refuted.append(iis[-1] * unit)
            continue
        if outcome == "unknown":
            undecided.append(iis[-1] * unit)
            if not solver.budget.left:
                return [], "timeout"
            continue
        results = []
        loss = max(loss for _, loss in sizes)
        exact = lower_bounds(kernel[-1], machine)
        for times, groups, depths, slack, status, shortest in found:
            phases = tuple(
                Phase(graph, ii * unit, {name: start * unit for name, start in starts.items()})
                for graph, ii, starts in zip(kernel, iis, times, strict=True)
            )
            certificate = Certificate(
                bounds=exact,
                status="timeout" if undecided else status,
                refuted=tuple(sorted(set(refuted))),
                undecided=tuple(undecided),
                least_length=shortest * unit,
                quantum=unit,
                distortion=loss,
            )
            schedule = Schedule(machine.name, phases, groups, depths, certificate, slack * unit)
            results.append(Found(schedule, (cost, traffic, max(phase.length for phase in phases), -slack * unit)))
        return results, "solved"
    raise AssertionError("the intervals have no end")


def serial_interval(graph: Graph, machine: Machine, unit: int) -> int:
    """An interval at which one iteration is over before the next begins: whatever does not fit then never does."""
    model = Model([graph], [1], machine, unit, frozenset(FAMILIES))
    return model.horizons[0]


def fits(graphs: Sequence[Graph], serial: Sequence[int], solver: Solver, unit: int) -> bool:
    """Whether there is a schedule at all: one without overlap of iterations."""
    _, outcome = solver.run(Model(graphs, serial, solver.machine, unit))
    return outcome != "infeasible"


Solution = tuple[list[dict[str, int]], tuple[Group, ...], dict[str, int], int, str, int]


def solve_at(
    graphs: Sequence[Graph], iis: Sequence[int], solver: Solver, k: int, unit: int
) -> tuple[list[Solution], str]:
    """Up to ``k`` solutions at these intervals: least length, then most slack; and ``infeasible`` or ``unknown``."""
    found: list[Solution] = []
    taken: list[tuple[tuple[int, ...], ...]] = []
    for number in range(k):
        model = Model(graphs, iis, solver.machine, unit)
        exclude(model, taken)
        length = sum((times.length for times in model.times), start=0)
        model.cp.minimize(length)
        first, outcome = solver.run(model)
        if outcome in ("infeasible", "unknown", "model_invalid"):
            if outcome == "model_invalid":
                raise AssertionError(model.cp.validate())
            return found, "found" if number else outcome
        shortest = round(first.best_objective_bound)
        model.cp.add(length <= round(first.objective_value))
        slack = smallest_slack(model)
        best, tight = first, 0
        if slack is not None:
            hint(model, first)
            model.cp.maximize(slack)
            second, result = solver.run(model)
            if result in ("optimal", "feasible"):
                best, tight = second, round(second.objective_value)
        found.append((*read_solution(model, best, unit), tight, outcome, shortest))
        taken.append(signature(model, best))
    return found, "found"


def smallest_slack(model: Model) -> cp_model.IntVar | None:
    """A variable: the least slack over the dependences that carry something into a later iteration."""
    slacks: list[cp_model.LinearExprT] = []
    for times in model.times:
        for source, target, delay, distance in times.graph.precedences():
            if distance:
                slacks.append(times.start[target] + distance * times.ii - times.start[source] - delay)
    if not slacks:
        return None
    least = model.cp.new_int_var(0, max(model.iis), "slack")
    for each in slacks:
        model.cp.add(least <= each)
    return least


def hint(model: Model, solver: cp_model.CpSolver) -> None:
    """Start the next solve from this solution."""
    model.cp.clear_hints()
    for times in model.times:
        for variable in (*times.slot.values(), *times.stage.values()):
            model.cp.add_hint(variable, solver.value(variable))


def signature(model: Model, solver: cp_model.CpSolver) -> tuple[tuple[int, ...], ...]:
    """What makes a solution distinct: the stages of each phase, and the groups."""
    stages = tuple(tuple(solver.value(stage) for stage in times.stage.values()) for times in model.times)
    groups = tuple(next(g for g, literal in enumerate(row) if solver.value(literal)) for row in model.member)
    return (*stages, groups)


def exclude(model: Model, taken: Sequence[tuple[tuple[int, ...], ...]]) -> None:
    """Leave out solutions that were found before."""
    for *stages, groups in taken:
        differs: list[cp_model.IntVar] = []
        for times, numbers in zip(model.times, stages, strict=True):
            for variable, number in zip(times.stage.values(), numbers, strict=True):
                literal = model.cp.new_bool_var("")
                model.cp.add(variable != number).only_enforce_if(literal)
                differs.append(literal)
        differs += [row[group].negated() for row, group in zip(model.member, groups, strict=True)]
        model.cp.add_bool_or(differs)


def read_solution(
    model: Model, solver: cp_model.CpSolver, unit: int
) -> tuple[list[dict[str, int]], tuple[Group, ...], dict[str, int]]:
    """Starts of each phase (units of the quantum), groups and buffer depths."""
    times = []
    for each in model.times:
        starts = {name: solver.value(each.slot[name]) + each.ii * solver.value(each.stage[name]) for name in each.slot}
        least = min(starts.values())
        times.append({name: start - least for name, start in starts.items()})
    groups = []
    for group in range(model.most_groups):
        members = [
            name
            for index, names in enumerate(model.clusters)
            if group < len(model.member[index]) and solver.value(model.member[index][group])
            for name in names
        ]
        if members:
            warps = next(size for size, literal in model.has_size[group].items() if solver.value(literal))
            registers = solver.value(model.grant[group]) * model.machine.registers.granularity
            members.sort(key=lambda name: next(starts[name] for starts in times if name in starts))
            groups.append(Group(f"group.{group}", warps, registers, tuple(members)))
    depths = {name: solver.value(variable) for name, variable in model.depth.items()}
    return times, tuple(groups), depths


def no_schedule(kernel: Kernel, solver: Solver) -> Exception:
    """The error for a kernel that fits at no interval, with an irreducible set of families in conflict.

    By a deletion filter: a family without which there still is no schedule is left out for good.
    """
    unit = min(quantum(graph, solver.machine)[0] for graph in kernel)
    graphs = [scaled(graph, unit) for graph in kernel]
    serial = [serial_interval(graph, solver.machine, unit) for graph in graphs]
    without: set[str] = set()
    for family in FAMILIES:
        _, outcome = solver.run(Model(graphs, serial, solver.machine, unit, frozenset(without | {family})))
        if outcome == "infeasible":
            without.add(family)
    conflict = [family for family in FAMILIES if family not in without]
    return error(
        "FORGE-P009",
        f"{kernel[0].name} does not fit machine {solver.machine.name}: {', '.join(conflict)} conflict",
        notes=tuple(f"without the constraints on {family} there is a schedule" for family in conflict),
    )
