"""The compile report: counts before and after, fallbacks with the user's lines, memory, times."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation

from forgec.diagnostics import Diagnostic
from forgec.ir import plan, types
from forgec.ir.cost import Cost, counted_ops, gain, value_of
from forgec.ir.layout import span_bytes
from forgec.ir.locations import from_attribute
from forgec.ir.ops.aten import AtenOp
from forgec.ir.ops.base import ForgeOp
from forgec.ir.ops.module import ConstantOp, ParamRefOp
from forgec.passes.manager import gains
from forgec.passes.outlining import occurrences
from forgec.runtime.symbolic import Extent, evaluate

ON_REQUEST = {"seconds", *gains(Cost(), Cost())}
"""What an entry of ``passes`` says on request only: it is not in artifacts."""


@dataclass
class Totals:
    """What one forge module computes, for the extents in ``bindings``."""

    ops: int = 0
    """Nodes: ops that compute. Parameters, constants and state are none; those of a layer count once for each call."""
    values: int = 0
    value_bytes: int = 0
    bytes_moved: int = 0
    flops: int = 0


@dataclass
class Report:
    """Facts about one compilation. ``to_dict`` is the stable interface; byte counts hold for the extents in
    ``bindings``."""

    target: str = "cpu:aten"
    pipeline: str = ""
    captured: Totals = field(default_factory=Totals)
    optimized: Totals = field(default_factory=Totals)
    launches: int = 0
    calls: int = 0
    kernels: list[dict[str, Any]] = field(default_factory=list)
    kernel_calls: int = 0
    buffers: int = 0
    peak_bytes: int = 0
    peak_bytes_one_thread: int = 0
    fallbacks: list[dict[str, Any]] = field(default_factory=list)
    weights: list[dict[str, Any]] = field(default_factory=list)
    calibration: dict[str, Any] = field(default_factory=dict)
    precision: str = "float32"
    warnings: list[Diagnostic] = field(default_factory=list)
    remarks: list[Diagnostic] = field(default_factory=list)
    passes: list[dict[str, Any]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    bindings: dict[str, int] = field(default_factory=dict)

    def to_dict(self, *, times: bool = True) -> dict[str, Any]:
        """The report as JSON-compatible data.

        ``fusion_gain_ratio`` is bytes moved through memory before ÷ after the passes, from the ops' cost functions.
        ``launches`` counts the ops of the optimised module that are kernels (a ``forge.fused`` is one), ``calls`` the
        operators that the plan calls for them, of which ``kernel_calls`` are launches of kernels of tiles and the
        others calls of ATen; ``kernels`` has an entry for each kernel: how often it is launched, its tile extents, what
        one launch costs for the extents in ``extents``, and the candidates for its tiles with their estimates.
        ``buffers_naive`` and ``peak_bytes_naive`` are those of a plan with one buffer for each value that the captured
        graph computes. Where the compilation was asked for ``pass_costs``, each of ``passes`` says its own share:
        ``bytes_moved_before`` and ``_after``, their ratio ``fusion_gain_ratio``, ``launches_before`` and ``_after``,
        and theirs, ``launch_ratio``.
        ``weights`` has an entry for each weight that is stored in fewer bits: ``name``, ``precision``, ``bytes_before``
        and ``bytes``, the largest error of an element (``max``) and the root of the mean square (``rms``), both
        relative to the weight's own, and the latter of what it makes of random rows (``output_rms``); errors that are
        not finite are texts. ``calibration``, where the compilation was asked for it, has ``perplexity_before`` and
        ``_after`` and the number of ``tokens``, or ``output_rms``, which is relative to the outputs' own.
        ``precision`` is what products of float32 round their factors to.
        Without ``times`` the result is a function of model, pipeline and target alone.
        """
        passes = [{k: v for k, v in entry.items() if times or k not in ON_REQUEST} for entry in self.passes]
        result: dict[str, Any] = {
            "target": self.target,
            "pipeline": self.pipeline,
            "ops_captured": self.captured.ops,
            "ops_optimized": self.optimized.ops,
            "launches": self.launches,
            "calls": self.calls,
            "kernel_calls": self.kernel_calls,
            "kernels": self.kernels,
            "fallbacks": self.fallbacks,
            "buffers": self.buffers,
            "buffers_naive": self.captured.values,
            "peak_bytes": self.peak_bytes if times else self.peak_bytes_one_thread,
            "peak_bytes_naive": self.captured.value_bytes,
            "flops": self.optimized.flops,
            "bytes_moved": self.optimized.bytes_moved,
            "fusion_gain_ratio": gain(self.captured.bytes_moved, self.optimized.bytes_moved),
            "weights": self.weights,
            "calibration": self.calibration,
            "precision": self.precision,
            "warnings": [warning.to_dict() for warning in self.warnings],
            "passes": passes,
            "bindings": self.bindings,
        }
        if times:
            result["seconds"] = self.seconds
        return result


def totals(module: ModuleOp, bindings: dict[str, int]) -> Totals:
    """Count what a forge module computes. Parameters, constants and state are no computations."""
    result = Totals()
    for op, times in computations(module):
        result.ops += times
        result.flops += times * value_of(op.flops(), bindings)
        result.bytes_moved += times * value_of(op.bytes_moved(), bindings)
        for value in op.results:
            result.values += times
            result.value_bytes += times * value_of(types.nbytes(value), bindings)
    return result


def computations(module: ModuleOp) -> Iterator[tuple[ForgeOp, int]]:
    """The ops of a module that compute a tensor, each with how often: once for each call of its function."""
    for op, times in counted_ops(module):
        if isinstance(op, ForgeOp) and not isinstance(op, (ParamRefOp, ConstantOp)):
            yield op, times


def fallbacks(module: ModuleOp, bindings: dict[str, int], lowered: ModuleOp | None = None) -> list[dict[str, Any]]:
    """The operators that run as ``forge.aten``: count, the user's lines, and share of the FLOPs of the module.

    ``lowered`` is the module after its lowering to kernels, where the target has any: an operator that has become one
    is no fallback.
    """
    counts: dict[str, int] = {}
    flops: dict[str, int] = {}
    lines: dict[str, set[str]] = {}
    total = sum(times * value_of(op.flops(), bindings) for op, times in computations(module))
    left = module if lowered is None else lowered
    for op, times in computations(left):
        if is_fallback(op):
            name = op.callee.data
            counts[name] = counts.get(name, 0) + times
            flops[name] = flops.get(name, 0) + times * value_of(op.flops(), bindings)
    for op, location in occurrences(left, is_fallback):
        lines.setdefault(op.callee.data, set()).update(map(str, from_attribute(location)[:1]))
    return [
        {
            "op": name,
            "count": count,
            "lines": sorted(lines[name]),
            "share_of_flops": round(flops[name] / total, 6) if total else 0.0,
        }
        for name, count in sorted(counts.items())
    ]


def is_fallback(op: Operation) -> TypeGuard[AtenOp]:
    """True for an operation of the model that has no op, and after the lowering no kernel, of its own."""
    return isinstance(op, AtenOp) and not op.is_naming


def owned_registers(entry: plan.EntryOp) -> list[Operation]:
    """The ops of a plan that bring bytes of their own: buffers, outputs, and launches whose operator allocates."""
    owners: list[Operation] = []
    for op in entry.body.block.ops:
        if isinstance(op, (plan.BufferOp, plan.OutputOp)):
            owners.append(op)
        elif isinstance(op, plan.LaunchOp):
            owners.extend([op] * len(op.results))
    return owners


def bytes_of(value: Any, bindings: dict[str, int]) -> int:
    """Bytes that a register spans, for some extents."""
    size: Extent = span_bytes(types.tensor_type(value))
    return evaluate(size, bindings)
