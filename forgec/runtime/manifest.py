"""``manifest.json``: what an artifact is, where it comes from, and the size and hash of every other member."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from forgec.diagnostics import ForgeError, error
from forgec.runtime.artifact_format import FORMAT_VERSION

if TYPE_CHECKING:
    from forgec.runtime.plan import Plan

MANIFEST, PLAN, REPORT, WEIGHTS = "manifest.json", "plan.json", "report.json", "weights.safetensors"
MAX_MANIFEST_BYTES = 64 << 20

_SHA = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class MemberRecord:
    """``nbytes`` and ``sha256`` are of the content; ``stored_sha256`` is of the bytes in the file, for deflated
    members."""

    nbytes: int
    sha256: str
    stored_sha256: str | None = None


@dataclass(frozen=True, slots=True)
class WeightsRecord:
    """``file`` is the name of a separate file beside the artifact, None when the weights are a member.

    ``header_sha256`` covers the safetensors header, which every load checks; ``sha256`` all bytes. ``aliases`` maps
    names that the plan uses to the names under which the same tensor is stored.
    """

    nbytes: int
    sha256: str
    header_sha256: str
    file: str | None = None
    aliases: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Manifest:
    """``data`` is the whole manifest as parsed JSON."""

    members: Mapping[str, MemberRecord]
    weights: WeightsRecord
    data: Mapping[str, Any]


def build(
    plan: Plan,
    members: Mapping[str, MemberRecord],
    weights: WeightsRecord,
    *,
    producer: Mapping[str, str],
    target: str,
    pipeline: str,
    precision: str = "float32",
) -> dict[str, Any]:
    """The manifest as JSON-compatible data."""
    return {
        "format": "forge",
        "format_version": FORMAT_VERSION,
        "producer": dict(sorted(producer.items())),
        "target": target,
        "pipeline": pipeline,
        "precision": precision,
        "entries": [_describe_entry(plan, index) for index, entry in enumerate(plan.entries) if not entry.private],
        "members": {name: _encode_member(record) for name, record in sorted(members.items())},
        "weights": {
            "bytes": weights.nbytes,
            "sha256": weights.sha256,
            "header_sha256": weights.header_sha256,
            "file": weights.file,
            "aliases": dict(sorted(weights.aliases.items())),
        },
    }


def _describe_entry(plan: Plan, index: int) -> dict[str, Any]:
    from forgec.runtime.signature import Signature

    entry = plan.entries[index]
    signature = Signature(entry, plan.symbols)
    return {
        "name": entry.name,
        "call": signature.describe(),
        "inputs": [
            {"name": name, "value": signature.describe_leaf(leaf)}
            for name, leaf in zip(signature.leaf_names, entry.inputs, strict=True)
        ],
        "outputs": [signature.describe_leaf(leaf) for leaf in entry.outputs],
    }


def _encode_member(record: MemberRecord) -> dict[str, Any]:
    result: dict[str, Any] = {"bytes": record.nbytes, "sha256": record.sha256}
    if record.stored_sha256 is not None:
        result["stored_sha256"] = record.stored_sha256
    return result


def read(data: object, path: str) -> Manifest:
    """The manifest from parsed JSON. FORGE-A001 when it is none, FORGE-A002 for another format version, FORGE-A003
    when damaged."""
    if not isinstance(data, dict) or data.get("format") != "forge":
        raise error("FORGE-A001", f"'{path}' has no forge manifest")
    version = data.get("format_version")
    if version != FORMAT_VERSION:
        shown = version if type(version) is int else "unknown"
        producer = data.get("producer")
        by = f", written by forgec {producer.get('forgec', '?')!s:.40}" if isinstance(producer, dict) else ""
        raise error(
            "FORGE-A002", f"'{path}' has format version {shown}{by}; this runtime reads version {FORMAT_VERSION}"
        )
    members, weights = data.get("members"), data.get("weights")
    if not isinstance(members, dict) or not isinstance(weights, dict):
        raise _damaged(path, "members")
    records = {name: _read_member(record, path, name) for name, record in members.items()}
    return Manifest(records, _read_weights(weights, path), data)


def _damaged(path: str, where: str) -> ForgeError:
    return error("FORGE-A003", f"the manifest of '{path}' is damaged: {where[:80]}")


def _read_member(record: object, path: str, name: str) -> MemberRecord:
    if not isinstance(record, dict) or not {"bytes", "sha256"} <= record.keys() <= {"bytes", "sha256", "stored_sha256"}:
        raise _damaged(path, name)
    stored = record.get("stored_sha256")
    if not _is_size(record["bytes"]) or not _is_hash(record["sha256"]) or not (stored is None or _is_hash(stored)):
        raise _damaged(path, name)
    return MemberRecord(record["bytes"], record["sha256"], stored)


def _read_weights(record: dict[str, Any], path: str) -> WeightsRecord:
    if record.keys() != {"bytes", "sha256", "header_sha256", "file", "aliases"}:
        raise _damaged(path, "weights")
    file, aliases = record["file"], record["aliases"]
    plain = file is None or (isinstance(file, str) and 0 < len(file) <= 255 and file not in (".", ".."))
    if not plain or (file and (set(file) & set("/\\\0") or not file.isprintable())):
        raise _damaged(path, "weights.file has to be a plain file name")
    if not isinstance(aliases, dict) or not all(isinstance(target, str) for target in aliases.values()):
        raise _damaged(path, "weights.aliases")
    if not _is_size(record["bytes"]) or not _is_hash(record["sha256"]) or not _is_hash(record["header_sha256"]):
        raise _damaged(path, "weights")
    return WeightsRecord(record["bytes"], record["sha256"], record["header_sha256"], file, aliases)


def _is_size(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 62


def _is_hash(value: object) -> bool:
    return isinstance(value, str) and _SHA.fullmatch(value) is not None
