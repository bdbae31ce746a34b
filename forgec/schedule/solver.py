"""Runs of CP-SAT within a budget, and the best schedules of a kernel at given intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf

from ortools.sat.python import cp_model

from forgec.schedule.graph import Graph
from forgec.schedule.heuristic import Guess
from forgec.schedule.machine import Machine
from forgec.schedule.model import Model, Times
from forgec.schedule.solution import (
    Solution,
    exclude,
    hint,
    hint_guess,
    read_solution,
    shortfall,
    signature,
    smallest_slack,
    waiting,
)

SHARE = 0.4
"""The part of what is left of the time that one solve may take."""
SECOND = 0.15
"""CP-SAT's deterministic time of one second on such models, as measured: less than 1, since no relaxation is solved."""
TIDY = 2.0
"""Deterministic time for what no certificate speaks of: few groups, short transitions and slack."""
SOON = 0.5
"""Deterministic time after which what each of several phases could do by itself is asked first."""
ALONE = 0.1
"""The part of what is left of the time that is spent on one phase alone."""


@dataclass
class Budget:
    """Deterministic time for all of a search, in about seconds of one core, and what it has used of it."""

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

    def run(self, model: Model, share: float = SHARE, most: float = inf) -> tuple[cp_model.CpSolver, str]:
        """Solve a model with one worker: ``optimal``, ``feasible``, ``infeasible`` or ``unknown``.

        ``share``: of what is left of the budget; ``most``: deterministic time that it takes at the most.
        """
        if not self.budget.left:
            return cp_model.CpSolver(), "unknown"
        solver = cp_model.CpSolver()
        solver.parameters.num_workers = 1
        solver.parameters.random_seed = self.seed
        # Times are integers in disjunctions: the linear relaxation says nothing of them, and costs most of the time.
        solver.parameters.linearization_level = 0
        solver.parameters.max_deterministic_time = max(min(self.budget.left * share, most) * SECOND, 1e-3)
        try:
            status = solver.solve(model.cp)
        except IndexError:
            # OR-tools 9.15 fails in its search for symmetries of some small models.
            solver.parameters.symmetry_level = 0
            status = solver.solve(model.cp)
        self.budget.used += solver.response_proto.deterministic_time / SECOND
        name = solver.status_name(status).lower()
        if name == "model_invalid":
            raise AssertionError(model.cp.validate())
        return solver, name


@dataclass(frozen=True)
class Alone:
    """One phase by itself, whatever the others do: what its cost is at the least, and the slots and stages of that."""

    least: int = 0
    places: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    infeasible: bool = False


def cost_of(model: Model, times: Times, weight: int) -> cp_model.LinearExpr:
    """Latencies that are no promise first; then the length, which is below ``weight``."""
    return shortfall(model, times) * weight + times.length


def best_alone(
    graphs: Sequence[Graph], iis: Sequence[int], solver: Solver, unit: int, phase: int, weight: int
) -> Alone:
    """A bound of what a phase costs in any schedule of all."""
    model = Model(graphs, iis, solver.machine, unit, alone=phase)
    (times,) = model.times
    model.cp.minimize(cost_of(model, times, weight))
    run, outcome = solver.run(model, ALONE)
    if outcome not in ("optimal", "feasible"):
        return Alone(infeasible=outcome == "infeasible")
    places = {name: (run.value(times.slot[name]), run.value(times.stage[name])) for name in times.slot}
    return Alone(max(round(run.best_objective_bound), 0), places)


def solve_at(
    graphs: Sequence[Graph], iis: Sequence[int], solver: Solver, k: int, unit: int, guess: Guess | None = None
) -> tuple[list[Solution], str]:
    """Up to ``k`` solutions at these intervals, the best first; and ``found``, ``infeasible`` or ``unknown``.

    ``infeasible`` where there are fewer than ``k``, each of which is there: then there are no others.
    """
    found: list[Solution] = []
    taken: list[tuple[tuple[int, ...], ...]] = []
    alone: list[Alone] = []
    for _ in range(k):
        model = Model(graphs, iis, solver.machine, unit)
        exclude(model, taken)
        weight = sum(model.longest) + 1
        costs = [cost_of(model, times, weight) for times in model.times]
        cost = sum(costs, start=0)
        model.cp.minimize(cost)
        if guess is not None and not taken:
            hint_guess(model, guess)
        first, outcome = solver.run(model, most=inf if len(graphs) == 1 else SOON)
        if len(graphs) > 1 and outcome in ("feasible", "unknown"):
            alone = alone or [best_alone(graphs, iis, solver, unit, phase, weight) for phase in range(len(graphs))]
            if any(each.infeasible for each in alone):
                return found, "infeasible"
            model.cp.clear_hints()
            for each, mine, times in zip(alone, costs, model.times, strict=True):
                model.cp.add(mine >= each.least)
                for name, (slot, stage) in each.places.items():
                    model.cp.add_hint(times.slot[name], slot)
                    model.cp.add_hint(times.stage[name], stage)
            again = solver.run(model)
            if again[1] != "unknown":
                first, outcome = again
        if outcome in ("infeasible", "unknown"):
            return found, "found" if found and outcome == "infeasible" else outcome
        lateness, length = divmod(round(first.objective_value), weight)
        proved = divmod(round(first.best_objective_bound), weight)
        least = proved[1] if proved[0] == lateness else 0
        # Of the shortest those with the fewest groups, and of these one whose loops follow each other soon, with slack.
        model.cp.add(cost <= round(first.objective_value))
        groups = cp_model.LinearExpr.sum([literals[0].negated() for literals in model.has_size])
        slack = smallest_slack(model)
        wait, longest_wait = waiting(model)
        hint(model, first)
        weight = max(iis) + 1
        rest: cp_model.LinearExpr = weight * (groups * (longest_wait + 1) + wait)
        model.cp.minimize(rest if slack is None else rest - slack)
        second, result = solver.run(model, most=TIDY)
        best = second if result in ("optimal", "feasible") else first
        tight = 0 if slack is None else best.value(slack)
        status = "optimal" if least == length else "feasible"
        least = max(least, sum(times.least_length for times in model.times))
        found.append(Solution(*read_solution(model, best), tight, lateness, length, status, least))
        taken.append(signature(model, best))
    return found, "found"
