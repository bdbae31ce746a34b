"""Models → exported programs, with torch.export's refusals as diagnostics."""

from __future__ import annotations

import io
import logging
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from typing import Any

import torch

from forgec.capture.attributes import unchanged
from forgec.capture.places import portable_path
from forgec.diagnostics import ForgeError, Location, error


def export(
    model: Any, args: Sequence[Any], kwargs: Mapping[str, Any], dynamic_shapes: Any = None
) -> torch.export.ExportedProgram:
    """Export a module or a function, not decomposed. An exported program is returned as it is.

    Raises ForgeError: C002 for example inputs of the wrong kind, C001 where torch.export refuses or the model raises.
    """
    if isinstance(model, torch.export.ExportedProgram):
        return model
    if not isinstance(args, (tuple, list)) or not isinstance(kwargs, Mapping):
        raise error(
            "FORGE-C002",
            f"example inputs are a {type(args).__name__} and a {type(kwargs).__name__}, "
            "they must be a tuple and a dict",
            help="wrap a single tensor as (x,)" if isinstance(args, torch.Tensor) else None,
        )
    module = model if isinstance(model, torch.nn.Module) else _FunctionModule(model)
    with torch.no_grad(), _quiet(), unchanged(module):
        try:
            args, kwargs = _distinct(tuple(args), dict(kwargs))
            return torch.export.export(module, args, kwargs, dynamic_shapes=dynamic_shapes, strict=False)
        except ForgeError:
            raise
        except Exception as reason:
            raise _refusal(reason) from reason


class _FunctionModule(torch.nn.Module):
    """A plain function as a module: ``forward`` is the function itself, so that its signature stays."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.forward = function


def _distinct(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The example inputs with each tensor an object of its own: for torch.export one tensor passed twice is one
    input."""
    seen: set[int] = set()

    def copy_of_repeated(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            if id(value) in seen:
                fresh = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=value.device)
                return fresh.copy_(value.detach())
            seen.add(id(value))
        return value

    from torch.utils import _pytree

    return _pytree.tree_map(copy_of_repeated, (args, kwargs))


def _refusal(reason: Exception) -> ForgeError:
    """What torch or the model said, at the user's innermost line."""
    place = None
    trace = reason.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if "/torch/" not in code.co_filename and not code.co_filename.endswith(("capture/export.py", "forgec/api.py")):
            place = Location(portable_path(code.co_filename), trace.tb_lineno, code.co_qualname)
        trace = trace.tb_next
    text = str(reason).strip().split("\n\n")[0]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    notes = tuple(lines[:6]) or (type(reason).__name__,)
    return error(
        "FORGE-C001", f"torch.export could not export the model: {type(reason).__name__}", location=place, notes=notes
    )


@contextmanager
def _quiet():
    """torch.export's warnings, log lines and dumps of graphs are for its developers; what the model prints is kept."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    held = io.StringIO()
    try:
        with warnings.catch_warnings(), redirect_stderr(held):
            warnings.simplefilter("ignore")
            yield
        sys.stderr.write(held.getvalue())
    finally:
        logging.disable(disabled)
