"""Which remarks a user wants to see."""

from __future__ import annotations

from enum import StrEnum

from forgec.diagnostics.diagnostic import Diagnostic

_KINDS = {"FORGE-O001": "applied", "FORGE-O002": "missed"}


class Remarks(StrEnum):
    """Remarks about optimisations: those that were applied, those that were not and why, all or none."""

    none = "none"
    missed = "missed"
    applied = "applied"
    all = "all"

    def shows(self, diagnostic: Diagnostic) -> bool:
        """True for remarks about optimisations of this kind, and for everything else."""
        return self is Remarks.all or _KINDS.get(diagnostic.code, self.value) == self.value
