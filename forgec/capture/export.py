"""Models → exported programs, with torch.export's refusals as diagnostics."""

from __future__ import annotations

import contextlib
import inspect
import re
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch

from forgec.capture.attributes import unchanged
from forgec.capture.changes import CHANGED, changes, restored
from forgec.capture.checks import CHECKS, recorded_checks, recorded_transforms
from forgec.capture.detached import DataIsDetached
from forgec.capture.dynamic_shapes import check_dynamic_shapes
from forgec.capture.flex import dense
from forgec.capture.places import is_library_line, raised_at, whole_stack_traces
from forgec.capture.python_state import STATES, Traced, with_states
from forgec.capture.quiet import quiet
from forgec.capture.refusals import refuse_inputs, refuse_model, refused_output, reshaped_itself
from forgec.capture.seeds import SEEDS, recorded_seeds
from forgec.capture.violations import recorded_lines, violation
from forgec.capture.wording import decided
from forgec.diagnostics import ForgeError, Location, error
from forgec.runtime.extents import overlaps_itself
from forgec.runtime.tree import is_registered


def export(
    model: Any, args: Sequence[Any], kwargs: Mapping[str, Any], dynamic_shapes: Any = None
) -> torch.export.ExportedProgram:
    """Export a module or a function, not decomposed. An exported program is returned as it is (but see ``resolved``).

    Raises ForgeError: C002 for example inputs of the wrong kind, C001 where torch.export refuses or the model raises.
    """
    if not isinstance(args, (tuple, list)) or not isinstance(kwargs, Mapping):
        raise error(
            "FORGE-C002",
            f"example inputs are a {type(args).__name__} and a {type(kwargs).__name__}, "
            "they must be a tuple and a dict",
            help="wrap a single tensor as (x,)" if isinstance(args, torch.Tensor) else None,
        )
    if isinstance(model, torch.export.ExportedProgram):
        return resolved(model)
    refuse_model(model)
    refuse_inputs((tuple(args), dict(kwargs)))
    module = as_module(model)
    check_dynamic_shapes(module, args, kwargs, dynamic_shapes)
    with (
        torch.no_grad(),
        quiet(),
        unchanged(module),
        whole_stack_traces(),
        recorded_checks() as checks,
        recorded_seeds() as seeds,
        recorded_transforms() as transforms,
        recorded_lines(),
        dense(),
    ):
        try:
            args, kwargs = _distinct(tuple(args), dict(kwargs))
            _register_dataclasses((args, kwargs))

            def trace() -> Traced:
                checks.clear()
                seeds.clear()
                program, failure = None, None
                with changes(module) as changed:
                    try:
                        program = _export(module, args, kwargs, dynamic_shapes)
                    except Exception as reason:  # raised again, unless a trace with states passes
                        failure = reason
                return Traced(program, changed, list(checks), list(seeds), failure)

            def trace_again() -> Traced:
                traced = trace()
                if traced.failure is None:
                    return traced
                with restored(module):
                    registered = _registers_result(module, args, kwargs)
                return trace() if registered else traced

            traced, states = with_states(module, args, kwargs, trace_again)
            program = resolved(traced.result())
        except ForgeError as failure:
            raise failure.at(next(iter(transforms), None)) from None
        except Exception as reason:
            raise refused_output(str(reason)) or refusal(reason) from reason
    program.graph_module.meta[CHANGED] = [replace(change, slots=()) for change in traced.changes]
    program.graph_module.meta[CHECKS] = traced.checks
    program.graph_module.meta[SEEDS] = traced.seeds
    program.graph_module.meta[STATES] = states
    return program


@contextlib.contextmanager
def _keyed_containers() -> Iterator[None]:
    """Inside the ``with`` block containers that were registered without keys have numbers, which torch.export wants."""
    from torch.utils import _pytree

    def keyed(node: Any) -> Callable[[Any], Any]:
        def flatten(value: Any) -> Any:
            children, context = node.flatten_fn(value)
            return [(_pytree.SequenceKey(i), child) for i, child in enumerate(children)], context

        return flatten

    held = {c: n for c, n in _pytree.SUPPORTED_NODES.items() if n.flatten_with_keys_fn is None and is_registered(c)}
    _pytree.SUPPORTED_NODES.update({c: n._replace(flatten_with_keys_fn=keyed(n)) for c, n in held.items()})
    try:
        yield
    finally:
        _pytree.SUPPORTED_NODES.update(held)


def _export(module: torch.nn.Module, args: Any, kwargs: Any, dynamic_shapes: Any) -> torch.export.ExportedProgram:
    mode = DataIsDetached()
    try:
        with mode, _keyed_containers():
            return torch.export.export(module, args, kwargs, dynamic_shapes=dynamic_shapes, strict=False)
    except (AssertionError, IndexError) as reason:
        if not mode.reshaped or raised_at(reason.__traceback__) is not None:
            raise
        name, place = mode.reshaped[0]
        raise reshaped_itself(f"aten::{name}", "an input", place) from reason


