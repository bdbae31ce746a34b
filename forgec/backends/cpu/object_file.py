"""What compilation asks of an ELF object (System V ABI, "Object Files"; 64-bit, little-endian)."""

from __future__ import annotations

import struct

_SECTION_HEADER = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_SYMBOL_TABLE = 2


def undefined_symbols(object_: bytes) -> frozenset[str]:
    """The names that the object uses and does not define.

    Raises:
        ValueError: not a 64-bit little-endian ELF file.
    """
    if object_[:6] != b"\x7fELF\x02\x01":
        raise ValueError("not a 64-bit little-endian ELF object")
    (table,) = struct.unpack_from("<Q", object_, 0x28)
    entry_size, count = struct.unpack_from("<HH", object_, 0x3A)
    headers = [_SECTION_HEADER.unpack_from(object_, table + i * entry_size) for i in range(count)]
    names: set[str] = set()
    for _, kind, _, _, offset, size, link, _, _, _ in headers:
        if kind != _SYMBOL_TABLE:
            continue
        strings = headers[link][4]
        for at in range(offset + _SYMBOL.size, offset + size, _SYMBOL.size):  # the first symbol is none
            name, _, _, section, _, _ = _SYMBOL.unpack_from(object_, at)
            if section == 0 and name:
                start = strings + name
                names.add(object_[start : object_.index(0, start)].decode())
    return frozenset(names)
