"""What a schedule says of itself, compared with all that can be computed from its graphs, its machine and its times.

Computed, and so refused where it is false: the kinds of groups, ``slack``, and of the certificate the bounds,
``quantum``, ``distortion``, whether ``refuted`` and ``undecided`` intervals are ones that the search may have asked
for, and whether ``status``, ``least_length`` and ``alternatives`` agree with all that.

Claims of the solver, which nobody can verify without solving again: that the intervals it refuted are impossible, that
no iteration is shorter than ``least_length``, what became of other tiles (whose graphs a schedule does not have), and
the time it took. A status that says less than it could (``feasible`` for ``optimal``) is believed: it says nothing that
is not so, and it may be lateness, or a tile that costs as much, which was left open.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isclose, isfinite

from forgec.schedule.bounds import lower_bounds, with_most_warps
from forgec.schedule.graph import Graph, stretches
from forgec.schedule.machine import Machine
from forgec.schedule.scale import quantum, scaled
from forgec.schedule.schedule import Bound, Certificate, Phase, Schedule, carried_slack, group_kind
from forgec.schedule.violation import Violation

STATUSES = ("optimal", "feasible", "timeout")
FATES = ("solved", "cannot be better", "does not fit", "undecided")
OWN = ("least_cost", "refuted", "fate")
"""Of a row of ``alternatives``: what are no extents of a tile."""
Row = Mapping[str, str | int | float]


@dataclass(frozen=True)
class Facts:
    """What is computed: bounds of each loop, the unit of time, by how much it lengthens the bounds, and these then."""

    bounds: tuple[tuple[Bound, ...], ...]
    unit: int
    distortion: float
    least: tuple[int, ...]


def facts(schedule: Schedule, machine: Machine) -> Facts:
    """Of the loops of a schedule; an op may be in a group with as many warps as any of them needs."""
    wide = with_most_warps([phase.graph for phase in schedule.phases])
    bounds = tuple(lower_bounds(graph, machine) for graph in wide)
    unit = min(quantum(graph, machine, row[0].cycles)[0] for graph, row in zip(wide, bounds, strict=True))
    least = tuple(lower_bounds(scaled(graph, unit), machine)[0].cycles * unit for graph in wide)
    grown = max(cycles / row[0].cycles - 1 for cycles, row in zip(least, bounds, strict=True))
    return Facts(bounds, unit, grown if unit > 1 else 0.0, least)


def false_claims(schedule: Schedule, machine: Machine) -> list[Violation]:
    """What a legal schedule says of itself and is not so; on its own machine, of which its certificate speaks."""
    texts = list(about_times(schedule))
    if schedule.certificate is not None:
        texts += about_bounds(schedule.certificate, facts(schedule, machine))
        texts += about_search(schedule, schedule.certificate)
    return [Violation("certificate", text) for text in texts]


def about_times(schedule: Schedule) -> Iterator[str]:
    """The kinds of groups, and the slack: of durations that are rounded up as they were for the solver."""
    ops = {op.name: op for phase in reversed(schedule.phases) for op in phase.graph.ops}
    for group in schedule.groups:
        kind = group_kind([ops[name] for name in group.ops])
        if group.kind != kind:
            yield f"the group {group.name} is called {group.kind}, and by its ops it is {kind}"
    unit = schedule.certificate.quantum if schedule.certificate else 1
    slack = carried_slack(schedule.phases, max(unit, 1))
    if schedule.slack != slack:
        yield f"its slack is said to be {schedule.slack} cycles, and is {slack}"


def about_bounds(stated: Certificate, known: Facts) -> Iterator[str]:
    """Bounds and the unit of time."""
    last = known.bounds[-1]
    if stated.bounds != last:
        yield f"its largest bound is {last[0].cycles} cycles by {last[0].name}, or smaller ones differ"
    # Schedules of several loops that say nothing of the earlier ones say nothing wrong.
    if stated.earlier_bounds and stated.earlier_bounds != known.bounds[:-1]:
        yield "the bounds of its earlier loops are not those of their graphs"
    if stated.quantum != known.unit:
        yield f"its times are said to be multiples of {stated.quantum} cycles; the solver counts in {known.unit}"
    if not isclose(stated.distortion, known.distortion, abs_tol=1e-9):
        yield f"rounding is said to lengthen a bound by {stated.distortion:g} of it, and does by {known.distortion:g}"
    if stated.reduction:
        yield "it has bounds of a reduction, which only programs of tile after tile have"
    for name, value in (("solve_seconds", stated.solve_seconds), ("deterministic_time", stated.deterministic_time)):
        if not 0 <= value < inf:
            yield f"{name} is {value:g}"


def about_search(schedule: Schedule, stated: Certificate) -> Iterator[str]:
    """Whether what is said of the search can be so: times, status, lengths, intervals, tiles."""
    if stated.status not in STATUSES:
        yield f"its status {stated.status} is none of {', '.join(STATUSES)}"
    unit = max(stated.quantum, 1)
    times = [time for phase in schedule.phases for time in (phase.ii, *phase.starts.values())]
    if any(time % unit for time in times):
        yield f"its times are said to be multiples of {unit} cycles, and are not"
        return
    rounded = sum(rounded_length(phase, unit) for phase in schedule.phases)
    if not 0 <= stated.least_length <= rounded:
        yield f"no length below {stated.least_length} is said to be possible, and this schedule has {rounded}"
    for title, several, together in (
        ("refuted", stated.refuted, stated.refuted_together),
        ("undecided", stated.undecided, stated.undecided_together),
    ):
        wrong = next((ii for ii in several if ii < 1 or ii % unit or ii >= schedule.phases[-1].ii), None)
        if wrong is not None:
            yield f"the interval {wrong} is said to be {title}: it is no smaller one in multiples of {unit} cycles"
        if list(several) != sorted(set(several)):
            yield f"its {title} intervals are not in their order, or some are there twice"
        own = [phase.ii for phase in schedule.phases]
        stretch = title == "refuted" and all(stretches(phase.graph) for phase in schedule.phases)
        for row in together:
            if len(row) != len(own) or len(own) < 2 or not any(row) or any(ii and (ii < 1 or ii % unit) for ii in row):
                yield f"{row} is said to be {title}: those are no intervals of its {len(own)} loops"
            elif all(ii in (None, mine) for ii, mine in zip(row, own, strict=True)):
                yield f"{combination(row)} are said to be {title}, and this schedule has them"
            elif stretch and all(ii is None or mine <= ii for ii, mine in zip(row, own, strict=True)):
                yield f"{combination(row)} are said to be {title}, and this schedule has shorter ones"
    both = set(stated.refuted) & set(stated.undecided)
    if both:
        yield f"the interval {min(both)} is said to be refuted, and undecided"
    yield from about_tiles(schedule, stated)


def rounded_length(phase: Phase, unit: int) -> int:
    """The length of an iteration, where durations are rounded up to whole units."""
    return max(phase.starts[op.name] + -(-op.span // unit) * unit for op in phase.graph.ops)


def combination(row: Sequence[int | None]) -> str:
    """Intervals of several loops in words; a dot where it is any."""
    return f"({', '.join('·' if each is None else str(each) for each in row)})"


# Tiles


def about_tiles(schedule: Schedule, stated: Certificate) -> Iterator[str]:
    """Whether rows of tiles are complete, and the schedule's own is among them."""
    own = dict(schedule.phases[0].graph.tile)
    for row in stated.alternatives:
        cost, refuted, fate = (row.get(name) for name in OWN)
        if not isinstance(cost, int | float) or not isfinite(cost) or cost < 0:
            yield f"the tile {extents(row)} is said to cost {cost} at the least"
        if not isinstance(refuted, int) or refuted < 0:
            yield f"of the tile {extents(row)} {refuted} intervals are said to be refuted"
        if fate not in FATES:
            yield f"of the tile {extents(row)} it is said that it {fate}, which is none of {', '.join(FATES)}"
    mine = [row for row in stated.alternatives if extents(row) == own]
    if stated.alternatives and all(row.get("fate") == "does not fit" for row in mine):
        yield f"its own tile {own} is not among those that fit"


