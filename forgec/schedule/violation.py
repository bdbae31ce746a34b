"""What the checkers report."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Violation:
    """One broken rule: ``rule`` is a heading of the definition, ``text`` says who breaks it by how much."""

    rule: str
    text: str
