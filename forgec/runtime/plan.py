"""The plan: what will run. The only definition of the format of ``plan.json``.

A plan has one or more entry points. Each has numbered virtual registers and an ordered list of launches over them.
Registers are numbered by their position in ``Entry.registers``, launches by their position in ``Entry.launches``.
Live ranges are half open, in launch numbers: a register with ``first=3, last=5`` is written by launch 3 and last used
by launch 4.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, Union

from forgec.diagnostics import Location
from forgec.runtime.artifact_format import ALIGNMENT as ALIGNMENT
from forgec.runtime.artifact_format import FORMAT_VERSION as FORMAT_VERSION
from forgec.runtime.dtypes import ITEMSIZE
from forgec.runtime.symbolic import Extent, SymExpr, evaluate, free_symbols
from forgec.runtime.tree import Tree


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Element type, extents and strides of a strided tensor. ``strides`` count elements and are never negative."""

    dtype: str
    shape: tuple[Extent, ...]
    strides: tuple[Extent, ...]

    @staticmethod
    def contiguous(dtype: str, shape: tuple[Extent, ...]) -> TensorSpec:
        """The row-major spec."""
        return TensorSpec(dtype, shape, row_major(shape))

    @property
    def elements(self) -> Extent:
        """The number of elements: the product of the extents."""
        count: Extent = 1
        for extent in self.shape:
            count = count * extent
        return count

    @property
    def nbytes(self) -> Extent:
        """Bytes of the elements without gaps: what a dense tensor of this shape occupies."""
        return self.elements * ITEMSIZE[self.dtype]

    @property
    def is_static(self) -> bool:
        return not any(isinstance(value, SymExpr) for value in (*self.shape, *self.strides))


@dataclass(frozen=True, slots=True)
class Input:
    """A tensor of the caller. ``index`` is its position in ``Entry.inputs``; ``inout``: the call writes it; ``exact``:
    a tensor with other strides would mean something else; ``offset``: and one that begins elsewhere in its storage.
    """

    spec: TensorSpec
    index: int
    name: str
    inout: bool = False
    exact: bool = False
    device: str = "cpu"
    offset: int | None = None


@dataclass(frozen=True, slots=True)
class Param:
    """An immutable tensor of the weights, by name."""

    spec: TensorSpec
    name: str
    device: str = "cpu"


@dataclass(frozen=True, slots=True)
class State:
    """A tensor that belongs to a session. Starts as zeros, or as the weights' tensor of the same name. Its spec is
    static."""

    spec: TensorSpec
    name: str
    zeros: bool
    device: str = "cpu"


@dataclass(frozen=True, slots=True)
class Buffer:
    """Bytes of the arena: ``nbytes`` of them, live in [first, last). ``offset`` (a multiple of 64) is None in dynamic
    plans."""

    spec: TensorSpec
    nbytes: Extent
    offset: int | None
    first: int
    last: int
    device: str = "cpu"


@dataclass(frozen=True, slots=True)
class Output:
    """A fresh tensor for each call, allocated when the first launch writes it, and the caller's after the call."""

    spec: TensorSpec
    device: str = "cpu"


@dataclass(frozen=True, slots=True)
class External:
    """A result that launch ``first`` allocates itself; dropped after launch ``last - 1`` unless it is an output of
    the call. An extent that is a symbol without value defines the symbol: it has the value that the launch finds."""

    spec: TensorSpec
    first: int
    last: int
    device: str = "cpu"


@dataclass(frozen=True, slots=True)
class View:
    """Another shape over the bytes of register ``base`` (any kind but View).

    ``offset`` counts elements of the view's own dtype from the start of the base: of its buffer, or of the base
    tensor's first element.
    """

    spec: TensorSpec
    base: int
    offset: Extent
    device: str = "cpu"


Register: TypeAlias = Input | Param | State | Buffer | Output | External | View


@dataclass(frozen=True, slots=True)
class Reg:
    """An argument that is the tensor in register ``id``."""

    id: int


@dataclass(frozen=True, slots=True)
class DType:
    """An argument that is an element type, by forgec's name (``f32``)."""

    name: str


@dataclass(frozen=True, slots=True)
class Device:
    """An argument that is a device, as torch spells it (``cpu``, ``cuda:0``)."""

    name: str


@dataclass(frozen=True, slots=True)
class Layout:
    """An argument that is a torch layout (``strided``)."""

    name: str


@dataclass(frozen=True, slots=True)
class MemoryFormat:
    """An argument that is a torch memory format (``contiguous_format``)."""

    name: str


@dataclass(frozen=True, slots=True)
class EntryRef:
    """An argument that is another entry of the plan, one that stands after the entry which calls it."""

    name: str


Arg: TypeAlias = Union[
    bool, int, float, complex, str, Reg, SymExpr, DType, Device, Layout, MemoryFormat, EntryRef, "tuple[Arg, ...]", None
]


@dataclass(frozen=True, slots=True)
class Literal:
    """A leaf of the arguments or results that is no tensor and fixed: None, a number, a string, a dtype, a device,
    ..."""

    value: Arg


@dataclass(frozen=True, slots=True)
class Number:
    """A leaf of the results that is a number of Python's: the element of register ``id``, a tensor of rank 0."""

    id: int


Leaf: TypeAlias = int | Literal | SymExpr
"""A leaf of the arguments or results: a register's number, a fixed value, or an ``int`` that is a symbolic extent.

Among the arguments a SymExpr leaf is an int of the caller that must equal the expression (and may define its symbol).
"""


