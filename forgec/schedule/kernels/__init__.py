"""Kernels by name, as loops at every tile that they may have."""
