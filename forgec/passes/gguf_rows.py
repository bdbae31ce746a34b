"""The rows of a GGUF file's quantised tensors: Q8_0, Q4_0, Q4_1 and Q6_K, as ggml's ``ggml-common.h`` lays them out.

A row is divided into blocks. Of 32 numbers (``d`` and ``m`` are float16):

- Q8_0: ``d``, 32 bytes with sign: ``number · d``
- Q4_0: ``d``, 16 bytes of two numbers, the lower halves the first 16: ``(number - 8) · d``
- Q4_1: ``d``, ``m``, 16 bytes as before: ``number · d + m``

Of 256 numbers:

- Q6_K: 128 bytes with the lower 4 bits, 64 with the upper 2, 16 scales of 8 bits with sign, ``d``: ``(number - 32) ·
  (d · scale)``, 16 numbers to the scale. The first half of each part is that of the first 128 numbers: byte i (of
  64) of the lower bits holds numbers i and 64 + i, byte i (of 32) of the upper ones i, 32 + i, 64 + i and 96 + i.

All steps are computed in float32, in which every product here is exact.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from forgec.diagnostics import error
from forgec.passes.stored_weights import Parts, StoredRows

_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of the values of a file's fields, by their types."""
_STRING, _ARRAY, _UINT32 = 8, 9, 4
_TYPES = {2: "Q4_0", 3: "Q4_1", 8: "Q8_0", 14: "Q6_K"}
"""Formats by the numbers that a file has for them."""
_ALIGNMENT = 32


def gguf_rows(path: Path) -> Iterator[StoredRows]:
    """The matrices of a file that are in one of the formats; experts' matrices one after the other.

    Raises FORGE-U004 for a file that cannot be read.
    """
    import torch

    try:
        with path.open("rb") as stream:
            data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        tensors = list(_Header(data).tensors())
    except (OSError, ValueError, struct.error) as fault:
        raise error("FORGE-U004", f"cannot read {path} as a GGUF file: {fault}") from fault
    for tensor in tensors:
        blocks = torch.frombuffer(bytearray(data[tensor.start : tensor.end]), dtype=torch.uint8)
        yield _FORMATS[tensor.format](blocks.reshape(*tensor.blocks, -1))


@dataclass(frozen=True)
class _Tensor:
    """Where a tensor is in the file, and how many rows it has and blocks in each."""

    format: str
    start: int
    end: int
    blocks: tuple[int, int]


class _Header:
    """Reads what stands before the tensors."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.place = 0

    def tensors(self) -> Iterator[_Tensor]:
        """The tensors of two dimensions at least in a format that is known. Raises ValueError or struct.error."""
        magic, version = self.numbers("4sI")
        if magic != b"GGUF" or version not in (2, 3):
            raise ValueError("it does not begin as one of version 2 or 3")
        count, fields = self.numbers("QQ")
        alignment = _ALIGNMENT
        for _ in range(fields):
            name = self.string()
            (kind,) = self.numbers("I")
            start = self.place
            self.skip(kind)
            if name == b"general.alignment" and kind == _UINT32:
                (alignment,) = struct.unpack_from("<I", self.data, start)
        found: list[tuple[tuple[int, ...], int, int]] = []
        for _ in range(count):
            self.string()
            (rank,) = self.numbers("I")
            shape = self.numbers(f"{rank}Q")
            kind, offset = self.numbers("IQ")
            found.append((shape, kind, offset))
        first = -(-self.place // alignment) * alignment
        for shape, kind, offset in found:
            if kind in _TYPES and len(shape) >= 2:
                yield self.tensor(_TYPES[kind], shape, first + offset)

    def tensor(self, name: str, shape: tuple[int, ...], start: int) -> _Tensor:
        numbers, size = _BLOCKS[name]
        blocks = (prod(shape[1:]), shape[0] // numbers)
        end = start + prod(blocks) * size
        if shape[0] % numbers or end > len(self.data):
            raise ValueError(f"a tensor {list(shape)} of {name} is not whole")
        return _Tensor(name, start, end, blocks)

    def numbers(self, form: str) -> tuple[Any, ...]:
        found = struct.unpack_from(f"<{form}", self.data, self.place)
        self.place += struct.calcsize(f"<{form}")
        return found

    def string(self) -> bytes:
        (size,) = self.numbers("Q")
        self.place += size
        return self.data[self.place - size : self.place]

    def skip(self, kind: int) -> None:
        """Go past a value."""
        if kind == _STRING:
            self.string()
        elif kind == _ARRAY:
            inner, count = self.numbers("IQ")
            if inner in _SIZES:
                self.place += _SIZES[inner] * count
                return
            for _ in range(count):
                self.skip(inner)
        elif kind in _SIZES:
            self.place += _SIZES[kind]
        else:
            raise ValueError(f"there are no values of type {kind}")


_BLOCKS = {"Q8_0": (32, 34), "Q4_0": (32, 18), "Q4_1": (32, 20), "Q6_K": (256, 210)}
"""Numbers and bytes of a block."""


def _halves(blocks: Any, start: int) -> Any:
    """A float16 of each block."""
    import torch

    return blocks[..., start : start + 2].contiguous().view(torch.float16)[..., 0]


def _q8_0(blocks: Any) -> StoredRows:
    import torch

    parts = {"numbers": blocks[..., 2:].contiguous().view(torch.int8).flatten(1), "scales": _halves(blocks, 0)}
    return StoredRows("Q8_0", parts, _floats(parts))


def _q4_0(blocks: Any) -> StoredRows:
    import torch

    scales = _halves(blocks, 0)
    zeros = torch.full(scales.shape, 8, dtype=torch.uint8)
    parts = {"numbers": _nibbles(blocks[..., 2:]), "scales": scales, "zeros": zeros}
    return StoredRows("Q4_0", parts, _floats(parts))


def _q4_1(blocks: Any) -> StoredRows:
    parts = {"numbers": _nibbles(blocks[..., 4:]), "scales": _halves(blocks, 0), "zeros": -_halves(blocks, 2)}
    return StoredRows("Q4_1", parts, _floats(parts, zeros_last=True), zeros_last=True)


def _nibbles(data: Any) -> Any:
    import torch

    return torch.cat((data & 15, data >> 4), -1).flatten(1)


def _q6_k(blocks: Any) -> StoredRows:
    import torch

    low, high = blocks[..., :128].unflatten(-1, (2, 64)), blocks[..., 128:192].unflatten(-1, (2, 32))
    low = torch.cat((low & 15, low >> 4), -1)
    high = torch.cat([(high >> shift) & 3 for shift in (0, 2, 4, 6)], -1)
    numbers = (low | (high << 4)).to(torch.int8) - 32
    scales = blocks[..., 192:208].contiguous().view(torch.int8).float() * _halves(blocks, 208).float().unsqueeze(-1)
    parts = {"numbers": numbers.flatten(1), "scales": scales.flatten(1)}
    return StoredRows("Q6_K", parts, _floats(parts))


_FORMATS: dict[str, Callable[[Any], StoredRows]] = {"Q8_0": _q8_0, "Q4_0": _q4_0, "Q4_1": _q4_1, "Q6_K": _q6_k}


def _floats(parts: Parts, *, zeros_last: bool = False) -> Any:
    """What numbers stand for."""
    scales = parts["scales"].float().unsqueeze(-1)
    numbers = parts["numbers"].float().unflatten(1, (scales.shape[1], -1))
    zeros = parts["zeros"].float().unsqueeze(-1) if "zeros" in parts else 0.0
    found = numbers * scales - zeros if zeros_last else (numbers - zeros) * scales
    return found.flatten(1)
