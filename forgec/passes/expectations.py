"""``expected-error`` comments, as in MLIR's tests: what --verify-diagnostics compares a piece's diagnostics with.

    // expected-error@+1 {{operand #0 must be a tensor}}      the diagnostic stands in the next line
    %0 = forge.neg %a : i32                                   // expected-remark {{…}}: in this line

Places: ``@+N``, ``@-N`` (lines from the comment), ``@below``, ``@above`` (the nearest line without such a comment) and
``@unknown`` (no place in this file). The text must occur in ``CODE: message``; with ``-re`` its ``{{…}}`` parts are
regular expressions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from forgec.diagnostics import Diagnostic, Location
from forgec.passes.ir_source import Piece

_COMMENT = re.compile(
    r"//.*?expected-(?P<severity>error|warning|remark)(?P<regex>-re)? *(?:@(?P<place>[^\s{]+))? *\{\{"
)
_PLACE = re.compile(r"[+-]\d+|above|below|unknown")


@dataclass(frozen=True)
class Expectation:
    """``line`` is where the diagnostic must stand, None for none; ``comment_line`` is where the comment stands."""

    severity: str
    text: str
    is_regex: bool
    line: int | None
    comment_line: int

    def matches(self, diagnostic: Diagnostic, line: int | None) -> bool:
        """True if the comment describes this diagnostic, reported in this line."""
        if (self.severity, self.line) != (diagnostic.severity, line):
            return False
        said = f"{diagnostic.code}: {diagnostic.message}"
        if not self.is_regex:
            return self.text in said
        parts = re.split(r"\{\{(.*?)\}\}", self.text)
        return re.search("".join(p if i % 2 else re.escape(p) for i, p in enumerate(parts)), said) is not None


def find(piece: Piece) -> tuple[list[Expectation], list[Diagnostic]]:
    """The expectations in a piece's comments, and FORGE-P006 for each comment that cannot be read."""
    lines = piece.text.split("\n")
    designated = {number for number, text in enumerate(lines, 1) if _COMMENT.search(text)}
    expectations: list[Expectation] = []
    malformed: list[Diagnostic] = []
    for number in sorted(designated):
        match = _COMMENT.search(lines[number - 1])
        assert match is not None
        end = lines[number - 1].rfind("}}")
        place = match["place"]
        if end < match.end() or (place and not _PLACE.fullmatch(place)):
            malformed.append(_mismatch(piece, number, "malformed expected-… comment"))
            continue
        line = _target(number, place, designated)
        text = lines[number - 1][match.end() : end]
        expectations.append(Expectation(match["severity"], text, bool(match["regex"]), line, number))
    return expectations, malformed


def compare(
    piece: Piece, expectations: Iterable[Expectation], reported: Iterable[tuple[Diagnostic, int | None]]
) -> list[Diagnostic]:
    """FORGE-P006 for each diagnostic that no comment expects, and for each comment whose diagnostic did not come."""
    open_expectations = list(expectations)
    problems: list[Diagnostic] = []
    for diagnostic, line in reported:
        found = next((e for e in open_expectations if e.matches(diagnostic, line)), None)
        if found is not None:
            open_expectations.remove(found)
            continue
        text = f"unexpected {diagnostic.severity}: {diagnostic.code}: {diagnostic.message}"
        problems.append(_mismatch(piece, line or 0, text, diagnostic.notes))
    for missing in open_expectations:
        place = f"line {missing.line}" if missing.line else "no line of this file"
        text = f"expected {missing.severity} was not reported: {missing.text}"
        problems.append(_mismatch(piece, missing.comment_line, text, (f"expected at {place}",)))
    return problems


def _target(number: int, place: str | None, designated: set[int]) -> int | None:
    if place == "unknown":
        return None
    if place in ("above", "below"):
        step = -1 if place == "above" else 1
        number += step
        while number in designated:
            number += step
        return number
    return number + int(place or 0)


def _mismatch(piece: Piece, line: int, message: str, notes: tuple[str, ...] = ()) -> Diagnostic:
    return Diagnostic("FORGE-P006", message, Location(piece.name, line), notes)
