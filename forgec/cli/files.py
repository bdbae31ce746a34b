"""Reading and writing the files that the command line names, with diagnostics instead of tracebacks."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from forgec.diagnostics import error


def read_text(name: str) -> str:
    """The text of a file, or of standard input for ``-``. Raises FORGE-U001, or FORGE-I001 if it is not UTF-8."""
    try:
        content = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as exc:
        raise error("FORGE-U001", f"cannot read {name}: {_reason(exc)}") from exc
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise error("FORGE-I001", f"{name} is not UTF-8 text: {exc.reason} at byte {exc.start}") from exc


def check_readable(path: Path) -> None:
    """Raises FORGE-U001 unless ``path`` is a file that can be opened."""
    try:
        with path.open("rb"):
            pass
    except OSError as exc:
        raise error("FORGE-U001", f"cannot read {path}: {_reason(exc)}") from exc


def check_writable(path: Path) -> None:
    """Raises FORGE-U004 where a file cannot be created or replaced: better now than after minutes of work."""
    folder = path.parent
    if path.is_dir():
        reason = "it is a folder"
    elif path.exists() and not path.is_file():
        return  # a device or a pipe takes what is written to it
    elif not folder.is_dir():
        reason = f"there is no folder {folder}"
    elif not os.access(folder, os.W_OK | os.X_OK):
        reason = f"the folder {folder} is not writable"
    else:
        return
    raise error("FORGE-U004", f"cannot write {path}: {reason}")


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file under a temporary name and renames it. Raises FORGE-U004."""
    check_writable(path)
    temporary = None
    try:
        if path.exists() and not path.is_file():  # never replace a device or a pipe by a file
            path.write_bytes(content)
            return
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except OSError as exc:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise error("FORGE-U004", f"cannot write {path}: {_reason(exc)}") from exc


def _reason(exc: OSError) -> str:
    return (exc.strerror or str(exc)).lower()
