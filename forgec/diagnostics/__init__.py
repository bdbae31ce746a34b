"""Diagnostics: facts with a code, the user's line and a way out. A leaf package: compiler and runtime both use it."""

from forgec.diagnostics.diagnostic import (
    ZERO_DIVISOR,
    Diagnostic,
    DivisionByZeroError,
    ForgecWarning,
    ForgeError,
    Location,
    OutOfRangeError,
    Severity,
    error,
    warn,
)
from forgec.diagnostics.render import render

__all__ = [
    "ZERO_DIVISOR",
    "Diagnostic",
    "DivisionByZeroError",
    "ForgeError",
    "ForgecWarning",
    "Location",
    "OutOfRangeError",
    "Severity",
    "error",
    "render",
    "warn",
]
