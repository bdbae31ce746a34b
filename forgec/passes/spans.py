"""The ops of a block in a line, and runs of them that may be the same computation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from xdsl.dialects.func import ReturnOp
from xdsl.ir import Block, Operation, SSAValue

from forgec.ir.locations import from_attribute
from forgec.ir.ops.module import ConstantOp, ParamRefOp
from forgec.ir.ops.shape import SliceOp
from forgec.ir.symbols import defined_symbols
from forgec.passes.structure import Codes, Tables, sources

Path = tuple[str, ...]
"""The components of a module path (``("layers", "3", "attn")``)."""

INDEXING = {SliceOp: "start", ConstantOp: "value"}
"""Ops, and what of them may differ from block to block: a layer's part of weights that are stacked, its own number.
They stand before the block then.
"""


@dataclass(frozen=True)
class Span:
    """The ops ``[start, end)`` of a line; ``path`` is the module that they come from, as far as they share it."""

    start: int
    end: int
    path: Path = ()

    def __len__(self) -> int:
        return self.end - self.start

    @property
    def range(self) -> range:
        return range(self.start, self.end)


@dataclass(frozen=True)
class Instance:
    """One repetition: ``ops`` are the positions of its ops, and ``inputs`` the values that it takes from outside, in
    the order of all repetitions of a group. ``extra`` ops stand between its first and its last op, but are not of it;
    ``late`` ones need its results.
    """

    span: Span
    ops: Sequence[int]
    inputs: Sequence[SSAValue]
    extra: Sequence[int] = ()
    late: Sequence[int] = ()


@dataclass
class Group:
    """Repetitions of one computation, in the order in which they stand."""

    instances: list[Instance]
    differing: list[tuple[Span, str]] = field(default_factory=list)
    """Spans at the same place in the model that are something else, and what is different about them."""

    @property
    def prototype(self) -> Instance:
        return min(self.instances, key=lambda instance: len(instance.extra))


class Line:
    """The ops of a block that may repeat, in order: all but its parameters and its end."""

    def __init__(self, block: Block, codes: Codes) -> None:
        self.block = block
        self.ops = [op for op in block.ops if not isinstance(op, (ParamRefOp, ReturnOp))]
        self.exact = [-1 - i if defined_symbols(op) else codes.of(op) for i, op in enumerate(self.ops)]
        """An op that says what a symbol is stands for itself alone."""
        self.codes = [
            codes.of(op, INDEXING[type(op)]) if type(op) in INDEXING else exact
            for op, exact in zip(self.ops, self.exact, strict=True)
        ]
        self.sources = [sources(op) for op in self.ops]
        self.paths = _paths(self.ops)
        self.tables = Tables(block, codes)
        self.place: dict[SSAValue, tuple[int, int]] = {}
        """Where a value comes from: op and number of the result."""
        for position, op in enumerate(self.ops):
            for number, result in enumerate(op.results):
                self.place[result] = position, number
        self.position = {op: position for position, op in enumerate(self.ops)}

    def key(self, ops: Sequence[int]) -> tuple[tuple[int, ...], list[SSAValue]]:
        """What identifies the computation of some ops, and its inputs in the order of their first use."""
        slots: dict[SSAValue, int] = {}
        index = {position: number for number, position in enumerate(ops)}
        key: list[int] = []
        for position in ops:
            key.append(self.codes[position])
            for value in self.sources[position]:
                at, number = self.place.get(value, (-1, 0))
                if at in index:
                    key += (index[at], number)
                else:
                    key.append(-1 - slots.setdefault(value, len(slots)))
        return tuple(key), list(slots)

    def user(self, op: Operation) -> int | None:
        """The position of the op of this block in which an op stands; None for its end."""
        current: Operation | None = op
        while current is not None and current.parent_block() is not self.block:
            current = current.parent_op()
        return None if current is None else self.position.get(current)

    def is_chain(self, spans: Sequence[Span]) -> bool:
        """True if most spans need what the one before them computes. Parallel repetitions (the projections of queries,
        keys and values, a layer's experts) are for other passes to merge.
        """
        latest: dict[SSAValue, int] = {}
        starts = {span.start: number for number, span in enumerate(spans)}
        number, chained, end = -1, set(), 0
        for position in range(spans[0].start, spans[-1].end):
            if position in starts:
                number, end = starts[position], spans[starts[position]].end
            needed = {latest.get(value, -1) for value in self.sources[position]}
            inside = position < end
            if inside and number > 0 and number - 1 in needed:
                chained.add(number)
            for result in self.ops[position].results:
                latest[result] = number if inside else max(needed, default=-1)
        return 2 * len(chained) > len(spans) - 1

    def cut(self, span: Span) -> int:
        """How many values enter and leave a span, parameters not counted."""
        inputs = {
            value
            for position in span.range
            for value in self.sources[position]
            if not (span.start <= self.place.get(value, (-1, 0))[0] < span.end)
            and not isinstance(value.owner, ParamRefOp)
        }
        return len(inputs) + len(self.results(span, set(span.range)))

    def results(self, span: Span, ops: set[int]) -> list[SSAValue]:
        """The results of ops that others use."""
        return [
            result
            for position in span.range
            if position in ops
            for result in self.ops[position].results
            if any(self.user(use.operation) not in ops for use in result.uses)
        ]


def _paths(ops: Sequence[Operation]) -> list[Path]:
    """The module of each op; an op without a place counts to the module of the op before."""
    known: dict[int, Path | None] = {}
    paths: list[Path] = []
    for op in ops:
        key = id(op.location)
        if key not in known:
            places = from_attribute(op.location)
            known[key] = tuple(places[0].module.split(".")) if places and places[0].module else () if places else None
        found = known[key]
        paths.append(found if found is not None else paths[-1] if paths else ())
    return paths
