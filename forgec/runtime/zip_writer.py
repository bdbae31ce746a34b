"""Writes the members of a zip file one after the other, streaming."""

from __future__ import annotations

import hashlib
import zlib

from forgec.diagnostics import error
from forgec.runtime.manifest import MemberRecord
from forgec.runtime.replacing_file import Bytes, ReplacingFile
from forgec.runtime.zip_layout import (
    DEFLATED,
    STORED,
    Member,
    central_header,
    end_records,
    local_header,
    local_header_bytes,
    safe_name,
)


class ZipWriter:
    """Members in the order of the calls, then ``close``."""

    def __init__(self, file: ReplacingFile) -> None:
        self._file = file
        self._members: list[Member] = []
        self._position = 0
        self._crc = 0
        self._written = 0

    def begin(self, name: str, nbytes: int, method: int = STORED, stored_bytes: int | None = None) -> None:
        """Starts a member of known size; its data come with ``write``."""
        if not safe_name(name):
            raise error("FORGE-U005", f"'{name}' is no name for a member of an artifact")
        stored_bytes = nbytes if stored_bytes is None else stored_bytes
        self._members.append(Member(name, method, 0, nbytes, stored_bytes, self._position))
        self._file.write(bytes(local_header_bytes(name, nbytes, stored_bytes, self._position)))
        self._crc = self._written = 0

    def write(self, content: Bytes) -> None:
        """More data of a stored member."""
        self._crc = zlib.crc32(content, self._crc)
        self._append(content)

    def _append(self, content: Bytes) -> None:
        self._file.write(content)
        self._written += len(content)

    def finish(self) -> None:
        """Ends the member: its header, which holds the CRC, is filled in."""
        begun = self._members.pop()
        if self._written != begun.stored_bytes:
            raise error("FORGE-X001", f"member '{begun.name}' has {self._written} bytes, not {begun.stored_bytes}")
        member = Member(begun.name, begun.method, self._crc, begun.nbytes, begun.stored_bytes, begun.header)
        self._file.overwrite(member.header, local_header(member))
        self._members.append(member)
        self._position = member.end

    def stored(self, name: str, content: bytes) -> MemberRecord:
        """A whole member, uncompressed."""
        self.begin(name, len(content))
        self.write(content)
        self.finish()
        return MemberRecord(len(content), hashlib.sha256(content).hexdigest())

    def deflated(self, name: str, content: bytes) -> MemberRecord:
        """A whole member, deflated."""
        compressor = zlib.compressobj(6, zlib.DEFLATED, -15)
        packed = compressor.compress(content) + compressor.flush()
        self.begin(name, len(content), DEFLATED, len(packed))
        self._append(packed)
        self._crc = zlib.crc32(content)
        self.finish()
        return MemberRecord(len(content), hashlib.sha256(content).hexdigest(), hashlib.sha256(packed).hexdigest())

    def close(self) -> None:
        """Writes the central directory."""
        directory = b"".join(map(central_header, self._members))
        self._file.write(directory + end_records(len(self._members), len(directory), self._position))
