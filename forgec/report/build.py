"""Builds the report of one compilation from its modules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from xdsl.dialects.builtin import ModuleOp

from forgec.diagnostics import Diagnostic
from forgec.ir import plan
from forgec.ir.cost import default_bindings, module_cost
from forgec.passes.tile_choices import Choice
from forgec.report.report import Report, Totals, fallbacks, owned_registers, totals
from forgec.runtime.binding import likely, peak_of
from forgec.runtime.control import is_control
from forgec.runtime.kernels import is_kernel, kernel_name
from forgec.runtime.plan import Param, Plan, State

__all__ = ["default_bindings", "referenced", "report", "totals"]


def referenced(exported: Plan) -> list[str]:
    """Names of the tensors that a plan reads from the weights, in order of first use."""
    names: dict[str, None] = {}
    for entry in exported.entries:
        for register in entry.registers:
            if isinstance(register, Param) or (isinstance(register, State) and not register.zeros):
                names[register.name] = None
    return list(names)


def report(
    *,
    target: str,
    pipeline: str,
    before: Totals,
    forge: ModuleOp,
    tile: ModuleOp | None,
    plan: ModuleOp,
    exported: Plan,
    passes: list[dict[str, Any]],
    seconds: dict[str, float],
    bindings: dict[str, int],
    warnings: list[Diagnostic],
    remarks: list[Diagnostic],
    choices: Sequence[Choice] = (),
    weights: list[dict[str, Any]] | None = None,
    precision: str = "float32",
) -> Report:
    """The report of a compilation."""
    entries = _entries(plan)
    import torch

    launches = [launch.op for entry in exported.entries for launch in entry.launches]
    called = Counter(kernel_name(op) for op in launches if is_kernel(op))
    every = {entry.name: entry for entry in exported.entries}
    bound = [(entry, likely(entry, bindings)) for entry in exported.public]
    peaks = [[peak_of(*pair, threads, every).total_bytes for pair in bound] for threads in (torch.get_num_threads(), 1)]
    return Report(
        target=target,
        pipeline=pipeline,
        captured=before,
        optimized=totals(forge, bindings),
        launches=module_cost(forge, symbols=bindings).total.launches,
        calls=sum(not is_control(launch.op) for entry in exported.entries for launch in entry.launches),
        kernels=[{**choice.to_dict(), "launches": called[choice.name]} for choice in choices],
        kernel_calls=called.total(),
        buffers=sum(len(owned_registers(entry)) for entry in entries),
        peak_bytes=max(peaks[0], default=0),
        peak_bytes_one_thread=max(peaks[1], default=0),
        fallbacks=fallbacks(forge, bindings, tile),
        passes=passes,
        seconds=seconds,
        bindings=bindings,
        warnings=warnings,
        remarks=remarks,
        weights=weights or [],
        precision=precision,
    )


def _entries(module: ModuleOp) -> list[plan.EntryOp]:
    return [op for op in module.ops if isinstance(op, plan.EntryOp)]
