"""Writes ``docs/ir.md``, the reference of the forge, tile, warp and plan dialects, from the dialects themselves.

python -m forgec.ir.reference_docs            write the file
python -m forgec.ir.reference_docs --check    fail if the file is out of date
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterable, Iterator
from io import StringIO
from pathlib import Path

from xdsl.dialects.builtin import IndexType, SymbolNameConstraint
from xdsl.ir import Attribute, Operation
from xdsl.irdl import (
    AttrSizedOperandSegments,
    IRDLOperation,
    OperandDef,
    OptionalDef,
    OptOperandDef,
    PropertyDef,
    ResultDef,
    VarOperandDef,
)
from xdsl.printer import Printer

from forgec.ir import plan
from forgec.ir.attributes import StateType
from forgec.ir.examples import FORGE_EXAMPLES
from forgec.ir.forge import FAMILIES, FORGE
from forgec.ir.plan_example import plan_example
from forgec.ir.tile import compute, kernel, memory
from forgec.ir.tile.dialect import TILE
from forgec.ir.tile.types import BlockType
from forgec.ir.warp import asynchronous, channels
from forgec.ir.warp import kernel as groups
from forgec.ir.warp.dialect import AREF, WARP
from forgec.ir.warp.types import RingType, TokenType

PATH = Path(__file__).parents[2] / "docs" / "ir.md"

_KINDS = {
    "IntAttr": "integer",
    "IntsAttr": "list of integers",
    "ExtentAttr": "extent",
    "ExtentsAttr": "list of extents",
    "ScalarAttr": "number",
    "ScalarsAttr": "list of numbers",
    "ArgsAttr": "call arguments",
    "StringAttr": "string",
    "UnitAttr": "flag",
    "SymbolRefAttr": "symbol",
    "DenseIntOrFPElementsAttr": "literal",
    "TensorType": "tensor type",
    "TileParametersAttr": "tile parameters",
    "DictionaryAttr": "dictionary",
    "ScheduleAttr": "schedule",
}
"""What attributes are called in the reference, by their class."""

_HEADER = """\
# IR reference

<!-- Written by `python -m forgec.ir.reference_docs`; do not edit. -->

The dialects of forgec, all in MLIR's syntax. `forgec opt` reads and prints them; locations are printed on request
(`--print-locations`). Ops also use MLIR's `builtin`, `func`, `scf` and `arith` dialects.

