"""Reading and writing the files that the command line names, with diagnostics instead of tracebacks."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from forgec.diagnostics import error
from forgec.runtime.replacing_file import ReplacingFile


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
    """Writes a file that appears when it is complete. Raises FORGE-U004."""
    check_writable(path)
    if path.exists() and not path.is_file():  # never replace a device or a pipe by a file
        try:
            path.write_bytes(content)
        except OSError as exc:
            raise error("FORGE-U004", f"cannot write {path}: {_reason(exc)}") from exc
        return
    with ReplacingFile(path) as file:
        file.write(content)


def _reason(exc: OSError) -> str:
    return (exc.strerror or str(exc)).lower()
