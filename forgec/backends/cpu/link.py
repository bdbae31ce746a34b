"""ELF objects → one flat image: position-independent machine code with its constants, and where its functions begin.

The image is read-only, starts at a page, and runs at any address without a loader: all that refers to another place is
relative. So what LLVM emits for kernels with ``reloc=pic, codemodel=small`` can be linked: calls (``PLT32``), constants
and jump tables (``PC32``), and addresses of functions, which it reads from a table of addresses (``GOTPCRELX``) and
which become computations of the address (x86-64 psABI, B.2 "Optimize GOTPCRELX Relocations"). A table of absolute
addresses cannot; neither can variables. Tables for unwinding are left out: kernels raise nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NoReturn

from forgec.backends.cpu import elf, memory_functions
from forgec.backends.cpu.elf import ElfError, ObjectFile, Relocation, Section, Symbol
from forgec.diagnostics import error
from forgec.runtime.kernel_table import PAGE_BYTES

CODE_ALIGNMENT = 64
"""Of every object's code, and of where the constants begin: no cache line holds both."""
LIMIT = 1 << 31
"""Bytes that a relative address of 32 bits reaches."""

_PC32, _PLT32, _PC64, _GOTPCRELX, _REX_GOTPCRELX, _NONE = 2, 4, 24, 41, 42, 0
_RELAXED = (_GOTPCRELX, _REX_GOTPCRELX)
_NAMES = {
    1: "R_X86_64_64",
    3: "R_X86_64_GOT32",
    9: "R_X86_64_GOTPCREL",
    10: "R_X86_64_32",
    11: "R_X86_64_32S",
    19: "R_X86_64_TLSGD",
    22: "R_X86_64_GOTTPOFF",
    23: "R_X86_64_TPOFF32",
    25: "R_X86_64_GOTOFF64",
    26: "R_X86_64_GOTPC32",
    _GOTPCRELX: "R_X86_64_GOTPCRELX",
    _REX_GOTPCRELX: "R_X86_64_REX_GOTPCRELX",
}


@dataclass(frozen=True, slots=True)
class FlatImage:
    """``code`` is whole pages of machine code and constants; ``functions`` are the offsets of the global functions."""

    code: bytes = field(repr=False)
    functions: Mapping[str, int]


def link(objects: Mapping[str, bytes]) -> FlatImage:
    """Links objects, by a name for messages (their kernel's), in this order. The bytes are a function of the objects.

    A function that several define weakly (``linkonce_odr``) is the first one's. FORGE-B004 for an undefined symbol,
    one that is defined twice, a relocation or a section that no flat image can hold, and what is no x86-64 object.
    """
    files = {name: _parsed(name, content) for name, content in objects.items()}
    defined = {name for file in files.values() for name in file.defined}
    wanted = {name for file in files.values() for name in file.undefined}
    if not wanted & {*memory_functions.NAMES} <= defined:
        files[""] = _parsed("", memory_functions.object_code())
    return _Linker(files).run()


def _parsed(name: str, content: bytes) -> ObjectFile:
    try:
        return ObjectFile(content)
    except ElfError as reason:
        raise error("FORGE-B004", f"the object of kernel '{name}' cannot be linked: {reason}") from None


