"""Reading an artifact: the file is mapped once, checked, and read as it is used."""

from __future__ import annotations

import hashlib
import mmap
import os
import zlib
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from forgec.diagnostics import ForgeError, error
from forgec.runtime import kernel_table as kernel_tables
from forgec.runtime import manifest as manifests
from forgec.runtime.kernel_table import FOLDER, KERNEL_TABLE, FilePlace, NativeCode
from forgec.runtime.manifest import MANIFEST, PLAN, REPORT, WEIGHTS, Manifest
from forgec.runtime.plan_outline import Outline, outline
from forgec.runtime.refusals import refuse_path
from forgec.runtime.strict_json import StrictJsonError, parse_json
from forgec.runtime.weights import MappedWeights
from forgec.runtime.zip_layout import DEFLATED, LayoutError, Member, read_members

if TYPE_CHECKING:
    from forgec.runtime.plan import Plan

Verify: TypeAlias = Literal["fast", "full"]


def open_artifact(
    path: str | os.PathLike[str], *, verify: Verify = "fast", weights: str | os.PathLike[str] | None = None
) -> Artifact:
    """Maps the file and checks its layout, its manifest and the hash of every member; of the weights only the header.

    ``verify="full"`` hashes the weights too. ``weights`` is the path of external weights when they are not beside the
    artifact. FORGE-U001 when the file cannot be read, FORGE-A001 to A003 and A005 when it is not a sound artifact.
    """
    if verify not in ("fast", "full"):
        raise error("FORGE-U005", f"verify is {verify!r}, 'fast' or 'full' is needed")
    refuse_path(path, "what to load")
    if weights is not None:
        refuse_path(weights, "weights")
    artifact = Artifact(Path(path), None if weights is None else Path(weights))
    if verify == "full":
        artifact.weights.verify()
    return artifact


