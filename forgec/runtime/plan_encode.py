"""The plan as JSON-compatible data. The same for equal plans."""

from __future__ import annotations

import math
from typing import Any

from forgec.runtime import tree
from forgec.runtime.plan import (
    Arg,
    Buffer,
    Device,
    DType,
    Entry,
    EntryRef,
    External,
    Input,
    Launch,
    Layout,
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
    View,
    row_major,
)
from forgec.runtime.symbolic import Extent, SymExpr

KINDS: dict[str, type[Register]] = {
    "input": Input,
    "param": Param,
    "state": State,
    "buffer": Buffer,
    "output": Output,
    "external": External,
    "view": View,
}
_KIND_NAMES = {cls: name for name, cls in KINDS.items()}


def kind_name(register: Register) -> str:
    """``input``, ``param``, ``state``, ``buffer``, ``output``, ``external`` or ``view``."""
    return _KIND_NAMES[type(register)]


def encode(plan: Plan) -> dict[str, Any]:
    """See ``plan.to_json``."""
    return {
        "version": plan.version,
        "torch_version": plan.torch_version,
        "symbols": [
            {"name": entry.name, "label": entry.label, "minimum": entry.minimum, "maximum": entry.maximum}
            for entry in plan.symbols
        ],
        "constraints": [
            [encode_extent(entry.left), entry.predicate, encode_extent(entry.right), entry.location]
            for entry in plan.constraints
        ],
        "locations": [[place.file, place.line, place.function, place.module] for place in plan.locations],
        "entries": [_encode_entry(entry) for entry in plan.entries],
    }


def _encode_entry(entry: Entry) -> dict[str, Any]:
    private = {"private": True, "given": list(entry.given)} if entry.private else {}
    return private | {
        "name": entry.name,
        "parameters": list(entry.parameters),
        "in_tree": tree.to_json(entry.in_tree),
        "inputs": [_encode_leaf(leaf) for leaf in entry.inputs],
        "out_tree": tree.to_json(entry.out_tree),
        "outputs": [_encode_leaf(leaf) for leaf in entry.outputs],
        "arena_bytes": entry.arena_bytes,
        "peak_bytes": entry.peak_bytes,
        "registers": [_encode_register(register) for register in entry.registers],
        "launches": [_encode_launch(launch) for launch in entry.launches],
    }


def encode_extent(value: Extent) -> int | str:
    return str(value) if isinstance(value, SymExpr) else value


def _encode_register(register: Register) -> dict[str, Any]:
    spec = register.spec
    result: dict[str, Any] = {
        "kind": kind_name(register),
        "dtype": spec.dtype,
        "shape": [encode_extent(extent) for extent in spec.shape],
    }
    if spec.strides != row_major(spec.shape):
        result["strides"] = [encode_extent(stride) for stride in spec.strides]
    if register.device != "cpu":
        result["device"] = register.device
    match register:
        case Input():
            result |= {"index": register.index, "name": register.name}
            result |= {flag: True for flag in ("inout", "exact") if getattr(register, flag)}
            if register.offset is not None:
                result["offset"] = register.offset
        case Param():
            result["name"] = register.name
        case State():
            result |= {"name": register.name, "zeros": register.zeros}
        case Buffer():
            result |= {"nbytes": encode_extent(register.nbytes), "first": register.first, "last": register.last}
            if register.offset is not None:
                result["offset"] = register.offset
        case External():
            result |= {"first": register.first, "last": register.last}
        case View():
            result |= {"base": register.base, "offset": encode_extent(register.offset)}
        case Output():
            pass
    return result


def _encode_launch(launch: Launch) -> dict[str, Any]:
    result: dict[str, Any] = {"op": launch.op, "args": [encode_arg(value) for value in launch.args]}
    if launch.kwargs:
        result["kwargs"] = {name: encode_arg(value) for name, value in launch.kwargs}
    if launch.results:
        result["results"] = list(launch.results)
    if launch.writes:
        result["writes"] = list(launch.writes)
    if launch.defines:
        result["defines"] = list(launch.defines)
    if launch.source:
        result["source"] = launch.source
    if launch.location >= 0:
        result["location"] = launch.location
    return result


def _encode_leaf(leaf: ResultLeaf) -> dict[str, Any]:
    if isinstance(leaf, Literal):
        return {"literal": encode_arg(leaf.value)}
    if isinstance(leaf, Number):
        return {"number": leaf.id}
    return {"expr": str(leaf)} if isinstance(leaf, SymExpr) else {"reg": leaf}


def encode_arg(value: Arg) -> Any:
    """One argument as JSON: plain where JSON has the type, a list for a tuple, else an object with one tag."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else {"float": "nan" if math.isnan(value) else str(value)}
        case complex():
            return {"complex": [encode_arg(value.real), encode_arg(value.imag)]}
        case tuple():
            return [encode_arg(item) for item in value]
        case Reg():
            return {"reg": value.id}
        case SymExpr():
            return {"expr": str(value)}
        case DType():
            return {"dtype": value.name}
        case Device():
            return {"device": value.name}
        case Layout():
            return {"layout": value.name}
        case MemoryFormat():
            return {"memory_format": value.name}
        case EntryRef():
            return {"entry": value.name}
