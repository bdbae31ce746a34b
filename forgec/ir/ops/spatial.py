"""Ops over the spatial dimensions of images and the like: padding, pooling, resizing, and batch normalisation.

An input is [B, C, *X] with 1 to 3 spatial dimensions X.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any

from xdsl.dialects.builtin import AnyTensorTypeConstr, StringAttr, UnitAttr
from xdsl.irdl import irdl_op_definition, operand_def, opt_prop_def, prop_def, result_def
from xdsl.utils.exceptions import VerifyException

from forgec.ir import types
from forgec.ir.attributes import ExtentsAttr, IntsAttr, ScalarAttr, ScalarsAttr
from forgec.ir.ops.base import ForgeOp, TensorSpec, check_float
from forgec.ir.ops.format import KeywordFormatOp
from forgec.ir.ops.shape import RearrangeOp
from forgec.runtime.symbolic import Extent, sym_max

if TYPE_CHECKING:
    from forgec.ir.evaluator import Evaluator
PAD_MODES = ("constant", "reflect", "replicate")


@irdl_op_definition
class PadOp(KeywordFormatOp, RearrangeOp):
    """The input with ``low[d]`` elements before and ``high[d]`` after it in each dimension d.

    They are ``value`` (mode ``constant``), the input mirrored at its edge, without the edge (``reflect``), or its edge
    repeated (``replicate``); in these two modes the first dimension is not padded.
    """

    name = "forge.pad"

    input = operand_def(AnyTensorTypeConstr)
    result = result_def(AnyTensorTypeConstr)
    mode = prop_def(StringAttr)
    low = prop_def(ExtentsAttr)
    high = prop_def(ExtentsAttr)
    value = opt_prop_def(ScalarAttr)

    def infer(self) -> Sequence[TensorSpec]:
        shape, low, high = types.shape(self.input), self.low.data, self.high.data
        if self.mode.data not in PAD_MODES or (self.value is not None) != (self.mode.data == "constant"):
            raise VerifyException(f"the mode must be one of {', '.join(PAD_MODES)}; a value belongs to constant")
        if len(low) != len(shape) or len(high) != len(shape):
            raise VerifyException(f"low and high need {len(shape)} extents each")
        for extent, before, after in zip(shape, low, high, strict=True):
            if any(isinstance(n, int) and n < 0 for n in (before, after)):
                raise VerifyException("padding must not be negative")
            if self.mode.data == "reflect" and any(_exceeds(n, extent) for n in (before, after)):
                raise VerifyException(f"cannot mirror an extent of {extent} beyond itself")
        if self.mode.data != "constant" and (len(shape) < 2 or low[0] != 0 or high[0] != 0):
            raise VerifyException("only constants are padded in the first dimension")
        return [(types.dtype(self.input), tuple(x + a + b for x, a, b in zip(shape, low, high, strict=True)))]

    def padding(self, count: int) -> list[Extent]:
        """Padding of the last ``count`` dimensions as torch takes it: the last dimension first."""
        pairs = list(zip(self.low.data, self.high.data, strict=True))[len(self.low.data) - count :]
        return [extent for pair in reversed(pairs) for extent in pair]

    @property
    def mirrored_dimensions(self) -> int:
        """How many trailing dimensions torch's operator for reflection or replication must take, so that it takes all
        that are padded."""
        rank = types.rank(self.input)
        first = next((d for d in range(rank) if (self.low.data[d], self.high.data[d]) != (0, 0)), rank)
        return max(rank - 2, rank - first, 1)

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        constant = self.mode.data == "constant"
        count = len(self.low.data) if constant else self.mirrored_dimensions
        spec = [ev.extent(extent) for extent in self.padding(count)]
        value = self.value.value if self.value is not None else None
        return ev.torch.nn.functional.pad(inputs[0], spec, self.mode.data, value)


def _exceeds(padding: Extent, extent: Extent) -> bool:
    return isinstance(padding, int) and isinstance(extent, int) and padding != 0 and padding >= extent


class _PoolOp(KeywordFormatOp, ForgeOp):
    """A reduction of the elements under a window that moves over the trailing dimensions."""

    if TYPE_CHECKING:  # each op defines its own, because their order is that of the text
        kernel: IntsAttr
        strides: IntsAttr
        padding: IntsAttr

    input = operand_def(AnyTensorTypeConstr)
    result = result_def(AnyTensorTypeConstr)

    def steps(self) -> Sequence[int]:
        """The dilation of each dimension."""
        return (1,) * len(self.kernel.data)

    @property
    def rounds_up(self) -> bool:
        """True if a window that leaves the padded input at its end counts too."""
        return self.properties.get("ceil") is not None

    def infer(self) -> Sequence[TensorSpec]:
        shape, spatial = types.shape(self.input), len(self.kernel.data)
        settings = (self.kernel.data, self.strides.data, self.padding.data, self.steps())
        if not 1 <= spatial <= 3 or len(shape) not in (spatial + 1, spatial + 2):
            raise VerifyException("pooling takes 1 to 3 spatial dimensions, after one of channels and perhaps a batch")
        if any(len(values) != spatial for values in settings) or min(*settings[0], *settings[1], *settings[3]) < 1:
            raise VerifyException(f"pooling needs {spatial} positive kernel extents, strides and dilations")
        if any(not 0 <= 2 * p <= k for p, k in zip(self.padding.data, self.kernel.data, strict=True)):
            raise VerifyException("the padding must be at most half of the kernel")
        extents = [self._windows(x, k, s, p, d) for x, k, s, p, d in zip(shape[-spatial:], *settings, strict=True)]
        if any(isinstance(extent, int) and extent < 1 for extent in extents):
            raise VerifyException("the kernel is larger than the padded input")
        return [(types.dtype(self.input), (*shape[:-spatial], *extents))]

    def _windows(self, extent: Extent, kernel: int, stride: int, padding: int, dilation: int) -> Extent:
        room = extent + 2 * padding - dilation * (kernel - 1) - 1
        if not self.rounds_up:
            return room // stride + 1
        if not isinstance(room, int) or not isinstance(extent, int):
            raise VerifyException("rounding up needs constant extents")
        count = -(-room // stride) + 1
        return count - 1 if (count - 1) * stride >= extent + padding else count  # it must begin inside

    def flops(self) -> Extent:
        return types.numel(self.result) * prod(self.kernel.data)


@irdl_op_definition
class MaxPoolOp(_PoolOp):
    """``result[…, y] = max over k of input[…, y · strides + k · dilation - padding]``, outside the input -inf; NaN if
    any is.
    """

    name = "forge.max_pool"

    kernel = prop_def(IntsAttr)
    strides = prop_def(IntsAttr)
    padding = prop_def(IntsAttr)
    dilation = prop_def(IntsAttr)
    ceil = opt_prop_def(UnitAttr)

    def steps(self) -> Sequence[int]:
        return self.dilation.data

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        settings = (self.kernel.data, self.strides.data, self.padding.data, self.dilation.data)
        function = ev.function(f"nn.functional.max_pool{len(self.kernel.data)}d")
        return function(inputs[0], *settings, ceil_mode=self.rounds_up)


@irdl_op_definition
class AvgPoolOp(_PoolOp):
    """``result[…, y] = Σ over k of input[…, y · strides + k - padding] / n``, outside the input 0.

    n is ``divisor`` if that stands, else how many places of the window lie in the input, or, with ``count_padding``, in
    the padded input.
    """

    name = "forge.avg_pool"

    kernel = prop_def(IntsAttr)
    strides = prop_def(IntsAttr)
    padding = prop_def(IntsAttr)
    count_padding = opt_prop_def(UnitAttr)
    divisor = opt_prop_def(ScalarAttr)
    ceil = opt_prop_def(UnitAttr)

    def infer(self) -> Sequence[TensorSpec]:
        if self.divisor is not None and len(self.kernel.data) == 1:
            raise VerifyException("one spatial dimension takes no divisor")
        return super().infer()

    @property
    def arguments(self) -> list[Any]:
        """What torch's function takes after the input."""
        settings = [list(self.kernel.data), list(self.strides.data), list(self.padding.data)]
        divisor = [] if len(self.kernel.data) == 1 else [None if self.divisor is None else self.divisor.value]
        return [*settings, self.rounds_up, self.count_padding is not None, *divisor]

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        return ev.function(f"nn.functional.avg_pool{len(self.kernel.data)}d")(inputs[0], *self.arguments)


