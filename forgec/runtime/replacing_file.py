"""Files that appear under their name only when complete, and of which a killed process leaves nothing.

On Linux the bytes go to a file without a name (``O_TMPFILE``), which the kernel frees with the process that wrote it.
When it is complete, ``linkat`` gives it its name: one step, when nothing has that name. An existing file can only be
replaced by a rename, so there the complete file gets a temporary name first; a process that is killed between these
two system calls leaves that name. Where files without a name do not exist, the file has its temporary name from the
beginning. In both cases the next file that is written to the folder removes what was left: a writer holds a lock on
its file, and the lock dies with the writer.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Any, TypeAlias

from forgec.diagnostics import ForgeError, error

fcntl: Any
try:
    import fcntl
except ImportError:  # no locks, so nobody can tell what is left over: nothing is removed
    fcntl = None

Bytes: TypeAlias = bytes | memoryview

LEFT_OVER = re.compile(r"\.forge-[0-9a-f]{16}\.tmp")
LEFT_OVER_SECONDS = 3600.0
"""Younger files are never removed: on some network file systems the lock of another host cannot be seen."""
BUFFER_BYTES = 1 << 20


class ReplacingFile:
    """A file that replaces ``path`` when the ``with`` block ends well, and leaves no trace otherwise.

    FORGE-U004 when the folder, the file or the disk does not allow it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # Same folder, so that the rename stays in one file system.
        self._temporary = path.parent / f".forge-{secrets.token_hex(8)}.tmp"

    def __enter__(self) -> ReplacingFile:
        if self.path.exists() and not self.path.is_file():
            raise error("FORGE-U004", f"'{self.path}' is not a regular file")
        remove_left_over(self.path.parent)
        descriptor = open_unnamed(self.path.parent)
        self._has_name = descriptor is None
        try:
            if descriptor is None:
                descriptor = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            self._file: IO[bytes] = os.fdopen(descriptor, "wb", buffering=BUFFER_BYTES)
        except OSError as reason:
            raise self._unwritable(reason) from None
        _lock(descriptor)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is not None:
                return
            with self._file:
                self._file.flush()
                if not self._has_name:
                    self._name()
            if self._has_name:
                os.replace(self._temporary, self.path)
                self._has_name = False
        except OSError as reason:
            raise self._unwritable(reason) from None
        finally:
            with contextlib.suppress(OSError):  # of a full disk, when what is still buffered is written
                self._file.close()
            if self._has_name:
                self._temporary.unlink(missing_ok=True)

    def _name(self) -> None:
        """Gives the file its name, or, when that is taken, the temporary one."""
        unnamed = f"/proc/self/fd/{self._file.fileno()}"
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            # With a folder, Python calls linkat, which follows the link in /proc, and not link, which does not.
            os.link(unnamed, self.path.name, dst_dir_fd=folder)
        except FileExistsError:
            os.link(unnamed, self._temporary.name, dst_dir_fd=folder)
            self._has_name = True
        finally:
            os.close(folder)

    def _unwritable(self, reason: OSError) -> ForgeError:
        return error("FORGE-U004", f"'{self.path}' cannot be written: {reason.strerror or reason}")

    def write(self, content: Bytes) -> None:
        try:
            self._file.write(content)
        except OSError as reason:
            raise self._unwritable(reason) from None

    def overwrite(self, position: int, content: bytes) -> None:
        """Replaces bytes that were written before, and returns to the end."""
        try:
            self._file.seek(position)
            self._file.write(content)
            self._file.seek(0, os.SEEK_END)
        except OSError as reason:
            raise self._unwritable(reason) from None


def open_unnamed(folder: Path) -> int | None:
    """A file in this folder without a name, ready to be written, or None where that does not exist."""
    if not hasattr(os, "O_TMPFILE"):
        return None
    try:
        descriptor = os.open(folder, os.O_WRONLY | os.O_TMPFILE, 0o666)
    except OSError:  # also what the other way will report, such as a folder that is missing
        return None
    if os.path.exists(f"/proc/self/fd/{descriptor}"):
        return descriptor
    os.close(descriptor)
    return None


def remove_left_over(folder: Path) -> None:
    """Removes the temporary files in the folder whose writers were killed."""
    if fcntl is None:
        return
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if LEFT_OVER.fullmatch(entry.name):
                with contextlib.suppress(OSError):
                    _remove_if_left(entry)


def _remove_if_left(entry: os.DirEntry[str]) -> None:
    status = entry.stat(follow_symlinks=False)
    if not entry.is_file(follow_symlinks=False) or time.time() - status.st_mtime < LEFT_OVER_SECONDS:
        return
    descriptor = os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(entry.path)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> None:
    """Until the file is closed. Best effort: some file systems have no locks, and there nobody gets one either."""
    if fcntl is not None:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
