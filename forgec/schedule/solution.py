"""What is asked of a model beside its constraints, and what is read from a solution of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from ortools.sat.python import cp_model

from forgec.schedule.bounds import length_bound
from forgec.schedule.circles import Circle
from forgec.schedule.graph import Graph, Op
from forgec.schedule.heuristic import Guess, Problem, grants
from forgec.schedule.model import Model, Times
from forgec.schedule.schedule import Group, least_depths

Places = Mapping[str, tuple[int, int]]
"""Slots and stages of the ops of one phase."""


@dataclass(frozen=True)
class Solution:
    """What the solver says of one kernel at given intervals; times are in units of the quantum.

    ``missing``: by how much results may be less late than their ops say. ``least_length``: what is proved of the
    length. ``status``: ``optimal`` where the length is the least, ``feasible`` where a limit ended the search for it.
    """

    starts: list[dict[str, int]]
    groups: tuple[Group, ...]
    depths: dict[str, int]
    missing: int
    length: int
    status: str
    least_length: int

    def beside(self, first: Solution) -> Solution:
        """This one, where the best one that the solver knows of turned out not to be legal: with what that proved."""
        proved = (self.missing, self.length) == (first.missing, first.least_length)
        return replace(self, status="optimal" if proved else "feasible", least_length=first.least_length)


def shortfall(model: Model, times: Times) -> cp_model.LinearExpr:
    """By how many cycles, over all reads, results may be less late than their ops say before a reader waits."""
    missing: list[cp_model.IntVar] = []
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


def waiting(model: Model) -> tuple[cp_model.LinearExpr, int]:
    """What the transitions between phases take together at the least, by what both phases have; and the most of it.

    An op's first turn in the second phase comes after its last in the first, and what a later turn reads is there.
    """
    found: list[cp_model.IntVar] = []
    longest = max(times.horizon + times.ii for times in model.times)
    for number, (one, other) in enumerate(pairwise(model.times)):
        wait = model.cp.new_int_var(0, 2 * longest, f"transition {number}")
        firsts = []
        for times in (one, other):
            first = model.cp.new_int_var(-longest, longest, f"begin of {times.graph.name}")
            model.cp.add_min_equality(first, list(times.start.values()))
            firsts.append(first)
        shift = firsts[0] - firsts[1] + wait
        for op in one.graph.ops:
            if op.name in other.start:
                model.cp.add(other.start[op.name] + shift + one.ii >= one.start[op.name] + op.issue)
        for value in one.graph.values:
            latency = one.graph.op(value.producer).latency
            for read in value.reads:
                if read.op in other.start and 0 < read.distance <= one.graph.trips:
                    model.cp.add(
                        other.start[read.op] + shift + read.distance * one.ii >= one.start[value.producer] + latency
                    )
        found.append(wait)
    return cp_model.LinearExpr.sum(found), 2 * longest * len(found)


def hint(model: Model, solver: cp_model.CpSolver) -> None:
    """Start the next solve from this solution."""
    model.cp.clear_hints()
    for times in model.times:
        hint_places(model, times, places_of(times, solver))


def places_of(times: Times, solver: cp_model.CpSolver) -> Places:
    """Slots and stages that the solver found for one phase."""
    return {name: (solver.value(slot), solver.value(times.stage[name])) for name, slot in times.slot.items()}


def hint_places(model: Model, times: Times, places: Places) -> None:
    """Start the next solve from these slots and stages of one phase; they may be of a longer interval."""
    for name, (slot, stage) in places.items():
        model.cp.add_hint(times.slot[name], min(slot, times.ii - 1))
        model.cp.add_hint(times.stage[name], stage)


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


def hint_guess(model: Model, guess: Guess) -> None:
    """Start the solve from a schedule of the heuristic, moved so that the model's anchor is where it has to be."""
    for times, starts in zip(model.times, guess.starts, strict=True):
        moved = starts[times.anchor]
        at = {name: divmod(start - moved, times.ii) for name, start in starts.items()}
        hint_places(model, times, {name: (slot, stage) for name, (stage, slot) in at.items()})
    # Groups count from the first cluster of each.
    rows = [sorted(model.cluster_of[name] for name in names) for names in guess.members]
    for group, row in enumerate(sorted(rows)):
        for index, literals in enumerate(model.member):
            if group < len(literals):
                model.cp.add_hint(literals[group], index in row)


def guessed_solution(problem: Problem, guess: Guess, graphs: Sequence[Graph]) -> Solution:
    """A schedule of the heuristic, as the solver gives them."""
    starts = [{name: start - min(row.values()) for name, start in row.items()} for row in guess.starts]
    ops = {op.name: op for graph in graphs for op in graph.ops}
    groups = named_groups(
        [
            group_of(names, warps, registers, starts, ops)
            for names, (warps, registers) in zip(guess.members, grants(problem, guess), strict=True)
        ]
    )
    depths = least_depths(graphs, guess.iis, problem.costs.latency, starts, homes_of(groups))
    missing = sum(
        max(
            0,
            ops[value.producer].late
            - row[read.op]
            - read.distance * ii
            + row[value.producer]
            + ops[value.producer].latency,
        )
        for graph, ii, row in zip(graphs, guess.iis, starts, strict=True)
        for value in graph.values
        for read in value.reads
        if ops[value.producer].late
    )
    least = sum(length_bound(graph, problem.machine) for graph in graphs)
    length = guess.length(graphs)
    return Solution(starts, groups, depths, missing, length, "feasible", least)


def read_solution(
    model: Model, solver: cp_model.CpSolver, circles: Sequence[Circle] = ()
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
            found.append(group_of(members, warps, registers, times, model.ops))
    groups = named_groups(found)
    depths = least_depths(model.graphs, model.iis, model.latency, times, homes_of(groups))
    for circle in circles:
        if sum(depths[name] for name in circle.values) < circle.least:
            depths |= {name: max(depths[name], solver.value(model.depth[name])) for name in circle.values}
    return times, groups, depths


def group_of(
    names: Sequence[str], warps: int, registers: int, starts: Sequence[Mapping[str, int]], ops: Mapping[str, Op]
) -> Group:
    """A group without a name yet: its ops in the order of their starts, and its kind by their roles."""
    members = sorted(names, key=lambda name: (next(row[name] for row in starts if name in row), name))
    roles = {ops[name].role for name in members}
    kind = roles.pop() if len(roles) == 1 else "consumer"
    return Group("", warps, registers, tuple(members), kind or "group")


def homes_of(groups: Sequence[Group]) -> dict[str, int]:
    """The number of each op's group."""
    return {name: number for number, group in enumerate(groups) for name in group.ops}


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
