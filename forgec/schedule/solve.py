"""The search for the best schedule: tiles by what they can cost at best, intervals upward, then length, then slack.

The objective, in this order: cycles per unit of work; bytes moved from memory per unit of work; how late results may
be that the graph calls uncertain (``Op.late``) before anything waits; length of an iteration; groups; the smallest
slack of a dependence that is carried into a later iteration. At equal interval a solver is free to put an op just
where its operand arrives by the model's latencies; what may be late is left room for their error.

Everything is proved: a tile is left out because its lower bounds cost more than a schedule that was found, an interval
because CP-SAT refutes it. Where a time limit leaves one of these open, the certificate says ``timeout``.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property

from ortools.sat.python import cp_model

from forgec.diagnostics import error
from forgec.schedule.bounds import critical_path, lower_bounds
from forgec.schedule.graph import Graph
from forgec.schedule.machine import Machine
from forgec.schedule.model import FAMILIES, Model
from forgec.schedule.scale import quantum, scaled
from forgec.schedule.schedule import Certificate, Group, Phase, Schedule, lifetime
from forgec.schedule.transition import with_transitions

LOOKS_SERIAL = 3
"""After so many refuted intervals it is asked whether there is a schedule at all, which is a solve of its own."""

MORE_TO_FOLLOW = 8
"""Where no phase may follow the one before in what was found, so many more solutions are looked at."""

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
        try:
            status = solver.solve(model.cp)
        except IndexError:
            # OR-tools 9.15 fails in its search for symmetries of some small models.
            solver.parameters.symmetry_level = 0
            status = solver.solve(model.cp)
        self.budget.used += solver.response_proto.deterministic_time
        return solver, solver.status_name(status).lower()


@dataclass(frozen=True)
class Solution:
    """What the solver says of one kernel at given intervals; times are in units of the quantum."""

    starts: list[dict[str, int]]
    groups: tuple[Group, ...]
    depths: dict[str, int]
    slack: int
    status: str
    least_length: int


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
        ForgecError: FORGE-S001 where no kernel fits the machine, with a least set of constraints that conflict;
            FORGE-S002 where the limit ended the search before any was found.
    """
    began = time.perf_counter()
    solver = Solver(machine, Budget(limit))
    found: list[Found] = []
    searches = [Search(kernel, machine) for kernel in kernels]
    heap = [(search.key, number) for number, search in enumerate(searches)]
    heapq.heapify(heap)
    while heap:
        key, number = heapq.heappop(heap)
        if len(found) >= k and key >= found[-1].key[:3]:
            break
        search = searches[number]
        found = sorted([*found, *search.step(solver, k)], key=lambda each: each.key)[:k]
        if search.fate == "open":
            heapq.heappush(heap, (search.key, number))
    complete = not any(search.undecided for search in searches)
    if not found:
        if not complete:
            raise error(
                "FORGE-S002", f"no schedule of {kernels[0][0].name} was found within the time limit of {limit:g}"
            )
        raise no_schedule(min(searches, key=lambda search: least_key(search.kernel, machine)).kernel, solver)
    seconds = time.perf_counter() - began
    fates = tuple(search.account() for search in searches) if len(searches) > 1 else ()
    results = []
    for each in found:
        certificate = each.schedule.certificate
        assert certificate is not None
        proved = replace(
            certificate,
            status=certificate.status if complete else "timeout",
            alternatives=fates,
            solve_seconds=seconds,
            deterministic_time=solver.budget.used,
        )
        results.append(replace(each.schedule, certificate=proved))
    return results


def least_key(kernel: Kernel, machine: Machine) -> tuple[Fraction, Fraction, int]:
    """Cost, traffic and length that no schedule of the kernel can be below."""
    cycles = sum(lower_bounds(graph, machine)[0].cycles * graph.trips for graph in kernel)
    work = sum(graph.work * graph.trips for graph in kernel)
    traffic = sum(graph.traffic * graph.trips for graph in kernel)
    return Fraction(cycles) / work, Fraction(traffic) / work, max(critical_path(graph) for graph in kernel)


