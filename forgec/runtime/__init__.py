"""The runtime: artifacts, programs and sessions. Imports nothing of the compiler, and torch only when a plan needs it.

The public names are resolved on first use, so that reading an artifact's manifest does not load the executor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from forgec.runtime.artifact import Artifact, open_artifact
    from forgec.runtime.artifact_writer import write_artifact
    from forgec.runtime.loader import LoadedModel, load
    from forgec.runtime.plan import Plan
    from forgec.runtime.program import LiveWeights, Program
    from forgec.runtime.session import Session

__all__ = [
    "Artifact",
    "LiveWeights",
    "LoadedModel",
    "Plan",
    "Program",
    "Session",
    "load",
    "open_artifact",
    "write_artifact",
]

_HOMES = {
    "Artifact": "artifact",
    "LiveWeights": "program",
    "LoadedModel": "loader",
    "Plan": "plan",
    "Program": "program",
    "Session": "session",
    "load": "loader",
    "open_artifact": "artifact",
    "write_artifact": "artifact_writer",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'forgec.runtime' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"forgec.runtime.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
