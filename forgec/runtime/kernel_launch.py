"""Arguments of machine code: the slots of a launch, and the addresses in them that change.

Slots are built once for a frame, with the numbers in place. The address of a tensor is written again only when the
tensor is another one (an input, a state, an output, what an operation returned), or when the arena has moved.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any, TypeAlias

from forgec.runtime.binding import LIMIT, invalid
from forgec.runtime.kernels import GRID
from forgec.runtime.plan import Arg, Launch
from forgec.runtime.symbolic import SymExpr, evaluate
from forgec.runtime.tensor_library import Tensor

Target: TypeAlias = "tuple[Any, int, int]"
"""Slots, the index in them, and the bytes from the beginning of the tensor or arena to the address for there."""


class Slots:
    """The packed arguments of one launch: room for so many addresses, then the extents."""

    def __init__(self, addresses: int, extents: Sequence[int]) -> None:
        self.values = (ctypes.c_int64 * (addresses + len(extents)))()
        self.values[addresses:] = extents
        self.kept: list[Tensor] = []

    def keep(self, index: int, tensor: Tensor, address: int, offset: int) -> None:
        """Puts in the address of a tensor that stays the same from call to call, and so many bytes more."""
        self.kept.append(tensor)
        self.values[index] = address + offset


class Addresses:
    """Where a frame's slots hold addresses that change: of transient registers by number, and of places in the arena.

    ``held`` are the tensors whose addresses the slots hold now.
    """

    def __init__(self, address_of: Callable[[Tensor], int]) -> None:
        self.moving: dict[int, list[Target]] = {}
        self.in_arena: list[Target] = []
        self.held: dict[int, Tensor] = {}
        self._address_of = address_of
        self._arena = 0

    def take(self, number: int, tensor: Tensor) -> None:
        """A transient register has another tensor from here on."""
        self.held[number] = tensor
        self.point(number, tensor)

    def point(self, number: int, tensor: Tensor) -> None:
        """The same for a tensor that somebody else keeps."""
        address = self._address_of(tensor)
        for values, index, offset in self.moving[number]:
            values[index] = address + offset

    def follow(self, arena: int) -> None:
        """The arena begins at this address."""
        if arena != self._arena:
            for values, index, offset in self.in_arena:
                values[index] = arena + offset
            self._arena = arena


def symbol_values(extents: Sequence[Arg], values: Mapping[str, int]) -> list[int]:
    """The extents among a launch's arguments as numbers. FORGE-A004 when they are none of 62 bits, or negative."""
    return [_number(extent, values) for extent in extents]


def programs_of(launch: Launch, values: Mapping[str, int]) -> int:
    """How many programs the launch's grid has. FORGE-A004 when there are more than 62 bits count."""
    (grid,) = (value for name, value in launch.kwargs if name == GRID)
    assert isinstance(grid, tuple)
    count = prod(symbol_values(grid, values))
    if count >= LIMIT:
        raise invalid(values, f"the grid of {launch.op} has {count} programs")
    return count


def _number(extent: Arg, values: Mapping[str, int]) -> int:
    assert isinstance(extent, (int, SymExpr))
    try:
        number = evaluate(extent, values)
    except ZeroDivisionError:
        raise invalid(values, f"'{extent}' divides by zero") from None
    if not 0 <= number < LIMIT:
        raise invalid(values, f"'{extent}' is {number}")
    return number
