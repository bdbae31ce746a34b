"""Capture: a model and example inputs in, a forge module and its data out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp

from forgec.capture.attributes import held_tensors
from forgec.capture.changes import CHANGED, Change
from forgec.capture.contract import contract, parameter_names
from forgec.capture.convert import convert
from forgec.capture.dims import dim_labels
from forgec.capture.export import export
from forgec.capture.python_state import STATES
from forgec.capture.seeds import SEEDS
from forgec.diagnostics import Diagnostic


@dataclass
class Captured:
    """A forge module with one function ``forward``, and the tensors that its parameters and states name."""

    module: ModuleOp
    tensors: dict[str, torch.Tensor]
    warnings: list[Diagnostic] = field(default_factory=list)


def export_model(
    model: Any, args: Sequence[Any], kwargs: Mapping[str, Any], dynamic_shapes: Any = None
) -> torch.export.ExportedProgram:
    """torch.export's part: see :func:`forgec.capture.export.export`."""
    return export(model, args, kwargs, dynamic_shapes)


def import_program(
    program: torch.export.ExportedProgram,
    model: Any,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    dynamic_shapes: Any = None,
) -> Captured:
    """forgec's part: the exported graph as a forge module.

    ``model`` is what was exported (for its parameters' names); the example inputs and ``dynamic_shapes`` give symbols
    the names that the user gave to dimensions.
    """
    names: dict[int, str] = {}
    if isinstance(model, torch.nn.Module):
        names = {id(t): name for name, t in (*model.named_parameters(), *held_tensors(model).items())}
    states = program.graph_module.meta.get(STATES, {})
    names |= {id(program.constants[buffer]): name for buffer, name in states.items() if buffer in program.constants}
    labels = dim_labels(program, parameter_names(program, model), args, kwargs or {}, dynamic_shapes)
    conversion = convert(program, names, labels)
    for op in conversion.module.ops:
        if isinstance(op, FuncOp):
            contract(program, conversion, model).attach(op)
    warnings = [*changed(program.graph_module.meta.get(CHANGED, ())), *_seeds(program)]
    return Captured(conversion.module, conversion.params, warnings)


def changed(changes: Iterable[Change]) -> list[Diagnostic]:
    """What a model changes when it runs, as warnings."""
    return [
        Diagnostic("FORGE-C007", message, change.place, help=remedy, severity="warning")
        for change in changes
        for message, remedy in [_said(change)]
    ]


def _said(change: Change) -> tuple[str, str]:
    if change.what == "argument":
        return (
            f"the model changes its argument {change.name!r}; the compiled program returns what it computes and leaves "
            "the argument alone",
            "return the new contents",
        )
    return (
        f"the model changes its {change.what} {change.name!r} when it runs; the compiled program will not",
        "keep it in a buffer that holds a tensor from the start: register_buffer makes it state",
    )


def _seeds(program: torch.export.ExportedProgram) -> list[Diagnostic]:
    return [
        Diagnostic(
            "FORGE-C008",
            f"the model calls torch.{seed.function} when it runs; the compiled program will not",
            seed.place,
            help="call it before the model",
            severity="warning",
        )
        for seed in program.graph_module.meta.get(SEEDS, ())
    ]
