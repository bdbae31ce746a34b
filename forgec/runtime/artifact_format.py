"""Numbers that say how an artifact is written."""

FORMAT_VERSION = 1
ALIGNMENT = 64
"""Bytes: of every buffer in the arena and of every tensor in the weights (one cache line, one AVX-512 register)."""
