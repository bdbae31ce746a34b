r"""The order of output tiles over a grid: balance against what second-level cache keeps.

**Definition.** A grid has :math:`R \times C` tiles; tile :math:`(i, j)` takes :math:`w_{ij}` cycles of one
multiprocessor, reads an operand of row :math:`i` (a block of A; the keys and values of a head) and one of column
:math:`j` (a block of B), and moves bytes of its own (its queries, its output). An **order** is a sequence of all tiles;
whichever of the :math:`P` multiprocessors is free first takes the next one (list scheduling; Graham 1969).

- *Work*: the makespan of the order.
- *Traffic*: tiles are taken :math:`P` at a time, in **waves**. Those of a wave go through their operands in step, so
  that each operand comes from memory once for all of them. An operand that was last read in wave :math:`u` is in the
  cache in wave :math:`w` where all that waves :math:`u, \dots, w-1` read is within its bytes (least recently used).
- *Cost*: the larger of the makespan and of traffic over bandwidth.

**Bounds.** No order has less work than :math:`\max(\sum w / P, \max w)`, nor less traffic than each operand once.

**Orders.** Row by row; in groups of :math:`G` rows, column after column within a group (which is row by row at
:math:`G = 1` and column by column at :math:`G = R`); the same with rows and columns exchanged; each as the columns are
or with the longest first. For uniform work longest-first changes nothing. For a causal attention (rows: heads, columns:
blocks of queries) it puts the short tiles at the end, where they fill the last wave, and :math:`G` is how many heads
share the cache.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

from forgec.diagnostics import error
from forgec.schedule.graph import STRICT
from forgec.schedule.machine import Machine

MOST_GROUPS = 64
"""Up to so many rows every size of group is tried; beyond, powers of two and all rows."""
MOST_PARTS = 16
"""Parts that a tile may be divided into, for advice."""

Place = tuple[int, int]


@dataclass(frozen=True)
class Grid:
    """Tiles and what they read.

    ``cycles``: of a tile, for each column (one number: all alike). ``row_bytes``, ``column_bytes``: of the operand of a
    row, of a column. ``tile_bytes``: what each tile moves by itself. ``split_cycles``: what it costs a tile to be done
    in parts, for each part (adding up).
    """

    __pydantic_config__ = STRICT
    rows: int
    columns: int
    cycles: tuple[int, ...]
    row_bytes: int
    column_bytes: int
    tile_bytes: int = 0
    split_cycles: int = 0

    def __post_init__(self) -> None:
        if self.rows < 1 or self.columns < 1 or len(self.cycles) not in (1, self.columns) or min(self.cycles) < 1:
            raise error(
                "FORGE-U010", f"a grid of {self.rows} x {self.columns} tiles with the cycles of {len(self.cycles)}"
            )
        if min(self.row_bytes, self.column_bytes, self.tile_bytes, self.split_cycles) < 0:
            raise error("FORGE-U010", "a grid has negative bytes or cycles")

    def work(self, place: Place) -> int:
        """Cycles of a tile."""
        return self.cycles[place[1] % len(self.cycles)]

    @cached_property
    def total(self) -> int:
        """Cycles of all tiles."""
        return self.rows * sum(self.work((0, column)) for column in range(self.columns))

    @property
    def compulsory(self) -> int:
        """Bytes that every order moves."""
        own = self.rows * self.columns * self.tile_bytes
        return self.rows * self.row_bytes + self.columns * self.column_bytes + own


MOST_TILES = 1 << 14
"""For which every size of groups is tried; of larger grids powers of two."""


@dataclass(frozen=True)
class Order:
    """Groups of ``group`` rows (``by`` is ``rows``) or columns, gone through across; ``longest_first``: columns by
    falling work."""

    __pydantic_config__ = STRICT
    by: str
    group: int
    longest_first: bool = False

    def places(self, grid: Grid) -> Iterator[Place]:
        """The tiles in this order."""
        columns = list(range(grid.columns))
        if self.longest_first:
            columns.sort(key=lambda column: -grid.work((0, column)))
        rows = list(range(grid.rows))
        grouped, across = (rows, columns) if self.by == "rows" else (columns, rows)
        for first in range(0, len(grouped), self.group):
            for outer in across:
                for inner in grouped[first : first + self.group]:
                    yield (inner, outer) if self.by == "rows" else (outer, inner)


@dataclass(frozen=True)
class Ordered:
    """An order with its certificate.

    ``makespan_cycles`` and ``memory_cycles``: of this order; ``work_bound``, ``traffic_bound``: cycles that no order is
    below; ``binds``: ``work`` or ``traffic``, whichever is larger here. ``tail_efficiency``: the share of
    multiprocessors that are busy over the makespan. ``parts``: into how many parts each tile would have to be divided
    for the least makespan, and ``parts_makespan_cycles`` that. ``tried``: how many orders there were.
    """

    __pydantic_config__ = STRICT
    order: Order
    makespan_cycles: int
    memory_cycles: int
    traffic_bytes: int
    work_bound: int
    traffic_bound: int
    binds: str
    tail_efficiency: float
    parts: int
    parts_makespan_cycles: int
    tried: int

    @property
    def cycles(self) -> int:
        """What the order takes."""
        return max(self.makespan_cycles, self.memory_cycles)

    @property
    def gap(self) -> float:
        """By how much of it the cost is above what no order is below."""
        return self.cycles / max(self.work_bound, self.traffic_bound) - 1


def orders(grid: Grid) -> list[Order]:
    """The family that is searched, the simplest first; none twice."""
    found: dict[tuple[str, int, bool], Order] = {}
    uneven = len(set(grid.cycles)) > 1
    for by, count in (("rows", grid.rows), ("columns", grid.columns)):
        every = count <= MOST_GROUPS and grid.rows * grid.columns <= MOST_TILES
        sizes = range(1, count + 1) if every else [1 << n for n in range(count.bit_length())]
        for size in sorted({*sizes, count}):
            # All columns in one group are gone through row by row, which is a group of one row; and the same of rows.
            if by == "columns" and size in (1, count):
                continue
            for longest in (False, True) if uneven else (False,):
                found[by, size, longest] = Order(by, size, longest)
    return list(found.values())


def makespan(work: Sequence[int], multiprocessors: int) -> int:
    """Cycles until all is done, if whichever is free first takes the next."""
    if len(set(work)) == 1:
        return work[0] * -(-len(work) // multiprocessors)
    free = [0] * min(multiprocessors, len(work))
    for cycles in work:
        heapq.heapreplace(free, free[0] + cycles)
    return max(free)


def traffic(grid: Grid, places: Sequence[Place], multiprocessors: int, cache_bytes: int) -> int:
    """Bytes from memory, by waves."""
    waves: list[set[tuple[str, int]]] = []
    for first in range(0, len(places), multiprocessors):
        wave = places[first : first + multiprocessors]
        waves.append({("row", row) for row, _ in wave} | {("column", column) for _, column in wave})
    size = {"row": grid.row_bytes, "column": grid.column_bytes}
    last: dict[tuple[str, int], int] = {}
    moved = len(places) * grid.tile_bytes
    for number, wave in enumerate(waves):
        # As far back as what was read since is still all in the cache: operands that were last read there, or later.
        since: set[tuple[str, int]] = set()
        kept, held = number, 0
        while kept > 0:
            held += sum(size[kind] for kind, index in waves[kept - 1] if (kind, index) not in since)
            if held > cache_bytes:
                break
            kept -= 1
            since |= waves[kept]
        moved += sum(size[kind] for kind, index in wave if last.get((kind, index), -1) < kept)
        last |= dict.fromkeys(wave, number)
    return moved


def arrange(grid: Grid, machine: Machine) -> Ordered:
    """The order of least cost: then of least traffic, of least makespan, the first of the family."""
    best: tuple[tuple[int, int, int], Order] | None = None
    family = orders(grid)
    bandwidth = Fraction(machine.memory_bytes_per_cycle) * machine.multiprocessors
    for order in family:
        places = list(order.places(grid))
        took = makespan([grid.work(place) for place in places], machine.multiprocessors)
        moved = traffic(grid, places, machine.multiprocessors, machine.cache_bytes)
        key = max(took, -(-moved // bandwidth)), moved, took
        if best is None or key < best[0]:
            best = key, order
    assert best is not None
    (_, moved, took), order = best
    memory = int(-(-moved // bandwidth))
    parts, in_parts = division(grid, order, machine.multiprocessors)
    return Ordered(
        order=order,
        makespan_cycles=took,
        memory_cycles=memory,
        traffic_bytes=moved,
        work_bound=max(-(-grid.total // machine.multiprocessors), max(grid.cycles)),
        traffic_bound=int(-(-grid.compulsory // bandwidth)),
        binds="work" if took >= memory else "traffic",
        tail_efficiency=grid.total / (machine.multiprocessors * took),
        parts=parts,
        parts_makespan_cycles=in_parts,
        tried=len(family),
    )


def division(grid: Grid, order: Order, multiprocessors: int) -> tuple[int, int]:
    """Into how many parts each tile is best divided, and the makespan with it: the fewest parts that are best."""
    found: list[tuple[int, int]] = []
    work = [grid.work(place) for place in order.places(grid)]
    for parts in range(1, MOST_PARTS + 1):
        extra = grid.split_cycles if parts > 1 else 0
        pieces = [-(-cycles // parts) + extra for cycles in work for _ in range(parts)]
        found.append((makespan(pieces, multiprocessors), parts))
    took, parts = min(found)
    return parts, took