def extents(row: Row) -> dict[str, str | int | float]:
    """The extents of a row of tiles."""
    return {name: value for name, value in row.items() if name not in OWN}


def least_cost(row: Row) -> float:
    """What a tile of a row could cost at the least."""
    cost = row.get("least_cost")
    return float(cost) if isinstance(cost, int | float) else 0.0


# Proofs


def unproved(schedule: Schedule, machine: Machine) -> list[Violation]:
    """Where the best schedule of a kernel claims more than the rest of its certificate says was proved.

    An interval is the least if every smaller one, down to the largest bound, was refuted, and every other tile is left
    out or costs as much; of several loops it is their cycles together that are the least. This is known of the best
    schedule alone: the next best have a better one.
    """
    stated = schedule.certificate
    if stated is None or not schedule.phases or stated.status not in STATUSES:
        return []
    known = facts(schedule, machine)
    texts = list(too_little(schedule, stated) if stated.status == "timeout" else too_much(schedule, stated, known))
    return [Violation("certificate", text) for text in texts]


def too_little(schedule: Schedule, stated: Certificate) -> Iterator[str]:
    """A timeout leaves something undecided that could cost less: intervals, or tiles."""
    left = [*stated.undecided, *stated.undecided_together]
    left += [row for row in stated.alternatives if row.get("fate") == "undecided"]
    if not left:
        yield "it is called timeout, and neither intervals nor tiles are undecided"