def resolved(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """The program with what a graph that is not decomposed leaves open written out: the casts of autocast regions, and
    the batches of ``torch.vmap``."""
    region: Any = torch.ops.higher_order.wrap_with_autocast
    calls = [node for node in program.graph.nodes if node.op == "call_function"]
    batched = any(getattr(node.target, "__module__", "") == "torch._functorch.predispatch" for node in calls)
    functorch: Any = torch._C._functorch  # type: ignore[attr-defined]
    for name, constant in program.constants.items():
        if isinstance(constant, torch.Tensor) and functorch.is_functorch_wrapped_tensor(constant):
            text = "torch.export loses the tensors that torch.func transforms (grad, jvp, functionalize)"
            raise error(
                "FORGE-C003",
                text,
                notes=(f"it took {name} for a constant",),
                help="write the derivative out, or take it outside of the model",
            )
    if not batched and not any(node.target is region and node.args[2] for node in calls):
        return program
    with quiet():
        return program.run_decompositions({})


def _register_dataclasses(value: Any) -> bool:
    """Tell torch.export about the dataclasses in a value that it does not know; True if there were any."""
    from torch.utils import _pytree

    found = False
    if is_dataclass(value) and not isinstance(value, type):
        if type(value) not in _pytree.SUPPORTED_NODES:
            torch.export.register_dataclass(type(value))
            found = True
        value = [getattr(value, entry.name) for entry in fields(value)]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            found = _register_dataclasses(item) or found
    return found


def _registers_result(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """After a refusal: run the model, and tell torch.export about new dataclasses in what it returns; True if there
    are any."""
    from torch.utils import _pytree

    try:
        args, kwargs = _pytree.tree_map_only(torch.Tensor, torch.clone, (args, kwargs))  # which it may write
        return _register_dataclasses(module(*args, **kwargs))
    except Exception:  # what the model raises, torch.export has reported already
        return False


def as_module(model: Any) -> torch.nn.Module:
    """A module, or a callable as one: torch.export takes nothing else."""
    return model if isinstance(model, torch.nn.Module) else _FunctionModule(_plain(model))


def _plain(model: Callable[..., Any]) -> Callable[..., Any]:
    """A callable as a Python function: torch.export wants its code and its signature, which objects with ``__call__``,
    partial applications and functions written in C have not."""
    if inspect.isroutine(model) and hasattr(model, "__code__"):
        return model

    def call(*args: Any, **kwargs: Any) -> Any:
        return model(*args, **kwargs)

    with contextlib.suppress(TypeError, ValueError):
        call.__signature__ = inspect.signature(model)  # type: ignore[attr-defined]
    return call


class _FunctionModule(torch.nn.Module):
    """A plain function as a module: ``forward`` is the function itself, so that its signature stays."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.forward = function


def _distinct(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The example inputs with each tensor an object of its own, and each element a place of its own.

    For torch.export one tensor passed twice is one input. And what ``expand`` made has a layout that no other tensor
    has, so the model could be called with nothing else.
    """
    seen: set[int] = set()

    def copy_of_repeated(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            if id(value) in seen:
                fresh = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=value.device)
                return fresh.copy_(value.detach())
            seen.add(id(value))
            if value.layout is torch.strided and overlaps_itself(value.shape, value.stride(), repeats=False):
                return value.detach().contiguous().requires_grad_(value.requires_grad)
        return value

    from torch.utils import _pytree

    return _pytree.tree_map(copy_of_repeated, (args, kwargs))


def refusal(reason: Exception, place: Location | None = None) -> ForgeError:
    """What torch or the model said, at the user's innermost line."""
    place = place or raised_at(reason.__traceback__)
    violated = violation(reason, place)
    if violated is not None:
        return violated
    text = str(reason).strip().split("\n\n")[0]
    lines = [re.sub(r"[^.]*https?://\S+", "", line).strip() for line in text.splitlines()]
    notes = tuple(line for line in lines if line)[:6] or (type(reason).__name__,)
    cache = re.search(r"\w*Cache\b", text)
    remedy = f"the model returns a {cache[0]}; pass use_cache=False to a transformers model" if cache else RUN_REMEDY
    message = f"torch.export could not export the model: {type(reason).__name__}"
    asked = re.search(r"data-dependent expression (.*?) \(unhinted", text)
    if asked is not None and _is_about_rows(reason):
        message = "torch.export takes no loop (scan, map) over as many rows as only the run tells"
        remedy = "loop over all rows: choose rows of the result, or keep the carried value (torch.where) at the others"
    elif asked is not None:
        message = f"the model decides by data: torch.export would need to know whether {decided(asked[1], place)}"
        remedy = LIBRARY_REMEDY if is_library_line(place) else DECIDE_REMEDY
    return error("FORGE-C001", message, location=place, notes=notes, help=remedy)


RUN_REMEDY = "call the model with the same inputs: what eager PyTorch raises as well is the model's own"
DECIDE_REMEDY = "say both ways with torch.cond or torch.where, or state what holds with torch._check"


LIBRARY_REMEDY = (
    "the line is in a library: look for an option or a version of it that does not decide, put a module of your own in "
    "the place of the one that does (torch.cond and torch.where say both ways), or compile the parts around it"
)


def _is_about_rows(reason: Exception) -> bool:
    """True if torch's compiler of a loop's body asked: whether there is a row to trace the body with."""
    codes = (frame.f_code for frame, _ in traceback.walk_tb(reason.__traceback__))
    return any(
        code.co_qualname.startswith(("Scan", "Map", "AssociativeScan"))
        or code.co_filename.endswith(("_higher_order_ops/scan.py", "_higher_order_ops/map.py"))
        for code in codes
    )
