"""Verification of whole modules: every broken invariant at once, each at the user's line."""

from __future__ import annotations

from collections.abc import Iterator

from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation, Region, SSAValue
from xdsl.utils.exceptions import VerifyException

from forgec.diagnostics import Diagnostic, ForgeError
from forgec.ir.attributes import StateType
from forgec.ir.locations import location_of
from forgec.ir.ops.module import StateReadOp, StateWriteOp, verify_linear
from forgec.ir.tile.kernel_bodies import broken_bodies
from forgec.ir.tile.launches import misfitting_launches
from forgec.ir.warp.groups import broken_groups


def verify_module(module: ModuleOp) -> None:
    """Raises FORGE-I002 with one diagnostic for each op that breaks an invariant; returns if there is none."""
    diagnostics = [
        Diagnostic("FORGE-I002", f"{op.name} {reason}", location_of(op)) for op, reason in broken_ops(module)
    ]
    if diagnostics:
        raise ForgeError(diagnostics)


def broken_ops(module: ModuleOp) -> Iterator[tuple[Operation, str]]:
    """The ops that do not verify, each with the invariant that it breaks.

    Beyond the ops' own verifiers this checks that values are defined before they are used, wherever regions have one
    block (xDSL checks no dominance, and a rewrite that inserts at the wrong place breaks exactly that), that state is
    linear also where no op of the dialect touches it, that launches fit their kernels, and that kernels hold what they
    may.
    """
    try:
        module.verify()
    except Exception as failure:
        yield from _failing_verifiers(module, failure)
    for region in module.regions:
        yield from _early_uses(region, set())
    yield from _lost_states(module)
    yield from misfitting_launches(module)
    yield from broken_bodies(module)
    yield from broken_groups(module)


def _failing_verifiers(module: ModuleOp, failure: Exception) -> Iterator[tuple[Operation, str]]:
    found = False
    failed: list[tuple[Operation, str]] = []
    for op in module.walk():
        try:
            op.verify(verify_nested_ops=False)
        except (VerifyException, ValueError) as reason:
            found = True
            yield op, _text(reason)
        except Exception as reason:  # a verifier of another dialect, which relies on what a broken op does not have
            failed.append((op, f"does not verify: {type(reason).__name__}: {reason}"))
    if not found and failed:
        yield from failed
    elif not found:  # an invariant of a block or a region, which no op owns
        yield module, _text(failure)


def _text(reason: Exception) -> str:
    lines = str(reason).strip().splitlines()
    return f"does not verify: {lines[0].removesuffix('.')}" if lines else "does not verify"


def _early_uses(region: Region, visible: set[SSAValue]) -> Iterator[tuple[Operation, str]]:
    added: list[SSAValue] = []
    blocks = list(region.blocks)
    for block in blocks:
        added += block.args
        if len(blocks) > 1:  # which block dominates which is the control flow's business: accept all of them
            added += [result for op in block.ops for result in op.results]
    visible.update(added)
    for block in blocks:
        for op in block.ops:
            for index, operand in enumerate(op.operands):
                if operand not in visible:
                    name = f" (%{operand.name_hint})" if operand.name_hint else ""
                    yield op, f"uses operand {index}{name} before it is defined"
            for inner in op.regions:
                yield from _early_uses(inner, visible)
            visible.update(op.results)
            added += op.results
    visible.difference_update(added)


def _lost_states(module: ModuleOp) -> Iterator[tuple[Operation, str]]:
    """Arguments and results of calls that hold state and are not consumed once (state ops check what they take)."""
    for op in module.walk():
        versions: list[SSAValue] = [v for region in op.regions for block in region.blocks for v in block.args]
        if not isinstance(op, StateWriteOp):
            versions += op.results
        for version in versions:
            if not isinstance(version.type, StateType):
                continue
            if any(isinstance(use.operation, (StateReadOp, StateWriteOp)) for use in version.uses):
                continue
            try:
                verify_linear(version)
            except VerifyException as reason:
                yield op, _text(reason)