def too_much(schedule: Schedule, stated: Certificate, known: Facts) -> Iterator[str]:
    """What is missing for the status: intervals that are not refuted, tiles that could cost less, the length."""
    count = len(stated.undecided) + len(stated.undecided_together)
    if count:
        yield f"it is called {stated.status}, and {count} interval{'s are' if count > 1 else ' is'} undecided"
    still = open_interval(schedule, stated, known)
    if still is not None:
        yield f"it is called {stated.status}, and the interval {still} is not refuted"
    cheaper = cheaper_tile(schedule, stated)
    if cheaper is not None:
        yield f"it is called {stated.status}, and the tile {extents(cheaper)} could cost less"
    length = sum(phase.length for phase in schedule.phases)
    if stated.status == "optimal" and stated.least_length < length:
        yield f"it is called optimal, is {length} cycles long, and no less than {stated.least_length} is proved"


def cheaper_tile(schedule: Schedule, stated: Certificate) -> Row | None:
    """A row of a tile that fits and is not said to cost as much at the least."""
    cost = float(schedule.cost)
    return next(
        (row for row in stated.alternatives if row.get("fate") != "does not fit" and least_cost(row) < cost), None
    )


def open_interval(schedule: Schedule, stated: Certificate, known: Facts) -> str | None:
    """A smaller interval, or intervals of several loops that cost less, of which nothing is said."""
    unit = max(stated.quantum, 1)
    own = [phase.ii for phase in schedule.phases]
    if len(own) == 1:
        refuted = set(stated.refuted)
        return next((str(ii) for ii in range(known.least[0], own[0], unit) if ii not in refuted), None)
    trips = [phase.graph.trips for phase in schedule.phases]
    refuted = alone_and_together(stated, [phase.graph for phase in schedule.phases])
    found = open_combination(known.least, own, trips, unit, refuted)
    return None if found is None else combination(found)


@dataclass(frozen=True)
class Refuted:
    """Of each loop the intervals that are impossible whatever the others have, and combinations of all.

    ``stretch``: what is impossible at a combination is so where all intervals are shorter.
    """

    alone: list[set[int]]
    together: set[tuple[int | None, ...]]
    stretch: bool

    def holds(self, chosen: tuple[int, ...]) -> bool:
        """Whether a combination is among them."""
        if chosen in self.together or not self.stretch:
            return chosen in self.together
        return any(
            all(known is not None and ii <= known for ii, known in zip(chosen, row, strict=True))
            for row in self.together
            if len(row) == len(chosen)
        )


def alone_and_together(stated: Certificate, graphs: Sequence[Graph]) -> Refuted:
    """What is refuted of several loops."""
    count = len(graphs)
    alone: list[set[int]] = [set() for _ in range(count)]
    together: set[tuple[int | None, ...]] = set()
    for row in stated.refuted_together:
        places = [place for place, ii in enumerate(row) if ii is not None]
        if len(places) == 1 and len(row) == count:
            alone[places[0]].add(row[places[0]] or 0)
        else:
            together.add(row)
    alone[-1] |= set(stated.refuted)
    return Refuted(alone, together, all(map(stretches, graphs)))


def open_combination(
    least: Sequence[int], own: Sequence[int], trips: Sequence[int], unit: int, refuted: Refuted
) -> tuple[int, ...] | None:
    """Intervals of all loops, from the least on, that take fewer cycles together than the own, and are not refuted."""
    alone = refuted.alone
    floor = list(least)
    for place, ii in enumerate(floor):
        while ii in alone[place]:
            ii += unit
        floor[place] = ii
    room = sum(ii * n for ii, n in zip(own, trips, strict=True))

    def search(chosen: tuple[int, ...]) -> tuple[int, ...] | None:
        place = len(chosen)
        if place == len(floor):
            return None if refuted.holds(chosen) else chosen
        ii = floor[place]
        while True:
            row = (*chosen, ii, *floor[place + 1 :])
            if sum(each * n for each, n in zip(row, trips, strict=True)) >= room:
                return None
            found = None if ii in alone[place] else search((*chosen, ii))
            if found is not None:
                return found
            ii += unit

    return search(())
