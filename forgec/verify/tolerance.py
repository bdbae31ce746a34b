"""When two tensors agree: how far apart they are, and how far apart they may be."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from xdsl.dialects.builtin import ModuleOp, TensorType
from xdsl.dialects.func import CallOp
from xdsl.ir import Operation, SSAValue

from forgec.diagnostics import error
from forgec.ir import types
from forgec.ir.ops.contraction import LinearOp
from forgec.ir.ops.fused import FusedOp
from forgec.ir.ops.index import EmbeddingOp
from forgec.ir.ops.module import ParamOp
from forgec.ir.ops.quantization import DequantizeOp

RELATIVE_TOLERANCES: dict[str, float] = {
    "f64": 1e-12,
    "f32": 2.1e-5,
    "f16": 5e-3,
    "bf16": 3e-2,
    "f8e4m3fn": 2.5e-1,
    "f8e5m2": 5e-1,
    "c64": 2.1e-5,
    "c128": 1e-12,
}
"""Error allowed by default in each dtype, relative to the largest magnitude of the tensor compared with: 176 units in
the last place of float32, which is what reductions of a few thousand terms differ by in another order; five units of
float16 and four of bfloat16, in which models accumulate in float32."""

ILL_CONDITIONED = 0.1
"""What is allowed for rounding at most, relative to the largest magnitude: where rounding moves a tensor by more, being
as far apart as that says nothing of whether two programs compute the same."""


@dataclass(frozen=True)
class Tolerance:
    """Two tensors agree if ``|found - expected| <= atol + rtol * max |expected| + allowance`` in every element, and NaN
    and infinity stand in the same places. Integers and booleans must be equal.

    ``rounding`` is what the program's own precision costs both: programs that magnify errors differ by more from each
    other, right as they are. The allowance is ``rounding``, but no more than :data:`ILL_CONDITIONED` of the largest
    magnitude; it is 0 where the caller has named a tolerance (not ``measures_rounding``). A difference that exceeds
    what is allowed, but neither ``rounding`` nor ``dtype_rtol`` (the default of the narrowest dtype in the program), is
    ``uncertain``: rounding alone may make it, and so may a defect.
    """

    rtol: float
    atol: float = 0.0
    rounding: float = 0.0
    measures_rounding: bool = False
    dtype_rtol: float = 0.0

    @staticmethod
    def of(module: ModuleOp, rtol: float | None = None, atol: float | None = None) -> Tolerance:
        """The tolerance for what a module computes: by default that of the narrowest floating-point dtype in it.

        Raises FORGE-U005 for numbers that no tolerance can be.
        """
        for name, value in (("rtol", rtol), ("atol", atol)):
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise error("FORGE-U005", f"{name} is {value}, a finite number of at least 0 is needed")
        measures_rounding = rtol is None and atol is None
        default = max((RELATIVE_TOLERANCES.get(name, 0.0) for name in _dtypes(module)), default=0.0)
        rtol = default if rtol is None else rtol
        return Tolerance(rtol, atol or 0.0, measures_rounding=measures_rounding, dtype_rtol=default)

    def with_rounding(self, exact: Any, native: Any) -> Tolerance:
        """The tolerance for one result, of which the reference interpreter yields ``exact`` in float64 and ``native``
        in the program's precision: both sides of a comparison may be as far from the first as the second is.
        """
        if not isinstance(native, torch.Tensor):
            return self
        error = deviation(exact, native)
        floating = native.is_floating_point() or native.is_complex()
        if error.problem or not floating or not math.isfinite(error.absolute):
            return self
        return replace(self, rounding=2 * error.absolute)

    def allowed(self, scale: float) -> float:
        """The largest difference allowed to a tensor whose largest magnitude is ``scale``."""
        allowance = min(self.rounding, ILL_CONDITIONED * scale) if self.measures_rounding else 0.0
        return self.atol + self.rtol * scale + allowance

    def uncertain(self, scale: float) -> float:
        """The largest difference that rounding alone may make."""
        return self.atol + max(self.rtol, self.dtype_rtol) * scale + self.rounding


def _dtypes(module: ModuleOp) -> Iterable[str]:
    """Those of what is computed; weights that are stored in fewer bits than they are multiplied in do not count."""
    found = {
        value.type.get_element_type()
        for op in module.walk()
        if not isinstance(op.parent_op(), ParamOp)
        for value in (*op.results, *(a for region in op.regions for block in region.blocks for a in block.args))
        if isinstance(value.type, TensorType) and not _is_stored_weight(value)
    }
    return {types.dtype(TensorType(element, [])) for element in found}


def _is_stored_weight(value: SSAValue) -> bool:
    """True if all that reads a value dequantises it."""
    return value.first_use is not None and all(_dequantizes(use.operation, use.index) for use in value.uses)


def _dequantizes(op: Operation, index: int) -> bool:
    if isinstance(op, DequantizeOp):
        return True
    if isinstance(op, LinearOp):
        return op.is_quantized and op.operands[index] not in (op.input, op.bias)
    if isinstance(op, EmbeddingOp):
        return index == 0 and _is_stored_weight(op.result)
    if isinstance(op, FusedOp):
        return _is_stored_weight(op.body.block.args[index])
    return isinstance(op, CallOp)  # the argument's own type counts, or does not


@dataclass(frozen=True)
class Deviation:
    """How far a tensor is from the one expected.

    ``absolute`` is the largest difference of two elements (infinite where one alone is NaN or infinite), ``scale`` the
    largest finite magnitude expected, ``wrong`` the number of elements that differ by more than a tolerance, or at all.
    ``uncertain``: no more than rounding may make, though more than is allowed. ``problem`` says what cannot be compared
    (dtypes, shapes).
    """

    absolute: float = 0.0
    scale: float = 0.0
    wrong: int = 0
    size: int = 0
    problem: str = ""
    uncertain: bool = False

    @property
    def relative(self) -> float:
        """``absolute`` in units of ``scale``."""
        return 0.0 if self.absolute == 0.0 else self.absolute / self.scale if self.scale else math.inf

    @property
    def agrees(self) -> bool:
        return not self.problem and not self.wrong

    def to_dict(self) -> dict[str, Any]:
        """JSON-compatible data; what is not finite is a text."""
        data = {**asdict(self), "relative": self.relative}
        return {k: str(v) if isinstance(v, float) and not math.isfinite(v) else v for k, v in data.items()}

    def to_exact_dict(self) -> dict[str, Any]:
        """As ``to_dict``, of a comparison with float64 without a tolerance: rounding makes most elements unequal, which
        is not to say that they are wrong.
        """
        data = self.to_dict()
        data["unequal"] = data.pop("wrong")
        del data["uncertain"]
        return data

    def __str__(self) -> str:
        if self.problem:
            return self.problem
        return (
            f"{self.wrong} of {self.size} elements differ, by up to {self.absolute:.3g} ({self.relative:.3g} relative)"
        )


def deviation(expected: Any, found: Any, tolerance: Tolerance = Tolerance(0.0)) -> Deviation:
    """Compare a tensor with the one expected, which must have its shape; and its dtype, unless it is wider."""
    if tuple(expected.shape) != tuple(found.shape):
        return Deviation(problem=f"shape {list(expected.shape)} became {list(found.shape)}")
    floating = found.is_floating_point() or found.is_complex()
    if expected.dtype != found.dtype and not (floating and expected.dtype in (torch.float64, torch.complex128)):
        return Deviation(problem=f"dtype {_name(expected)} became {_name(found)}")
    size = found.numel()
    if size == 0:
        return Deviation()
    if not floating:
        unequal = expected != found
        wrong = int(unequal.sum())
        largest = float((expected[unequal].double() - found[unequal].double()).abs().max()) if wrong else 0.0
        return Deviation(largest, float(expected.double().abs().max()), wrong, size)
    return _of_floats(expected.detach(), found.detach(), tolerance, size)


def _of_floats(expected: Any, found: Any, tolerance: Tolerance, size: int) -> Deviation:
    wide = torch.complex128 if found.is_complex() else torch.float64
    narrow = found.dtype
    wanted, given = _saturated(expected.to(wide), narrow), found.to(wide)
    difference = (given - wanted).abs()
    regular = torch.isfinite(wanted.abs())
    scale = float(wanted.abs()[regular].max()) if bool(regular.any()) else 0.0
    irregular = ~torch.isfinite(difference)
    if bool(irregular.any()):
        same = (wanted == given) | (torch.isnan(wanted) & torch.isnan(given))
        difference = torch.where(irregular, torch.where(same, 0.0, math.inf), difference)
    wrong = int((difference > tolerance.allowed(scale)).sum())
    largest = float(difference.max())
    return Deviation(largest, scale, wrong, size, uncertain=wrong > 0 and largest <= tolerance.uncertain(scale))


def _saturated(wanted: Any, narrow: Any) -> Any:
    """What is too large for a narrow dtype is infinite there: no error of an op that computes in it."""
    if wanted.is_complex() or narrow == torch.float64:
        return wanted
    largest = torch.finfo(narrow).max
    # Half a unit in the last place beyond the largest number still rounds to it.
    limit = largest * (1 + torch.finfo(narrow).eps / 4)
    return torch.where(wanted.abs() > limit, torch.copysign(torch.full_like(wanted, math.inf), wanted), wanted)


def _name(tensor: Any) -> str:
    return str(tensor.dtype).removeprefix("torch.")
