"""The machine code of a program's kernels: images, one for each instruction set, and the table that tells them apart.

All images hold the same kernels, which take the same arguments and have the same grids, so that one plan launches any
of them; what differs is the code, and where it begins. An image is position-independent and a whole number of pages.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from forgec.diagnostics import error
from forgec.runtime.driver import ABI, Driver

FOLDER = "kernels/"
KERNEL_TABLE = "kernels/cpu.json"
PAGE_BYTES = 4096
"""An image is padded to whole pages, so that nothing else shares its last one."""
MAX_SLOTS = 4096
MAX_TEXT = 4096
MAX_IMAGES = 16

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}", re.ASCII)
_ISA = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Kernel:
    """``offset`` is that of its first instruction in the image; it takes so many tensors (``parameters``) and extents
    (``symbols``). ``checks`` are the messages of its run-time checks, in the order of the numbers that it returns.

    ``serial``: its programs must run in order, one at a time, because they may write the same elements. Else any thread
    may run any of them at any time. ``cost_ns`` is an estimate of how long one program takes; ``together`` how many
    that follow one another are best run by one thread, because they do once what each would do alone.
    """

    name: str
    offset: int
    parameters: int
    symbols: int
    checks: tuple[str, ...] = ()
    serial: bool = False
    cost_ns: int = 1000
    together: int = 1


@dataclass(frozen=True, slots=True)
class KernelTable:
    """What an image holds. ``isa`` is the instruction set that it was compiled for (``x86-64-v3``), ``features`` are
    LLVM's names of what it needs beyond that (``avx512bf16``). The ``driver`` is what launches go through."""

    isa: str
    kernels: tuple[Kernel, ...] = ()
    features: tuple[str, ...] = ()
    driver: Driver | None = None

    @property
    def image(self) -> str:
        """The name of the image."""
        return image_name(self.isa, self.features)

    def find(self, name: str) -> Kernel | None:
        """The kernel of this name, if there is one."""
        return next((kernel for kernel in self.kernels if kernel.name == name), None)


@dataclass(frozen=True, slots=True)
class FilePlace:
    """Where the bytes of an image stand in a file; ``identity`` is its device and inode."""

    path: str
    identity: tuple[int, int]
    start: int


@dataclass(frozen=True, slots=True)
class NativeCode:
    """Position-independent machine code, and the table of its kernels. ``place``: the same bytes in a file."""

    table: KernelTable
    code: bytes | memoryview = field(repr=False)
    place: FilePlace | None = None


def is_name(text: str) -> bool:
    """True for what may be the name of a kernel."""
    return _NAME.fullmatch(text) is not None


def image_name(isa: str, features: Iterable[str] = ()) -> str:
    """What an image is called: ``x86-64-v4``, ``x86-64-v4+avx512bf16``."""
    return "+".join((isa, *features))


def member_of(table: KernelTable) -> str:
    """The artifact's member with the code of an image."""
    return f"{FOLDER}{table.image}.bin"


def padded(code: bytes) -> bytes:
    """The code in whole pages."""
    return code + bytes(-len(code) % PAGE_BYTES)


def to_json(tables: Sequence[KernelTable]) -> dict[str, Any]:
    """What the images hold as JSON-compatible data, the same for equal tables. ``ValueError`` unless they have the same
    kernels."""
    shared = _shared(tables)
    return {
        "kernels": [
            {
                "name": kernel.name,
                "parameters": kernel.parameters,
                "symbols": kernel.symbols,
                "checks": list(kernel.checks),
                "serial": kernel.serial,
                "cost_ns": kernel.cost_ns,
                "together": kernel.together,
            }
            for kernel in shared
        ],
        "images": [
            {
                "isa": table.isa,
                "features": list(table.features),
                "driver": _driver_data(table.driver),
                "offsets": [kernel.offset for kernel in table.kernels],
            }
            for table in tables
        ],
    }


def _shared(tables: Sequence[KernelTable]) -> tuple[Kernel, ...]:
    (first, *others) = [tuple(replace(kernel, offset=0) for kernel in table.kernels) for table in tables]
    if any(other != first for other in others):
        raise ValueError("the images have different kernels")
    if len({table.image for table in tables}) < len(tables):
        raise ValueError("two images are for one instruction set")
    return first


def from_json(data: object, code_bytes: Mapping[str, int], where: str) -> tuple[KernelTable, ...]:
    """The tables of the images from parsed JSON; ``code_bytes`` are the sizes of the members with code. FORGE-A003 with
    the place when it is none, or when the members are others."""
    try:
        tables = _tables(data)
        members = {member_of(table) for table in tables}
        for name in sorted(members ^ code_bytes.keys()):
            raise ValueError(f"member '{name[:80]}' is missing, or nothing that kernels have")
        for table in tables:
            check_table(table, code_bytes[member_of(table)])
    except ValueError as reason:
        raise error("FORGE-A003", f"the table of kernels of {where} is damaged: {reason}") from None
    return tables


