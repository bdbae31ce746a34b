"""The search of one kernel at one tile: intervals in the order of what they cost, until schedules are found.

Single loops are asked one by one before all are solved together (``alone.py``); where a time limit ends a question, the
intervals stay undecided, and the heuristic has the word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property

from forgec.schedule.alone import Alone
from forgec.schedule.bounds import length_bound, lower_bounds, with_most_warps
from forgec.schedule.check import check
from forgec.schedule.circles import Circle, circles
from forgec.schedule.graph import Graph, stretches
from forgec.schedule.heuristic import Costs, Guess, Problem, guess_from, guesses
from forgec.schedule.intervals import Intervals
from forgec.schedule.joined import joined_clusters, kept_apart
from forgec.schedule.machine import Machine
from forgec.schedule.model import Model, horizons
from forgec.schedule.pressure import cannot_fit
from forgec.schedule.rings import Rings
from forgec.schedule.scale import quantum, scaled
from forgec.schedule.schedule import Certificate, Phase, Schedule, carried_slack
from forgec.schedule.solution import Solution, guessed_solution
from forgec.schedule.solver import Solver, solve_at
from forgec.schedule.transition import with_transitions

LOOKS_SERIAL = 2
"""After so many refuted intervals it is asked whether there is a schedule at all, which is a solve of its own."""
SERIAL = 1.0
"""Deterministic time for that question."""
MORE_TO_FOLLOW = 8
"""Where what was found is not legal as a whole (no phase may follow the one before), so many more are looked at."""
LARGE = 24
"""Ops from which on the solver starts from a schedule of the heuristic."""
Kernel = Sequence[Graph]
"""The phases of one kernel at one tile: loops that run one after another with the same groups and buffers."""
Key = tuple[Fraction, Fraction, int, int, int, int]
"""Cost and traffic per unit of work, missing lateness, length, groups, and the negative of the slack."""


@dataclass(frozen=True)
class Found:
    """A solution of one kernel: the schedule, and the key by which schedules are compared."""

    search: Search
    schedule: Schedule
    key: Key


class Search:
    """The search of one kernel at one tile: intervals upward, one at each step.

    ``key``: what the schedule of the next interval has at the least. ``fate``: ``open``, ``solved``, ``does not fit``,
    ``undecided``. ``least_open``: what a schedule at the least undecided interval has at the least.
    """

    def __init__(self, kernel: Kernel, machine: Machine) -> None:
        self.kernel, self.machine = kernel, machine
        # Intervals of all loops, in cycles.
        self.undecided: list[tuple[int, ...]] = []
        self.best: tuple[int, ...] | None = None
        self.trips = [graph.trips for graph in kernel]
        self.work = sum((graph.work * graph.trips for graph in kernel), start=Fraction(0))
        self.traffic = Fraction(sum(graph.traffic * graph.trips for graph in kernel)) / self.work
        self.wide = with_most_warps(kernel)
        self.bounds = [lower_bounds(graph, machine) for graph in self.wide]
        self.length = sum(length_bound(graph, machine) for graph in kernel)
        self.fate = "does not fit" if any(cannot_fit(graph, machine) for graph in self.wide) else "open"
        # In cycles until it is this tile's turn: many tiles are never looked at again.
        self.unit, self.distortion, self.ready = 1, 0.0, False
        self.iis = tuple(row[0].cycles for row in self.bounds)
        self.tries = 0
        self.circles: list[Circle] = []
        # Why what the solver found is not legal as a whole, if so.
        self.stuck = ""
        # Whether phases that are possible one by one have not been so together.
        self.doubtful = False
        self.least_open = self.key

    def prepare(self) -> None:
        """Go over to units of a quantum, by which intervals may only become longer."""
        sizes = [quantum(graph, self.machine, row[0].cycles) for graph, row in zip(self.wide, self.bounds, strict=True)]
        self.unit = min(size for size, *_ in sizes)
        self.iis = tuple(
            bound if size == self.unit else lower_bounds(scaled(graph, self.unit), self.machine)[0].cycles
            for graph, (size, _, bound) in zip(self.wide, sizes, strict=True)
        )
        exact = [row[0].cycles for row in self.bounds]
        grown = [ii * self.unit / cycles - 1 for ii, cycles in zip(self.iis, exact, strict=True)]
        self.distortion = max(grown) if self.unit > 1 else 0.0
        self.least, self.ready = self.iis, True
        self.least_open = self.key

    @cached_property
    def graphs(self) -> list[Graph]:
        """The phases in units of the quantum."""
        return [scaled(graph, self.unit) for graph in self.kernel]

    @cached_property
    def serial(self) -> list[int]:
        """Intervals at which one iteration is over before the next begins: what does not fit then never does."""
        return horizons(self.graphs, [1] * len(self.graphs), self.machine, self.unit)

    @cached_property
    def problem(self) -> Problem:
        """For the heuristic."""
        clusters = joined_clusters(self.graphs)
        apart = frozenset(kept_apart(self.graphs, self.machine, clusters))
        return Problem(self.graphs, self.machine, Costs.of(self.machine, self.unit), clusters, apart)

    def in_cycles(self, iis: Sequence[int]) -> tuple[int, ...]:
        """Intervals that are in units of the quantum."""
        return tuple(ii * self.unit for ii in iis)

    def cycles(self, iis: Sequence[int]) -> int:
        """Of all phases in their steady state."""
        return sum(ii * n for ii, n in zip(iis, self.trips, strict=True)) * self.unit

    @property
    def key(self) -> Key:
        """What a schedule at the next interval has at the least."""
        return Fraction(self.cycles(self.iis)) / self.work, self.traffic, 0, self.length, 1, -(10**9)

    def account(self) -> dict[str, str | int | float]:
        """What became of this tile, for the certificate."""
        fate = "cannot be better" if self.fate == "open" else self.fate
        return {
            **self.kernel[0].tile,
            "least_cost": float(self.key[0]),
            "refuted": self.intervals.count if self.ready else 0,
            "fate": "undecided" if self.undecided else fate,
        }

    @cached_property
    def intervals(self) -> Intervals:
        """Those that are still open. With longer ones than ``serial`` nothing is possible that is not at those."""
        return Intervals(self.least, self.serial, self.trips, [stretches(graph) for graph in self.graphs])

    @cached_property
    def alone(self) -> Alone:
        """What is known of each phase by itself."""
        return Alone(self.graphs, self.machine, self.unit, self.intervals)

    @cached_property
    def rings(self) -> Rings:
        """What phases need of memories together."""
        return Rings(self.graphs, self.machine, self.unit)

    def step(self, solver: Solver, k: int, most: Fraction | None = None) -> list[Found]:
        """Solve at the next interval. What costs more than ``most`` is of no use."""
        if not self.ready:
            self.prepare()
            return []
        if self.tries == LOOKS_SERIAL and self.best is None and self.never(solver):
            self.fate = "does not fit"
            return []
        self.tries += 1
        iis, before = self.iis, self.key[0]
        several: list[Found] = []
        place = self.alone.open(iis) if self.probes else None
        if place is not None:
            self.alone.probe(place, iis, solver, self.longest(place, most))
        else:
            several, outcome = self.together(iis, solver, k)
            self.best = self.best or (iis if several else None)
            if outcome == "unknown":
                return several + self.leave_open(not several)
            if outcome == "infeasible":
                self.rule_out(iis)
            if self.intervals.peek() == iis:
                self.intervals.pop()
        following = self.intervals.peek()
        while following is not None and len(iis) > 1 and self.rings.too_many(following):
            self.leave_out(following)
            following = self.intervals.peek()
        if following is None:
            self.fate = "solved" if self.best else "does not fit"
            return several
        self.iis = following
        if len(several) >= k and self.key[0] > before:
            self.fate = "solved"
        return several

    def leave_open(self, guess: bool) -> list[Found]:
        """Give up on the next interval for want of time, and ask the heuristic where ``guess`` says so."""
        self.fate = "undecided"
        self.least_open = self.key
        self.undecided.append(self.in_cycles(self.iis))
        return self.guessed() if guess else []

    def rule_out(self, iis: tuple[int, ...]) -> None:
        """Keep that the solver refuted these intervals."""
        if len(iis) == 1:
            self.intervals.refute(0, iis[0])
            refuted = {self.in_cycles((ii,)) for ii in self.intervals.refuted[0]}
            self.undecided = [row for row in self.undecided if row not in refuted]
        else:
            self.intervals.refute_together(iis)

    @property
    def promise(self) -> Fraction | None:
        """What a schedule may cost at intervals that are possible for each phase by itself, where such are known."""
        if not self.probes or not all(self.intervals.stretch):
            return None
        highs = [self.alone.high.get(place) for place in range(len(self.graphs))]
        if any(high is None for high in highs) or self.fate != "open":
            return None
        at = [max(high or 0, ii) for high, ii in zip(highs, self.iis, strict=True)]
        return Fraction(self.cycles(at)) / self.work

    @property
    def bracketed(self) -> bool:
        """Whether shorter intervals than those of the promise are open."""
        return self.promise is not None and self.alone.open(self.iis) is not None

    @property
    def settled(self) -> bool:
        """Whether nothing is left to be asked of single phases at the next intervals."""
        return self.probes and self.alone.open(self.iis) is None

    @property
    def probes(self) -> bool:
        """Whether phases are asked one by one first: several, or one that was refuted and may be for long."""
        return self.ready and (len(self.graphs) > 1 or bool(self.intervals.refuted[0]))

    def longest(self, place: int, most: Fraction | None) -> int | None:
        """The longest interval of a phase with which a schedule costs no more than that of another tile."""
        if most is None:
            return None
        others = [0 if other == place else ii for other, ii in enumerate(self.iis)]
        return int((most * self.work - self.cycles(others)) // (self.trips[place] * self.unit))

    def leave_out(self, iis: tuple[int, ...]) -> None:
        """Intervals at which buffers do not fit together: alone each phase's if they do not fit beside the least that
        the others may need, which spares a step for each of the others' intervals.
        """
        most = self.intervals.most
        alone = [
            place
            for place, ii in enumerate(iis)
            if self.rings.too_many([ii if other == place else longest for other, longest in enumerate(most)])
        ]
        for place in alone:
            self.intervals.refute(place, iis[place])
        if not alone:
            self.intervals.refute_together(self.furthest(iis) if all(self.intervals.stretch) else iis)

    def furthest(self, iis: tuple[int, ...]) -> tuple[int, ...]:
        """Intervals that are as long as they may be while buffers still do not fit together."""
        corner = list(iis)
        for place in reversed(range(len(iis))):
            low, high = corner[place], self.intervals.most[place] + 1
            while high - low > 1:
                corner[place] = (low + high) // 2
                low, high = (corner[place], high) if self.rings.too_many(corner) else (low, corner[place])
            corner[place] = low
        return tuple(corner)

    def together(self, iis: tuple[int, ...], solver: Solver, k: int) -> tuple[list[Found], str]:
        """Schedules of all phases, or what refutes the intervals."""
        if self.doubtful and (
            self.rings.too_large(iis, solver)
            or solver.run(Model(self.graphs, iis, self.machine, self.unit))[1] == "infeasible"
        ):
            several, outcome = [], "infeasible"
        else:
            several, outcome = self.solve(iis, solver, k)
        self.doubtful = len(iis) > 1 and outcome == "infeasible"
        return several, outcome

    def never(self, solver: Solver) -> bool:
        """Whether there is no schedule at any interval."""
        if next(guesses(self.problem, self.serial), None) is not None:
            return False
        model = Model(self.graphs, self.serial, self.machine, self.unit)
        return solver.run(model, most=SERIAL)[1] == "infeasible"

    def solve(self, iis: tuple[int, ...], solver: Solver, k: int) -> tuple[list[Found], str]:
        """Up to ``k`` schedules at these intervals."""
        guess = None
        if sum(len(graph.ops) for graph in self.graphs) >= LARGE:
            found = list(guesses(self.problem, iis))
            guess = min(found, key=lambda each: each.length(self.graphs), default=None)
        places = self.alone.places if self.probes else None
        while True:
            several, outcome = solve_at(self.graphs, iis, solver, k, self.unit, guess, places, self.circles)
            if outcome == "unknown" and guess is not None and not several:
                several, outcome = [self.solution_of(guess)], "found"
            broken = [each for solution in several for each in circles(self.graphs, solution.depths)]
            new = [each for each in dict.fromkeys(broken) if each not in self.circles]
            if not new:
                break
            self.circles += new
        results = self.following(several, iis)
        if len(results) < len(several):
            # What is proved of the length was so before any solution was left out.
            first = several[0]
            several, _ = solve_at(self.graphs, iis, solver, k + MORE_TO_FOLLOW, self.unit, circles=self.circles)
            several = [each.beside(first) for each in several]
            results = self.following(several, iis)[:k]
            # There may be one that is legal among those that were not looked at.
            outcome = outcome if results else "unknown"
        return results, outcome

    def following(self, several: Sequence[Solution], iis: tuple[int, ...]) -> list[Found]:
        """Those whose phases can follow each other, and that the checker finds legal.

        The model says nothing of one rule, the order of waits, beyond the buffers that it needs.
        """
        legal: list[Found] = []
        for solution in several:
            each = self.found(solution, iis)
            wrong = check(replace(each.schedule, certificate=None), self.machine) if each else []
            if each is None:
                self.stuck = "the loops of those that were looked at cannot follow each other"
            elif wrong:
                self.stuck = f"of those that were looked at {wrong[0].text}"
            else:
                legal.append(each)
        return legal

    def solution_of(self, guess: Guess) -> Solution:
        """A schedule of the heuristic."""
        return guessed_solution(self.problem, guess, self.graphs)

    def guessed(self) -> list[Found]:
        """A schedule at longer intervals by the heuristic, which proves nothing."""
        guess = guess_from(self.problem, self.iis, self.serial)
        if guess is None:
            return []
        found = self.following([self.solution_of(guess)], guess.iis)
        self.best = guess.iis if found else self.best
        return found

    def halve(self, solver: Solver) -> list[Found]:
        """Schedules at intervals between the least undecided one and the best found, by bisection."""
        low, found = self.iis, []
        while solver.budget.left:
            if self.best is None:
                middle = tuple(self.serial)
            else:
                middle = tuple((one + other) // 2 for one, other in zip(low, self.best, strict=True))
            if middle in (low, self.best):
                break
            several, outcome = self.solve(middle, solver, 1)
            if several:
                self.best = middle
                found += several
                continue
            if outcome == "infeasible":
                self.rule_out(middle)
            else:
                self.undecided.append(self.in_cycles(middle))
            if self.best is None:
                break
            low = middle
        return found

    def found(self, solution: Solution, iis: tuple[int, ...]) -> Found | None:
        """The schedule of a solution, in cycles; None where a phase cannot follow the one before."""
        phases = tuple(
            Phase(graph, ii * self.unit, {name: start * self.unit for name, start in starts.items()})
            for graph, ii, starts in zip(self.kernel, iis, solution.starts, strict=True)
        )
        certificate = Certificate(
            bounds=self.bounds[-1],
            status=solution.status,
            least_length=solution.least_length * self.unit,
            quantum=self.unit,
            distortion=self.distortion,
            earlier_bounds=tuple(self.bounds[:-1]),
        )
        slack = carried_slack(phases, self.unit)
        schedule = Schedule(self.machine.name, phases, solution.groups, solution.depths, certificate, slack)
        if len(phases) > 1:
            following = with_transitions(schedule, self.machine)
            if following is None:
                return None
            schedule = following
        length = sum(phase.length for phase in phases)
        cost = Fraction(self.cycles(iis)) / self.work
        return Found(
            self, schedule, (cost, self.traffic, solution.missing * self.unit, length, len(solution.groups), -slack)
        )

    def certified(self, schedule: Schedule) -> Certificate:
        """The certificate of a schedule, with what became of smaller intervals at its tile."""
        assert schedule.certificate is not None
        if len(self.kernel) > 1:
            return self.certified_together(schedule, schedule.certificate)
        ii = schedule.phases[-1].ii
        refuted = sorted(each * self.unit for each in self.intervals.refuted[0] if each * self.unit < ii)
        undecided = {each for row in self.undecided for each in row if each < ii}
        if undecided:
            # Between the first that was not decided and this one nothing is known but what was refuted.
            undecided = set(range(min(undecided), ii, self.unit)) - set(refuted)
        return replace(schedule.certificate, refuted=tuple(refuted), undecided=tuple(sorted(undecided)))

    def certified_together(self, schedule: Schedule, certificate: Certificate) -> Certificate:
        """Of several loops: those of one that are impossible whatever the others have, and what else costs less."""
        count, own = len(self.kernel), self.cycles([phase.ii for phase in schedule.phases])
        alone: list[tuple[int | None, ...]] = [
            tuple(ii * self.unit if other == place else None for other in range(count))
            for place, row in enumerate(self.intervals.refuted)
            for ii in sorted(row)
        ]
        known = {(place, ii) for row in alone for place, ii in enumerate(row) if ii is not None}
        # Where phases stretch, dearer ones may be what refutes cheaper ones.
        every = all(self.intervals.stretch)
        refuted = {self.in_cycles(row) for row in self.intervals.together if every or self.cycles(row) < own}
        others = sorted(row for row in refuted if not any(each in known for each in enumerate(row)))
        undecided = tuple(sorted({row for row in self.undecided if self.cycles(row) < own}))
        return replace(certificate, refuted_together=(*alone, *others), undecided_together=undecided)
