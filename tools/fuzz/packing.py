"""Artifacts taken apart and put together again, with hashes and sizes that are right for whatever was changed."""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from forgec.runtime.manifest import MANIFEST, WEIGHTS
from forgec.runtime.strict_json import print_json
from forgec.runtime.zip_layout import DEFLATED, Member, central_header, end_records, local_header, read_members


@dataclass(frozen=True)
class Part:
    """A member: its bytes as stored, and the size of its content when it is deflated."""

    stored: bytes
    inflated: int | None = None


def take_apart(content: bytes) -> dict[str, Part]:
    """The members of a sound artifact in order."""
    return {
        member.name: Part(content[member.start : member.end], member.nbytes if member.method == DEFLATED else None)
        for member in read_members(memoryview(content))
    }


def put_together(parts: list[tuple[str, Part]], alter: Callable[[Member], Member] = lambda member: member) -> bytes:
    """A zip file in forgec's layout. ``alter`` changes what the headers say about a member."""
    body = bytearray()
    members: list[Member] = []
    for name, part in parts:
        size = len(part.stored) if part.inflated is None else part.inflated
        method = 0 if part.inflated is None else DEFLATED
        member = Member(name, method, _crc(part), size, len(part.stored), len(body))
        altered = alter(member)
        body += local_header(altered if altered.header == member.header else member) + part.stored
        members.append(altered)
    directory = b"".join(map(central_header, members))
    return bytes(body) + directory + end_records(len(members), len(directory), len(body))


def _crc(part: Part) -> int:
    if part.inflated is None:
        return zlib.crc32(part.stored)
    try:
        return zlib.crc32(zlib.decompressobj(-15).decompress(part.stored, part.inflated + 1))
    except zlib.error:
        return 0


def consistent(parts: Mapping[str, Part], manifest: dict[str, Any]) -> list[tuple[str, Part]]:
    """The members with the manifest last, in which every size and hash has been computed anew."""
    described = manifest.get("members")
    for name, record in described.items() if isinstance(described, dict) else ():
        if name not in parts or not isinstance(record, dict):
            continue
        part = parts[name]
        digest = hashlib.sha256(part.stored).hexdigest()
        record["bytes"] = len(part.stored) if part.inflated is None else part.inflated
        record["sha256" if part.inflated is None else "stored_sha256"] = digest
    weights = manifest.get("weights")
    if WEIGHTS in parts and isinstance(weights, dict):
        stored = parts[WEIGHTS].stored
        head = stored[: 8 + header_bytes(stored)]
        weights["bytes"] = len(stored)
        weights["sha256"] = hashlib.sha256(stored).hexdigest()
        weights["header_sha256"] = hashlib.sha256(head).hexdigest()
    rest = [(name, part) for name, part in parts.items() if name != MANIFEST]
    return [*rest, (MANIFEST, Part(print_json(manifest)))]


def header_bytes(weights: bytes) -> int:
    """The length of the JSON header of a safetensors file, as the file has it, but not more than there is."""
    return min(struct.unpack("<Q", weights[:8].ljust(8, b"\0"))[0], max(len(weights) - 8, 0))


def split_weights(weights: bytes) -> tuple[dict[str, Any], bytes]:
    """The header as data, and the tensors' bytes."""
    length = header_bytes(weights)
    return json.loads(weights[8 : 8 + length]), weights[8 + length :]


def join_weights(header: Any, data: bytes, length: int | None = None) -> bytes:
    """A safetensors file; ``length`` is what its first field says, by default the truth."""
    text = json.dumps(header).encode()
    text += b" " * (-(len(text) + 8) % 64)
    return struct.pack("<Q", len(text) if length is None else length) + text + data
