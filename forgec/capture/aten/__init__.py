"""The capture tables: one file for each family of ATen operators. Importing the package registers every row."""

from forgec.capture.aten import (
    attention,
    creation,
    elementwise,
    indexing,
    linear,
    normalization,
    reduction,
    shape,
)

__all__ = ["attention", "creation", "elementwise", "indexing", "linear", "normalization", "reduction", "shape"]