@irdl_op_definition
class AdaptiveAvgPoolOp(KeywordFormatOp, ForgeOp):
    """The mean of each of ``sizes`` parts of the trailing dimensions: part i of n of an extent X begins at
    ``floor(i · X / n)`` and ends before ``ceil((i + 1) · X / n)``.
    """

    name = "forge.adaptive_avg_pool"

    input = operand_def(AnyTensorTypeConstr)
    result = result_def(AnyTensorTypeConstr)
    sizes = prop_def(ExtentsAttr)

    def infer(self) -> Sequence[TensorSpec]:
        shape, spatial = types.shape(self.input), len(self.sizes.data)
        check_float(self, self.input)
        if not 1 <= spatial <= 3 or len(shape) not in (spatial + 1, spatial + 2):
            raise VerifyException("pooling takes 1 to 3 spatial dimensions, after one of channels and perhaps a batch")
        return [(types.dtype(self.input), (*shape[:-spatial], *self.sizes.data))]

    def flops(self) -> Extent:
        return sym_max(types.numel(self.input), types.numel(self.result))

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        sizes = [ev.extent(extent) for extent in self.sizes.data]
        return ev.function(f"nn.functional.adaptive_avg_pool{len(sizes)}d")(inputs[0], sizes)


_KERNELS: dict[tuple[str, int], str] = {
    **{("nearest", n): f"upsample_nearest{n}d" for n in (1, 2, 3)},
    **{("nearest-exact", n): f"_upsample_nearest_exact{n}d" for n in (1, 2, 3)},
    ("linear", 1): "upsample_linear1d",
    ("linear", 2): "upsample_bilinear2d",
    ("linear", 3): "upsample_trilinear3d",
    ("cubic", 2): "upsample_bicubic2d",
}


