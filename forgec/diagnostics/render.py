"""Diagnostics as text, in the shape that compiler users know."""

from __future__ import annotations

import sys
from pathlib import Path

from forgec.diagnostics.diagnostic import Diagnostic, Location


def render(diagnostic: Diagnostic) -> str:
    """The diagnostic with its code, place, source line (if the file is at hand), notes and help."""
    lines = [f"{diagnostic.severity}[{diagnostic.code}]: {diagnostic.message}"]
    place = diagnostic.location
    if place is not None:
        lines.append(f"  --> {place}")
        source = source_line(place)
        if source is not None:
            lines.append(f"  {place.line} | {source}")
    lines += [f"  note: {note}" for note in diagnostic.notes]
    if diagnostic.help:
        lines.append(f"  help: {diagnostic.help}")
    return "\n".join(lines)


def source_line(place: Location) -> str | None:
    """The text of the location's line, or None when the file or the line cannot be found."""
    if place.line <= 0:
        return None
    for root in ("", *sys.path):
        path = Path(root) / place.file
        try:
            if not path.is_file():
                continue
            with path.open(encoding="utf-8", errors="replace") as stream:
                for number, text in enumerate(stream, 1):
                    if number == place.line:
                        return text.rstrip()
        except OSError:
            continue
        return None
    return None
