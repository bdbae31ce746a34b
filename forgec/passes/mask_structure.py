"""What the conditions of a mask say together: causal, a window, chunks, a prefix, which keys, and the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from xdsl.ir import SSAValue

from forgec.ir import types
from forgec.ir.literals import to_tensor
from forgec.ir.ops.base import producer
from forgec.ir.ops.module import ConstantOp
from forgec.passes.mask_elements import Element, Function, Leaf, Linear, Node, Number, Place
from forgec.runtime.symbolic import Extent, is_nonnegative


@dataclass(frozen=True)
class Condition:
    """A condition that every kept position meets: an element of a boolean tensor, or (``negated``) its opposite."""

    element: Element
    negated: bool = False

    @property
    def place(self) -> Place:
        """The tensor that holds the condition."""
        if isinstance(self.element, Leaf):
            return self.element.value, self.element.index
        assert isinstance(self.element, Node)
        return self.element.place


@dataclass
class Structure:
    """The positions ``(i, j)`` that a mask keeps: ``-ahead <= i - j <= behind`` where given, in one chunk, or where one
    of the conditions ``prefix`` holds; and where all the other conditions hold.
    """

    ahead: Extent | None = None  # j - i at most
    behind: Extent | None = None  # i - j at most
    chunk: tuple[int, Extent] | None = None  # j // chunk == (i + offset) // chunk
    prefix: tuple[Condition, ...] = ()
    keys: list[Condition] = field(default_factory=list)
    rest: list[Condition] = field(default_factory=list)
    nothing: bool = False


def conditions(element: Element, negated: bool = False) -> Iterator[Condition]:
    """The conditions that hold where an element is true (``negated``: false), all of them."""
    if isinstance(element, Node) and element.name == "not":
        yield from conditions(element.arguments[0], not negated)
    elif isinstance(element, Node) and element.name == ("or" if negated else "and"):
        for argument in element.arguments:
            yield from conditions(argument, negated)
    else:
        yield Condition(element, negated)


def alternatives(element: Element, negated: bool = False) -> Iterator[Condition]:
    """The conditions of which one holds where an element is true (``negated``: false)."""
    if isinstance(element, Node) and element.name == "not":
        yield from alternatives(element.arguments[0], not negated)
    elif isinstance(element, Node) and element.name == ("and" if negated else "or"):
        for argument in element.arguments:
            yield from alternatives(argument, negated)
    else:
        yield Condition(element, negated)


def axes_of(element: Element) -> frozenset[int]:
    """The axes that an element's value depends on."""
    match element:
        case Linear(axes=axes):
            return frozenset(axis for axis, _ in axes)
        case Leaf(index=index):
            return frozenset(axis for at in index for axis, _ in at.axes)
        case Function(argument=argument):
            return axes_of(argument)
        case Node(arguments=arguments):
            return frozenset().union(*map(axes_of, arguments))
    return frozenset()