Attributes that an op's syntax gives by name (`axes 1`) are optional where the table says so. An *extent* is an integer
or an expression over the symbols of the module: `s0 * 2 + 1`, `floordiv(s0, 2)`, `max(s0, s1)`. A *number* is Python's,
without a dtype: `1`, `1.0`, `true`, `-inf`.
"""


def document() -> str:
    """The whole reference as Markdown."""
    parts = [_HEADER, _contents()]
    parts.append(f"## forge\n\n{_prose(FORGE_TEXT)}")
    parts += ["### Types and attributes\n", *(_attribute(cls) for cls in FORGE.attributes)]
    for family in FAMILIES:
        title, text = _title(family)
        parts.append(f"### {title}\n\n{_prose(text)}")
        parts += _alike(_operations(family)) if len(_operations(family)) > 15 else map(_operation, _operations(family))
    parts.append(f"## tile\n\n{_prose(TILE_TEXT)}")
    parts += ["### Types\n", *(_attribute(cls) for cls in TILE.attributes)]
    for title, family in TILE_FAMILIES:
        parts.append(f"### {title}\n\n{_prose(inspect.getdoc(family) or '')}")
        parts += [_operation(op) for op in _tile_operations(family)]
    parts.append(f"## warp\n\n{_prose(WARP_TEXT)}")
    parts += ["### Types and attributes of scheduled kernels\n", *map(_attribute, (*WARP.attributes, *AREF.attributes))]
    for title, family in WARP_FAMILIES:
        parts.append(f"### {title}\n\n{_prose(inspect.getdoc(family) or '')}")
        parts += [_operation(op) for op in _warp_operations(family)]
    parts.append(f"## plan\n\n{_prose(inspect.getdoc(plan) or '')}")
    parts.append(f"```mlir\n{_printed(plan_example())}\n```\n")
    parts += [_operation(op) for op in sorted(plan.PLAN.operations, key=lambda op: op.name)]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(parts)).rstrip() + "\n"


FORGE_TEXT = """\
Pure functions on tensor values: no aliasing, no views, no side effects but on explicit state. Tensor types are
`tensor<4x?xf32, #forge.tensor<[s0]>>`: the encoding names each dynamic extent, and gives the strides of what is not
row-major. Operands broadcast and promote as in PyTorch where an op says so, dimensions count from the front, and what
an op computes is defined by its formula here and by the reference interpreter, not by a backend."""


TILE_TEXT = """\
What one program of a grid does with tiles of memory: see [tiles](tile.md). A tile is a builtin tensor, whose extents
are numbers or tile parameters; scalars are plain types. Elementwise ops are those of MLIR's `arith` and `math`, on
tiles or scalars of one type; loops and branches are those of `scf`. Integers are signless."""

TILE_FAMILIES = (("Kernels and launches", kernel), ("Memory", memory), ("Computation", compute))


WARP_TEXT = """\
Kernels of tiles after scheduling: which group of warps does what, in which order, and through which channels groups
hand each other tiles. Asynchronous ops and waiting for them are explicit; barriers, phases and parity bits are not yet.
Ops of `tile`, `arith`, `math` and `scf` mean what they mean in kernels that are not scheduled. See
[scheduling](scheduling.md)."""

WARP_FAMILIES = (("Kernels and groups", groups), ("Asynchronous ops", asynchronous), ("Channels", channels))


def _warp_operations(family: object) -> list[type[Operation]]:
    ops = (*WARP.operations, *AREF.operations)
    return [op for op in ops if op.__module__ == getattr(family, "__name__", None)]


def _tile_operations(family: object) -> list[type[Operation]]:
    return [op for op in TILE.operations if op.__module__ == getattr(family, "__name__", None)]


def _contents() -> str:
    lines = []
    for family in FAMILIES:
        names = ", ".join(f"[{_short(op)}](#{_anchor(op)})" for op in _operations(family))
        lines.append(f"- {_title(family)[0]}: {names}")
    names = ", ".join(f"[{_short(op)}](#{_anchor(op)})" for op in TILE.operations)
    lines.append(f"- tile: {names}")
    for dialect in (WARP, AREF):
        names = ", ".join(f"[{_short(op)}](#{_anchor(op)})" for op in dialect.operations)
        lines.append(f"- {dialect.name}: {names}")
    names = ", ".join(f"[{_short(op)}](#{_anchor(op)})" for op in sorted(plan.PLAN.operations, key=lambda op: op.name))
    return "\n".join([*lines, f"- plan: {names}", ""])


_TITLES = {
    "module": "Declarations and state",
    "aten": "Calls of ATen",
    "unary": "Pointwise, one operand",
    "binary": "Pointwise, two operands",
    "activation": "Activations",
    "spatial": "Images",
    "select": "Choice",
    "shape": "Rearrangement",
    "index": "Indexing",
}
"""Headings of families whose module's name does not say it."""


def _title(family: object) -> tuple[str, str]:
    """A family's heading and introduction."""
    name = getattr(family, "__name__", "").rpartition(".")[2]
    return _TITLES.get(name, name.capitalize()), inspect.getdoc(family) or ""


def _operations(family: object) -> list[type[Operation]]:
    """The ops of a family, in the order of their definition."""
    known = set(FORGE.operations)
    found = [value for value in vars(family).values() if isinstance(value, type) and value in known]
    return [op for op in found if op.__module__ == getattr(family, "__name__", None)]


def _short(op: type[Operation]) -> str:
    return op.name.partition(".")[2]


def _anchor(op: type[Operation]) -> str:
    return op.name.replace(".", "")


def _attribute(cls: type[Attribute]) -> str:
    sigil = "!" if cls in (StateType, BlockType, RingType, TokenType) else "#"
    return f"**`{sigil}{cls.name}`** {_prose(inspect.getdoc(cls) or '')}"


def _alike(ops: list[type[Operation]]) -> Iterator[str]:
    """A family of many ops: one table for those with the first one's signature, the others one by one."""
    first, *others = ops
    same = [first, *(op for op in others if _rows(op) == _rows(first))]
    yield "\n".join([*_TABLE, *_rows(first), ""])
    meanings = [f'| <a id="{_anchor(op)}"></a>`{op.name}` | {_summary(op)} | {_example_cell(op)} |' for op in same]
    yield "\n".join(["| op | result | example |", "|---|---|---|", *meanings, ""])
    yield from (_operation(op) for op in others if op not in same)


def _summary(op: type[Operation]) -> str:
    return " ".join(_prose(inspect.getdoc(op) or "").split()).replace("|", "\\|")


