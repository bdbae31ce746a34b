"""Which synchronous ops of a loop's body are one op of the graph: stretches that nothing asynchronous divides.

Two ops belong to one *stretch* when the same copies and products are before them, the same ones wait for them (both
with the iteration distance), the same programs share them, and neither waits for all of a tile that the other makes.
The last is a *level*: where a larger tile is computed of a smaller one (a row's maximum, subtracted from the row), the
larger one is a level further. Along each dependence within an iteration what is before grows, what waits shrinks, and
the level does not fall: so stretches never wait for each other in a circle.

Three things are then joined to a neighbour, where no circle comes of it:

1. A conversion to fewer bits goes where the wider value is read last, and takes its place.
2. A stretch of one number for each row goes with the one that reads it, or else with the one that it reads.
3. A stretch that waits for nothing asynchronous (a mask of places) goes with its reader.

Where more than ``MOST_OPS`` ops would be left, levels are no reason to divide any more.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from xdsl.ir import Operation, SSAValue

from forgec.ir.tile.compute import DotOp
from forgec.ir.tile.types import BlockType
from forgec.passes.schedule.amounts import is_narrowing
from forgec.passes.schedule.body import Body, is_copy, is_store, size

MOST_OPS = 20
SMALL = 8
"""A stretch whose tiles are smaller by this factor than the largest of the loop is one of numbers for each row."""

Reach = frozenset[tuple[int, int]]


@dataclass(frozen=True)
class Edge:
    """A node reads what another makes."""

    source: int
    target: int
    distance: int


class Stretches:
    """The nodes of a body, by number, in stretches."""

    def __init__(self, body: Body, apart: Iterable[SSAValue]) -> None:
        self.body = body
        self.nodes = body.nodes
        self.number = {node: position for position, node in enumerate(self.nodes)}
        self.apart = set(apart)
        self.edges = [
            Edge(self.number[owner], self.number[node], source.distance)
            for node in self.nodes
            for source in body.reads(node)
            if isinstance(owner := source.value.owner, Operation) and owner in self.number
        ]
        self.largest = max((self._items(node) for node in self.nodes), default=1)
        self.home: list[int] = []

    def found(self) -> list[list[Operation]]:
        """The nodes in stretches; each asynchronous node is alone. In an order that an iteration may run in."""
        self._divide(levels=True)
        self._join()
        if len(set(self.home)) > MOST_OPS:
            self._divide(levels=False)
            self._join()
        return [[self.nodes[number] for number in self._members(home)] for home in self._order()]

    # What divides

    def is_asynchronous(self, node: Operation) -> bool:
        """Whether a node runs by itself: a copy, a product, a store."""
        return is_copy(node) or is_store(node) or isinstance(node, DotOp)

    def _divide(self, *, levels: bool) -> None:
        before, after = self._reach(forward=True), self._reach(forward=False)
        level = self._levels() if levels else [0] * len(self.nodes)
        classes: dict[object, int] = {}
        self.home = []
        for number, node in enumerate(self.nodes):
            mine = any(result in self.apart for result in node.results)
            key: object = (before[number], after[number], level[number], mine)
            if self.is_asynchronous(node) or node.regions or not node.results:
                key = number
            self.home.append(classes.setdefault(key, number))

    def _reach(self, *, forward: bool) -> list[Reach]:
        """For each node the asynchronous nodes before it (or after it), through synchronous ones, at the least
        distance.
        """
        found: list[dict[int, int]] = [{} for _ in self.nodes]
        changed = True
        while changed:
            changed = False
            for edge in self.edges:
                source, target = (edge.source, edge.target) if forward else (edge.target, edge.source)
                asynchronous = self.is_asynchronous(self.nodes[source])
                reached = {source: 0} if asynchronous else found[source]
                for node, distance in list(reached.items()):
                    total = distance + edge.distance
                    if total < found[target].get(node, total + 1):
                        found[target][node] = total
                        changed = True
        return [frozenset(each.items()) for each in found]

    def _levels(self) -> list[int]:
        """How many times, before a node, a larger tile was computed of a smaller one."""
        level = [0] * len(self.nodes)
        for edge in sorted(self.edges, key=lambda edge: edge.target):
            if edge.distance == 0 and not self.is_asynchronous(self.nodes[edge.source]):
                wider = self._items(self.nodes[edge.target]) > self._results(self.nodes[edge.source])
                level[edge.target] = max(level[edge.target], level[edge.source] + wider)
        return level

    def _items(self, node: Operation) -> int:
        """The elements of the largest tile that a node makes or reads as it is."""
        values = (*node.results, *node.operands)
        return max((size(value) for value in values if not isinstance(value.type, BlockType)), default=1)

    def _results(self, node: Operation) -> int:
        return max((size(value) for value in node.results), default=1)

    # What is joined

    def _join(self) -> None:
        for number, node in enumerate(self.nodes):
            if is_narrowing(node) and not self.is_asynchronous(node):
                self._take_the_place(number)
        for home in self._synchronous():
            if all(self._items(self.nodes[number]) * SMALL <= self.largest for number in self._members(home)):
                self._join_neighbour(home, self._neighbours(home, after=True) + self._neighbours(home, after=False))
        for home in self._synchronous():
            if not any(edge.target in self._members(home) and edge.source not in self._members(home)
                       for edge in self.edges):  # fmt: skip
                readers = self._neighbours(home, after=True)
                self._join_neighbour(home, readers if len(readers) == 1 else [])

    def _take_the_place(self, number: int) -> None:
        """Moves a conversion to the stretch that reads the wider value last, if that is another one."""
        wide = [edge.source for edge in self.edges if edge.target == number and edge.distance == 0]
        others = {
            self.home[edge.target]
            for edge in self.edges
            if edge.source in wide and edge.distance == 0 and edge.target != number
        } - {self.home[number]}
        synchronous = [home for home in self._order() if home in others and self._is_synchronous(home)]
        if len(wide) == 1 and len(synchronous) == len(others) == 1 and self._alike(number, synchronous[0]):
            before = list(self.home)
            if self.home[number] == number:
                # What is left of its stretch gets another name.
                rest = [other for other in self._members(number) if other != number]
                for other in rest:
                    self.home[other] = rest[0]
            self.home[number] = synchronous[0]
            if not self._order():
                self.home = before

    def _join_neighbour(self, home: int, neighbours: list[int]) -> None:
        for other in neighbours:
            if not self._is_synchronous(other) or not self._alike(home, other):
                continue
            before = list(self.home)
            self.home = [other if each == home else each for each in self.home]
            if self._order():
                return
            self.home = before

    def _alike(self, one: int, other: int) -> bool:
        """Whether the same programs share both."""
        return self._is_apart(one) == self._is_apart(other)

    def _is_apart(self, home: int) -> bool:
        return any(result in self.apart for result in self.nodes[home].results)

    def _is_synchronous(self, home: int) -> bool:
        node = self.nodes[home]
        return not (self.is_asynchronous(node) or node.regions or not node.results)

    def _synchronous(self) -> list[int]:
        return [home for home in dict.fromkeys(self.home) if self._is_synchronous(home)]

    def _neighbours(self, home: int, *, after: bool) -> list[int]:
        """The stretches that read a stretch in the same iteration (or that it reads), in the order of the ops."""
        found = {}
        for edge in self.edges:
            source, target = self.home[edge.source], self.home[edge.target]
            mine, other = (source, target) if after else (target, source)
            if mine == home != other and edge.distance == 0:
                found[other] = None
        return sorted(found)

    def _members(self, home: int) -> list[int]:
        return [number for number, each in enumerate(self.home) if each == home]

    def _order(self) -> list[int]:
        """The stretches in an order that an iteration may run in, by their first ops; none where there is a circle."""
        homes = sorted(set(self.home))
        waits: dict[int, set[int]] = {home: set() for home in homes}
        for edge in self.edges:
            if edge.distance == 0 and self.home[edge.source] != self.home[edge.target]:
                waits[self.home[edge.target]].add(self.home[edge.source])
        order: list[int] = []
        while waits:
            ready = next((home for home in waits if not waits[home]), None)
            if ready is None:
                return []
            order.append(ready)
            del waits[ready]
            for sources in waits.values():
                sources.discard(ready)
        return order