def check_table(table: KernelTable, code_bytes: int) -> None:
    """``ValueError`` unless the names are names, each once, and the offsets are inside the image."""
    seen: set[str] = set()
    driver = table.driver
    if driver is not None:
        if driver.abi != ABI:
            raise ValueError(f"its driver has version {driver.abi}, this runtime has {ABI}")
        if max(driver.run, driver.work, driver.copy) >= code_bytes:
            raise ValueError(f"the driver begins outside of an image of {code_bytes} bytes")
    for kernel in table.kernels:
        if not _NAME.fullmatch(kernel.name):
            raise ValueError(f"{kernel.name[:80]!r} is no name of a kernel")
        if kernel.name in seen:
            raise ValueError(f"kernel '{kernel.name}' occurs twice")
        if kernel.offset >= code_bytes:
            raise ValueError(f"kernel '{kernel.name}' begins at byte {kernel.offset} of an image of {code_bytes}")
        if kernel.parameters + kernel.symbols > MAX_SLOTS:
            raise ValueError(f"kernel '{kernel.name}' takes more than {MAX_SLOTS} arguments")
        seen.add(kernel.name)


def _tables(data: object) -> tuple[KernelTable, ...]:
    fields = _object(data, ("kernels", "images"))
    kernels, images = fields["kernels"], fields["images"]
    if not isinstance(kernels, list) or not isinstance(images, list):
        raise ValueError("kernels and images are lists")
    if not 0 < len(images) <= MAX_IMAGES:
        raise ValueError(f"there are {len(images)} images")
    shared = [_kernel(kernel) for kernel in kernels]
    tables = tuple(_image(image, shared) for image in images)
    _shared(tables)
    return tables


def _image(data: object, kernels: Sequence[Kernel]) -> KernelTable:
    fields = _object(data, ("isa", "features", "driver", "offsets"))
    isa, features, offsets = fields["isa"], fields["features"], fields["offsets"]
    if not isinstance(features, list) or not isinstance(offsets, list):
        raise ValueError("features and offsets are lists")
    if not all(isinstance(name, str) and _ISA.fullmatch(name) for name in (isa, *features)):
        raise ValueError("isa and features are names of instruction sets")
    if len(offsets) != len(kernels) or not all(map(_is_number, offsets)):
        raise ValueError(f"the offsets of {image_name(isa, features)[:80]} are {len(kernels)} numbers")
    placed = tuple(replace(kernel, offset=offset) for kernel, offset in zip(kernels, offsets, strict=True))
    return KernelTable(isa, placed, tuple(features), _driver(fields["driver"]))


def _driver_data(driver: Driver | None) -> dict[str, int] | None:
    return None if driver is None else {"abi": driver.abi, "run": driver.run, "work": driver.work, "copy": driver.copy}


def _driver(data: object) -> Driver:
    version = data.get("abi") if isinstance(data, dict) else None
    if _is_number(version) and version != ABI:  # first: what else there is may be another
        raise ValueError(f"its driver has version {version}, this runtime has {ABI}")
    fields = _object(data, ("abi", "run", "work", "copy"))
    if not all(_is_number(number) for number in fields.values()):
        raise ValueError("abi, run, work and copy of the driver are numbers")
    return Driver(fields["run"], fields["work"], fields["copy"], fields["abi"])


def _kernel(data: object) -> Kernel:
    fields = _object(data, ("name", "parameters", "symbols", "checks", "serial", "cost_ns", "together"))
    name, checks = fields["name"], fields["checks"]
    if not isinstance(name, str):
        raise ValueError("a kernel has a name")
    parameters, symbols = numbers = [fields[key] for key in ("parameters", "symbols")]
    if not all(map(_is_number, numbers)):
        raise ValueError(f"parameters and symbols of kernel '{name[:80]}' are numbers")
    if not isinstance(checks, list) or not all(isinstance(text, str) and len(text) <= MAX_TEXT for text in checks):
        raise ValueError(f"the checks of kernel '{name[:80]}' are texts")
    serial, cost_ns, together = fields["serial"], fields["cost_ns"], fields["together"]
    if type(serial) is not bool:
        raise ValueError(f"serial of kernel '{name[:80]}' is true or false")
    for key, number in (("cost_ns", cost_ns), ("together", together)):
        if not _is_number(number) or number < 1:
            raise ValueError(f"{key} of kernel '{name[:80]}' is a number of at least 1")
    return Kernel(name, 0, parameters, symbols, tuple(checks), serial, cost_ns, together)


def _is_number(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 62


def _object(data: object, names: tuple[str, ...]) -> Mapping[str, Any]:
    if not isinstance(data, dict) or data.keys() != {*names}:
        raise ValueError(f"an object with {', '.join(names)} is expected")
    return data
