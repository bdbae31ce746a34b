"""What to install when forgec was installed to run artifacts only."""

from __future__ import annotations

from importlib.util import find_spec

from forgec.diagnostics.diagnostic import ForgeError, error

COMPILER = frozenset(
    {"jinja2", "llvmlite", "onnx", "ortools", "platformdirs", "pydantic", "safetensors", "torch", "xdsl"}
)
"""The modules that the extra ``compiler`` brings."""


def require_compiler(name: str) -> None:
    """FORGE-U008 when ``forgec.name`` is asked for, and what it needs is not installed. Imports nothing."""
    for package in ("torch", "xdsl"):
        if find_spec(package) is None:
            raise _missing(f"forgec.{name} needs the compiler: no module named '{package}'")


def missing_package(reason: BaseException) -> ForgeError | None:
    """FORGE-U008 for a failed import of a module that the compiler needs, None for anything else."""
    if not isinstance(reason, ModuleNotFoundError) or reason.name is None:
        return None
    name = reason.name.partition(".")[0]
    if name not in COMPILER:
        return None
    return _missing(f"this needs the compiler: no module named '{reason.name}'")


def _missing(message: str) -> ForgeError:
    return error("FORGE-U008", message, help="pip install 'forgec[compiler]'")
