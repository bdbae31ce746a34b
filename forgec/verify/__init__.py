"""Proving that a compiled program computes what the model does, and finding the pass, the op and the line if not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from forgec.verify.bisection import Finding, bisect, bisect_ir
    from forgec.verify.verification import Verification, verify, verify_artifact

__all__ = ["Finding", "Verification", "bisect", "bisect_ir", "verify", "verify_artifact"]

_HOMES = {
    "Finding": "forgec.verify.bisection",
    "Verification": "forgec.verify.verification",
    "bisect": "forgec.verify.bisection",
    "bisect_ir": "forgec.verify.bisection",
    "verify": "forgec.verify.verification",
    "verify_artifact": "forgec.verify.verification",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'forgec.verify' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