ResultLeaf: TypeAlias = Leaf | Number


@dataclass(frozen=True, slots=True)
class Launch:
    """One call of an operation.

    ``op`` names it (``aten::mm.out``; without a dot the default overload). ``results`` are the External registers
    that take the returned tensors in order (a returned list counts element by element; None: ignored), empty when
    nothing is taken. ``writes`` are the registers that it writes in place; each of them is also among the arguments.
    ``defines`` are symbols whose values are those of the first results (tensors of one integer), or of the one argument
    of ``forge::item``. ``source`` is the IR op it came from; ``location`` an index into ``Plan.locations``, or -1.
    """

    op: str
    args: tuple[Arg, ...] = ()
    kwargs: tuple[tuple[str, Arg], ...] = ()
    results: tuple[int | None, ...] = ()
    writes: tuple[int, ...] = ()
    defines: tuple[str | None, ...] = ()
    source: str = ""
    location: int = -1


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry point.

    ``parameters`` are the names of the model's positional-or-keyword parameters in order, so that a call may pass by
    name what the compilation passed by position and vice versa (empty: as compiled only). ``in_tree`` is the
    structure of ``(args, kwargs)``; ``inputs`` holds one entry for each of its leaves: the number of an Input
    register, a fixed Literal or a SymExpr. ``out_tree`` and ``outputs`` likewise for the result, whose registers may
    be of any kind but Buffer (or a view of one): params and states are cloned for the caller, views of inputs and
    outputs are aliases. ``arena_bytes`` is the size of the arena, None for a dynamic plan (then every buffer's offset
    is None as well); ``peak_bytes`` the most that a call has allocated at one time: the arena, and the live outputs
    and externals.

    A ``private`` entry is a part of the program that other entries call (a branch, the body of a loop, what follows
    when an extent is known). Its arguments and results are tensors, and ``given`` are the symbols that its caller
    knows.
    """

    name: str
    registers: tuple[Register, ...]
    launches: tuple[Launch, ...]
    inputs: tuple[Leaf, ...]
    outputs: tuple[ResultLeaf, ...]
    in_tree: Tree
    out_tree: Tree
    parameters: tuple[str, ...] = ()
    arena_bytes: int | None = None
    peak_bytes: int | None = None
    private: bool = False
    given: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SymbolDecl:
    """A dynamic extent: ``name`` in expressions, ``label`` for people, and its inclusive range."""

    name: str
    label: str
    minimum: int = 0
    maximum: int | None = None


@dataclass(frozen=True, slots=True)
class Constraint:
    """A relation between dynamic extents that every call fulfils; ``location`` is the number of the model's line that
    asks for it, -1 if unknown.
    """

    left: Extent
    predicate: str
    right: Extent
    location: int = -1

    @property
    def symbols(self) -> frozenset[str]:
        """The symbols that it relates."""
        return free_symbols(self.left) | free_symbols(self.right)

    def holds(self, values: Mapping[str, int]) -> bool:
        """Whether it does for these values of the symbols; not where it would divide by zero."""
        try:
            left, right = evaluate(self.left, values), evaluate(self.right, values)
        except ZeroDivisionError:
            return False
        return PREDICATES[self.predicate](left, right)


PREDICATES: Mapping[str, Callable[[int, int], bool]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "le": operator.le,
    "lt": operator.lt,
}
PREDICATE_SIGNS = {"eq": "==", "ne": "!=", "le": "<=", "lt": "<"}


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole program. ``torch_version`` is the torch whose op schemas it was compiled against ("" when it calls
    none)."""

    entries: tuple[Entry, ...]
    symbols: tuple[SymbolDecl, ...] = ()
    locations: tuple[Location, ...] = ()
    torch_version: str = ""
    version: int = FORMAT_VERSION
    constraints: tuple[Constraint, ...] = ()

    @property
    def ops(self) -> tuple[str, ...]:
        """The operations that the launches call, sorted, each once."""
        return tuple(sorted({launch.op for entry in self.entries for launch in entry.launches}))

    @property
    def public(self) -> tuple[Entry, ...]:
        """The entries that a caller may name."""
        return tuple(entry for entry in self.entries if not entry.private)

    def entry(self, name: str | None = None) -> Entry:
        """The entry of this name, or the first one. ``KeyError`` when there is none."""
        if name is None:
            return self.entries[0]
        for entry in self.entries:
            if entry.name == name:
                return entry
        raise KeyError(name)


def row_major(shape: tuple[Extent, ...]) -> tuple[Extent, ...]:
    """Strides in elements of the contiguous layout. An extent of 0 or 1 counts as 1, as in torch, where it is
    static."""
    strides: list[Extent] = []
    step: Extent = 1
    for extent in reversed(shape):
        strides.append(step)
        step = step * (max(extent, 1) if isinstance(extent, int) else extent)
    return tuple(reversed(strides))


def to_json(plan: Plan) -> dict[str, Any]:
    """The plan as JSON-compatible data, the same for equal plans."""
    from forgec.runtime.plan_encode import encode

    return encode(plan)


def from_json(data: object) -> Plan:
    """The plan from parsed JSON, fully checked: FORGE-A004 with the JSON path when it breaks any rule of the format."""
    from forgec.runtime.plan_check import check
    from forgec.runtime.plan_decode import decode

    plan = decode(data)
    check(plan)
    return plan