class Classifier:
    """Sorts the conditions of a mask over scores of some shape [*B, H, S, T]."""

    def __init__(self, shape: tuple[Extent, ...]) -> None:
        self.shape = shape
        self.row, self.column = len(shape) - 2, len(shape) - 1
        self.batch = frozenset(range(len(shape) - 3))
        self.found = Structure()

    def sort(self, kept: Iterator[Condition]) -> Structure:
        """What the conditions say together."""
        either: list[Condition] = []
        for condition in kept:
            self._take(condition, either)
        before = replace(self.found)
        rest = [condition for condition in either if not self._with_prefix(condition)]
        if self.found.prefix and self.found.ahead is None and self.found.behind is not None:
            self.found, rest = before, either  # a bound behind alone has no words
        for condition in rest:
            self._add(self.found.rest, condition)
        return self.found

    def _take(self, condition: Condition, either: list[Condition]) -> None:
        element, negated = condition.element, condition.negated
        if isinstance(element, Number):
            self.found.nothing |= bool(element.value) == negated
        elif (isinstance(element, Node) and self._comparison(element, negated)) or (
            isinstance(element, Leaf) and self._table(element, negated)
        ):
            return
        elif axes_of(element) <= self.batch | {self.column} and self.column in axes_of(element):
            self._add(self.found.keys, condition)
        elif len(list(alternatives(element, negated))) > 1:
            either.append(condition)
        else:
            self._add(self.found.rest, condition)

    def _with_prefix(self, condition: Condition) -> bool:
        """Take note of a condition on positions that some columns need not meet, the same for all of these."""
        parts = list(alternatives(condition.element, condition.negated))
        free = tuple(part for part in parts if self._is_by_column(part))
        (bound, *more) = [part for part in parts if part not in free] or [None]
        before, found = replace(self.found), self.found
        bounds = (found.ahead, found.behind, found.chunk)
        alone = not found.prefix and bounds == (None, None, None)  # what bounds all columns comes first
        same = set(map(_meaning, free)) == set(map(_meaning, found.prefix))
        if bound is None or more or not free or not (alone or same):
            return False
        for part in conditions(bound.element, bound.negated):
            if not isinstance(part.element, Node) or not self._comparison(part.element, part.negated):
                self.found = before
                return False
        if (self.found.ahead, self.found.behind, self.found.chunk) != (None, None, None):
            self.found.prefix = self.found.prefix or free
        return True

    def _is_by_column(self, condition: Condition) -> bool:
        axes = axes_of(condition.element)
        return bool(axes) and axes <= self.batch | {self.column} and condition.place is not None

    def _add(self, known: list[Condition], condition: Condition) -> None:
        if condition not in known:
            known.append(condition)

    def _comparison(self, element: Node, negated: bool) -> bool:
        if element.name not in _OPPOSITE:
            return False
        name = _OPPOSITE[element.name] if negated else element.name
        left, right = element.arguments
        if name == "eq" and isinstance(left, Function) and isinstance(right, Function):
            return self._same_chunk(left, right)
        if name in ("gt", "ge"):
            left, right, name = right, left, {"gt": "lt", "ge": "le"}[name]
        slack = Linear((), 1 if name == "lt" else 0)
        if name not in ("lt", "le") or not isinstance(right, Linear):
            return False
        if isinstance(left, Function) and left.name == "abs":
            gaps = [left.argument.plus(right, -1), left.argument.times(-1).plus(right, -1)]
        elif isinstance(left, Linear):
            gaps = [left.plus(right, -1)]
        else:
            return False
        before = replace(self.found)
        if all(self._at_most_zero(gap.plus(slack)) for gap in gaps):
            return True
        self.found = before
        return False

    def _at_most_zero(self, gap: Linear) -> bool:
        """Take note of ``gap <= 0``; False if it is nothing that has a name."""
        greatest = gap.constant
        for axis, factor in gap.axes:
            greatest = greatest + (factor * (self.shape[axis] - 1) if factor > 0 else 0)
        if is_nonnegative(-greatest):
            return True
        axes = dict(gap.axes)
        if axes == {self.column: 1, self.row: -1}:
            return self._bound("ahead", -gap.constant)
        if axes == {self.column: -1, self.row: 1}:
            return self._bound("behind", -gap.constant)
        return False

    def _bound(self, name: str, limit: Extent) -> bool:
        known = getattr(self.found, name)
        if known is not None and is_nonnegative(limit - known):
            return True
        if known is not None and not is_nonnegative(known - limit):
            return False
        setattr(self.found, name, limit)
        return True

    def _same_chunk(self, left: Function, right: Function) -> bool:
        if left.name != "floordiv" or right.name != "floordiv" or left.by != right.by:
            return False
        for row, column in ((left, right), (right, left)):
            if column.argument == Linear(((self.column, 1),)) and row.argument.axes == ((self.row, 1),):
                if self.found.chunk not in (None, (left.by, row.argument.constant)):
                    return False
                self.found.chunk = (left.by, row.argument.constant)
                return True
        return False

    def _table(self, leaf: Leaf, negated: bool) -> bool:
        """A constant whose elements say where they keep: all, a band, or certain columns."""
        op = producer(leaf.value)
        if not isinstance(op, ConstantOp) or not axes_of(leaf) <= {self.row, self.column}:
            return False
        kept = _values(to_tensor(op.value), leaf, self.row, self.column, self.shape)
        if kept is None:
            return False
        return self._band(~kept if negated else kept)

    def _band(self, kept: Any) -> bool:
        import torch

        rows, columns = kept.shape
        if not kept.any():
            return False
        ahead = torch.arange(columns) - torch.arange(rows)[:, None]
        most, least = int(ahead[kept].max()), int(ahead[kept].min())
        ahead_bound = most if most < columns - 1 else None
        behind_bound = -least if -least < rows - 1 else None
        band = (ahead <= most) & (ahead >= least)
        if torch.equal(band, kept):
            known = self.found.ahead, self.found.behind
            taken = (ahead_bound is None or self._bound("ahead", ahead_bound)) and (
                behind_bound is None or self._bound("behind", behind_bound)
            )
            if not taken:
                self.found.ahead, self.found.behind = known
            return taken
        return self._chunks(kept, ahead)

    def _chunks(self, kept: Any, ahead: Any) -> bool:
        """Chunks of equal size from position 0 on, of a square table, perhaps causal as well."""
        import torch

        rows, columns = kept.shape
        size = int(kept[:, 0].sum())
        if rows != columns or size < 1 or self.found.chunk is not None:
            return False
        place = torch.arange(rows) // size
        same = place[:, None] == place
        if torch.equal(kept, same & (ahead <= 0)) and self._bound("ahead", 0):
            self.found.chunk = (size, 0)
            return True
        if torch.equal(kept, same):
            self.found.chunk = (size, 0)
            return True
        return False


