"""Diagnostics: facts with a code, the user's line and a way out. A leaf package: compiler and runtime both use it."""

from forgec.diagnostics.diagnostic import Diagnostic, ForgeError, Location, Severity, error
from forgec.diagnostics.render import render

__all__ = ["Diagnostic", "ForgeError", "Location", "Severity", "error", "render"]
