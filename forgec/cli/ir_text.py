"""IR as text, for people: without the locations that artifacts keep."""

from __future__ import annotations

import re

_STRING = r'"(?:[^"\\]|\\.)*+"'
_LOCATION = re.compile(rf"{_STRING}| loc\(")
_IN_LOCATION = re.compile(rf"{_STRING}|[()]")


def without_locations(text: str) -> str:
    """MLIR text with every `` loc(…)`` removed, done on the text, so that the compiler is not needed."""
    kept: list[str] = []
    end = 0
    for match in _LOCATION.finditer(text):
        if match.start() < end or match[0][0] == '"':
            continue
        kept.append(text[end : match.start()])
        end = _closing(text, match.end())
    return "".join([*kept, text[end:]])


def _closing(text: str, start: int) -> int:
    """The position after the parenthesis that closes the one before ``start``; the end of the text if none does."""
    depth = 1
    for match in _IN_LOCATION.finditer(text, start):
        depth += {"(": 1, ")": -1}.get(match[0], 0)
        if depth == 0:
            return match.end()
    return len(text)
