"""The errors of ops, gathered by the lines of the user's model that they come from."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from forgec.diagnostics import Location
from forgec.ir.locations import from_attribute
from forgec.verify.side_by_side import OpError
from forgec.verify.tolerance import Deviation


@dataclass
class LineError:
    """The largest errors of the ops of one line, or of the lines that a fused op stands for, over all its executions.

    ``added`` is what an op of the line adds to the error of its operands, ``total`` what its result has in all; each is
    the one that is largest relative to its tensor. ``op`` and ``module`` say where ``added`` was found.
    """

    places: tuple[Location, ...]
    op: str = ""
    module: str = ""
    added: Deviation = field(default_factory=Deviation)
    total: Deviation = field(default_factory=Deviation)
    decisions: int = 0
    executions: int = 0

    def to_dict(self) -> dict[str, Any]:
        """JSON-compatible data."""
        places = [{"file": p.file, "line": p.line, "function": p.function} for p in self.places]
        errors = {"added": self.added.to_exact_dict(), "total": self.total.to_exact_dict()}
        counts = {"decisions": self.decisions, "executions": self.executions}
        return {"places": places, "op": self.op, "module": self.module, **errors, **counts}


class LineErrors:
    """A table that ``SideBySide`` records to."""

    def __init__(self) -> None:
        self._rows: dict[tuple[Location, ...], LineError] = {}
        self.not_followed: dict[str, int] = {}

    def record(self, error: OpError) -> None:
        """Take the errors of one result."""
        found = from_attribute(error.op.location)
        places = tuple(dict.fromkeys(Location(p.file, p.line, p.function) for p in found))
        module = found[-1].module if found else ""
        row = self._rows.setdefault(places, LineError(places))
        row.executions += 1
        row.decisions += error.decisions
        if not error.followed:
            self.not_followed[error.op.name] = self.not_followed.get(error.op.name, 0) + 1
            return
        if not row.op or _key(error.added) > _key(row.added):
            row.added, row.op, row.module = error.added, error.op.name, module
        if _key(error.total) > _key(row.total):
            row.total = error.total

    @property
    def decisions(self) -> int:
        """Integers and booleans that float64 would have made otherwise."""
        return sum(row.decisions for row in self._rows.values())

    def worst_first(self) -> list[LineError]:
        """The lines by the error that they add, relative to the tensors that they compute."""
        return sorted(self._rows.values(), key=lambda row: (_key(row.added), _key(row.total)), reverse=True)


def _key(error: Deviation) -> tuple[float, float]:
    return (math.inf if math.isnan(error.relative) else error.relative, error.absolute)
