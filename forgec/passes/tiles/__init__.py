"""How fused groups become kernels of tiles: every op says how it is computed at a place of its result."""
