"""Everything that torch.export would refuse, found in one run by its draft export."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch.utils import _pytree

from forgec.capture.attributes import unchanged
from forgec.capture.changes import CHANGED, Change, changes
from forgec.capture.checks import CHECKS, recorded_checks, recorded_transforms
from forgec.capture.detached import DataIsDetached
from forgec.capture.export import DECIDE_REMEDY, LIBRARY_REMEDY, as_module, refusal, resolved
from forgec.capture.flex import dense
from forgec.capture.onwards import Noted, going_on
from forgec.capture.places import is_library_line, is_user_file, portable_path, raised_at, whole_stack_traces
from forgec.capture.quiet import quiet
from forgec.capture.refusals import LEAVES, output_refusal, refuse_inputs, refuse_model
from forgec.capture.wording import decided
from forgec.diagnostics import Diagnostic, ForgeError, Location

_REMEDIES = {
    "DATA_DEPENDENT_ERROR": DECIDE_REMEDY,
    "MISSING_FAKE_KERNEL": "register a fake kernel: torch.library.register_fake",
    "MISMATCHED_FAKE_KERNEL": "make the fake kernel say what the real one returns",
}


@dataclass
class Draft:
    """What failed, and a program that leaves it out: None where there is none, and then ``seen_to`` is the line at
    which even the draft ended (None: nobody knows). ``changes`` are what the model's Python code changes."""

    program: torch.export.ExportedProgram | None = None
    diagnostics: list[Diagnostic] = field(default_factory=list)
    seen_to: Location | None = None
    changes: list[Change] = field(default_factory=list)


def draft(model: Any, args: Sequence[Any], kwargs: Mapping[str, Any], dynamic_shapes: Any = None) -> Draft:
    """Draft-export a model, going on past what fails; without dynamic shapes where those are what it fails at."""
    found = _draft(model, args, kwargs, dynamic_shapes)
    if found.program is None and dynamic_shapes:
        fixed = _draft(model, args, kwargs, None)
        return fixed if fixed.program is not None else found
    return found


def _draft(model: Any, args: Sequence[Any], kwargs: Mapping[str, Any], dynamic_shapes: Any) -> Draft:
    result = Draft()
    try:
        refuse_model(model)
        refuse_inputs((tuple(args), dict(kwargs)))
    except ForgeError:  # which nothing could be done about
        return result
    module = as_module(model)

    def noted(reason: Exception, place: Location | None) -> None:
        result.diagnostics += (reason if isinstance(reason, ForgeError) else refusal(reason, place)).diagnostics

    try:
        with (
            torch.no_grad(),
            quiet(),
            unchanged(module),
            changes(module) as result.changes,
            whole_stack_traces(),
            recorded_checks() as checks,
            recorded_transforms() as transforms,
            _deep_stacks(),
            _plain_results(module, noted),
            going_on(module, noted),
            dense(),
            DataIsDetached(),
        ):
            program = torch.export.draft_export(
                module, tuple(args), dict(kwargs), dynamic_shapes=dynamic_shapes, strict=False
            )
            gc.collect()  # its log files are open until then, and would be complained about elsewhere
    except Exception as reason:
        result.seen_to = raised_at(reason.__traceback__)
        if result.seen_to is not None:
            result.diagnostics += refusal(reason).diagnostics
        return result
    program.graph_module.meta[CHECKS] = checks
    program.graph_module.meta[CHANGED] = [replace(change, slots=()) for change in result.changes]
    report: Any = getattr(program, "_report", None)
    files = {**_known_files(), **getattr(report, "str_to_filename", {})}
    result.diagnostics += [_diagnostic(f, files) for f in getattr(report, "failures", ()) if not f.xfail]
    try:
        result.program = resolved(program)
    except ForgeError as failure:
        result.seen_to = next(iter(transforms), None)
        result.diagnostics += failure.at(result.seen_to).diagnostics
    except Exception:  # said already, or for the reason that the first refusal gives
        result.program = program
    return result


@contextmanager
def _plain_results(module: torch.nn.Module, noted: Noted) -> Iterator[None]:
    """Inside the ``with`` block the model returns None for what no result may hold, which is noted."""

    def plain(leaf: Any) -> Any:
        if isinstance(leaf, (*LEAVES, torch.SymInt, torch.SymFloat, torch.SymBool)):
            return leaf
        noted(output_refusal(type(leaf)), None)
        return None

    held = module.register_forward_hook(lambda _, __, result: _pytree.tree_map(plain, result))
    try:
        yield
    finally:
        held.remove()


@contextmanager
def _deep_stacks() -> Iterator[None]:
    """Inside the ``with`` block torch's report has more than the innermost frames, which are those of modes."""
    from torch._logging import structured

    original: Any = structured.get_user_stack
    structured.get_user_stack = lambda count: original(count + 100)
    try:
        yield
    finally:
        structured.get_user_stack = original


def _known_files() -> dict[Any, str]:
    """Names of files by torch's numbers for them, which a report leaves out when an earlier one had them."""
    from torch._logging import structured

    return {number: name for name, number in getattr(structured, "INTERN_TABLE", {}).items()}


def _diagnostic(failure: Any, files: Mapping[Any, str]) -> Diagnostic:
    kind, data = failure.failure_type.name, failure.data
    place, remedy = _place(data.get("user_stack") or (), files), _REMEDIES.get(kind)
    if kind == "DATA_DEPENDENT_ERROR":
        text = decided(str(data.get("expr")), place)
        message = f"the model decides by data: torch.export would need to know whether {text}"
        remedy = LIBRARY_REMEDY if is_library_line(place) else remedy
    elif kind in ("MISSING_FAKE_KERNEL", "MISMATCHED_FAKE_KERNEL"):
        reason = "has no fake kernel" if kind.startswith("MISSING") else "has a fake kernel that says something else"
        message = f"the operator {data.get('op')} {reason}"
    else:
        message = f"torch.export adds a condition on the inputs: {data.get('expr')}"
    return Diagnostic("FORGE-C001", message, place, help=remedy)


def _place(stack: Sequence[Mapping[str, Any]], files: Mapping[Any, str]) -> Location | None:
    for frame in reversed(stack):
        file = files.get(frame.get("filename"), str(frame.get("filename")))
        if is_user_file(file):
            return Location(portable_path(file), int(frame.get("line", 0)), str(frame.get("name", "")))
    return None
