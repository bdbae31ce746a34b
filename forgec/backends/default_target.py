"""What is compiled for where nobody says it."""

from __future__ import annotations

import os

from forgec.backends.base import targets
from forgec.backends.cpu.backend import host_level
from forgec.diagnostics import error

VARIABLE = "FORGEC_TARGET"
EVERY, HERE, ATEN = "cpu", "cpu:host", "cpu:aten"


def default_target(*, for_others: bool = False) -> str:
    """``FORGEC_TARGET`` if it is set; else ``cpu``, which any processor runs that kernels are compiled for, if the
    program is ``for_others`` too, and for this process ``cpu:host``, or ``cpu:aten`` where its processor has no level.

    FORGE-U003 when the variable names no target.
    """
    named = os.environ.get(VARIABLE)
    if not named:
        return EVERY if for_others else HERE if host_level() is not None else ATEN
    if named not in targets():
        known = f"known targets: {', '.join(sorted(targets()))}"
        raise error("FORGE-U003", f"{VARIABLE} names the unknown target {named!r}", notes=(known,))
    return named


def falls_short(target: str) -> str | None:
    """Why nothing of a default target runs as machine code, if that is so for a reason that a user may not know."""
    if target != ATEN or os.environ.get(VARIABLE):
        return None
    return "this processor has no level of x86-64 that kernels are compiled for"
