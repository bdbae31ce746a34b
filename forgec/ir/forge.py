"""The forge dialect: pure functions on tensor values."""

from __future__ import annotations

from xdsl.ir import Dialect, Operation

from forgec.ir import attributes
from forgec.ir.ops import (
    activation,
    aten,
    attention,
    binary,
    byte_linear,
    composite,
    contraction,
    control,
    creation,
    experts,
    fused,
    index,
    module,
    norm,
    order,
    quantization,
    reduction,
    scan,
    select,
    shape,
    spatial,
    unary,
    window,
    windowed_linear,
)

FAMILIES = (
    module,
    aten,
    control,
    creation,
    fused,
    unary,
    binary,
    activation,
    select,
    shape,
    reduction,
    order,
    contraction,
    quantization,
    norm,
    spatial,
    attention,
    composite,
    experts,
    index,
    window,
    windowed_linear,
    byte_linear,
    scan,
)


def _operations() -> list[type[Operation]]:
    """The op classes of every family: those that declare a name of the dialect."""
    found = [value for family in FAMILIES for value in vars(family).values()]
    ops = [
        v
        for v in found
        if isinstance(v, type) and issubclass(v, Operation) and getattr(v, "name", "").startswith("forge.")
    ]
    return sorted(set(ops), key=lambda op: op.name)


FORGE = Dialect(
    "forge",
    _operations(),
    [
        attributes.TensorEncodingAttr,
        attributes.IntsAttr,
        attributes.ExtentsAttr,
        attributes.ExtentAttr,
        attributes.ScalarAttr,
        attributes.ScalarsAttr,
        attributes.ArgsAttr,
        attributes.StateType,
        attributes.SymType,
    ],
)
