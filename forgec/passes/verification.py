"""All the invariants that a module breaks, one diagnostic each, instead of the first one only."""

from __future__ import annotations

from collections.abc import Iterator

from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation, Region, SSAValue
from xdsl.utils.exceptions import VerifyException

from forgec.diagnostics import Diagnostic
from forgec.ir.locations import location_of


def broken_ops(module: ModuleOp) -> Iterator[tuple[Operation, str]]:
    """The ops that do not verify, each with the invariant that it breaks.

    Beyond the ops' own verifiers this checks that values are defined before they are used, wherever regions have one
    block (xDSL checks no dominance, and a rewrite that inserts at the wrong place breaks exactly that).
    """
    healthy = True
    try:
        module.verify()
    except (VerifyException, ValueError):
        healthy = False
    if not healthy:
        yield from _failing_verifiers(module)
    yield from _uses_before_definitions(module)


def verify(module: ModuleOp) -> list[Diagnostic]:
    """FORGE-I002 for each broken invariant; empty if the module is valid."""
    return [diagnostic_of(op, reason) for op, reason in broken_ops(module)]


def diagnostic_of(op: Operation, reason: str) -> Diagnostic:
    """FORGE-I002 for one op."""
    return Diagnostic("FORGE-I002", f"{op.name} {reason}", location_of(op))


def _failing_verifiers(module: ModuleOp) -> Iterator[tuple[Operation, str]]:
    found = False
    for op in module.walk():
        reason = _reason(op)
        if reason is not None:
            found = True
            yield op, reason
    if not found:  # an invariant of a block or a region, which no op owns
        yield module, _reason(module, nested=True) or "does not verify"


def _reason(op: Operation, nested: bool = False) -> str | None:
    try:
        op.verify(verify_nested_ops=nested)
    except (VerifyException, ValueError) as exc:
        lines = str(exc).strip().splitlines()
        return f"does not verify: {lines[0].removesuffix('.')}" if lines else "does not verify"
    return None


def _uses_before_definitions(module: ModuleOp) -> Iterator[tuple[Operation, str]]:
    visible: set[SSAValue] = set()
    for region in module.regions:
        yield from _check_region(region, visible)


def _check_region(region: Region, visible: set[SSAValue]) -> Iterator[tuple[Operation, str]]:
    blocks = list(region.blocks)
    added: list[SSAValue] = []
    for block in blocks:
        added += block.args
        if len(blocks) > 1 or isinstance(region.parent, ModuleOp):  # control flow, or a graph region: any order
            added += [result for op in block.ops for result in op.results]
    visible.update(added)
    for block in blocks:
        for op in block.ops:
            for index, operand in enumerate(op.operands):
                if operand not in visible:
                    yield op, f"uses operand {index}{_name(operand)} before it is defined"
            for inner in op.regions:
                yield from _check_region(inner, visible)
            visible.update(op.results)
            added += op.results
    visible.difference_update(added)


def _name(value: SSAValue) -> str:
    return f" (%{value.name_hint})" if value.name_hint else ""