class _Linker:
    def __init__(self, files: Mapping[str, ObjectFile]) -> None:
        self.files = files
        self.image = bytearray()
        self.places: dict[tuple[str, int], int] = {}
        self.globals: dict[str, tuple[str, Symbol]] = {}

    def run(self) -> FlatImage:
        for code in (True, False):
            self.image += bytes(-len(self.image) % CODE_ALIGNMENT)
            for name, file in self.files.items():
                for section in file.sections:
                    if bool(section.flags & elf.EXECUTE) == code and self.is_kept(name, section):
                        self.place(name, section)
        for name, file in self.files.items():
            self.define(name, file)
        for name, file in self.files.items():
            try:
                for section, relocations in file.relocations():
                    for relocation in relocations if (name, section.index) in self.places else ():
                        self.relocate(name, section, relocation)
            except ElfError as reason:
                raise error("FORGE-B004", f"the object of kernel '{name}' cannot be linked: {reason}") from None
        self.image += bytes(-len(self.image) % PAGE_BYTES)
        functions = {
            name: self.places[file, symbol.section] + symbol.value
            for name, (file, symbol) in self.globals.items()
            if symbol.type == elf.FUNCTION and symbol.visibility == elf.DEFAULT
        }
        return FlatImage(bytes(self.image), dict(sorted(functions.items())))

    def is_kept(self, name: str, section: Section) -> bool:
        """Whether a section belongs into the image. FORGE-B004 when it should but cannot."""
        unwinding = section.type == elf.X86_64_UNWIND or section.name == ".eh_frame"
        if not section.flags & elf.ALLOC or not section.nbytes or unwinding:
            return False
        if section.flags & elf.TLS or section.type not in (elf.PROGBITS, elf.NOBITS):
            self.refuse(name, f"section {section.name} needs a loader")
        if section.flags & elf.WRITE and not section.name.startswith(".data.rel.ro"):
            self.refuse(name, f"section {section.name} is writable, and an image is not")
        if section.nbytes >= LIMIT:
            self.refuse(name, f"section {section.name} is larger than 2 GiB")
        if section.alignment > PAGE_BYTES:
            self.refuse(name, f"section {section.name} is aligned to {section.alignment} bytes, more than a page")
        return True

    def place(self, name: str, section: Section) -> None:
        alignment = max(section.alignment, CODE_ALIGNMENT if section.flags & elf.EXECUTE else 1)
        self.image += bytes(-len(self.image) % alignment)
        self.places[name, section.index] = len(self.image)
        self.image += section.content or bytes(section.nbytes)

    def define(self, name: str, file: ObjectFile) -> None:
        """The symbols that other objects may name. A weak one gives way to one that is not, and to earlier ones."""
        for symbol in file.symbols:
            if symbol.binding == elf.LOCAL or symbol.section == elf.UNDEFINED:
                continue
            if (name, symbol.section) not in self.places:
                self.refuse(name, f"'{symbol.name}' is defined outside of code and constants")
            known = self.globals.get(symbol.name)
            if known is None or (known[1].binding == elf.WEAK != symbol.binding):
                self.globals[symbol.name] = (name, symbol)
            elif symbol.binding != elf.WEAK:
                self.refuse(name, f"'{symbol.name}' is also defined by kernel '{known[0]}'")

    def relocate(self, name: str, section: Section, relocation: Relocation) -> None:
        if relocation.type == _NONE:
            return
        width, before = (8 if relocation.type == _PC64 else 4), (2 if relocation.type in _RELAXED else 0)
        if not before <= relocation.offset <= section.nbytes - width:
            self.refuse(name, f"a relocation is outside of section {section.name}")
        at = self.places[name, section.index] + relocation.offset
        value = self.address(name, section, relocation) + relocation.addend
        if relocation.type in (_PC32, _PLT32):
            self.write32(name, at, value - at)
        elif relocation.type == _PC64:
            struct.pack_into("<q", self.image, at, value - at)
        elif relocation.type in _RELAXED and relocation.addend == -4:
            self.relax(name, at, value, relocation)
        else:
            self.unsupported(name, section, relocation)

    def relax(self, name: str, at: int, value: int, relocation: Relocation) -> None:
        """An instruction that reads an address from a table becomes one that computes it, or that goes there."""
        opcode, mode = self.image[at - 2], self.image[at - 1]
        if opcode == 0x8B:  # mov symbol@GOTPCREL(%rip), %reg → lea symbol(%rip), %reg
            self.image[at - 2] = 0x8D
        elif (opcode, mode) == (0xFF, 0x15):  # call *symbol@GOTPCREL(%rip) → addr32 call symbol
            self.image[at - 2 : at] = b"\x67\xe8"
        elif (opcode, mode) == (0xFF, 0x25):  # jmp *symbol@GOTPCREL(%rip) → jmp symbol; nop
            self.image[at - 2] = 0xE9
            self.image[at + 3] = 0x90
            at -= 1
        else:
            kind, target = _NAMES[relocation.type], relocation.symbol.name
            self.refuse(name, f"{kind} against '{target}' in an instruction (opcode {opcode:#x}) that needs a table")
        self.write32(name, at, value - at)

    def write32(self, name: str, at: int, value: int) -> None:
        if not -LIMIT <= value < LIMIT:
            self.refuse(name, "the image is larger than 2 GiB")
        struct.pack_into("<i", self.image, at, value)

    def address(self, name: str, section: Section, relocation: Relocation) -> int:
        """Where the symbol of a relocation is in the image."""
        symbol = relocation.symbol
        if symbol.binding != elf.LOCAL:
            found = self.globals.get(symbol.name)
            if found is None:
                user = self.files[name].function_at(section.index, relocation.offset) or name
                raise error("FORGE-B004", f"kernel '{user}' refers to '{symbol.name}', which no kernel defines")
            name, symbol = found
        start = self.places.get((name, symbol.section))
        if start is None:
            self.unsupported(name, section, relocation)
        return start + symbol.value

    def unsupported(self, name: str, section: Section, relocation: Relocation) -> NoReturn:
        kind = _NAMES.get(relocation.type, f"relocation type {relocation.type}")
        user = self.files[name].function_at(section.index, relocation.offset) or name
        self.refuse(user, f"{kind} against '{relocation.symbol.name}' in section {section.name}")

    def refuse(self, name: str, reason: str) -> NoReturn:
        raise error("FORGE-B004", f"the object of kernel '{name}' cannot be linked: {reason}")
