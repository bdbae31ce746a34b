"""Runs of CP-SAT within a budget, and the best schedules of a kernel at given intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf

from ortools.sat.python import cp_model

from forgec.schedule.circles import Circle
from forgec.schedule.graph import Graph
from forgec.schedule.heuristic import Guess
from forgec.schedule.machine import Machine
from forgec.schedule.model import Model
from forgec.schedule.solution import (
    Places,
    Solution,
    exclude,
    hint,
    hint_guess,
    hint_places,
    read_solution,
    shortfall,
    signature,
    smallest_slack,
    waiting,
)

CORES = 0.5
"""Deterministic time for the shortest length by cores, which proves at once or not at all."""
SHARE = 0.4
"""The part of what is left of the time that one solve may take."""
SECOND = 0.15
"""CP-SAT's deterministic time of one second on such models, as measured: less than 1, since no relaxation is solved."""
TIDY = 0.5
"""Deterministic time for what no certificate speaks of: few groups, short transitions and slack."""
BOTH = 4.0
"""Deterministic time for lateness and length at once."""
SOON = 0.5
"""Deterministic time for lateness by itself, of which no certificate speaks."""
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

    def run(
        self, model: Model, share: float = SHARE, most: float = inf, *, cores: bool = False, strong: bool = False
    ) -> tuple[cp_model.CpSolver, str]:
        """Solve a model with one worker: ``optimal``, ``feasible``, ``infeasible`` or ``unknown``.

        ``share``: of what is left of the budget; ``most``: deterministic time that it takes at the most. ``cores``: the
        objective is bounded by what forbids its parts to be small. ``strong``: more is derived from orders.
        """
        if not self.budget.left:
            return cp_model.CpSolver(), "unknown"
        solver = cp_model.CpSolver()
        solver.parameters.num_workers = 1
        solver.parameters.random_seed = self.seed
        # Times are integers in disjunctions: the linear relaxation says nothing of them, and costs most of the time.
        solver.parameters.linearization_level = 0
        solver.parameters.optimize_with_core = cores
        solver.parameters.use_strong_propagation_in_disjunctive = strong
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


def solve_at(
    graphs: Sequence[Graph],
    iis: Sequence[int],
    solver: Solver,
    k: int,
    unit: int,
    guess: Guess | None = None,
    places: Mapping[int, Places] | None = None,
    circles: Sequence[Circle] = (),
) -> tuple[list[Solution], str]:
    """Up to ``k`` solutions at these intervals, the best first; and ``found``, ``infeasible`` or ``unknown``.

    ``infeasible`` where there are fewer than ``k``, each of which is there: then there are no others. ``guess`` and
    ``places`` (of phases that were solved by themselves) are where the solver begins. ``circles``: of which values the
    buffers have a least sum.
    """
    found: list[Solution] = []
    taken: list[tuple[tuple[int, ...], ...]] = []
    for _ in range(k):
        model = Model(graphs, iis, solver.machine, unit)
        exclude(model, taken)
        for circle in circles:
            model.cp.add(cp_model.LinearExpr.sum([model.depth[name] for name in circle.values]) >= circle.least)
        late = cp_model.LinearExpr.sum([shortfall(model, times) for times in model.times])
        length = cp_model.LinearExpr.sum([times.length for times in model.times])
        if guess is not None and not taken:
            hint_guess(model, guess)
        for phase, row in (places or {}).items() if guess is None or taken else ():
            hint_places(model, model.times[phase], row)
        first, outcome, lateness, least = shortest(model, solver, late, length)
        if outcome in ("infeasible", "unknown"):
            return found, "found" if found and outcome == "infeasible" else outcome
        reached = first.value(length)
        # Of the shortest those with the fewest groups, and of these one whose loops follow each other soon, with slack.
        model.cp.add(late <= lateness)
        model.cp.add(length <= reached)
        groups = cp_model.LinearExpr.sum([literals[0].negated() for literals in model.has_size])
        slack = smallest_slack(model)
        wait, longest_wait = waiting(model)
        hint(model, first)
        weight = max(iis) + 1
        rest: cp_model.LinearExpr = weight * (groups * (longest_wait + 1) + wait)
        model.cp.minimize(rest if slack is None else rest - slack)
        second, result = solver.run(model, most=TIDY)
        best = second if result in ("optimal", "feasible") else first
        status = "optimal" if least == reached else "feasible"
        least = max(least, sum(times.least_length for times in model.times))
        found.append(Solution(*read_solution(model, best, circles), lateness, reached, status, least))
        taken.append(signature(model, best))
    return found, "found"


def shortest(
    model: Model, solver: Solver, late: cp_model.LinearExpr, length: cp_model.LinearExpr
) -> tuple[cp_model.CpSolver, str, int, int]:
    """Latencies that are no promise first, then the length: a solution, what it is, how late it is not, and a bound of
    the length of those that are as late.

    Both at once, where that is quick. Else one after the other: of the length alone, cores are found soon.
    """
    first, outcome = cp_model.CpSolver(), "unknown"
    if len(model.graphs) == 1:
        weight = sum(model.longest) + 1
        model.cp.minimize(late * weight + length)
        first, outcome = solver.run(model, most=BOTH)
        if outcome == "infeasible":
            return first, outcome, 0, 0
        if outcome == "optimal":
            lateness, least = divmod(round(first.objective_value), weight)
            return first, outcome, lateness, least
        if outcome == "feasible":
            hint(model, first)
    model.cp.minimize(late)
    again, result = solver.run(model, most=SOON)
    if result == "unknown" and outcome == "unknown":
        model.cp.clear_objective()
        again, result = solver.run(model)
    if result in ("infeasible", "unknown") and outcome == "unknown":
        return again, result, 0, 0
    if result in ("optimal", "feasible"):
        first = again
    lateness = first.value(late)
    hint(model, first)
    model.cp.add(late <= lateness)
    model.cp.minimize(length)
    last, result = solver.run(model, most=CORES, cores=True)
    if result != "optimal":
        if result == "feasible":
            hint(model, last)
        again, outcome = solver.run(model)
        last, result = (again, outcome) if outcome != "unknown" else (last, result)
    if result == "unknown":
        return first, "feasible", lateness, 0
    return last, result, last.value(late), round(last.best_objective_bound)
