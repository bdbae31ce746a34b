"""An op and its rule in one file: what a family of ops needs to become kernels."""

from __future__ import annotations

from typing import Any, ClassVar

from xdsl.irdl import irdl_op_definition

from forgec.ir import types
from forgec.ir.ops.activation import ActivationOp
from forgec.passes.tiles.arithmetic import binary, cast, number, work_dtype
from forgec.passes.tiles.axes import Place
from forgec.passes.tiles.kernel_builder import KernelBuilder, Tile
from forgec.passes.tiles.rule import computes


@irdl_op_definition
class SmoothstepOp(ActivationOp):
    """``t² · (3 - 2 t)``, where ``t`` is x, at least 0 and at most 1."""

    name = "forge.smoothstep"
    TORCH: ClassVar = "clamp"

    def reference(self, ev: Any, *inputs: Any) -> Any:
        t = inputs[0].clamp(0, 1)
        return t * t * (3 - 2 * t)


@computes(SmoothstepOp)
def smoothstep(k: KernelBuilder, op: Any, result: int, place: Place) -> Tile:
    dtype = types.dtype(op.result)
    wide = work_dtype(dtype)  # float32 for halves
    x = cast(k, k.value(op.input, place), wide)
    zero, one, two, three = (number(k, value, wide) for value in (0.0, 1.0, 2.0, 3.0))
    t = binary(k, "min", binary(k, "max", x, zero), one)
    rest = binary(k, "sub", three, binary(k, "mul", two, t))
    return cast(k, binary(k, "mul", binary(k, "mul", t, t), rest), dtype)
