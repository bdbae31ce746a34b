"""forgec: compile a transformer into one artifact that a small runtime loads and runs.

The public names are resolved on first use, so that ``import forgec.runtime`` imports nothing of the compiler.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from forgec.api import CompiledModel, compile  # noqa: A004 - the public name
    from forgec.capture.dims import Dim
    from forgec.diagnostics import ForgecWarning, ForgeError
    from forgec.runtime import LoadedModel, Session, load

__version__ = "0.1.0"

__all__ = [
    "CompiledModel",
    "Dim",
    "ForgeError",
    "ForgecWarning",
    "LoadedModel",
    "Session",
    "__version__",
    "compile",
    "load",
]

_HOMES = {
    "CompiledModel": "forgec.api",
    "Dim": "forgec.capture.dims",
    "ForgeError": "forgec.diagnostics",
    "ForgecWarning": "forgec.diagnostics",
    "LoadedModel": "forgec.runtime",
    "Session": "forgec.runtime",
    "compile": "forgec.api",
    "load": "forgec.runtime",
}

_COMPILER = ("forgec.api", "forgec.capture.dims")


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'forgec' has no attribute {name!r}")
    import importlib

    if _HOMES[name] in _COMPILER:
        from forgec.diagnostics.missing_package import require_compiler

        require_compiler(name)
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
