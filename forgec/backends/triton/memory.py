"""Loads and stores in Triton: pointers, masks only where an element may be outside, and checks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.dialects.builtin import IntegerType
from xdsl.ir import Operation, SSAValue

from forgec.backends.triton.text import Level, Text, binary, call, joined, literal
from forgec.backends.triton.writer import Writer, refusal
from forgec.ir import types
from forgec.ir.attributes import IntsAttr, ScalarAttr
from forgec.ir.tile.memory import CheckOp, GatherOp, LoadOp, ScatterOp, StoreOp, ViewOp
from forgec.ir.tile.types import block_type, element

_BOOLEAN = IntegerType(1)


@dataclass(frozen=True)
class _Access:
    """Where a tile lies: pointers, and which of them are used (None: all)."""

    pointers: Text
    mask: Text | None


def view(writer: Writer, op: ViewOp) -> None:
    """A block in a block is a pointer."""
    offset = writer[op.offset]
    base = writer[op.source]
    if offset.literal == 0:
        writer.set(op.result, base)
        return
    writer.define(op.result, binary("+", base, offset), op, _stem(base), inline=False)


def load(writer: Writer, op: LoadOp) -> None:
    access = _block_access(writer, op.block, op.offsets, op.result, op.in_bounds)
    _read(writer, op, op.result, access, op.other, _stem(writer[op.block]))


def store(writer: Writer, op: StoreOp) -> None:
    access = _block_access(writer, op.block, op.offsets, op.value, op.in_bounds)
    value = _stored(writer, op.value)
    access = _as_large(access, joined(value, *(part for part in (access.pointers, access.mask) if part)))
    mask = [] if access.mask is None else [f"mask={access.mask.code}"]
    writer.line(call("tl.store", access.pointers.code, value.code, *mask).code, op)


def gather(writer: Writer, op: GatherOp) -> None:
    access = _element_access(writer, op.block, op.indices, op.mask)
    _read(writer, op, op.result, access, op.other, _stem(writer[op.block]))


def scatter(writer: Writer, op: ScatterOp) -> None:
    """Atomic where elements may meet; the value of an atomic float maximum is compared as integers are."""
    access = _element_access(writer, op.block, op.indices, op.mask)
    shape = writer.shape(op.value)
    pointers, mask = access.pointers, access.mask
    if op.combine is None or op.combine.data == "any":
        access = _as_large(access, shape)
        value = _stored(writer, op.value)
        masks = [] if access.mask is None else [f"mask={access.mask.code}"]
        writer.line(call("tl.store", access.pointers.code, value.code, *masks).code, op)
        return
    dtype, combine = writer.dtype(op.value), op.combine.data
    value = writer.full(writer[op.value], op.value.type)
    pointers = _as_large(_Access(pointers, None), shape).pointers
    masks = [] if mask is None else [f"mask={mask.code}"]
    if dtype in ("float32", "float64") and combine != "add":
        width = dtype.removeprefix("float")
        full = Text("True") if mask is None else mask
        function = writer.helper("atomic_maximum" if combine == "max" else "atomic_minimum")
        writer.line(
            call(function, pointers.code, value.code, full.code, f"tl.int{width}", f"tl.uint{width}").code, op
        )  # fmt: skip
        return
    known = ("float32", "float64", "int32", "int64", "float16", "bfloat16") if combine == "add" else ("int32", "int64")
    if dtype not in known:
        raise refusal(op, f"Triton has no atomic {combine} of {element(op.value)}")
    writer.line(call(f"tl.atomic_{combine}", pointers.code, value.code, *masks, 'sem="relaxed"').code, op)


def check(writer: Writer, op: CheckOp) -> str:
    """The condition under which the check fails, as the head of an ``if``."""
    condition = writer[op.condition]
    writer.checks[op.number.data] = op.message.data
    if condition.shape:
        condition = binary("!=", call("tl.min", writer.cast(condition, _BOOLEAN, "int32").code), literal(0))
    if condition.literal is not None:
        condition = writer.typed(condition, _BOOLEAN)
    return f"if not {condition.at(Level.COMPARE)}:"


# Pointers and masks ---------------------------------------------------------------------------------------------------


def _stem(pointer: Text) -> str:
    name = re.match(r"\w+", pointer.code)
    return re.sub(r"(_ptr)?(_\d+)*$", "", name.group()) if name else "loaded"


def _block_access(
    writer: Writer, block: SSAValue, offsets: Sequence[SSAValue], tile: SSAValue, sure: IntsAttr | None
) -> _Access:
    tensor = block_type(block)
    limits, strides = types.shape(tensor), types.strides(tensor)
    shape = writer.shape(tile)
    rank = len(offsets)
    extents = types.shape(tile) if shape else (1,) * rank
    places = [
        writer.places(writer[offset], extent, axis, rank)
        for axis, (offset, extent) in enumerate(zip(offsets, extents, strict=True))
    ]
    mask = writer.everything_inside(places, offsets, shape, limits, () if sure is None else sure.data)
    spread = [place.subscript([axis], rank) if place.shape and rank > 1 else place for axis, place in enumerate(places)]
    return _Access(_pointers(writer, block, spread, strides), mask)


def _pointers(writer: Writer, block: SSAValue, places: Sequence[Text], strides: Sequence[types.Extent]) -> Text:
    found = writer[block]
    for place, stride in zip(places, strides, strict=True):
        if stride == 0 or (place.literal == 0 and place.literal is not None):
            continue
        step = place if stride == 1 else binary("*", place, writer.expression(stride))
        if step.literal is None and place.literal is not None and stride != 1 and isinstance(stride, int):
            step = literal(int(place.literal) * stride)
        found = binary("+", found, step)
    return found


def _element_access(writer: Writer, block: SSAValue, indices: Sequence[SSAValue], mask: SSAValue | None) -> _Access:
    """Indices that the kernel does not show to be inside are guarded once a check has been made: what a launch does
    after a check fails does not matter, but it must not fault.
    """
    tensor = block_type(block)
    parts = [] if mask is None or writer[mask].literal is True else [writer[mask]]
    if writer.checks:
        for index, limit in zip(indices, types.shape(tensor), strict=True):
            (low, high), least = writer.ranges.of(index), writer.ranges.extent(limit)[0]
            if low is None or low < 0:
                parts.append(binary(">=", writer[index], literal(0)))
            if high is None or least is None or high >= least:
                parts.append(binary("<", writer[index], writer.expression(limit)))
    parts = [part for part in parts if part.literal is not True]
    pointers = _pointers(writer, block, [writer[index] for index in indices], types.strides(tensor))
    found = writer.mask(parts)
    if found is not None and found.literal is not None:
        found = writer.typed(found, _BOOLEAN)
    return _Access(pointers, found)


def _as_large(access: _Access, shape: tuple[int, ...]) -> _Access:
    """The pointers with all of these extents."""
    pointers = access.pointers
    if pointers.shape == shape:
        return access
    code = f"({shape[0]},)" if len(shape) == 1 else str(shape)
    if not pointers.shape:
        pointers = binary("+", pointers, call("tl.zeros", code, "tl.int32", shape=shape))
    else:
        pointers = call("tl.broadcast_to", pointers.code, code, shape=shape)
    return _Access(pointers, access.mask)


def _read(
    writer: Writer, op: Operation, result: SSAValue, access: _Access, other: ScalarAttr | None, wish: str
) -> None:
    kind = element(result)
    arguments = []
    shape = access.pointers.shape
    if access.mask is not None:
        shape = joined(access.pointers, access.mask)
        access = _as_large(access, shape)
        assert access.mask is not None
        number = writer.element_of(kind, 0 if other is None else other.value)
        padding = literal(int(number) if kind == _BOOLEAN else number, kind)  # booleans are bytes in memory
        arguments = [f"mask={access.mask.code}", f"other={_other(writer, padding, result)}"]
    text = call("tl.load", access.pointers.code, *arguments, shape=shape)
    if kind == _BOOLEAN:
        text = binary("!=", text, literal(0))
    writer.define(result, text, op, wish, inline=False)


def _other(writer: Writer, padding: Text, result: SSAValue) -> str:
    by_cast = padding.code != "-0.0" and not writer.dtype(result).startswith("float8")
    return padding.code if by_cast else writer.typed(padding, element(result)).code


def _stored(writer: Writer, value: SSAValue) -> Text:
    """What is written: booleans are bytes, and constants have the dtype of the memory."""
    text, kind = writer[value], element(value)
    if kind == _BOOLEAN:
        return literal(int(text.literal)) if text.literal is not None else writer.cast(text, kind, "int8")
    if text.literal is not None or text.plain:
        return writer.typed(text, kind)
    return text
