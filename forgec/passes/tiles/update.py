"""Ops that change some elements of a value: kernels that work in the value's own memory, over what is written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from xdsl.ir import BlockArgument, Operation, SSAValue

from forgec.ir.ops.base import producer
from forgec.ir.ops.fused import FusedOp
from forgec.passes.tiles.axes import Place
from forgec.passes.tiles.kernel_builder import KernelBuilder, Tile
from forgec.runtime.symbolic import Extent


@dataclass(frozen=True)
class Change:
    """One tile of an update: where in the destination it goes, for which elements (``mask``, all if None), and how it
    is combined with what is there (``tile.scatter``).
    """

    value: Tile
    place: Place
    mask: Tile | None = None
    combine: str | None = None


@dataclass(frozen=True)
class Update:
    """How an op that yields its ``destination`` with some elements changed is written: ``shape`` says over which places
    a kernel runs, and ``change`` what it writes for one of them.
    """

    shape: Callable[[Any], tuple[Extent, ...]]
    change: Callable[[KernelBuilder, Any, Place], Change]


UPDATES: dict[type[Operation], Update] = {}


def changes(
    *classes: type[Operation], over: Callable[[Any], tuple[Extent, ...]]
) -> Callable[[Callable[[KernelBuilder, Any, Place], Change]], Callable[[KernelBuilder, Any, Place], Change]]:
    """Declare how ops of some classes change their destination; ``over`` is the shape of the places."""

    def register(
        change: Callable[[KernelBuilder, Any, Place], Change],
    ) -> Callable[[KernelBuilder, Any, Place], Change]:
        for cls in classes:
            UPDATES[cls] = Update(over, change)
        return change

    return register


def update_of(value: SSAValue) -> Any | None:
    """The op that makes a value of a group by changing an argument of the group which nothing else reads; None where
    the value is no such.
    """
    op = producer(value)
    if op is None or type(op) not in UPDATES:
        return None
    destination = op.destination  # type: ignore[attr-defined]
    alone = value.has_one_use() and destination.has_one_use()
    return op if alone and isinstance(destination, BlockArgument) else None


def updated_inputs(group: FusedOp) -> dict[int, int]:
    """For each result of a group that could be an input as it has become: the number of that input."""
    found: dict[int, int] = {}
    for number, value in enumerate(group.yielded):
        op = update_of(value)
        if op is not None:
            found[number] = op.destination.index
    return found
