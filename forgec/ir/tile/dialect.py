"""The tile dialect."""

from __future__ import annotations

from xdsl.ir import Dialect, Operation

from forgec.ir.tile import compute, kernel, memory
from forgec.ir.tile.kernel import TileParametersAttr
from forgec.ir.tile.types import BlockType

FAMILIES = (kernel, memory, compute)


def _operations() -> list[type[Operation]]:
    found = [value for family in FAMILIES for value in vars(family).values()]
    ops = [
        v
        for v in found
        if isinstance(v, type) and issubclass(v, Operation) and getattr(v, "name", "").startswith("tile.")
    ]
    return sorted(set(ops), key=lambda op: op.name)


TILE = Dialect("tile", _operations(), [BlockType, TileParametersAttr])