@irdl_op_definition
class ResizeOp(KeywordFormatOp, ForgeOp):
    """The spatial dimensions resampled to ``sizes``, by the element before (``nearest``), the nearest
    (``nearest-exact``), or a polynomial between neighbours (``linear``, ``cubic``), as torch.nn.functional.interpolate.

    Place y of the result lies at ``(y + 0.5) · r - 0.5`` in the input (``nearest``: at ``y · r``), or, with
    ``align_corners``, at ``y · r`` with ``r = (X - 1) / (Y - 1)``; r is ``1 / scales[d]`` where scales stand, else
    ``X / Y``. input [B, C, *X], result [B, C, *Y].
    """

    name = "forge.resize"

    input = operand_def(AnyTensorTypeConstr)
    result = result_def(AnyTensorTypeConstr)
    mode = prop_def(StringAttr)
    sizes = prop_def(ExtentsAttr)
    align_corners = opt_prop_def(UnitAttr)
    scales = opt_prop_def(ScalarsAttr)

    def infer(self) -> Sequence[TensorSpec]:
        shape, spatial = types.shape(self.input), len(self.sizes.data)
        if (self.mode.data, spatial) not in _KERNELS or len(shape) != spatial + 2:
            raise VerifyException(f"cannot resize {spatial} of {len(shape)} dimensions in mode {self.mode.data!r}")
        if self.scales is not None and len(self.scales.values) != spatial:
            raise VerifyException(f"scales need {spatial} numbers")
        if self.align_corners is not None and self.mode.data.startswith("nearest"):
            raise VerifyException("align_corners belongs to the modes linear and cubic")
        return [(types.dtype(self.input), (*shape[:2], *self.sizes.data))]

    @property
    def kernel(self) -> str:
        """The name of ATen's operator."""
        return _KERNELS[self.mode.data, len(self.sizes.data)]

    @property
    def settings(self) -> list[Any]:
        """What ATen's operator takes after the sizes."""
        corners = [] if self.mode.data.startswith("nearest") else [self.align_corners is not None]
        return [*corners, *([None] * len(self.sizes.data) if self.scales is None else self.scales.values)]

    def flops(self) -> Extent:
        taps = {"linear": 2, "cubic": 4}.get(self.mode.data, 0) ** len(self.sizes.data)
        return 2 * taps * types.numel(self.result)

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        sizes = [ev.extent(extent) for extent in self.sizes.data]
        return ev.function(f"ops.aten.{self.kernel}")(inputs[0], sizes, *self.settings)