def intervals(bounds: Sequence[int], trips: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Intervals of all phases from the bounds upward, in the order of the cycles that they cost together."""
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


class Search:
    """The search of one kernel at one tile: intervals upward, one at each step.

    ``key``: cost, traffic and length that the schedule of the next interval has at the least. ``fate``: ``open``,
    ``solved``, ``does not fit``.
    """

    def __init__(self, kernel: Kernel, machine: Machine) -> None:
        self.kernel, self.machine = kernel, machine
        self.fate = "open"
        self.refuted: list[int] = []
        self.undecided: list[int] = []
        sizes = [quantum(graph, machine) for graph in kernel]
        self.unit = min(size for size, _ in sizes)
        self.distortion = max(loss for _, loss in sizes)
        self.graphs = [scaled(graph, self.unit) for graph in kernel]
        self.trips = [graph.trips for graph in kernel]
        least = [lower_bounds(graph, machine)[0].cycles for graph in self.graphs]
        self.intervals = intervals(least, self.trips)
        self.iis = next(self.intervals)

    @cached_property
    def serial(self) -> list[int]:
        """Intervals at which one iteration is over before the next begins."""
        return [serial_interval(graph, self.machine, self.unit) for graph in self.graphs]

    @property
    def key(self) -> tuple[Fraction, Fraction, int]:
        """What a schedule at the next interval costs at the least."""
        _, traffic, length = least_key(self.kernel, self.machine)
        work = sum(graph.work * graph.trips for graph in self.kernel)
        cycles = sum(ii * n for ii, n in zip(self.iis, self.trips, strict=True)) * self.unit
        return Fraction(cycles) / work, traffic, length

    def account(self) -> dict[str, str | int | float]:
        """What became of this tile, for the certificate."""
        fate = "cannot be better" if self.fate == "open" else self.fate
        return {
            **self.kernel[0].tile,
            "least_cost": float(self.key[0]),
            "refuted": len(self.refuted),
            "fate": "undecided" if self.undecided else fate,
        }

    def step(self, solver: Solver, k: int) -> list[Found]:
        """Solve at the next interval."""
        if len(self.refuted) == LOOKS_SERIAL and not fits(self.graphs, self.serial, solver, self.unit):
            self.fate = "does not fit"
            return []
        key, iis = self.key, self.iis
        several, outcome = solve_at(self.graphs, iis, solver, k, self.unit)
        if outcome in ("infeasible", "unknown"):
            (self.refuted if outcome == "infeasible" else self.undecided).append(iis[-1] * self.unit)
            self.iis = next(self.intervals)
            if outcome == "unknown" and not solver.budget.left:
                self.fate = "undecided"
            elif all(ii > most for ii, most in zip(self.iis, self.serial, strict=True)):
                self.fate = "does not fit"
            return []
        results = [each for solution in several if (each := self.found(solution, key, iis))]
        if not results:
            several, _ = solve_at(self.graphs, iis, solver, k + MORE_TO_FOLLOW, self.unit)
            results = [each for solution in several if (each := self.found(solution, key, iis))][:k]
        if not results:
            # There may be one with a transition among those that were not looked at.
            self.undecided.append(iis[-1] * self.unit)
            self.iis = next(self.intervals)
            return []
        self.fate = "solved"
        return results

    def found(self, solution: Solution, key: tuple[Fraction, Fraction, int], iis: tuple[int, ...]) -> Found | None:
        """The schedule of a solution, in cycles; None where a phase cannot follow the one before."""
        phases = tuple(
            Phase(graph, ii * self.unit, {name: start * self.unit for name, start in starts.items()})
            for graph, ii, starts in zip(self.kernel, iis, solution.starts, strict=True)
        )
        certificate = Certificate(
            bounds=lower_bounds(self.kernel[-1], self.machine),
            status="timeout" if self.undecided else solution.status,
            refuted=tuple(sorted(set(self.refuted))),
            undecided=tuple(self.undecided),
            least_length=solution.least_length * self.unit,
            quantum=self.unit,
            distortion=self.distortion,
        )
        slack = solution.slack * self.unit
        schedule = Schedule(self.machine.name, phases, solution.groups, solution.depths, certificate, slack)
        if len(phases) > 1:
            following = with_transitions(schedule, self.machine)
            if following is None:
                return None
            schedule = following
        return Found(schedule, (key[0], key[1], max(phase.length for phase in phases), -slack))


def serial_interval(graph: Graph, machine: Machine, unit: int) -> int:
    """An interval at which one iteration is over before the next begins: whatever does not fit then never does."""
    model = Model([graph], [1], machine, unit, frozenset(FAMILIES))
    return model.horizons[0]


def fits(graphs: Sequence[Graph], serial: Sequence[int], solver: Solver, unit: int) -> bool:
    """Whether there is a schedule at all: one without overlap of iterations."""
    _, outcome = solver.run(Model(graphs, serial, solver.machine, unit))
    return outcome != "infeasible"


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
        groups = sum((literals[0].negated() for literals in model.has_size), start=0)
        missing = shortfall(model)
        weight = (model.most_groups + 1) * sum(model.longest)
        # Latencies that are no promise first; then the shortest, and of these one with the fewest groups.
        cost = missing * weight + length * (model.most_groups + 1) + groups
        model.cp.minimize(cost)
        first, outcome = solver.run(model)
        if outcome in ("infeasible", "unknown", "model_invalid"):
            if outcome == "model_invalid":
                raise AssertionError(model.cp.validate())
            return found, "found" if number else outcome
        shortest = round(first.best_objective_bound) % weight // (model.most_groups + 1)
        model.cp.add(cost <= round(first.objective_value))
        slack = smallest_slack(model)
        best, tight = first, 0
        if slack is not None:
            hint(model, first)
            model.cp.maximize(slack)
            second, result = solver.run(model)
            if result in ("optimal", "feasible"):
                best, tight = second, round(second.objective_value)
        found.append(Solution(*read_solution(model, best), tight, outcome, shortest))
        taken.append(signature(model, best))
    return found, "found"


def shortfall(model: Model) -> cp_model.LinearExpr:
    """By how many cycles, over all reads, results may be less late than their ops say before a reader waits."""
    missing: list[cp_model.IntVar] = []
    for times in model.times:
        ops = {op.name: op for op in times.graph.ops}
        for value in times.graph.values:
            op = ops[value.producer]
            for read in value.reads if op.late else ():
                short = model.cp.new_int_var(0, op.late, f"shortfall of {value.name} at {read.op}")
                slack = times.start[read.op] + read.distance * times.ii - times.start[op.name] - op.latency
                model.cp.add(short >= op.late - slack)
                missing.append(short)
    return cp_model.LinearExpr.sum(missing)


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
        differs: list[cp_model.LiteralT] = []
        for times, numbers in zip(model.times, stages, strict=True):
            for variable, number in zip(times.stage.values(), numbers, strict=True):
                literal = model.cp.new_bool_var("")
                model.cp.add(variable != number).only_enforce_if(literal)
                differs.append(literal)
        differs += [row[group].negated() for row, group in zip(model.member, groups, strict=True)]
        model.cp.add_bool_or(differs)


def read_solution(
    model: Model, solver: cp_model.CpSolver
) -> tuple[list[dict[str, int]], tuple[Group, ...], dict[str, int]]:
    """Starts of each phase (units of the quantum), groups and buffer depths."""
    times = []
    for each in model.times:
        starts = {name: solver.value(each.slot[name]) + each.ii * solver.value(each.stage[name]) for name in each.slot}
        least = min(starts.values())
        times.append({name: start - least for name, start in starts.items()})
    found: list[Group] = []
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
            roles = {model.ops[name].role for name in members}
            kind = roles.pop() if len(roles) == 1 else "consumer"
            found.append(Group("", warps, registers, tuple(members), kind or "group"))
    return times, named_groups(found), least_depths(model, times, found)


def named_groups(groups: list[Group]) -> tuple[Group, ...]:
    """Those that load first; each called by its kind, with a number where there are several."""
    groups.sort(key=lambda group: (group.kind == "consumer", group.warps, group.ops[0]))
    kinds = [group.kind for group in groups]
    return tuple(
        replace(
            group,
            name=group.kind if kinds.count(group.kind) == 1 else f"{group.kind}.{kinds[:number].count(group.kind)}",
        )
        for number, group in enumerate(groups)
    )


def least_depths(model: Model, times: list[dict[str, int]], groups: list[Group]) -> dict[str, int]:
    """The fewest buffers of each value at these times."""
    group_of = {name: number for number, group in enumerate(groups) for name in group.ops}
    depths: dict[str, int] = {}
    for each, starts in zip(model.times, times, strict=True):
        for value in each.graph.values:
            life = lifetime(each.graph, value, starts, each.ii)
            if any(group_of[read.op] != group_of[value.producer] for read in value.reads):
                ends = [starts[read.op] + read.distance * each.ii + read.release for read in value.reads]
                life = max(life, max(ends) - starts[value.producer] - value.begin + model.latency)
            depths[value.name] = max(depths.get(value.name, 1), -(-life // each.ii))
    return depths


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
        "FORGE-S001",
        f"{kernel[0].name} does not fit machine {solver.machine.name}: {', '.join(conflict)} conflict",
        notes=tuple(f"without the constraints on {family} there is a schedule" for family in conflict),
    )
