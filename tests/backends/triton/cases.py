"""The kernels that are compiled, run by Triton's interpreter, and run on a device; their data, and what they should
give.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from math import prod
from typing import Any

import torch

from forgec.backends.triton.printer import TritonSource, print_kernel
from forgec.ir import types
from forgec.ir.evaluator import Evaluator
from forgec.ir.tile.interpreter import placed, run_kernel
from forgec.ir.tile.kernel import KernelOp
from forgec.ir.tile.types import block_type
from forgec.runtime.dtypes import torch_dtype
from forgec.runtime.symbolic import evaluate
from tests.backends.triton import bundles, written
from tests.ir.tile.kernels import kernel_of

Data = Callable[[torch.Generator, tuple[int, ...], torch.dtype], torch.Tensor]
TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 5e-4, torch.bfloat16: 4e-3}
"""Of the largest absolute value of a row."""


@dataclass(frozen=True)
class Case:
    """A kernel and one run of it. ``data`` makes the tensors of named parameters that ``ordinary`` would make wrong;
    ``start`` those of written ones. ``float64``: the reference computes in float64 (else in the types of the IR).
    ``interpreted`` is False where Triton's interpreter cannot run it, ``not_interpreted`` are outputs and rows that it
    gets wrong (it truncates to bfloat16 and float8, has no NaN in the latter, and no maximum without).
    """

    name: str
    kernel: KernelOp
    symbols: Mapping[str, int]
    data: Mapping[str, Data] = field(default_factory=dict)
    rows: Mapping[str, Sequence[str]] = field(default_factory=dict)
    ranges: Mapping[str, tuple[int, int]] | None = None
    float64: bool = False
    tolerances: Mapping[torch.dtype, float] = field(default_factory=dict)
    interpreted: bool = True
    not_interpreted: Sequence[str] = ()
    failing_check: int = 0

    @property
    def source(self) -> TritonSource:
        ranges = dict.fromkeys(self.kernel.symbol_names, (0, 1 << 16)) if self.ranges is None else self.ranges
        return print_kernel(self.kernel, ranges)

    def parameter_names(self) -> list[str]:
        return [parameter.name_hint or "" for parameter in self.kernel.parameters]

    def tensors(self, *, float64: bool = False) -> list[torch.Tensor]:
        """One for each parameter; those that are only written hold NaN or the smallest integer."""
        generator = torch.Generator().manual_seed(0)
        found = []
        for position, parameter in enumerate(self.kernel.parameters):
            kind = block_type(parameter)
            name = parameter.name_hint or ""
            fresh = position in self.kernel.writes.data and position not in self.kernel.updates.data
            ev = Evaluator(dict(self.symbols), {}, float64)
            value = None
            if not fresh:
                shape = tuple(evaluate(extent, self.symbols) for extent in types.shape(kind))
                dtype = torch_dtype(types.dtype(kind))
                value = self.data.get(name, ordinary)(generator, shape, dtype)
            found.append(placed(ev, kind, value))
        return found

    def expected(self) -> list[torch.Tensor]:
        tensors = self.tensors(float64=self.float64)
        run_kernel(
            self.kernel, tensors, [self.symbols[name] for name in self.kernel.symbol_names], float64=self.float64
        )
        return tensors

    def arguments(self, tensors: Sequence[Any]) -> list[Any]:
        """Of the Triton function: tensors (booleans and unsigned bytes as int8) and symbols."""
        passed = [
            tensor.view(torch.int8) if tensor.dtype in (torch.bool, torch.uint8) else tensor for tensor in tensors
        ]
        return [*passed, *(self.symbols[name] for name in self.kernel.symbol_names)]

    def programs(self) -> int:
        return prod(max(extent, 0) for extent in self.kernel.programs(dict(self.symbols)))

    def differences(
        self, found: Sequence[torch.Tensor], expected: Sequence[torch.Tensor], leave_out: Sequence[str] = ()
    ) -> list[str]:
        """What is wrong with the tensors after a run."""
        wrong = []
        for position, (name, got, wanted) in enumerate(zip(self.parameter_names(), found, expected, strict=True)):
            if position not in self.kernel.writes.data or name in leave_out:
                continue
            rows = self.rows.get(name)
            if rows is None:
                wrong += [f"{name}: {text}" for text in self._compared(got, wanted)]
                continue
            for what, left, right in zip(rows, got, wanted, strict=True):
                if what not in leave_out:
                    wrong += [f"{name}, {what}: {text}" for text in self._compared(left, right, each=True)]
        return wrong

    def _compared(self, found: torch.Tensor, expected: torch.Tensor, *, each: bool = False) -> list[str]:
        """``each``: the tolerance is that of each element, as far as it is larger than 1."""
        dtype = found.dtype
        if not dtype.is_floating_point:
            return [] if torch.equal(found, expected) else [_example(found, expected, found != expected)]
        rounded = expected.to(dtype).double()
        left, right = found.double(), torch.where(rounded.isfinite(), expected.double(), rounded)
        same = (left.isnan() & right.isnan()) | (left == right)
        finite = left.isfinite() & right.isfinite()
        scale = right.abs().where(right.isfinite(), 0.0)
        if each:
            scale = scale.clamp(min=min(1.0, scale.max().item()))
        elif scale.numel():
            scale = scale.max()
        limit = self.tolerances.get(dtype, TOLERANCES.get(dtype, 0.0)) * scale
        bad = ~(same | (finite & ((left - right).abs() <= limit)))
        return [_example(left, right, bad)] if bad.any() else []


def _example(found: torch.Tensor, expected: torch.Tensor, bad: torch.Tensor) -> str:
    place = tuple(int(index) for index in bad.nonzero()[0])
    return f"{int(bad.sum())} of {bad.numel()} elements; at {list(place)} {found[place]}, not {expected[place]}"


# Data -----------------------------------------------------------------------------------------------------------------


def ordinary(generator: torch.Generator, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Numbers without surprises."""
    if dtype == torch.bool:
        return torch.rand(shape, generator=generator) < 0.5
    if dtype.is_floating_point:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
    least = 0 if dtype == torch.uint8 else -9
    return torch.randint(least, 10, shape, generator=generator).to(dtype)