class Artifact:
    """An open artifact; ``open_artifact`` makes it. Stays valid when the file is replaced, not when it is overwritten
    in place."""

    def __init__(self, path: Path, weights_path: Path | None) -> None:
        self.path = path
        self._mapping, self._identity = map_file(path, "FORGE-A001")
        self._members = self._read_layout()
        self._manifest = self._read_manifest()
        self._check_members()
        self.weights = self._open_weights(weights_path)

    def _read_layout(self) -> dict[str, Member]:
        try:
            with memoryview(self._mapping) as file:
                members = {member.name: member for member in read_members(file)}
        except LayoutError as reason:
            raise error("FORGE-A001", f"'{self.path}' is not a forge artifact, or damaged: {reason}") from None
        if MANIFEST not in members:
            raise error("FORGE-A001", f"'{self.path}' has no forge manifest")
        return members

    def _read_manifest(self) -> Manifest:
        member = self._members[MANIFEST]
        if member.method == DEFLATED or member.nbytes > manifests.MAX_MANIFEST_BYTES:
            raise self._damaged(MANIFEST)
        content = self._mapping[member.start : member.end]
        if zlib.crc32(content) != member.crc:
            raise self._damaged(MANIFEST)
        return manifests.read(self._parse(content, MANIFEST), str(self.path))

    def _damaged(self, name: str) -> ForgeError:
        return error("FORGE-A003", f"member '{name}' of '{self.path}' is damaged")

    def _parse(self, content: bytes, name: str) -> Any:
        try:
            return parse_json(content)
        except StrictJsonError as reason:
            raise error("FORGE-A003", f"member '{name}' of '{self.path}' is not JSON: {reason}") from None

    def _check_members(self) -> None:
        expected = {MANIFEST, *self._manifest.members}
        if self._manifest.weights.file is None:
            expected.add(WEIGHTS)
        for name in sorted(expected ^ self._members.keys()):
            raise error("FORGE-A003", f"member '{name[:80]}' of '{self.path}' is missing, or not in the manifest")
        for name, record in self._manifest.members.items():
            member = self._members[name]
            deflated = record.stored_sha256 is not None
            if member.nbytes != record.nbytes or deflated != (member.method == DEFLATED) or name in (MANIFEST, WEIGHTS):
                raise self._damaged(name)
            with memoryview(self._mapping) as file, file[member.start : member.end] as stored:
                if hashlib.sha256(stored).hexdigest() != (record.stored_sha256 or record.sha256):
                    raise self._damaged(name)
        for name in (PLAN, REPORT):
            if name not in self._manifest.members:
                raise error("FORGE-A003", f"member '{name}' of '{self.path}' is missing")
        images = self._image_members()
        if images and KERNEL_TABLE not in self._manifest.members:
            raise error("FORGE-A003", f"member '{KERNEL_TABLE}' of '{self.path}' is missing")
        for name in images:
            if self._members[name].method == DEFLATED:
                raise self._damaged(name)

    def _image_members(self) -> list[str]:
        return [name for name in self._manifest.members if name.startswith(FOLDER) and name != KERNEL_TABLE]

    def _open_weights(self, path: Path | None) -> MappedWeights:
        record = self._manifest.weights
        if record.file is None:
            member = self._members[WEIGHTS]
            if member.method == DEFLATED or member.nbytes != record.nbytes:
                raise self._damaged(WEIGHTS)
            return MappedWeights(self._mapping, member.start, record, f"'{self.path}'")
        path = self.path.parent / record.file if path is None else path
        mapping, _ = map_file(path, "FORGE-A005")
        if len(mapping) != record.nbytes:
            message = f"'{path}' has {len(mapping)} bytes, '{self.path}' was compiled with weights of {record.nbytes}"
            raise error("FORGE-A005", message)
        return MappedWeights(mapping, 0, record, f"'{path}'", "FORGE-A005")

    @property
    def manifest(self) -> dict[str, Any]:
        """The manifest as data: format version, producer, target, pipeline, entries, members, weights."""
        return dict(self._manifest.data)

    @property
    def members(self) -> tuple[str, ...]:
        """The names of all members."""
        return tuple(self._members)

    def read(self, name: str) -> bytes:
        """The content of a member other than the weights. FORGE-U005 for an unknown one, FORGE-A003 when it is
        damaged."""
        record = self._manifest.members.get(name)
        if record is None:
            raise error("FORGE-U005", f"'{self.path}' has no member '{name}'")
        member = self._members[name]
        content = self._mapping[member.start : member.end]
        if member.method == DEFLATED:
            content = self._inflate(name, content, record.nbytes)
            if hashlib.sha256(content).hexdigest() != record.sha256:
                raise self._damaged(name)
        return content

    def _inflate(self, name: str, stored: bytes, nbytes: int) -> bytes:
        """Never more than the size in the manifest, whatever the stream says."""
        if nbytes > len(stored) * 1032 + 64:  # no deflate stream expands further
            raise self._damaged(name)
        stream = zlib.decompressobj(wbits=-15)
        try:
            content = stream.decompress(stored, nbytes + 1)
        except zlib.error:
            raise self._damaged(name) from None
        if len(content) != nbytes or not stream.eof or stream.unused_data or stream.unconsumed_tail:
            raise self._damaged(name)
        return content

    @cached_property
    def plan(self) -> Plan:
        """The plan, fully checked. FORGE-A004 when it is not valid."""
        from forgec.runtime import plan as plans

        return plans.from_json(self._parse(self.read(PLAN), PLAN))

    @cached_property
    def images(self) -> tuple[NativeCode, ...]:
        """The machine code of the kernels, whose hash is checked, once for each instruction set, with its table; empty
        when the artifact holds none. ``processor.best`` chooses. FORGE-A003 when the table is damaged."""
        members = {name: self._members[name] for name in self._image_members()}
        if not members and KERNEL_TABLE not in self._manifest.members:
            return ()
        data = self._parse(self.read(KERNEL_TABLE), KERNEL_TABLE)
        sizes = {name: member.nbytes for name, member in members.items()}
        found = []
        for table in kernel_tables.from_json(data, sizes, f"'{self.path}'"):
            member = members[kernel_tables.member_of(table)]
            code = memoryview(self._mapping).toreadonly()[member.start : member.end]
            found.append(NativeCode(table, code, FilePlace(os.fspath(self.path), self._identity, member.start)))
        return tuple(found)

    @cached_property
    def outline(self) -> Outline:
        """What the plan needs of torch; for this it is neither decoded nor checked. FORGE-A004 when it has not the form
        of a plan."""
        data = self._parse(self.read(PLAN), PLAN)
        try:
            return outline(data)
        except (AttributeError, LookupError, TypeError):
            raise error("FORGE-A004", f"the plan of '{self.path}' is none: it has no entries with launches") from None

    @cached_property
    def report(self) -> dict[str, Any]:
        """The compile report as data."""
        report = self._parse(self.read(REPORT), REPORT)
        if not isinstance(report, dict):
            raise self._damaged(REPORT)
        return report

    @property
    def ir_levels(self) -> tuple[str, ...]:
        """The levels whose IR the artifact holds, such as ``forge`` and ``plan``."""
        return tuple(name[3:-5] for name in self._members if name.startswith("ir/") and name.endswith(".mlir"))

    def ir(self, level: str) -> str:
        """The text of the IR at this level. FORGE-U005 when the artifact does not hold it."""
        if level not in self.ir_levels:
            levels = ", ".join(self.ir_levels) or "none"
            raise error("FORGE-U005", f"'{self.path}' holds no IR of level '{level}'", help=f"it holds: {levels}")
        try:
            return self.read(f"ir/{level}.mlir").decode()
        except UnicodeDecodeError:
            raise self._damaged(f"ir/{level}.mlir") from None


def map_file(path: Path, code: str) -> tuple[mmap.mmap, tuple[int, int]]:
    """The file's bytes, copy on write, and its device and inode. FORGE-U001 (or ``code`` when that is FORGE-A005) when
    it cannot be read, ``code`` when empty."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if status.st_size == 0:
                raise error(code, f"'{path}' is empty")
            mapping = mmap.mmap(file.fileno(), status.st_size, access=mmap.ACCESS_COPY)
            return mapping, (status.st_dev, status.st_ino)
    except (OSError, ValueError) as reason:
        unreadable = code if code == "FORGE-A005" else "FORGE-U001"
        text = reason.strerror if isinstance(reason, OSError) and reason.strerror else str(reason)
        raise error(unreadable, f"'{path}' cannot be read: {text}") from None
