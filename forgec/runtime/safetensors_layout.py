"""The safetensors format: 8 bytes of header length, a JSON header, the tensors' bytes without gaps.

As forgec writes it, the bytes of every tensor begin at a multiple of 64 of the file. The format allows no holes, so
the gaps are tensors of their own, ``__pad__.N``. Source: https://huggingface.co/docs/safetensors (format, version 0.4
and later).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from forgec.runtime.artifact_format import ALIGNMENT
from forgec.runtime.dtypes import ELEMENT_TYPES
from forgec.runtime.static_extents import static
from forgec.runtime.strict_json import StrictJsonError, parse_json

if TYPE_CHECKING:
    from forgec.runtime.plan import TensorSpec

MAX_HEADER_BYTES = 100_000_000
"""The format's own limit."""
PADDING = "__pad__."

ITEMSIZES: dict[str, int] = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "F8_E8M0": 1,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U64": 8,
    "U32": 4,
    "U16": 2,
    "U8": 1,
    "BOOL": 1,
    "C64": 8,
}


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """``dtype`` is safetensors' name; ``begin`` and ``end`` are byte offsets from the end of the header."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class SafetensorsError(ValueError):
    """The bytes are not a safetensors file."""


def storage_order(spec: TensorSpec) -> tuple[int, ...]:
    """The order of the axes in the file: that of memory for a dense tensor, row-major for one with gaps or overlaps."""
    shape, strides = static(spec.shape), static(spec.strides)
    axes = sorted(range(len(shape)), key=lambda axis: (-strides[axis], axis) if shape[axis] != 1 else (0, axis))
    step = 1
    for axis in reversed(axes):
        if shape[axis] == 1:
            continue
        if strides[axis] != step:
            return tuple(range(len(shape)))
        step *= shape[axis]
    return tuple(axes)


def is_dense(spec: TensorSpec) -> bool:
    """Whether the tensor's bytes have neither gaps nor overlaps, so that the file's bytes can be used in place."""
    shape, strides = static(spec.shape), static(spec.strides)
    step = 1
    for axis in reversed(storage_order(spec)):
        if shape[axis] != 1:
            if strides[axis] != step:
                return False
            step *= shape[axis]
    return True


def declared(spec: TensorSpec) -> tuple[str, tuple[int, ...]]:
    """The dtype and shape under which a tensor of this spec stands in the file."""
    element = ELEMENT_TYPES[spec.dtype]
    shape = static(spec.shape)
    stored = tuple(shape[axis] for axis in storage_order(spec))
    return element.safetensors, stored if element.stored_extent is None else (*stored, element.stored_extent)


def lay_out(tensors: Sequence[tuple[str, TensorSpec]]) -> tuple[bytes, dict[str, StoredTensor], int]:
    """The header (its length included, padded to 64 bytes), the place of each tensor and the bytes of all data, gaps
    included."""
    header: dict[str, Any] = {}
    placed: dict[str, StoredTensor] = {}
    position = gaps = 0
    for name, spec in tensors:
        gap = -position % ALIGNMENT
        if gap:
            header[f"{PADDING}{gaps}"] = {"dtype": "U8", "shape": [gap], "data_offsets": [position, position + gap]}
            position += gap
            gaps += 1
        dtype, shape = declared(spec)
        end = position + prod(shape) * ITEMSIZES[dtype]
        placed[name] = StoredTensor(dtype, shape, position, end)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=True).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    return struct.pack("<Q", len(text)) + text, placed, position


def header_length(file: memoryview) -> int:
    """Bytes of the header, its own length field included. ``SafetensorsError`` when the file is shorter."""
    if len(file) < 8:
        raise SafetensorsError("shorter than its length field")
    length = struct.unpack("<Q", file[:8])[0]
    if length > min(MAX_HEADER_BYTES, len(file) - 8):
        raise SafetensorsError("the header ends outside the file")
    return 8 + length


def read_header(file: memoryview) -> tuple[int, dict[str, StoredTensor]]:
    """Offset of the data, and the tensors by name without the gaps. ``SafetensorsError`` for anything that the format
    forbids."""
    start = header_length(file)
    try:
        header = parse_json(bytes(file[8:start]))
    except StrictJsonError as reason:
        raise SafetensorsError(f"the header is not JSON: {reason}") from None
    if not isinstance(header, dict):
        raise SafetensorsError("the header is no object")
    tensors = {name: _read_entry(name, entry) for name, entry in header.items() if name != "__metadata__"}
    position = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if tensor.begin != position:
            raise SafetensorsError(f"tensor '{name[:80]}' overlaps another one or leaves a gap")
        position = tensor.end
    if position != len(file) - start:
        raise SafetensorsError(f"the tensors have {position} bytes, the file has {len(file) - start}")
    return start, {name: tensor for name, tensor in tensors.items() if not name.startswith(PADDING)}


def _read_entry(name: str, entry: object) -> StoredTensor:
    def check(holds: bool) -> None:
        if not holds:
            raise SafetensorsError(f"the entry of tensor '{name[:80]}' is malformed")

    check(isinstance(entry, dict) and entry.keys() == {"dtype", "shape", "data_offsets"})
    assert isinstance(entry, dict)
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    check(isinstance(dtype, str) and dtype in ITEMSIZES)
    check(isinstance(shape, list) and len(shape) <= 64 and all(type(n) is int and 0 <= n < 1 << 62 for n in shape))
    check(isinstance(offsets, list) and len(offsets) == 2 and all(type(n) is int and n >= 0 for n in offsets))
    begin, end = offsets
    check(end - begin == prod(shape) * ITEMSIZES[dtype])
    return StoredTensor(dtype, tuple(shape), begin, end)
