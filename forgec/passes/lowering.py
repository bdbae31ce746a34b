"""What stands between optimised forge IR and a plan, by target."""

from __future__ import annotations

from xdsl.passes import ModulePass

from forgec.backends.base import backend_for
from forgec.passes.allocate_buffers import AllocateBuffers
from forgec.passes.bind_tiles import BindTiles
from forgec.passes.lower_to_plan import LowerToPlan
from forgec.passes.lower_to_tile import LowerToTile
from forgec.passes.multiply_bytes import MultiplyBytes
from forgec.passes.round_factors import RoundFactors


def tile_passes(target: str, precision: str = "float32") -> tuple[ModulePass, ...]:
    """The passes to kernels of tiles; none where the target has no kernels. Products of float32 round their factors to
    ``precision``. Raises FORGE-U003 for unknown targets.
    """
    backend = backend_for(target)
    if not backend.kernels:
        return ()
    if precision == "float32":
        return (MultiplyBytes(), LowerToTile(backend.without, backend.panel), BindTiles(target))
    lowering = LowerToTile(backend.without, backend.panel, precision)
    return (MultiplyBytes(), lowering, RoundFactors(precision), BindTiles(target))


def plan_passes(target: str) -> tuple[ModulePass, ...]:
    """The passes from there to a plan."""
    return (LowerToPlan(target), AllocateBuffers())
