r"""What a persistent kernel does for one output tile: a prologue, loops one after another, an epilogue.

**Definition.** A program of a grid that is as large as the machine runs tile after tile. For each it runs the ops of
the *prologue* once (loads a block of queries), each of the *phases* ``trips`` times, and the ops of the *epilogue*
once (divides, converts, stores). Between the three go *values of the tile*:

- what an op of a loop leaves for the epilogue is what its last instance in the tile left;
- what an op of a loop reads of the prologue, all its instances in the tile read: it has to be there when the loop's
  group begins, and is done with when the last of them is.

A distance of :math:`k` is :math:`k` tiles; in prologue and epilogue as well. A loop's own distances do not go beyond
the tile: its first iterations find nothing there. A value of a tile has buffers of its own, beside the loop's;
- but one that *stays* where the loop left it (sums in tensor memory) has the loop's: a buffer of it is as many as the
  loop's value has, taken from that value's first instance in the tile on, and the loop's value has none beside.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property

from forgec.diagnostics import error
from forgec.schedule.graph import STRICT, Dependence, Graph, Op, Value


@dataclass(frozen=True)
class Tile:
    """One output tile. Its work and traffic are those of its phases together, and of prologue and epilogue the
    traffic. ``stays``: values of the tile, each with the value of the loops in whose place it is."""

    __pydantic_config__ = STRICT
    name: str
    phases: tuple[Graph, ...]
    prologue: Graph | None = None
    epilogue: Graph | None = None
    values: tuple[Value, ...] = ()
    dependences: tuple[Dependence, ...] = ()
    stays: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.phases:
            raise error("FORGE-U010", f"tile {self.name} has no loop")
        ends = [graph for graph in (self.prologue, self.epilogue) if graph is not None]
        seen = {op.name for graph in self.phases for op in graph.ops}
        titles = {value.name for graph in self.phases for value in graph.values}
        for graph in ends:
            for op in graph.ops:
                if op.name in seen:
                    raise error("FORGE-U010", f"tile {self.name} has two ops named {op.name}")
                seen.add(op.name)
        for value in (*(value for graph in ends for value in graph.values), *self.values):
            if value.name in titles:
                raise error("FORGE-U010", f"tile {self.name} has two values named {value.name}")
            titles.add(value.name)
        known = {value.name: value for value in self.values}
        for name, inner in self.stays.items():
            inside = [value for graph in self.phases for value in graph.values if value.name == inner]
            if (
                name not in known
                or not inside
                or any((each.producer, each.memory) != (known[name].producer, known[name].memory) for each in inside)
            ):
                raise error("FORGE-U010", f"value {name} of tile {self.name} cannot stay where {inner} is")
            if known[name].memory == "register" or list(self.stays.values()).count(inner) > 1:
                raise error("FORGE-U010", f"value {name} of tile {self.name} has no buffers that it may stay in")
        _ = self.links

    @cached_property
    def links(self) -> Graph:
        """The values and dependences between prologue, phases and epilogue, over all ops.

        Raises:
            ForgeError: FORGE-U010, where they name what there is not, or wait for each other.
        """
        ops: dict[str, Op] = {}
        for graph in self.graphs:
            for op in graph.ops:
                ops.setdefault(op.name, op)
        return Graph(f"{self.name} links", tuple(ops.values()), self.values, self.dependences)

    @property
    def graphs(self) -> tuple[Graph, ...]:
        """Prologue, phases and epilogue, those that there are."""
        return tuple(graph for graph in (self.prologue, *self.phases, self.epilogue) if graph is not None)

    @property
    def work(self) -> Fraction:
        """Of the whole tile."""
        return Fraction(sum(graph.work * graph.trips for graph in self.phases))

    def renamed(self, ops: Mapping[str, str], values: Mapping[str, str]) -> Tile:
        """With other names; those that are not there stay."""

        def again(graph: Graph) -> Graph:
            return replace(
                graph,
                ops=tuple(replace(op, name=ops.get(op.name, op.name)) for op in graph.ops),
                values=tuple(map(value, graph.values)),
                dependences=tuple(map(dependence, graph.dependences)),
            )

        def value(each: Value) -> Value:
            reads = tuple(replace(read, op=ops.get(read.op, read.op)) for read in each.reads)
            producer = ops.get(each.producer, each.producer)
            return replace(each, name=values.get(each.name, each.name), producer=producer, reads=reads)

        def dependence(each: Dependence) -> Dependence:
            return replace(each, source=ops.get(each.source, each.source), target=ops.get(each.target, each.target))

        return replace(
            self,
            phases=tuple(map(again, self.phases)),
            prologue=again(self.prologue) if self.prologue else None,
            epilogue=again(self.epilogue) if self.epilogue else None,
            values=tuple(map(value, self.values)),
            dependences=tuple(map(dependence, self.dependences)),
            stays={values.get(name, name): values.get(inner, inner) for name, inner in self.stays.items()},
        )
