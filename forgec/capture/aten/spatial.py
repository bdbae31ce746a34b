"""Padding, pooling, resizing, batch normalisation, and the convolutions that are not plain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from xdsl.dialects.builtin import StringAttr
from xdsl.ir import Attribute

from forgec.capture.call import Call, Decline, Result, flag, from_aten, index, ints, scalar
from forgec.ir import types
from forgec.ir.attributes import ExtentsAttr, ScalarsAttr
from forgec.ir.ops import spatial as s
from forgec.ir.ops.contraction import ConvolutionOp, ConvTransposeOp
from forgec.ir.ops.norm import BatchNormOp
from forgec.runtime.symbolic import Extent


def _pad(call: Call, mode: str, spec: Sequence[Extent], value: float | None) -> Result:
    """``spec`` is torch's: pairs of low and high, the last dimension first."""
    source = call.tensor("self")
    rank = types.rank(source)
    low: list[Extent] = [0] * rank
    high: list[Extent] = [0] * rank
    for position in range(len(spec) // 2):
        low[rank - 1 - position], high[rank - 1 - position] = spec[2 * position], spec[2 * position + 1]
    properties: dict[str, Attribute] = {
        "mode": StringAttr(mode),
        "low": ExtentsAttr(low),
        "high": ExtentsAttr(high),
    }
    if mode == "constant":
        properties["value"] = scalar(value or 0)
    return call.emit(s.PadOp, [source], properties)


@from_aten("aten::pad")
def _any_pad(call: Call) -> Result:
    mode = call["mode"]
    if mode not in s.PAD_MODES or (mode != "constant" and types.rank(call.tensor("self")) not in (3, 4, 5)):
        raise Decline
    return _pad(call, mode, call["pad"], call["value"])


@from_aten("aten::constant_pad_nd")
def _constant_pad(call: Call) -> Result:
    return _pad(call, "constant", call["pad"], call.number("value"))


@from_aten("aten::reflection_pad1d", "aten::reflection_pad2d", "aten::reflection_pad3d")
def _reflection_pad(call: Call) -> Result:
    return _pad(call, "reflect", call["padding"], None)


@from_aten("aten::replication_pad1d", "aten::replication_pad2d", "aten::replication_pad3d")
def _replication_pad(call: Call) -> Result:
    return _pad(call, "replicate", call["padding"], None)


def _each(call: Call, name: str, count: int, default: Sequence[int] | None = None) -> list[int]:
    """A setting with one number for each of ``count`` dimensions, or one for all."""
    values = call[name]
    values = list(values) if isinstance(values, (list, tuple)) else [values]
    if not values and default is not None:
        return list(default)
    if not all(isinstance(value, int) for value in values):
        raise Decline
    return values * count if len(values) == 1 else values


def _windows(call: Call, spatial: int) -> dict[str, Attribute]:
    kernel = _each(call, "kernel_size", spatial)
    return {
        "kernel": ints(*kernel),
        "strides": ints(*_each(call, "stride", spatial, kernel)),
        "padding": ints(*_each(call, "padding", spatial)),
        **flag("ceil", call["ceil_mode"]),
    }


@from_aten("aten::max_pool1d", "aten::max_pool2d", "aten::max_pool3d")
def _max_pool(call: Call) -> Result:
    spatial = int(call.name[-2])
    properties = {**_windows(call, spatial), "dilation": ints(*_each(call, "dilation", spatial))}
    return call.emit(s.MaxPoolOp, [call.tensor("self")], properties)


@from_aten("aten::avg_pool1d", "aten::avg_pool2d", "aten::avg_pool3d")
def _avg_pool(call: Call) -> Result:
    properties = {**_windows(call, int(call.name[-2])), **flag("count_padding", call["count_include_pad"])}
    if call.arguments.get("divisor_override") is not None:
        properties["divisor"] = scalar(call.integer("divisor_override"))
    return call.emit(s.AvgPoolOp, [call.tensor("self")], properties)


@from_aten("aten::adaptive_avg_pool1d", "aten::adaptive_avg_pool2d", "aten::adaptive_avg_pool3d")
def _adaptive_avg_pool(call: Call) -> Result:
    return call.emit(s.AdaptiveAvgPoolOp, [call.tensor("self")], {"sizes": ExtentsAttr(call["output_size"])})


MODES = {
    "upsample_nearest1d": "nearest",
    "upsample_nearest2d": "nearest",
    "upsample_nearest3d": "nearest",
    "_upsample_nearest_exact1d": "nearest-exact",
    "_upsample_nearest_exact2d": "nearest-exact",
    "_upsample_nearest_exact3d": "nearest-exact",
    "upsample_linear1d": "linear",
    "upsample_bilinear2d": "linear",
    "upsample_trilinear3d": "linear",
    "upsample_bicubic2d": "cubic",
}


@from_aten(*(f"aten::{name}{overload}" for name in MODES for overload in ("", ".vec")))
def _resize(call: Call) -> Result:
    """The ``.vec`` overload takes the new extents, or factors for the old ones; the other takes both."""
    source = call.tensor("input" if call.name.endswith(".vec") else "self")
    target = call.results[0]
    if target is None:
        raise Decline
    properties: dict[str, Attribute] = {
        "mode": StringAttr(MODES[call.name.removeprefix("aten::").removesuffix(".vec")]),
        "sizes": ExtentsAttr(types.shape(target)[2:]),
        **flag("align_corners", call.arguments.get("align_corners")),
    }
    factors = _factors(call)
    if factors:
        properties["scales"] = ScalarsAttr.of(factors)
    return call.emit(s.ResizeOp, [source], properties)


def _factors(call: Call) -> list[float]:
    if "scale_factors" in call.arguments:
        found: Any = call["scale_factors"] or []
    else:
        found = [value for name, value in call.arguments.items() if name.startswith("scales")]
        if all(value is None for value in found):
            return []
    if not all(isinstance(factor, (int, float)) for factor in found):
        raise Decline
    return [float(factor) for factor in found]


@from_aten("aten::batch_norm")
def _batch_norm(call: Call) -> Result:
    """With statistics from training; those of the batch itself stay ATen's."""
    if call["training"]:
        raise Decline
    operands = [call.tensor("input"), call.tensor("running_mean"), call.tensor("running_var")]
    operands += [call.optional("weight"), call.optional("bias")]
    return call.emit(BatchNormOp, operands, {"eps": scalar(call.number("eps"))})


@from_aten("aten::conv_transpose1d", "aten::conv_transpose2d.input", "aten::conv_transpose3d.input")
def _conv_transpose(call: Call) -> Result:
    spatial = types.rank(call.tensor("weight")) - 2
    names = {"strides": "stride", "padding": "padding", "output_padding": "output_padding", "dilation": "dilation"}
    properties: dict[str, Attribute] = {ours: ints(*_each(call, theirs, spatial)) for ours, theirs in names.items()}
    properties["groups"] = index(call.integer("groups"))
    return call.emit(ConvTransposeOp, [call.tensor("input"), call.tensor("weight"), call.optional("bias")], properties)


@from_aten("aten::conv1d.padding", "aten::conv2d.padding", "aten::conv3d.padding")
def _padded_convolution(call: Call) -> Result:
    """``valid`` pads nothing; ``same`` pads so much that the extents stay, here if that is as much on both sides."""
    weight = types.shape(call.tensor("weight"))
    spatial = len(weight) - 2
    if types.rank(call.tensor("input")) != spatial + 2:
        raise Decline
    dilation = _each(call, "dilation", spatial)
    padding = [0] * spatial
    if call["padding"] != "valid":
        needed = [step * (size - 1) for step, size in zip(dilation, weight[2:], strict=True)]
        if not all(isinstance(n, int) and n % 2 == 0 for n in needed):
            raise Decline
        padding = [n // 2 for n in needed if isinstance(n, int)]
    properties: dict[str, Attribute] = {
        "strides": ints(*_each(call, "stride", spatial)),
        "padding": ints(*padding),
        "dilation": ints(*dilation),
        "groups": index(call.integer("groups")),
    }
    return call.emit(ConvolutionOp, [call.tensor("input"), call.tensor("weight"), call.optional("bias")], properties)
