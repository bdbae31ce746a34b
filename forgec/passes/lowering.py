"""What stands between optimised forge IR and a plan, by target."""

from __future__ import annotations

from xdsl.passes import ModulePass

from forgec.backends.base import backend_for
from forgec.passes.allocate_buffers import AllocateBuffers
from forgec.passes.bind_tiles import BindTiles
from forgec.passes.lower_to_plan import LowerToPlan
from forgec.passes.lower_to_tile import LowerToTile


def tile_passes(target: str) -> tuple[ModulePass, ...]:
    """The passes to kernels of tiles; none where the target has no kernels. Raises FORGE-U003 for unknown targets."""
    backend = backend_for(target)
    return (LowerToTile(backend.without, backend.panel), BindTiles(target)) if backend.kernels else ()


def plan_passes(target: str) -> tuple[ModulePass, ...]:
    """The passes from there to a plan."""
    return (LowerToPlan(target), AllocateBuffers())
