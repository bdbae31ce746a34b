"""The capture tables: one file for each family of ATen operators. Importing the package registers every row."""

from forgec.capture.aten import (
    activation,
    arrange,
    attention,
    creation,
    elementwise,
    formulas,
    indexing,
    linear,
    losses,
    normalization,
    quantization,
    reduction,
    shape,
    spatial,
    windows,
)

__all__ = [
    "activation",
    "arrange",
    "attention",
    "creation",
    "elementwise",
    "formulas",
    "indexing",
    "linear",
    "losses",
    "normalization",
    "quantization",
    "reduction",
    "shape",
    "spatial",
    "windows",
]
