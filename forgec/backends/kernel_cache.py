"""Compiled kernels on disk, found by what they were made from: across layers, across compiles, across processes.

An entry is one file, named by the hash of everything that its content depends on: the kernel's text without names and
locations, the target, and the versions of what compiled it. It begins with that name and the hash of the rest, so that
a damaged one, or one of another name, is noticed; it is then removed, and compiled again. Files appear whole or not at
all, so processes may share a folder without locks: two that compile one kernel write the same file. When the folder
grows over its limit, the entries that were not used for longest go.

``FORGEC_CACHE_DIR`` names another folder than the user's cache folder. What cannot be written is not cached.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import forgec
from forgec.diagnostics import ForgeError
from forgec.ir.structure_text import structure_text
from forgec.ir.tile.kernel import KernelOp
from forgec.runtime.replacing_file import ReplacingFile

LIMIT_BYTES = 512 << 20
KEPT_SHARE = 0.8
"""How much of the limit is left after entries were removed, so that not every new one removes another."""
_MAGIC = b"forgec kernel 2\n"
_HASH = hashlib.sha256().digest_size
_HEADER = len(_MAGIC) + 2 * _HASH
"""After the magic number the key, then the hash of the content."""
_NAME = re.compile(r"[0-9a-f]{64}\.kernel")


def cache_folder() -> Path:
    """``FORGEC_CACHE_DIR``, else ``forgec/kernels`` in the user's cache folder."""
    named = os.environ.get("FORGEC_CACHE_DIR")
    if named:
        return Path(named)
    from platformdirs import user_cache_path

    return user_cache_path("forgec") / "kernels"


@dataclass(frozen=True)
class CachedKernel:
    """An entry: when it was used last (seconds since 1970) and its size."""

    key: str
    size_bytes: int
    used: float


class KernelCache:
    """A folder of at most about ``limit_bytes``."""

    def __init__(self, folder: Path | None = None, limit_bytes: int = LIMIT_BYTES) -> None:
        self.folder = cache_folder() if folder is None else folder
        self.limit_bytes = limit_bytes
        self._until_look: int | None = None  # bytes that may be written before the folder is measured again

    def find_or_make(self, key: str, make: Callable[[], bytes]) -> bytes:
        """The content of an entry; what is not there, or damaged, is made and kept."""
        found = self.find(key)
        if found is None:
            found = make()
            self.keep(key, found)
        return found

    def find(self, key: str) -> bytes | None:
        """The content of an entry, or None; a damaged one is removed."""
        path = self._path(key)
        try:
            content = path.read_bytes()
        except OSError:
            return None
        if not _is_whole(key, content):
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        with contextlib.suppress(OSError):  # another process may have removed it, or own it
            os.utime(path)
        return content[_HEADER:]

    def keep(self, key: str, content: bytes) -> None:
        """Writes an entry, as far as the disk allows it, and removes old ones when there are too many."""
        size = len(content) + _HEADER
        if size > self.limit_bytes:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with ReplacingFile(self._path(key)) as file:
                file.write(_MAGIC + bytes.fromhex(key))
                file.write(hashlib.sha256(content).digest())
                file.write(content)
        except (OSError, ForgeError):
            return
        if self._until_look is not None:
            self._until_look -= size
        if self._until_look is None or self._until_look <= 0:
            self._make_room()

    def entries(self) -> list[CachedKernel]:
        """All entries, the one used last first."""
        return sorted(self._scan(), key=lambda entry: (-entry.used, entry.key))

    def clear(self) -> list[CachedKernel]:
        """Removes all entries; returns those that it removed."""
        return [entry for entry in self.entries() if self._remove(entry)]

    def _path(self, key: str) -> Path:
        path = self.folder / f"{key}.kernel"
        assert _NAME.fullmatch(path.name), "keys are hashes"
        return path

    def _scan(self) -> Iterator[CachedKernel]:
        with contextlib.suppress(OSError), os.scandir(self.folder) as found:
            for entry in found:
                with contextlib.suppress(OSError):
                    if _NAME.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                        status = entry.stat(follow_symlinks=False)
                        yield CachedKernel(entry.name.removesuffix(".kernel"), status.st_size, status.st_mtime)

    def _remove(self, entry: CachedKernel) -> bool:
        try:
            self._path(entry.key).unlink()
        except OSError:
            return False
        return True

    def _make_room(self) -> None:
        """Measures the folder. Other processes write to it as well, so it is measured again before a sixteenth more has
        been written.
        """
        entries = self.entries()
        total = sum(entry.size_bytes for entry in entries)
        if total > self.limit_bytes:
            while entries and total > KEPT_SHARE * self.limit_bytes:
                oldest = entries.pop()
                self._remove(oldest)
                total -= oldest.size_bytes
        self._until_look = min(self.limit_bytes // 16, self.limit_bytes - total)


def _is_whole(key: str, content: bytes) -> bool:
    """True of the entry of this key as it was written."""
    if len(content) < _HEADER or not content.startswith(_MAGIC + bytes.fromhex(key)):
        return False
    return hashlib.sha256(memoryview(content)[_HEADER:]).digest() == content[_HEADER - _HASH : _HEADER]


# Keys -----------------------------------------------------------------------------------------------------------------


def kernel_key(kernel: KernelOp, *parts: str) -> str:
    """The key of what a kernel is compiled to. ``parts`` are all else that the result depends on: the target, options,
    ``versions``.
    """
    digest = hashlib.sha256()
    for part in (structure_text(kernel, without=("sym_name",)), *parts):
        encoded = part.encode()
        digest.update(len(encoded).to_bytes(8, "little"))
        digest.update(encoded)
    return digest.hexdigest()


_MEANING = tuple(Path(forgec.__file__).parent / folder for folder in ("ir/tile", "runtime/symbolic"))


@lru_cache(maxsize=8)
def versions(backend: Path, *packages: str) -> str:
    """What a backend's results depend on beside their input: the text of its modules and of those that say what
    kernels mean, and the versions of packages.
    """
    from importlib.metadata import PackageNotFoundError, version

    digest = hashlib.sha256()
    for folder in (backend, *_MEANING):
        for path in sorted(folder.rglob("*.py")):
            digest.update(str(path.relative_to(folder)).encode())
            digest.update(path.read_bytes())
    found = []
    for package in packages:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(f"{package} none")
    return f"{digest.hexdigest()} {' '.join(found)}"


def ago(seconds_since_1970: float, now: float | None = None) -> str:
    """``3 hours ago``."""
    seconds = max((time.time() if now is None else now) - seconds_since_1970, 0.0)
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        count = int(seconds // length)
        if count:
            return f"{count} {unit}{'s' * (count != 1)} ago"
    return "just now"