def special(generator: torch.Generator, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Numbers with all the surprises in front, in another order for each seed of the generator."""
    numbers = 3.0 * torch.randn(shape, generator=generator, dtype=torch.float64)
    extremes = [float("nan"), float("inf"), -float("inf"), 0.0, -0.0, 0.5, -0.5, 1.5, 2.5, -2.5, 1.0, -1.0, 0.1, 300.0]
    flat = numbers.reshape(-1)
    count = min(len(extremes), flat.numel())
    flat[:count] = torch.tensor(extremes, dtype=torch.float64)[torch.randperm(len(extremes), generator=generator)][
        :count
    ]
    return numbers.to(dtype)


def of_all_signs(generator: torch.Generator, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """As ``special``; every other element is negated, NaN as well."""
    found = special(generator, shape, torch.float64)
    found[1::2] = -found[1::2]
    return found.to(dtype)


def extreme(generator: torch.Generator, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Numbers where results become subnormal, infinite, or lose their digits; the same ones as float64."""
    found = torch.randn(shape, generator=generator, dtype=torch.float64)
    values = [2.0**-149, -(2.0**-149), 1e-40, -1e-40, 2.0**-126, 3.4e38, -3.4e38, 88.5, 88.8, -87.5, -103.0, -104.5,
              127.5, 128.0, -126.5, 1e4, 1e10, 8388607.5, 1 - 2.0**-24, 1 + 2.0**-23, -1 + 2.0**-24, 1e-8]  # fmt: skip
    found.reshape(-1)[: len(values)] = torch.tensor(values, dtype=torch.float64)[: found.numel()]
    return found.to(torch.float32).to(dtype)


def wide(generator: torch.Generator, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Integers of all sizes, and floats around the limits of narrower types."""
    if dtype.is_floating_point:
        found = special(generator, shape, torch.float64)
        limits = [448.0, 464.0, 465.0, 57344.0, 61440.0, 61439.0, 65504.0, 65519.0, 65520.0, 127.5, 128.0, -128.9,
                  -129.0, 255.9, 256.0, 2.0**31, -(2.0**31), 2.0**63, 2.0**-9, 2.0**-10, 1e-7]  # fmt: skip
        flat = found.reshape(-1)
        flat[20 : 20 + len(limits)] = torch.tensor(limits, dtype=torch.float64)
        return found.to(dtype)
    info = torch.iinfo(dtype)
    found = torch.randint(info.min, info.max, shape, generator=generator, dtype=torch.int64).to(dtype)
    found.reshape(-1)[:4] = torch.tensor([info.min, info.max, 0, 1], dtype=torch.int64).to(dtype)
    return found


def nonzero(generator: torch.Generator, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    found = torch.randint(1, 12, shape, generator=generator) * (2 * torch.randint(0, 2, shape, generator=generator) - 1)
    return torch.where(found == -1, 5, found).to(dtype)


def below(limit: int) -> Data:
    """Integers from 0 to limit - 1."""
    return lambda generator, shape, dtype: torch.randint(0, limit, shape, generator=generator).to(dtype)


def of(*values: float) -> Data:
    return lambda generator, shape, dtype: torch.tensor(values).reshape(shape).to(dtype)


def permutation(generator: torch.Generator, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """The numbers from 0 on in random order."""
    return torch.randperm(prod(shape), generator=generator).reshape(shape).to(dtype)


# Cases ----------------------------------------------------------------------------------------------------------------


def _bundled(bundle: bundles.Bundle, data: Mapping[str, Data], **options: Any) -> Case:
    return Case(bundle.name, kernel_of(bundle.text()), {"n0": 90}, data, bundle.names(), **options)


TRUNCATED = ("out_bf16", "out_f8E4M3FN", "out_f8E5M2")
NAN = ("maxnumf", "minnumf")
FLOATS_OF_8_BITS = {torch.float8_e4m3fn: 2.0**-4, torch.float8_e5m2: 2.0**-3}
FEW = ("absf", "exp", "rsqrt", "tanh", "floor")


@cache
def bundled() -> dict[str, Case]:
    """One for each element type and family of elementwise ops."""
    found = [
        _bundled(bundles.floats("f32"), {"x": special, "y": special}, float64=True, not_interpreted=NAN),
        _bundled(bundles.floats("f64"), {"x": special, "y": special}, not_interpreted=NAN),
        _bundled(bundles.floats("f16", FEW), {"x": special, "y": special}, not_interpreted=NAN),
        _bundled(bundles.floats("bf16", FEW), {"x": special, "y": special}, interpreted=False),
        *(
            _bundled(
                bundles.floats(e, FEW),
                {"x": special, "y": special},
                float64=True,
                tolerances=FLOATS_OF_8_BITS,
                interpreted=False,
            )
            for e in ("f8E4M3FN", "f8E5M2")
        ),
        replace(
            _bundled(
                bundles.floats("f32"),
                {"x": extreme, "y": special},
                float64=True,
                not_interpreted=(*NAN, "cosh", "sinh"),
            ),
            name="floats_f32_extreme",
        ),
        _bundled(bundles.signs(), dict.fromkeys(bundles.signs().inputs, of_all_signs), float64=True),
        *(_bundled(bundles.float_comparisons(e), {"x": special, "y": special}) for e in ("f32", "bf16")),
        *(_bundled(bundles.integers(e), {"x": wide, "y": nonzero, "s": below(7)}) for e in bundles.INTEGERS),
        *(
            _bundled(bundles.float_casts(e), {"x": wide}, interpreted=not e.startswith("f8"), not_interpreted=TRUNCATED)
            for e in bundles.FLOATS
        ),
        *(
            _bundled(
                bundles.integer_casts(e), {"x": wide}, ranges={} if e == "i64" else None, not_interpreted=TRUNCATED
            )
            for e in bundles.INTEGERS
        ),
    ]
    return {case.name: case for case in found}


@cache
def written_by_hand() -> dict[str, Case]:
    """Memory, products, reductions, control flow."""
    return {
        name: Case(name, kernel_of(text), symbols, **_options(options))
        for name, text, symbols, options in written.kernels()
    }


def _options(options: Mapping[str, Any]) -> dict[str, Any]:
    functions = {"permutation": permutation, "special": special, "wide": wide}
    data = {
        name: functions[value] if isinstance(value, str) else below(value) if isinstance(value, int) else of(*value)
        for name, value in options.get("data", {}).items()
    }
    named = {"tf32": {torch.float32: 2e-3}, "reduce": {torch.bfloat16: 1e-2},
             "atomics": {torch.bfloat16: 3e-2, torch.float16: 4e-3}}  # fmt: skip
    tolerances = named.get(options.get("tolerances", ""), {})
    return {**options, "data": data, "tolerances": tolerances}


def all_cases() -> dict[str, Case]:
    return {**bundled(), **written_by_hand()}
