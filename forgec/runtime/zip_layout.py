"""The bytes of a zip file as forgec writes it, and nothing else: one way to write each member, so that a reader can
compare.

Members are stored or deflated, without encryption, comments, data descriptors or gaps. Their data start at multiples
of 64 bytes, those of machine code at pages, through an extra field (0xD935, the one of Android's zipalign). Every
header is a function of name, method, sizes, CRC and offset, so a reader checks a header by writing it again: no byte
of it can differ unnoticed. Any zip tool can read such a file. Format: PKWARE APPNOTE 6.3.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

STORED, DEFLATED = 0, 8
ALIGNMENT, PAGE_ALIGNMENT = 64, 4096
_CODE = re.compile(r"kernels/[^/]+\.bin")
MAX_MEMBERS = 4096
MAX_NAME = 256

_LOCAL = struct.Struct("<IHHHHHIIIHH")
_CENTRAL = struct.Struct("<IHHHHHHIIIHHHHHII")
_END = struct.Struct("<IHHHHIIH")
_END64 = struct.Struct("<IQHHIIQQQQ")
_LOCATOR = struct.Struct("<IIQI")
_LOCAL_SIGNATURE, _CENTRAL_SIGNATURE, _END_SIGNATURE = 0x04034B50, 0x02014B50, 0x06054B50
_END64_SIGNATURE, _LOCATOR_SIGNATURE = 0x06064B50, 0x07064B50
_ALIGN_ID, _ZIP64_ID = 0xD935, 0x0001
_VERSION, _VERSION64 = 20, 45
_UTF8 = 0x800
_DATE = (1 << 5) | 1  # 1980-01-01, the first date that zip knows; no clock enters the file
_MODE = 0o644 << 16

LIMIT32 = 0xFFFFFFFF
"""Sizes and offsets from here on need the zip64 fields (tests lower it)."""


@dataclass(frozen=True, slots=True)
class Member:
    """``nbytes`` are those of the content, ``stored_bytes`` those in the file; ``header`` and ``start`` are offsets
    in the file."""

    name: str
    method: int
    crc: int
    nbytes: int
    stored_bytes: int
    header: int

    @property
    def start(self) -> int:
        """Offset of the data."""
        return self.header + local_header_bytes(self.name, self.nbytes, self.stored_bytes, self.header)

    @property
    def end(self) -> int:
        return self.start + self.stored_bytes


class LayoutError(ValueError):
    """The bytes are not such a zip file."""


def is_large(nbytes: int, stored_bytes: int) -> bool:
    return max(nbytes, stored_bytes) >= LIMIT32


def alignment_of(name: str) -> int:
    """What the offset of a member's data is a multiple of: machine code is mapped from the file, page by page."""
    return PAGE_ALIGNMENT if _CODE.fullmatch(name) else ALIGNMENT


def local_header_bytes(name: str, nbytes: int, stored_bytes: int, header: int) -> int:
    """Size of the local header, padding included, so that the data start aligned."""
    fixed = _LOCAL.size + len(name.encode()) + (20 if is_large(nbytes, stored_bytes) else 0) + 6
    return fixed + -(header + fixed) % alignment_of(name)


def local_header(member: Member) -> bytes:
    """The local header with its padding."""
    name = member.name.encode()
    large = is_large(member.nbytes, member.stored_bytes)
    extra = struct.pack("<HHQQ", _ZIP64_ID, 16, member.nbytes, member.stored_bytes) if large else b""
    total = local_header_bytes(member.name, member.nbytes, member.stored_bytes, member.header)
    padding = total - _LOCAL.size - len(name) - len(extra) - 4
    extra += struct.pack("<HHH", _ALIGN_ID, padding, alignment_of(member.name)) + bytes(padding - 2)
    sizes = (0xFFFFFFFF, 0xFFFFFFFF) if large else (member.stored_bytes, member.nbytes)
    version = _VERSION64 if large else _VERSION
    fields = (_LOCAL_SIGNATURE, version, _UTF8, member.method, 0, _DATE, member.crc, *sizes, len(name), len(extra))
    return _LOCAL.pack(*fields) + name + extra


def central_header(member: Member) -> bytes:
    """The member's entry in the central directory."""
    name = member.name.encode()
    large = is_large(member.nbytes, member.stored_bytes)
    far = member.header >= LIMIT32
    values = [member.nbytes, member.stored_bytes] if large else []
    values += [member.header] if far else []
    extra = struct.pack(f"<HH{len(values)}Q", _ZIP64_ID, 8 * len(values), *values) if values else b""
    sizes = (0xFFFFFFFF, 0xFFFFFFFF) if large else (member.stored_bytes, member.nbytes)
    version = _VERSION64 if large or far else _VERSION
    return (
        _CENTRAL.pack(
            _CENTRAL_SIGNATURE,
            (3 << 8) | version,
            version,
            _UTF8,
            member.method,
            0,
            _DATE,
            member.crc,
            *sizes,
            len(name),
            len(extra),
            0,
            0,
            0,
            _MODE,
            0xFFFFFFFF if far else member.header,
        )
        + name
        + extra
    )