def _example_cell(op: type[Operation]) -> str:
    example = next((e for e in FORGE_EXAMPLES if f"{op.name} " in e), "")
    return f"`{' '.join(example.split())}`"


_TABLE = ["| | name | type |", "|---|---|---|"]


def _rows(op: type[Operation]) -> list[str]:
    assert issubclass(op, IRDLOperation)
    definition = op.get_irdl_definition()
    operands, results = _operand_rows(definition.operands), _result_rows(definition.results)
    return [*operands, *_property_rows(definition.properties), *results]


def _operation(op: type[Operation]) -> str:
    assert issubclass(op, IRDLOperation)
    rows = _rows(op)
    parts = [f"#### {op.name}\n", _prose(inspect.getdoc(op) or "")]
    if rows:
        parts.append("\n".join([*_TABLE, *rows, ""]))
    examples = [example for example in FORGE_EXAMPLES if re.search(rf"(^|\s){re.escape(op.name)}\s", example)]
    if examples:
        parts.append("```mlir\n" + "\n".join(examples[:3]) + "\n```\n")
    elif op.assembly_format:
        parts.append(f"Syntax: {_syntax(op)}\n")
    return "\n".join(parts)


def _value_kind(spec: OperandDef | ResultDef) -> str:
    """What values an operand or a result is."""
    bases = _bases(spec.constr)
    known = {StateType: "state", BlockType: "block", IndexType: "index", TokenType: "token", RingType: "channel"}
    if len(bases) == 1 and (only := next(iter(bases))) in known:
        return known[only]
    return "tensor" if bases else "tile or scalar"


def _operand_rows(operands: Iterable[tuple[str, OperandDef]]) -> Iterator[str]:
    for name, spec in operands:
        kind = _value_kind(spec)
        if isinstance(spec, OptOperandDef):
            kind += ", optional"
        elif isinstance(spec, VarOperandDef):
            kind += ", any number"
        yield f"| operand | `{name}` | {kind} |"


def _property_rows(properties: dict[str, PropertyDef]) -> Iterator[str]:
    for name, spec in properties.items():
        if name == AttrSizedOperandSegments.attribute_name:
            continue
        kinds = sorted(_KINDS.get(base.__name__, base.__name__) for base in _bases(spec.constr))
        kind = "symbol name" if isinstance(spec.constr, SymbolNameConstraint) else " or ".join(kinds) or "attribute"
        if spec.default_value is not None:
            kind += f", default `{spec.default_value}`"
        elif isinstance(spec, OptionalDef) and kind != "flag":
            kind += ", optional"
        yield f"| attribute | `{name}` | {kind} |"


def _result_rows(results: Iterable[tuple[str, ResultDef]]) -> Iterator[str]:
    for name, spec in results:
        kind = _value_kind(spec)
        yield f"| result | `{name}` | {kind}{', any number' if 'Var' in type(spec).__name__ else ''} |"


def _bases(constraint: object) -> set[type[Attribute]]:
    """The classes of attributes that a constraint admits, if it says so."""
    inner = getattr(constraint, "constraint", None) or getattr(constraint, "constr", None)
    found = getattr(constraint, "get_bases", lambda: None)()
    return found or (_bases(inner) if inner is not None else set())


def _syntax(op: type[IRDLOperation]) -> str:
    text = re.sub(r"custom<\w+>\((\$\w+)\)", r"\1", op.assembly_format or "")
    text = re.sub(r"`(\W|\w+)`", r"\1", text).replace("attr-dict ", "").replace("^", "")
    return f"`{_short(op) and op.name} {text}`"


def _prose(text: str) -> str:
    """A docstring as Markdown: reStructuredText's double backticks and roles become single backticks."""
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text)
    text = re.sub(
        r"(?<![`\w])\[(\*\w[^\]`]*)\]", r"`[\1]`", text.replace("``", "`")
    )  # shapes: an asterisk is no emphasis
    return re.sub(r"::\n", ":\n", text) + "\n"


def _printed(op: Operation) -> str:
    stream = StringIO()
    Printer(stream=stream).print_op(op)
    return stream.getvalue()


def main(arguments: list[str]) -> int:
    """Write the file, or with ``--check`` compare it; returns the exit status."""
    text = document()
    if "--check" in arguments:
        if not PATH.is_file() or PATH.read_text(encoding="utf-8") != text:
            print(f"{PATH} is out of date: run python -m forgec.ir.reference_docs", file=sys.stderr)
            return 1
        return 0
    PATH.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
