"""The plan from parsed JSON. This checks types and spelling; ``plan_check`` checks what the parts mean together."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, TypeVar

from forgec.diagnostics import ForgeError, Location, error
from forgec.runtime import tree
from forgec.runtime.dtypes import ITEMSIZE
from forgec.runtime.plan import (
    FORMAT_VERSION,
    PREDICATES,
    Arg,
    Buffer,
    Constraint,
    Device,
    DType,
    Entry,
    EntryRef,
    External,
    Input,
    Launch,
    Layout,
    Leaf,
    Literal,
    MemoryFormat,
    Number,
    Output,
    Param,
    Plan,
    Reg,
    Register,
    ResultLeaf,
    State,
    SymbolDecl,
    TensorSpec,
    View,
)
from forgec.runtime.plan_encode import KINDS
from forgec.runtime.symbolic import Extent, SymExpr, parse

T = TypeVar("T")

INT_LIMIT = 1 << 63
MAX_RANK = 64
MAX_NESTING = 16

_OP = re.compile(r"[A-Za-z_][A-Za-z0-9_]*::[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)?", re.ASCII)
_WORD = re.compile(r"[a-z][a-z0-9_]*", re.ASCII)
_DEVICE = re.compile(r"[a-z]+(:[0-9]{1,3})?", re.ASCII)
_NON_FINITE = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}
_NAMED_ARGS: dict[str, Callable[[str], Arg]] = {
    "dtype": DType,
    "device": Device,
    "layout": Layout,
    "memory_format": MemoryFormat,
}


class Malformed(Exception):
    """What is wrong, and the path to it, which grows from the inside out while the exception passes the enclosing
    values."""

    def __init__(self, reason: str, path: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.path = path

    def inside(self, part: str) -> Malformed:
        self.path = part + self.path
        return self

    def as_error(self) -> ForgeError:
        return error("FORGE-A004", f"plan.json: {self.path.lstrip('.') or 'the plan'}: {self.reason}")


def decode(data: object) -> Plan:
    """See ``plan.from_json``; FORGE-A002 for another format version, FORGE-A004 for anything malformed."""
    try:
        fields = _object(data, "version", "torch_version", "symbols", "constraints", "locations", "entries")
        version = _int(fields["version"], "version")
        if version != FORMAT_VERSION:
            reads = f"this runtime reads version {FORMAT_VERSION}"
            raise error("FORGE-A002", f"the plan has format version {version}, {reads}")
        return Plan(
            entries=_items(fields, "entries", _decode_entry),
            symbols=_items(fields, "symbols", _decode_symbol),
            constraints=_items(fields, "constraints", _decode_constraint),
            locations=_items(fields, "locations", _decode_location),
            torch_version=_text(fields["torch_version"], "torch_version"),
            version=version,
        )
    except Malformed as reason:
        raise reason.as_error() from None
    except RecursionError:
        raise error("FORGE-A004", "plan.json: nested too deep") from None


def _object(data: object, *required: str, optional: tuple[str, ...] = ()) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise Malformed("expected an object")
    for name in required:
        if name not in data:
            raise Malformed(f"field '{name}' is missing")
    if len(data) > len(required):
        for name in data:
            if name not in required and name not in optional:
                raise Malformed(f"unknown field {str(name)[:80]!r}")
    return data


def _items(fields: Mapping[str, Any], name: str, decode_item: Callable[[Any], T]) -> tuple[T, ...]:
    values = fields[name]
    if not isinstance(values, list):
        raise Malformed("expected a list", f".{name}")
    items: list[T] = []
    try:
        for value in values:
            items.append(decode_item(value))
    except Malformed as reason:
        raise reason.inside(f".{name}[{len(items)}]") from None
    return tuple(items)


def _int(value: object, name: str, minimum: int = 0, maximum: int = INT_LIMIT - 1) -> int:
    if type(value) is not int or not minimum <= value <= maximum:
        raise Malformed(f"expected an integer in [{minimum}, {maximum}]", f".{name}")
    return value


def _optional_int(value: object, name: str) -> int | None:
    return None if value is None else _int(value, name)


def _bool(value: object, name: str) -> bool:
    if not isinstance(value, bool):
        raise Malformed("expected true or false", f".{name}")
    return value


def _text(value: object, name: str, limit: int = 4096) -> str:
    if not isinstance(value, str) or len(value) > limit:
        raise Malformed(f"expected a string of at most {limit} characters", f".{name}")
    return value


@lru_cache(maxsize=4096)
def _parse_extent(text: str) -> Extent:
    return parse(text)


def _extent(value: object, name: str = "") -> Extent:
    place = f".{name}" if name else ""
    if isinstance(value, str):
        try:
            return _parse_extent(value)
        except ValueError as reason:
            raise Malformed(str(reason), place) from None
    if type(value) is not int or not 0 <= value < INT_LIMIT:
        raise Malformed("expected an extent: an integer >= 0 or an expression", place)
    return value


def _decode_symbol(data: object) -> SymbolDecl:
    fields = _object(data, "name", "label", "minimum", "maximum")
    name = _text(fields["name"], "name", 64)
    maximum = _optional_int(fields["maximum"], "maximum")
    return SymbolDecl(name, _text(fields["label"], "label", 256), _int(fields["minimum"], "minimum"), maximum)


def _decode_constraint(data: object) -> Constraint:
    if not isinstance(data, list) or len(data) != 4:
        raise Malformed("expected [extent, predicate, extent, location]")
    left, predicate, right, location = data
    if predicate not in PREDICATES:
        raise Malformed(f"expected one of {', '.join(PREDICATES)}", ".predicate")
    location = _int(location, "location", minimum=-1)
    return Constraint(_extent(left, "left"), predicate, _extent(right, "right"), location)


def _decode_location(data: object) -> Location:
    if not isinstance(data, list) or len(data) != 4:
        raise Malformed("expected [file, line, function, module]")
    file = _text(data[0], "file")
    # An error message quotes the line at a location: an artifact must not name files outside the import roots.
    if file.startswith(("/", "~")) or ".." in file.split("/"):
        raise Malformed("a location's file must be a relative path without '..'", "[0]")
    return Location(file, _int(data[1], "line"), _text(data[2], "function"), _text(data[3], "module"))


def _decode_tree(data: object, name: str) -> tree.Tree:
    try:
        return tree.from_json(data)
    except ValueError as reason:
        raise Malformed(str(reason), f".{name}") from None


_ENTRY_FIELDS = (
    "name",
    "parameters",
    "in_tree",
    "inputs",
    "out_tree",
    "outputs",
    "arena_bytes",
    "peak_bytes",
    "registers",
    "launches",
)


def _decode_entry(data: object) -> Entry:
    fields = _object(data, *_ENTRY_FIELDS, optional=("private", "given"))
    return Entry(
        name=_text(fields["name"], "name", 256),
        registers=_items(fields, "registers", _decode_register),
        launches=_items(fields, "launches", _decode_launch),
        inputs=_items(fields, "inputs", _decode_leaf),
        outputs=_items(fields, "outputs", _decode_result),
        in_tree=_decode_tree(fields["in_tree"], "in_tree"),
        out_tree=_decode_tree(fields["out_tree"], "out_tree"),
        parameters=_items(fields, "parameters", lambda value: _text(value, "", 256)),
        arena_bytes=_optional_int(fields["arena_bytes"], "arena_bytes"),
        peak_bytes=_optional_int(fields["peak_bytes"], "peak_bytes"),
        private=_bool(fields.get("private", False), "private"),
        given=_items(fields, "given", lambda value: _text(value, "", 64)) if "given" in fields else (),
    )


def _decode_spec(fields: Mapping[str, Any]) -> TensorSpec:
    dtype = fields["dtype"]
    if not isinstance(dtype, str) or dtype not in ITEMSIZE:
        raise Malformed(f"unknown dtype {str(dtype)[:40]!r}", ".dtype")
    shape = _items(fields, "shape", _extent)
    if len(shape) > MAX_RANK:
        raise Malformed(f"more than {MAX_RANK} dimensions", ".shape")
    if "strides" not in fields:
        try:
            return TensorSpec.contiguous(dtype, shape)
        except ValueError as reason:
            raise Malformed(str(reason), ".shape") from None
    strides = _items(fields, "strides", _extent)
    if len(strides) != len(shape):
        raise Malformed(f"{len(strides)} strides for {len(shape)} dimensions", ".strides")
    return TensorSpec(dtype, shape, strides)


_REGISTER_FIELDS: dict[type[Register], tuple[tuple[str, ...], tuple[str, ...]]] = {
    Input: (("index", "name"), ("inout", "exact", "offset")),
    Param: (("name",), ()),
    State: (("name", "zeros"), ()),
    Buffer: (("nbytes", "first", "last"), ("offset",)),
    Output: ((), ()),
    External: (("first", "last"), ()),
    View: (("base", "offset"), ()),
}


def _decode_register(data: object) -> Register:
    kind = data.get("kind") if isinstance(data, dict) else None
    if not isinstance(kind, str) or kind not in KINDS:
        raise Malformed(f"expected a register whose kind is one of {', '.join(KINDS)}")
    cls = KINDS[kind]
    required, optional = _REGISTER_FIELDS[cls]
    fields = _object(data, "kind", "dtype", "shape", *required, optional=("strides", "device", *optional))
    spec = _decode_spec(fields)
    device = fields.get("device", "cpu")
    if not isinstance(device, str) or not _DEVICE.fullmatch(device):
        raise Malformed("expected a device such as 'cpu' or 'cuda:0'", ".device")
    if cls is Input:
        inout, exact = (_bool(fields.get(flag, False), flag) for flag in ("inout", "exact"))
        place = _optional_int(fields.get("offset"), "offset")
        return Input(spec, _int(fields["index"], "index"), _text(fields["name"], "name"), inout, exact, device, place)
    if cls is Param:
        return Param(spec, _text(fields["name"], "name"), device)
    if cls is State:
        return State(spec, _text(fields["name"], "name"), _bool(fields["zeros"], "zeros"), device)
    if cls is Output:
        return Output(spec, device)
    if cls is View:
        return View(spec, _int(fields["base"], "base"), _extent(fields["offset"], "offset"), device)
    first, last = _int(fields["first"], "first"), _int(fields["last"], "last")
    if cls is External:
        return External(spec, first, last, device)
    nbytes, offset = _extent(fields["nbytes"], "nbytes"), _optional_int(fields.get("offset"), "offset")
    return Buffer(spec, nbytes, offset, first, last, device)


def _decode_launch(data: object) -> Launch:
    fields = _object(data, "op", "args", optional=("kwargs", "results", "writes", "defines", "source", "location"))
    op = _text(fields["op"], "op", 256)
    if not _OP.fullmatch(op):
        raise Malformed("expected an operation such as 'aten::mm.out'", ".op")
    kwargs = fields.get("kwargs", {})
    if not isinstance(kwargs, dict):
        raise Malformed("expected an object", ".kwargs")
    pairs: list[tuple[str, Arg]] = []
    for name, value in kwargs.items():
        try:
            pairs.append((_text(name, ""), decode_arg(value)))
        except Malformed as reason:
            raise reason.inside(f".kwargs.{str(name)[:80]}") from None
    return Launch(
        op=op,
        args=_items(fields, "args", decode_arg),
        kwargs=tuple(pairs),
        results=_items(fields, "results", lambda value: _optional_int(value, "")) if "results" in fields else (),
        writes=_items(fields, "writes", lambda value: _int(value, "")) if "writes" in fields else (),
        defines=_items(fields, "defines", _optional_symbol) if "defines" in fields else (),
        source=_text(fields.get("source", ""), "source"),
        location=_int(fields.get("location", -1), "location", minimum=-1),
    )


def _optional_symbol(value: object) -> str | None:
    return None if value is None else _text(value, "", 64)


def _decode_leaf(data: object) -> Leaf:
    if isinstance(data, dict) and len(data) == 1:
        if "reg" in data:
            return _int(data["reg"], "reg")
        if "literal" in data:
            return Literal(decode_arg(data["literal"]))
        if "expr" in data:
            return _symbolic(data["expr"])
    raise Malformed('expected {"reg": number}, {"literal": value} or {"expr": text}')


def _decode_result(data: object) -> ResultLeaf:
    if isinstance(data, dict) and len(data) == 1 and "number" in data:
        return Number(_int(data["number"], "number"))
    return _decode_leaf(data)


def _symbolic(text: object) -> SymExpr:
    value = _extent(text, "expr") if isinstance(text, str) else None
    if not isinstance(value, SymExpr):
        raise Malformed("expected an expression with a symbol", ".expr")
    return value


def decode_arg(data: object, depth: int = 0) -> Arg:
    """The inverse of ``encode_arg``."""
    if data is None or isinstance(data, (bool, str)):
        return data
    if isinstance(data, int):
        return _int(data, "", -INT_LIMIT)
    if isinstance(data, float):
        if not math.isfinite(data):
            raise Malformed("expected a finite number")
        return data
    if depth > MAX_NESTING:
        raise Malformed("nested too deep")
    if isinstance(data, list):
        return tuple(decode_arg(value, depth + 1) for value in data)
    if not isinstance(data, dict) or len(data) != 1:
        raise Malformed("expected an argument: a plain value, a list, or an object with one tag")
    ((tag, value),) = data.items()
    if tag == "reg":
        return Reg(_int(value, "reg"))
    if tag == "expr":
        return _symbolic(value)
    if tag == "entry":
        return EntryRef(_text(value, "entry", 256))
    if tag == "float" and isinstance(value, str) and value in _NON_FINITE:
        return _NON_FINITE[value]
    if tag == "complex" and isinstance(value, list) and len(value) == 2:
        real, imaginary = (decode_arg(part, depth + 1) for part in value)
        if isinstance(real, (int, float)) and isinstance(imaginary, (int, float)):
            return complex(real, imaginary)
    if tag in _NAMED_ARGS and isinstance(value, str):
        spelled = ITEMSIZE.__contains__ if tag == "dtype" else (_DEVICE if tag == "device" else _WORD).fullmatch
        if spelled(value):
            return _NAMED_ARGS[tag](value)
    raise Malformed(f"not an argument: tag {str(tag)[:40]!r}")
