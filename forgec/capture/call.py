"""One call of an ATen operator, as the rows of the capture tables see it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from xdsl.dialects.builtin import AnyTensorType, IntAttr, LocationAttr, UnitAttr
from xdsl.ir import Attribute, Operation, SSAValue
from xdsl.utils.exceptions import VerifyException

from forgec.ir import types
from forgec.ir.attributes import ExtentAttr, IntsAttr, ScalarAttr
from forgec.ir.ops.base import ForgeOp
from forgec.runtime.symbolic import Extent

if TYPE_CHECKING:
    from forgec.capture.values import Values

Result = SSAValue | Sequence[SSAValue] | None
Row = Callable[["Call"], Result]
ROWS: dict[str, Row] = {}
"""Overload name (``aten::add.Tensor``) → how to say it in forge."""


class Decline(Exception):
    """Raised inside a row for arguments that the forge op does not cover: the call becomes a ``forge.aten``."""


def from_aten(*overloads: str) -> Callable[[Row], Row]:
    """Declare the row of one or several overloads. The row emits forge ops and returns the values of the call's
    results.

    A row returns None (or raises :class:`Decline`) for arguments that it does not cover; nothing that it emitted
    remains then.
    """

    def register(row: Row) -> Row:
        for overload in overloads:
            if overload in ROWS:
                raise ValueError(f"{overload} has two rows")
            ROWS[overload] = row
        return row

    return register


@dataclass(frozen=True)
class Schema:
    """What capture needs of an operator's schema, read once for each operator."""

    name: str
    arguments: tuple[tuple[str, Any, bool], ...]
    """Name, default value and keyword-only flag of each argument."""
    writes: tuple[str, ...]
    """Names of the arguments that the operator writes."""
    aliases: tuple[str | None, ...]
    """For each result, the name of the argument that it may alias."""


@lru_cache(maxsize=4096)
def schema_of(overload: Any) -> Schema:
    """The schema of an ``OpOverload``."""
    raw = overload._schema
    arguments = tuple((a.name, _default(a), a.kwarg_only) for a in raw.arguments)
    writes = tuple(a.name for a in raw.arguments if a.alias_info is not None and a.alias_info.is_write)
    holders = {s: a.name for a in raw.arguments if a.alias_info is not None for s in a.alias_info.before_set}
    aliases = []
    for result in raw.returns:
        names = result.alias_info.before_set if result.alias_info is not None else ()
        found = next((holders[n] for n in names if n in holders), None)
        if (
            result.alias_info is not None and not names
        ):  # a list, whose elements are views of the argument marked a -> *
            found = next((a.name for a in raw.arguments if a.alias_info and "*" in a.alias_info.after_set), None)
        aliases.append(found)
    return Schema(overload.name(), arguments, writes, tuple(aliases))


def _default(argument: Any) -> Any:
    """The default value of an argument; int64, the one dtype among them, of which schemas keep torch's number, as
    itself."""
    import torch

    is_dtype = argument.default_value is not None and "ScalarType" in str(argument.real_type)
    return torch.int64 if is_dtype else argument.default_value


