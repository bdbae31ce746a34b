"""Everything that torch.export would refuse, found in one run by its draft export."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from forgec.capture.attributes import unchanged
from forgec.capture.export import as_module
from forgec.capture.places import is_user_file, portable_path
from forgec.capture.quiet import quiet
from forgec.diagnostics import Diagnostic, Location

_REMEDIES = {
    "DATA_DEPENDENT_ERROR": "say both ways with torch.cond or torch.where, or state what holds with torch._check",
    "MISSING_FAKE_KERNEL": "register a fake kernel: torch.library.register_fake",
    "MISMATCHED_FAKE_KERNEL": "make the fake kernel say what the real one returns",
}


@dataclass
class Draft:
    """A program that leaves out the checks that failed, and what failed."""

    program: torch.export.ExportedProgram
    diagnostics: list[Diagnostic]


def draft(model: Any, args: Sequence[Any], kwargs: Mapping[str, Any], dynamic_shapes: Any = None) -> Draft | None:
    """Draft-export a model; None where that fails as well."""
    module = as_module(model)
    try:
        with torch.no_grad(), quiet(), unchanged(module):
            program = torch.export.draft_export(
                module, tuple(args), dict(kwargs), dynamic_shapes=dynamic_shapes, strict=False
            )
            gc.collect()  # its log files are open until then, and would be complained about elsewhere
    except Exception:  # whatever it says, the first refusal was clearer
        return None
    report: Any = getattr(program, "_report", None)
    files = {**_known_files(), **getattr(report, "str_to_filename", {})}
    failures = [f for f in getattr(report, "failures", ()) if not f.xfail]
    return Draft(program, [_diagnostic(failure, files) for failure in failures])


def _known_files() -> dict[Any, str]:
    """Names of files by torch's numbers for them, which a report leaves out when an earlier one had them."""
    from torch._logging import structured

    return {number: name for name, number in getattr(structured, "INTERN_TABLE", {}).items()}


def _diagnostic(failure: Any, files: Mapping[Any, str]) -> Diagnostic:
    kind, data = failure.failure_type.name, failure.data
    if kind == "DATA_DEPENDENT_ERROR":
        message = f"the model decides by data: torch.export would need to know whether {data.get('expr')}"
    elif kind in ("MISSING_FAKE_KERNEL", "MISMATCHED_FAKE_KERNEL"):
        reason = "has no fake kernel" if kind.startswith("MISSING") else "has a fake kernel that says something else"
        message = f"the operator {data.get('op')} {reason}"
    else:
        message = f"torch.export adds a condition on the inputs: {data.get('expr')}"
    return Diagnostic("FORGE-C001", message, _place(data.get("user_stack") or (), files), help=_REMEDIES.get(kind))


def _place(stack: Sequence[Mapping[str, Any]], files: Mapping[Any, str]) -> Location | None:
    for frame in reversed(stack):
        file = files.get(frame.get("filename"), str(frame.get("filename")))
        if is_user_file(file):
            return Location(portable_path(file), int(frame.get("line", 0)), str(frame.get("name", "")))
    return None