_OPPOSITE = {"eq": "ne", "ne": "eq", "lt": "ge", "le": "gt", "gt": "le", "ge": "lt"}


def _meaning(condition: Condition) -> Condition:
    """A condition in one of the forms that say the same."""
    element, negated = condition.element, condition.negated
    if not isinstance(element, Node) or element.name not in _OPPOSITE:
        return condition
    name, arguments = _OPPOSITE[element.name] if negated else element.name, element.arguments
    if name in ("gt", "ge"):
        name, arguments = {"gt": "lt", "ge": "le"}[name], arguments[::-1]
    return Condition(Node(name, arguments, element.place))


def _values(table: Any, leaf: Leaf, row: int, column: int, shape: tuple[Extent, ...]) -> Any:
    """The elements of a constant for each row and column; None if one of them is not in it."""
    import torch

    rows, columns = shape[row], shape[column]
    if not isinstance(rows, int) or not isinstance(columns, int):
        return None
    places = {row: torch.arange(rows)[:, None], column: torch.arange(columns)}
    subscript = []
    for at, extent in zip(leaf.index, table.shape, strict=True):
        if not isinstance(at.constant, int):
            return None
        place = torch.full((rows, columns), at.constant) + sum(factor * places[axis] for axis, factor in at.axes)
        if bool((place < 0).any()) or bool((place >= extent).any()):
            return None
        subscript.append(place)
    return table[tuple(subscript)] if subscript else table.expand(rows, columns)


def tensor_of(
    condition: Condition, axes: list[int], shape: tuple[Extent, ...], insert: Callable[..., SSAValue]
) -> SSAValue | None:
    """A condition as a tensor with a dimension for each of ``axes`` (extent 1 where it does not depend on one); None
    if that takes more than slices and transposes. ``insert(kind, value, …)`` makes the ops.
    """
    place = condition.place
    if place is None:
        return None
    value, index = place
    order: list[int] = []
    for dim, at in enumerate(index):
        if not at.axes:
            if types.shape(value)[dim] != 1:
                value = insert("slice", value, dim, at.constant, 1)
            continue
        ((axis, factor), *others) = at.axes
        if others or factor != 1 or axis in order or axis not in axes:
            return None
        if types.shape(value)[dim] != shape[axis] or at.constant != 0:
            value = insert("slice", value, dim, at.constant, shape[axis])
        order.append(axis)
    if order != sorted(order):
        kept = [dim for dim, at in enumerate(index) if at.axes]
        value = insert("reshape", value, [types.shape(value)[dim] for dim in kept])
        value = insert("transpose", value, sorted(range(len(order)), key=order.__getitem__))
    value = insert("reshape", value, [shape[axis] if axis in order else 1 for axis in axes])
    return insert("not", value) if condition.negated else value
