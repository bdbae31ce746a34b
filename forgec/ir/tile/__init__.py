"""The tile level: kernels as grids of programs over tiles, for any target."""
