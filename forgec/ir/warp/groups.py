"""What no op of a scheduled kernel can check alone: who stands where, and whether channels have both ends."""

from __future__ import annotations

from collections.abc import Iterator

from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation

from forgec.ir.tile.kernel import ReturnOp
from forgec.ir.warp.asynchronous import AsyncLoadOp, MmaOp, WaitOp
from forgec.ir.warp.channels import ConsumedOp, CreateOp, GetOp, PutOp
from forgec.ir.warp.kernel import GroupOp, KernelOp

IN_GROUPS = (PutOp, GetOp, ConsumedOp, AsyncLoadOp, MmaOp, WaitOp)
"""Ops that are part of one group's stream."""


def broken_groups(module: ModuleOp) -> Iterator[tuple[Operation, str]]:
    """The ops of scheduled kernels that break an invariant, each with what it is."""
    for op in module.walk():
        if isinstance(op, KernelOp):
            yield from _placed(op)
            for create in [each for each in op.body.block.ops if isinstance(each, CreateOp)]:
                yield from _ends(create)
        elif isinstance(op, (*IN_GROUPS, CreateOp)) and not _is_in_kernel(op):
            yield op, "does not verify: it stands in no warp.kernel"


def _is_in_kernel(op: Operation) -> bool:
    parent = op.parent_op()
    while parent is not None and not isinstance(parent, KernelOp):
        parent = parent.parent_op()
    return parent is not None


def group_of(op: Operation) -> GroupOp | None:
    """The group in whose stream an op stands."""
    parent = op.parent_op()
    while parent is not None and not isinstance(parent, GroupOp):
        parent = parent.parent_op()
    return parent


def _placed(kernel: KernelOp) -> Iterator[tuple[Operation, str]]:
    names: set[str] = set()
    for group in kernel.groups:
        if group.group_name.data in names:
            yield group, f"does not verify: the kernel has two groups named {group.group_name.data!r}"
        names.add(group.group_name.data)
    if not names:
        yield kernel, "does not verify: a scheduled kernel has at least one group"
    for op in kernel.body.walk():
        inside = group_of(op) is not None
        if isinstance(op, CreateOp) and op.parent_op() is not kernel:
            yield op, "does not verify: channels are made outside of groups, which share them"
        elif isinstance(op, IN_GROUPS) and not inside:
            yield op, "does not verify: it stands outside of the kernel's groups"
        elif isinstance(op, ReturnOp) and op.parent_op() is not kernel:
            yield op, "does not verify: it ends the kernel, not a group"


def _ends(create: CreateOp) -> Iterator[tuple[Operation, str]]:
    """A channel is filled by one group; who reads it says when it is done with what it read."""
    putting, getting, freeing = set[str](), set[str](), set[str]()
    for use in create.ring.uses:
        group = group_of(use.operation)
        name = "" if group is None else group.group_name.data
        match use.operation:
            case PutOp():
                putting.add(name)
            case GetOp():
                getting.add(name)
            case ConsumedOp():
                freeing.add(name)
            case _:
                yield use.operation, "does not verify: a channel is put to, got from, or consumed, nothing else"
    if len(putting) != 1:
        yield create, f"does not verify: one group fills a channel, found {_named(putting)}"
    if not getting:
        yield create, "does not verify: nothing reads the channel"
    for name in sorted(getting - freeing):
        yield create, f"does not verify: group {name!r} reads the channel, and never frees what it read"
    for name in sorted(freeing - getting):
        yield create, f"does not verify: group {name!r} frees what it never read of the channel"


def _named(groups: set[str]) -> str:
    return ", ".join(sorted(map(repr, groups))) or "none"
