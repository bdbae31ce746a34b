"""ELF relocatable objects for x86-64, as far as LLVM's output for kernels needs: sections, symbols, relocations.

Sources: System V ABI (gABI) chapter 4, "Object Files"; x86-64 psABI chapter 4.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

WRITE, ALLOC, EXECUTE, TLS = 0x1, 0x2, 0x4, 0x400
"""Flags of sections (SHF_…)."""
PROGBITS, SYMTAB, RELA, NOBITS, REL, X86_64_UNWIND = 1, 2, 4, 8, 9, 0x70000001
"""Types of sections (SHT_…)."""
UNDEFINED, RESERVED = 0, 0xFF00
"""Section numbers of symbols: not defined here; from RESERVED on no section (absolute, common)."""
LOCAL, WEAK = 0, 2
"""Binding of symbols; what is neither is global."""
FUNCTION, SECTION = 2, 3
"""Types of symbols."""
DEFAULT = 0
"""The visibility of symbols that others may name."""

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_RELA = struct.Struct("<QQq")
_RELOCATABLE, _X86_64 = 1, 62


@dataclass(frozen=True, slots=True)
class Section:
    """``index`` is its number; ``target`` and ``link`` those of other sections, by type."""

    index: int
    name: str
    type: int
    flags: int
    content: bytes
    nbytes: int
    alignment: int
    link: int
    target: int


@dataclass(frozen=True, slots=True)
class Symbol:
    """``value`` is an offset in section ``section``."""

    name: str
    binding: int
    type: int
    visibility: int
    section: int
    value: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Relocation:
    """At ``offset`` of a section: the value of ``symbol`` plus ``addend``, in the way that ``type`` says."""

    offset: int
    type: int
    symbol: Symbol
    addend: int


class ElfError(ValueError):
    """The bytes are no such object."""


class ObjectFile:
    """A parsed object. ``ElfError`` when it is none for x86-64."""

    def __init__(self, content: bytes) -> None:
        try:
            self.sections = _sections(content)
            table = [section for section in self.sections if section.type == SYMTAB]
            self.symbols = _symbols(table[0], self.sections) if table else []
        except ElfError:
            raise
        except (struct.error, IndexError, OverflowError, ValueError) as reason:
            raise ElfError(f"it is damaged: {reason}") from None

    @property
    def defined(self) -> frozenset[str]:
        """The names of its symbols that it defines."""
        return frozenset(symbol.name for symbol in self.symbols if symbol.section != UNDEFINED)

    @property
    def undefined(self) -> frozenset[str]:
        """The names that it uses and does not define."""
        return frozenset(symbol.name for symbol in self.symbols if symbol.section == UNDEFINED and symbol.name)

    def relocations(self) -> Iterator[tuple[Section, list[Relocation]]]:
        """The sections that have relocations, with them."""
        for section in self.sections:
            if section.type == REL:
                raise ElfError(f"section {section.name} has relocations without addends")
            if section.type != RELA:
                continue
            entries: list[Relocation] = []
            try:
                for offset, info, addend in _RELA.iter_unpack(section.content):
                    entries.append(Relocation(offset, info & 0xFFFFFFFF, self.symbols[info >> 32], addend))
                target = self.sections[section.target]
            except (struct.error, IndexError):
                raise ElfError(f"section {section.name} is damaged") from None
            yield target, entries

    def function_at(self, section: int, offset: int) -> str | None:
        """The name of the function that an offset in a section belongs to."""
        for symbol in self.symbols:
            inside = symbol.value <= offset < symbol.value + symbol.nbytes
            if symbol.type == FUNCTION and symbol.section == section and inside:
                return symbol.name
        return None


def _sections(content: bytes) -> list[Section]:
    fields = _HEADER.unpack_from(content)
    identity, kind, machine, table, width, count, names = fields[0], *fields[1:3], fields[6], *fields[11:14]
    if identity[:6] != b"\x7fELF\x02\x01":
        raise ElfError("it is no 64-bit little-endian ELF file")
    if kind != _RELOCATABLE or machine != _X86_64:
        raise ElfError(f"it is no relocatable object for x86-64 (type {kind}, machine {machine})")
    if width != _SECTION.size or not 0 < count < RESERVED:
        raise ElfError("its table of sections is damaged")
    headers = [_SECTION.unpack_from(content, table + number * width) for number in range(count)]
    strings = content[headers[names][4] : headers[names][4] + headers[names][5]]
    found: list[Section] = []
    for number, (name, type, flags, _, start, nbytes, link, target, alignment, _) in enumerate(headers):
        body = b"" if type in (0, NOBITS) else content[start : start + nbytes]
        if type not in (0, NOBITS) and len(body) != nbytes:
            raise ElfError("a section ends outside the file")
        found.append(Section(number, _text(strings, name), type, flags, body, nbytes, alignment or 1, link, target))
    return found


def _symbols(table: Section, sections: list[Section]) -> list[Symbol]:
    strings = sections[table.link].content
    found: list[Symbol] = []
    for name, info, other, section, value, nbytes in _SYMBOL.iter_unpack(table.content):
        text = _text(strings, name)
        if info & 0xF == SECTION and not text:
            text = sections[section].name
        found.append(Symbol(text, info >> 4, info & 0xF, other & 3, section, value, nbytes))
    return found


def _text(strings: bytes, start: int) -> str:
    return strings[start : strings.index(b"\0", start)].decode() if start < len(strings) else ""