@dataclass
class Call:
    """A call with its arguments by name: tensors are SSA values, symbolic integers are extents, the rest is literal."""

    converter: Values
    overload: Any
    arguments: dict[str, Any]
    results: list[AnyTensorType | None]
    """The type of each result, as torch.export recorded it (strides included); None for results that are no tensor."""
    location: LocationAttr
    emitted: list[Operation] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.overload.name()

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    def tensor(self, name: str) -> SSAValue:
        """A tensor argument."""
        value = self.arguments[name]
        if not isinstance(value, SSAValue):
            raise Decline
        return value

    def optional(self, name: str) -> SSAValue | None:
        """A tensor argument that may be None."""
        return None if self.arguments[name] is None else self.tensor(name)

    def tensors(self, name: str) -> list[SSAValue]:
        """An argument that is a list of tensors."""
        values = self.arguments[name]
        if not isinstance(values, (list, tuple)) or not all(isinstance(v, SSAValue) for v in values):
            raise Decline
        return list(values)

    def number(self, name: str) -> bool | int | float:
        """A literal number."""
        value = self.arguments[name]
        if not isinstance(value, (bool, int, float)):
            raise Decline
        return value

    def integer(self, name: str) -> int:
        """A literal integer."""
        value = self.arguments[name]
        if isinstance(value, bool) or not isinstance(value, int):
            raise Decline
        return value

    def dim(self, name: str, rank: int) -> int:
        """A dimension, counted from the front."""
        return self.integer(name) % max(rank, 1)

    def dims(self, name: str, rank: int) -> tuple[int, ...]:
        """A list of dimensions, counted from the front and sorted; an absent or empty list means all."""
        value = self.arguments[name]
        if value is None or (isinstance(value, (list, tuple)) and not value):
            return tuple(range(rank))
        items = value if isinstance(value, (list, tuple)) else [value]
        return tuple(sorted({int(item) % max(rank, 1) for item in items}))

    def require(self, **expected: Any) -> None:
        """Decline unless each named argument has the given value."""
        for name, value in expected.items():
            if self.arguments.get(name, value) != value:
                raise Decline

    def emit(
        self,
        cls: type[ForgeOp],
        operands: Sequence[SSAValue | None],
        properties: Mapping[str, Attribute] | None = None,
        result: AnyTensorType | None = None,
    ) -> SSAValue:
        """Insert an op with one result and return it. ``result`` defaults to the type of the call's first result.

        Declines if the op would infer another dtype or shape than torch did.
        """
        return self.emit_all(cls, operands, properties, self.results[:1] if result is None else [result])[0]

    def emit_all(
        self,
        cls: type[ForgeOp],
        operands: Sequence[SSAValue | None],
        properties: Mapping[str, Attribute] | None = None,
        results: Sequence[AnyTensorType | None] | None = None,
    ) -> Sequence[SSAValue]:
        """Insert an op with as many results as ``results`` (by default the call's) and return them; declines like
        ``emit``."""
        expected = [kind for kind in (self.results if results is None else results) if kind is not None]
        op = cls.make(operands, properties, expected, self.location)
        try:
            inferred = op.infer()
        except VerifyException as reason:
            op.drop_all_references()
            raise Decline(str(reason)) from reason
        self.emitted.append(op)
        self.converter.builder.insert(op)
        found = [(types.dtype(result), types.shape(result)) for result in op.results]
        if found != [(dtype, tuple(shape)) for dtype, shape in inferred]:
            raise Decline
        return op.results

    def infer(
        self, cls: type[ForgeOp], operands: Sequence[SSAValue | None], properties: Mapping[str, Attribute] | None = None
    ) -> SSAValue:
        """Insert an op whose result type is inferred (row-major): a step on the way to the call's result."""
        try:
            op = cls.make(operands, properties, None, self.location)
        except VerifyException as reason:
            raise Decline(str(reason)) from reason
        self.emitted.append(op)
        self.converter.builder.insert(op)
        return op.results[0]

    def cast(self, value: SSAValue, dtype: str) -> SSAValue:
        """The value in another dtype (itself where it has that dtype)."""
        from forgec.ir.ops.unary import CastOp

        if types.dtype(value) == dtype:
            return value
        target = types.tensor(dtype, types.shape(value), types.strides(value))
        return self.emit(CastOp, [value], None, target)

    def withdraw(self) -> None:
        """Remove what this call emitted."""
        for op in reversed(self.emitted):
            op.detach()
            op.erase()
        self.emitted.clear()


def ints(*values: int) -> IntsAttr:
    """Short for a list attribute."""
    return IntsAttr(values)


def extent(value: Extent) -> ExtentAttr:
    """Short for an extent attribute."""
    return ExtentAttr(value)


def scalar(value: bool | int | float) -> ScalarAttr:
    """Short for a number attribute."""
    return ScalarAttr.of(value)


def flag(name: str, value: Any) -> dict[str, Attribute]:
    """A unit attribute that stands if ``value`` is true."""
    return {name: UnitAttr()} if value else {}


def index(value: int) -> IntAttr:
    """Short for an integer attribute."""
    return IntAttr(value)
