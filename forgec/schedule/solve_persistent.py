"""The search for persistent schedules: the loop first, by itself; then turns of tiles around it.

The second solve is one of the same model (``model.py``) with a graph in which the solved loop is one op for each of its
groups (``reduce.py``). What it proves is about all placements of this loop, moved as a whole, and is called ``optimal
for the reduction``: another schedule of the loop, or loops that go on group by group, may make shorter turns. Only an
interval at a bound of the program (``program_bounds``: all the work of a unit) is called ``optimal``.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

from ortools.sat.python import cp_model

from forgec.diagnostics import ForgeError, error
from forgec.schedule.graph import Graph
from forgec.schedule.joined import joined_clusters, kept_apart
from forgec.schedule.machine import Machine
from forgec.schedule.model import Model, horizons
from forgec.schedule.persistent import Persistent, Placed, program_bounds
from forgec.schedule.reduce import Reduced
from forgec.schedule.schedule import Certificate, Schedule
from forgec.schedule.search import LOOKS_SERIAL
from forgec.schedule.shortened import lengthened
from forgec.schedule.solution import hint, named_groups, read_solution
from forgec.schedule.solver import Budget, Solver
from forgec.schedule.tile import Tile
from forgec.schedule.turn_bounds import Turn, lengths, plainly, turn_of, unrefuted
from forgec.schedule.turn_loops import Loops, nothing_found

MOST_TILES = 6
"""That are solved, unless told."""
PATIENCE = 4.0
"""Deterministic time after which no other tiles are tried, if none has been better."""
NO_SCHEDULE = ("FORGE-S001", "FORGE-S002")
"""What says that there is none; anything else is a defect."""
WORTH = Fraction(1, 500)
"""Of its cost, by which a turn may be above what none is below without anything more being tried."""
FINE = 2000
"""Intervals are told apart as long as they differ by more than so small a part."""
BUILD = 1e-4
"""Time for which each op and use of a model counts, beside what the solver needs."""
SHORTEST = 0.5
"""Deterministic time for making a turn short, once its interval is known."""


def persistent(
    tiles: Sequence[Tile],
    machine: Machine,
    *,
    copies: Sequence[int] = (1, 2),
    limit: float = 60.0,
    tries: int = MOST_TILES,
) -> Persistent:
    """The best persistent schedule of a kernel that may be had at several tiles.

    The certificate's ``alternatives`` say what became of each tile: ``solved``, ``does not fit``, ``no better`` (what
    units have to do for it is too much), ``not better`` (its loop is, or no shorter turn was found), or ``not tried``.

    Args:
        tiles: one for each choice.
        machine: what it runs on.
        copies: how many tiles a turn may have, each with consumers of its own.
        limit: deterministic time for all of it: loops and turns of all tiles.
        tries: how many tiles are solved, the most promising first.

    Raises:
        ForgeError: FORGE-S001 where nothing fits, FORGE-S002 where the limit ended the search before any was found.
    """
    budget, best, fault, solved, since = Budget(limit), None, None, 0, 0.0
    rows = [Candidate.of(tile, machine, copies[0], budget) for tile in sorted(tiles, key=lambda tile: tile.name)]
    heap = [(row.key, number) for number, row in enumerate(rows)]
    heapq.heapify(heap)
    while heap:
        _, number = heapq.heappop(heap)
        row = rows[number]
        row.fate = row.passed_over(best)
        patient = budget.left and budget.used <= since + PATIENCE
        if row.fate == "" and best is not None and (solved == tries or not patient):
            row.fate = "not tried"
        if row.fate == "" and not budget.left:
            raise fault or nothing_found(row.tile, copies[0], budget)
        if row.fate:
            continue
        loop = row.loops.step()
        if loop is None:
            if row.loops.search.fate == "open":
                heapq.heappush(heap, (row.key, number))
            else:
                row.fate = "does not fit"
            continue
        solved += 1
        try:
            found = row.turns(loop, copies, best)
        except ForgeError as caught:
            if caught.code not in NO_SCHEDULE:
                raise
            row.fate, fault = "does not fit", fault or caught
            solved -= 1
            continue
        row.fate = "solved" if found is not None else "not better"
        if found is not None:
            best, since = found, budget.used
    if best is None:
        first = min(rows, key=lambda row: row.key)
        raise fault or first.loops.fault()
    assert best.certificate is not None
    fates = tuple({**row.tile.phases[0].tile, "least_cost": float(row.least), "fate": row.fate} for row in rows)
    return replace(best, certificate=replace(best.certificate, alternatives=fates, deterministic_time=budget.used))


@dataclass
class Candidate:
    """One choice of tile: the search for its loops, what units have to do for it, and what became of it."""

    tile: Tile
    loops: Loops
    least: Fraction
    fate: str = ""

    @classmethod
    def of(cls, tile: Tile, machine: Machine, copies: int, budget: Budget) -> Candidate:
        """One of which nothing is known yet."""
        return cls(tile, Loops(tile, machine, copies, Solver(machine, budget)), least_cost(tile, machine))

    @property
    def key(self) -> tuple[Fraction, str, tuple[int, ...]]:
        """Cycles per unit of work that it may come near to."""
        extents = tuple(self.tile.phases[0].tile.values())
        return max(self.loops.search.key[0], self.least), self.tile.name, extents

    def passed_over(self, best: Persistent | None) -> str:
        """Why it is of no use to go on with it, if that is so."""
        if best is not None and self.least >= best.cost:
            return "no better"
        if best is not None and self.loops.least_cost() >= best.cost:
            return "not better"
        return "does not fit" if self.loops.search.fate == "does not fit" else ""

    def turns(self, loop: Schedule, copies: Sequence[int], best: Persistent | None) -> Persistent | None:
        """The best schedule around its loops that is better than the best one, if there is one."""
        mine: Persistent | None = None
        floor = max(self.loops.least_cost(), self.least)
        for count in copies:
            loops = self.loops if count == copies[0] else self.loops.aside(count)
            known = loop if loops is self.loops else None
            found = better_turns(loops, mine or best, floor, known)
            mine = found or mine
            # What turns of one tile are not near to, those of two are not either: the loops are the same.
            if mine is None or mine.cost <= floor * (1 + WORTH):
                break
        return mine


def least_cost(tile: Tile, machine: Machine) -> Fraction:
    """Cycles per unit of work that no schedule is below: what units have to do for one tile."""
    held: dict[str, int] = {}
    for graph in tile.graphs:
        for op in graph.ops:
            for use in op.uses:
                held[use.unit] = held.get(use.unit, 0) + use.cycles * use.amount * graph.trips
    cycles = max((Fraction(work, machine.units[unit].capacity) for unit, work in held.items()), default=Fraction(0))
    return cycles / tile.work


def turns(
    tile: Tile, machine: Machine, copies: int = 1, limit: float = 60.0, loop: Schedule | None = None
) -> Persistent:
    """The persistent schedule of one tile with so many tiles in a turn, within a limit of deterministic time.

    ``loop``: the schedule of its phases, if there is one already.

    Raises:
        ForgeError: FORGE-S001, FORGE-S002 as ``persistent``.
    """
    loops = Loops(tile, machine, copies, Solver(machine, Budget(limit)))
    found = better_turns(loops, None, Fraction(0), loop or loops.run())
    if found is None:
        raise nothing_found(tile, copies, loops.solver.budget)
    return found


def better_turns(loops: Loops, best: Persistent | None, floor: Fraction, loop: Schedule | None) -> Persistent | None:
    """The best schedule of turns, around the loops with the fewest groups and around those whose parts have groups of
    their own, which may run ahead of each other in the epilogue; None where none is better than the best one.

    Args:
        loops: the search for loops.
        best: the best schedule so far.
        floor: what no schedule of turns costs less than; near to it nothing more is tried.
        loop: the first loop, if it has been found.

    Raises:
        ForgeError: FORGE-S001, FORGE-S002 where there is none at all.
    """
    mine: Persistent | None = None
    fault: ForgeError | None = None
    for last in (False, True):
        ahead = mine or best
        below = ahead.cost if ahead is not None else None
        loop = loop or loops.run(below)
        if loop is None:
            break
        try:
            mine = around(loops, loop, below) or mine
        except ForgeError as caught:
            if caught.code not in NO_SCHEDULE:
                raise
            fault = fault or caught
        if last or loops.apart(loop) or (mine is not None and mine.cost <= floor * (1 + WORTH)):
            break
        loops, loop = loops.parted(), None
    if mine is None and fault is not None:
        raise fault
    return mine


def around(loops: Loops, loop: Schedule, below: Fraction | None) -> Persistent | None:
    """The best schedule of turns around a loop; None where none costs less than ``below``."""
    tile, machine, copies = loops.tile, loops.machine, loops.copies
    plain = plainly(loop)
    for trips in lengths(tile, plain, machine):
        turn = turn_of(tile, plain, machine, copies, trips)
        search = Search(tile, turn, machine, copies, Solver(machine, loops.whole))
        found = search.run(below)
        if not search.too_short:
            return found
    return None


@dataclass
class Search:
    """Intervals of turns upward from the bound."""

    tile: Tile
    turn: Turn
    machine: Machine
    copies: int
    solver: Solver
    refuted: list[int] = field(default_factory=list)
    undecided: list[int] = field(default_factory=list)
    too_short: bool = False

    def run(self, below: Fraction | None = None) -> Persistent | None:
        """The schedule of the least interval that was found; None where none costs less than ``below``, or where what
        was found does not say what happens with longer loops (``too_short``)."""
        began = time.perf_counter()
        turn = self.turn
        unit, graph = turn.unit, turn.graph
        least = (turn.bounds[0].cycles - turn.more) // unit
        serial = max(horizons([graph], [1], self.machine, unit)[0], least)
        # Intervals from this one on cost too much.
        most = serial + 1
        if below is not None:
            work = self.copies * self.tile.work
            most = min(most, -(-(below * work - turn.more) // unit))
        if least >= most:
            return None
        for interval in candidates(least, min(serial, most - 1)):
            if len(self.refuted) == LOOKS_SERIAL and interval < serial and self.at(turn, graph, unit, serial) is None:
                break
            found = self.at(turn, graph, unit, interval)
            if found is not None:
                low = max([least, *(n // unit + 1 for n in (*self.refuted, *self.undecided) if n // unit < interval)])
                interval, found = self.closer(turn, graph, unit, low, interval, found)
                found = self.shortest(*found)
                result = self.result(interval, found, time.perf_counter() - began)
                self.too_short = result is None
                return result
            if not self.solver.budget.left:
                break
        if below is not None and most <= serial:
            return None
        raise error(
            "FORGE-S002" if self.undecided else "FORGE-S001",
            f"no persistent schedule of {self.tile.name} with {self.copies} tiles in a turn was found",
        )

    def closer(
        self, turn: Turn, graph: Graph, unit: int, low: int, high: int, found: tuple[Model, cp_model.CpSolver]
    ) -> tuple[int, tuple[Model, cp_model.CpSolver]]:
        """Halve what is between the last interval without a schedule and the first with one."""
        whole = high
        while (high - low) * FINE > whole:
            middle = (low + high) // 2
            other = self.at(turn, graph, unit, middle)
            if other is None:
                low = middle + 1
            else:
                high, found = middle, other
        return high, found

    def at(self, turn: Turn, graph: Graph, unit: int, interval: int) -> tuple[Model, cp_model.CpSolver] | None:
        """A solution at this interval."""
        if not self.solver.budget.left:
            self.undecided.append(interval * unit)
            return None
        self.solver.budget.used += BUILD * sum(1 + len(op.uses) for op in graph.ops)
        model = Model([graph], [interval], replace(self.machine, isolate="none"), unit)
        times = model.times[0]
        for one, other, delay in turn.reduced.rigid:
            model.cp.add(times.start[other] == times.start[one] + delay // unit)
        for one, other in turn.reduced.together:
            model.cp.add(model.apart(one, other) == 0)
        for one, other in (*turn.reduced.apart, *self.isolated(turn.reduced, model)):
            model.cp.add(model.apart(one, other) == 1)
        solver, outcome = self.solver.run(model)
        if outcome in ("optimal", "feasible"):
            return model, solver
        assert outcome != "model_invalid", model.cp.validate()
        (self.refuted if outcome == "infeasible" else self.undecided).append(interval * unit)
        return None

    def shortest(self, model: Model, found: cp_model.CpSolver) -> tuple[Model, cp_model.CpSolver]:
        """The solution with the shortest turn, and of these one with few groups, as far as a short search finds it."""
        groups = sum((literals[0].negated() for literals in model.has_size), start=0)
        hint(model, found)
        model.cp.minimize(model.times[0].length * (model.most_groups + 1) + groups)
        solver, outcome = Solver(self.machine, Budget(SHORTEST)).run(model)
        return (model, solver) if outcome in ("optimal", "feasible") else (model, found)

    def isolated(self, turn: Reduced, model: Model) -> Iterator[tuple[str, str]]:
        """Pairs of ops that the machine keeps apart, by what the loops' ops are one by one."""
        graphs = [graph for tile in turn.tiles for graph in (*tile.graphs, tile.links)]
        stands_for = [[op for name in names for op in turn.members.get(name, (name,))] for names in model.clusters]
        tied = joined_clusters(graphs)
        rows = [list(dict.fromkeys(n for each in tied if set(each) & set(row) for n in each)) for row in stands_for]
        for a, b in kept_apart(graphs, self.machine, rows):
            yield model.clusters[a][0], model.clusters[b][0]

    def result(self, interval: int, found: tuple[Model, cp_model.CpSolver], seconds: float) -> Persistent | None:
        """The schedule of a solution, in cycles and with all iterations; None where these cannot be put in."""
        model, solver = found
        turn, loop, unit = self.turn.reduced, self.turn.loop, self.turn.unit
        times, groups, depths = read_solution(model, solver)
        roles = {op.name: op.role for op in turn.graph.ops if op.kind == "loop"}
        # What has a part of the loop is called by what it does there.
        groups = named_groups(
            [replace(group, kind=next((roles[op] for op in group.ops if op in roles), group.kind)) for group in groups]
        )
        starts = {name: start * unit for name, start in times[0].items()}
        placed = []
        for tile, (name, delay) in zip(turn.tiles, turn.loops, strict=True):
            base, bases, phases = starts[name] + delay, [], []
            for phase, graph, after in zip(loop.phases, tile.phases, (*loop.transitions, 0), strict=True):
                bases.append(base)
                base += graph.trips * phase.ii + after
                renamed = dict(zip((op.name for op in phase.graph.ops), (op.name for op in graph.ops), strict=True))
                phases.append(
                    replace(phase, graph=graph, starts={renamed[name]: at for name, at in phase.starts.items()})
                )
            ends = [
                {op.name: starts[op.name] for op in graph.ops} if graph else {}
                for graph in (tile.prologue, tile.epilogue)
            ]
            placed.append(Placed(tile, tuple(phases), tuple(bases), *ends))
        several = tuple(
            replace(group, ops=tuple(dict.fromkeys(n for op in group.ops for n in turn.members.get(op, (op,)))))
            for group in groups
        )
        mine = {value.name for tile in turn.tiles for value in tile.values}
        mine |= {v.name for tile in turn.tiles for g in (tile.prologue, tile.epilogue) if g for v in g.values}
        short = Persistent(
            self.machine.name,
            interval * unit,
            tuple(placed),
            several,
            {**turn.depths, **{name: depth for name, depth in depths.items() if name in mine}},
        )
        whole = lengthened(short, tuple(graph.trips for graph in self.tile.phases), self.machine)
        return None if whole is None else replace(whole, certificate=self.certified(whole, seconds))

    def certified(self, schedule: Persistent, seconds: float) -> Certificate:
        """What is proved of it."""
        unit, more, bounds = self.turn.unit, self.turn.more, self.turn.bounds
        refuted = tuple(sorted(n + more for n in set(self.refuted) if n + more < schedule.interval))
        undecided = tuple(sorted(n + more for n in set(self.undecided) if n + more < schedule.interval))
        proved = not unrefuted(range(bounds[0].cycles, schedule.interval, unit), refuted)
        program = program_bounds([each.tile for each in schedule.placed], self.machine)
        status = "optimal for the reduction" if proved else "timeout" if undecided else "feasible"
        if program and schedule.interval == program[0].cycles:
            status = "optimal"
        return Certificate(
            bounds=program,
            reduction=bounds,
            status=status,
            refuted=refuted,
            undecided=undecided,
            quantum=unit,
            solve_seconds=seconds,
            deterministic_time=self.solver.budget.used,
        )


def candidates(least: int, serial: int) -> Iterator[int]:
    """Intervals from the least on, each twice as far from it as the one before, and the one at which turns do not
    overlap."""
    yield least
    step = 1
    while least + step < serial:
        yield least + step
        step *= 2
    yield max(serial, least)
