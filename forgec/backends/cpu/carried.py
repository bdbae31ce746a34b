"""Tiles that a loop carries, or that the branches of a condition give: each has a buffer, which it never leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.dialects import scf
from xdsl.ir import SSAValue

from forgec.backends.cpu.nests import write
from forgec.backends.cpu.placement import Placement
from forgec.backends.cpu.places import Place
from forgec.backends.cpu.tiles import Buffer, Kernel, Stored, Tile
from forgec.ir.tile import compute


@dataclass
class Carried:
    """The buffers of the carried values, None for scalars."""

    k: Kernel
    buffers: Sequence[Buffer | None]
    ends: Sequence[Sequence[Place | None]]
    """Of each tile, the places from which on its axes may hold anything."""

    def write(self, tiles: Sequence[Tile | None]) -> None:
        """Give all buffers new contents at once: nothing is overwritten that another tile, or place, still reads."""
        given = zip(tiles, self.buffers, self.ends, strict=True)
        moves = [
            (tile, buffer, ends)
            for tile, buffer, ends in given
            if tile is not None and buffer is not None and not (isinstance(tile, Stored) and tile.buffer is buffer)
        ]
        copies: list[tuple[Tile, Buffer, Sequence[Place | None]]] = []
        direct: list[tuple[Tile, Buffer, Sequence[Place | None]]] = []
        for number, (tile, buffer, ends) in enumerate(moves):
            read_by_others = any(buffer in other.buffers for n, (other, *_) in enumerate(moves) if n != number)
            if read_by_others or not tile.buffers.get(buffer, True):
                between = self.k.buffer(buffer.element, buffer.shape)
                write(self.k, tile, between, ends)
                copies.append((Stored(between), buffer, ends))
            else:
                direct.append((tile, buffer, ends))
        for tile, buffer, ends in [*direct, *copies]:
            write(self.k, tile, buffer, ends)


def in_place(placement: Placement, argument: SSAValue, value: SSAValue) -> bool:
    """True if the product ``value``, which becomes ``argument`` in the next iteration, can be computed in its buffer:
    nothing reads the old contents after the product, nor any other operand of it.
    """
    product = value.owner
    if not isinstance(product, compute.DotOp) or len(list(value.uses)) != 1:
        return False
    block = product.parent
    if block is None or argument.owner is not block:
        return False
    for reader, operand in placement.readers(argument):
        if reader is product and operand == 2:
            continue
        around = block.find_ancestor_op_in_block(reader)
        if around is None or around is product or isinstance(reader, scf.YieldOp):
            return False
        if not around.is_before_in_block(product):
            return False
    return True