def end_records(count: int, directory_bytes: int, directory: int) -> bytes:
    """What follows the central directory of ``count`` entries at offset ``directory``."""
    if directory < LIMIT32:
        return _END.pack(_END_SIGNATURE, 0, 0, count, count, directory_bytes, directory, 0)
    at = directory + directory_bytes
    return (
        _END64.pack(
            _END64_SIGNATURE,
            _END64.size - 12,
            (3 << 8) | _VERSION64,
            _VERSION64,
            0,
            0,
            count,
            count,
            directory_bytes,
            directory,
        )
        + _LOCATOR.pack(_LOCATOR_SIGNATURE, 0, at, 1)
        + _END.pack(_END_SIGNATURE, 0, 0, count, count, min(directory_bytes, 0xFFFFFFFF), 0xFFFFFFFF, 0)
    )


def read_members(file: memoryview) -> tuple[Member, ...]:
    """The members of a whole file in order. ``LayoutError`` unless every byte outside their data is as it has to be."""
    directory, count = _find_directory(file)
    members: list[Member] = []
    position = directory
    for _ in range(count):
        member = _read_central(file, position)
        position += len(central_header(member))
        members.append(member)
    expected = b"".join(map(central_header, members))
    expected += end_records(count, len(expected), directory)
    if bytes(file[directory:]) != expected:
        raise LayoutError("the central directory is damaged")
    names = [member.name for member in members]
    if len(set(names)) < count:
        raise LayoutError("two members have the same name")
    end = 0
    for member in members:
        if member.header != end:
            raise LayoutError(f"member '{member.name}' overlaps another one, or does not follow it")
        if member.end > directory:
            raise LayoutError(f"member '{member.name}' ends outside the file")
        if bytes(file[member.header : member.start]) != local_header(member):
            raise LayoutError(f"the header of member '{member.name}' is damaged")
        end = member.end
    if end != directory:
        raise LayoutError("there are bytes between the last member and the central directory")
    return tuple(members)


def _find_directory(file: memoryview) -> tuple[int, int]:
    """Offset of the central directory and the number of its entries, from the records at the end."""
    if len(file) < _END.size or bytes(file[:4]) != b"PK\x03\x04":
        raise LayoutError("not a zip file")
    end = len(file) - _END.size
    signature, _, _, _, count, _, directory, _ = _END.unpack(file[end:])
    if signature != _END_SIGNATURE:
        raise LayoutError("the end of the file is missing")
    if directory == 0xFFFFFFFF or (end >= _LOCATOR.size and file[end - _LOCATOR.size : end][:4] == b"PK\x06\x07"):
        at = end - _LOCATOR.size - _END64.size
        if at < 0:
            raise LayoutError("the end of the file is damaged")
        signature, _, _, _, _, _, _, count, _, directory = _END64.unpack(file[at : at + _END64.size])
        if signature != _END64_SIGNATURE:
            raise LayoutError("the end of the file is damaged")
    if not 0 < count <= MAX_MEMBERS or directory >= end:
        raise LayoutError("the end of the file is damaged")
    return directory, count


def _read_central(file: memoryview, position: int) -> Member:
    header = bytes(file[position : position + _CENTRAL.size])
    if len(header) < _CENTRAL.size or header[:4] != b"PK\x01\x02":
        raise LayoutError("the central directory is damaged")
    fields = _CENTRAL.unpack(header)
    method, crc, stored_bytes, nbytes, name_bytes, extra_bytes, at = fields[4], *fields[7:12], fields[16]
    if name_bytes > MAX_NAME or extra_bytes > 64:
        raise LayoutError("the central directory is damaged")
    start = position + _CENTRAL.size
    try:
        name = bytes(file[start : start + name_bytes]).decode()
    except UnicodeDecodeError:
        raise LayoutError("a member's name is damaged") from None
    extra = bytes(file[start + name_bytes : start + name_bytes + extra_bytes])
    if extra:
        wanted = (2 if nbytes == 0xFFFFFFFF else 0) + (1 if at == 0xFFFFFFFF else 0)
        if len(extra) != 4 + 8 * wanted:
            raise LayoutError("the central directory is damaged")
        values = struct.unpack(f"<{wanted}Q", extra[4:])
        if nbytes == 0xFFFFFFFF:
            nbytes, stored_bytes = values[:2]
        if at == 0xFFFFFFFF:
            at = values[-1]
    if method not in (STORED, DEFLATED) or (method == STORED and nbytes != stored_bytes) or not safe_name(name):
        raise LayoutError(f"member '{name[:80]}' is not allowed in an artifact")
    if max(nbytes, stored_bytes, at) >= 1 << 62:
        raise LayoutError("the central directory is damaged")
    return Member(name, method, crc, nbytes, stored_bytes, at)


def safe_name(name: str) -> bool:
    """Relative, with forward slashes, without empty, ``.`` or ``..`` parts, printable ASCII: safe to extract
    anywhere."""
    printable = name.isascii() and name.isprintable() and not set(name) & set('\\:*?"<>|')
    return 0 < len(name) <= MAX_NAME and printable and all(part not in ("", ".", "..") for part in name.split("/"))
