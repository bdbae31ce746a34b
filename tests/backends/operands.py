"""Operands for functions of torch, and the check that a function of many of them agrees with eager PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import product
from typing import Any

import torch

from tests.capture.compare import agree

FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
INTEGERS = (torch.int64, torch.int32, torch.int8, torch.uint8)
DTYPES = (*FLOATS, *INTEGERS, torch.bool)


def numbers(shape: Sequence[int], dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    """Small numbers of both signs and zero (for unsigned ones: without the sign)."""
    count = torch.Size(shape).numel()
    values = (torch.arange(count) * 37 + seed * 11) % 17 - 8
    if dtype.is_floating_point:
        return (values / 4).to(dtype).reshape(shape)
    return (values % 3 if dtype in (torch.bool, torch.uint8) else values).to(dtype).reshape(shape)


def layouts(dtype: torch.dtype = torch.float32, seed: int = 0) -> list[torch.Tensor]:
    """Row-major, transposed, strided, expanded, permuted, of rank 0, empty."""
    return [
        numbers((3, 4), dtype, seed),
        numbers((4, 3), dtype, seed).t(),
        numbers((3, 8), dtype, seed)[:, 1::2],
        numbers((1, 4), dtype, seed).expand(3, 4),
        numbers((2, 4, 3), dtype, seed).permute(0, 2, 1),
        numbers((), dtype, seed),
        numbers((0, 4), dtype, seed),
        numbers((5,), dtype, seed)[2:],
    ]


def every_dtype() -> list[tuple[torch.Tensor]]:
    return [(t,) for t in layouts()] + [(numbers((2, 3), dtype),) for dtype in DTYPES]


def pairs() -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Two operands: all layouts of one shape, shapes that broadcast, dtypes that promote."""
    same = layouts()[:4]
    found = list(product(same, [t.flip(0) for t in same]))
    found += [(a, b) for a in layouts() for b in (numbers((4,), seed=3), numbers((), seed=3), numbers((1, 1), seed=1))]
    found += [
        (numbers((3, 1)), numbers((1, 4))),
        (numbers((0, 1)), numbers((4,))),
        (numbers((2, 1, 3)), numbers((4, 1))),
    ]
    found += [(numbers((2, 3), a), numbers((3,), b, 5)) for a, b in product(DTYPES, DTYPES)]
    found += [(numbers((2, 3), a), numbers((), b, 5)) for a, b in product(DTYPES, (torch.float64, torch.int64))]
    return found


def with_numbers() -> list[tuple[torch.Tensor, Any]]:
    """A tensor and a Python number."""
    tensors = [*layouts()[:3], *(numbers((2, 3), dtype) for dtype in DTYPES)]
    return [(t, n) for t in tensors for n in (2, 0.5, -1, True, 1, 0, 0.0)]


def accepted(function: Callable[..., Any], operands: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Those operands for which eager PyTorch has a result."""
    found = []
    for given in operands:
        try:
            function(*given)
        except (RuntimeError, TypeError, IndexError, NotImplementedError):
            continue
        found.append(given)
    return found


class Many(torch.nn.Module):
    """A function applied to several operands; those that are tensors are inputs."""

    def __init__(self, function: Callable[..., Any], operands: Sequence[tuple[Any, ...]]) -> None:
        super().__init__()
        self.function, self.operands = function, operands

    def forward(self, *tensors: torch.Tensor) -> list[Any]:
        given = iter(tensors)
        calls = ([next(given) if isinstance(v, torch.Tensor) else v for v in operands] for operands in self.operands)
        return [self.function(*call) for call in calls]


def check(function: Callable[..., Any], operands: Iterable[tuple[Any, ...]], *names: str, exactly: bool = True) -> None:
    """The function on all operands agrees with eager PyTorch, and reaches the ops of these names."""
    fit = accepted(function, operands)
    assert fit
    inputs = [v for given in fit for v in given if isinstance(v, torch.Tensor)]
    # torch.export records other strides than eager PyTorch's for floor_divide of operands that lie differently
    forms = agree(lambda: Many(function, fit), inputs, calls=1, exactly=exactly, sharing="floor_div" not in names)
    ops = list(forms.captured.module.walk())
    assert {f"forge.{name}" for name in names} <= {op.name for op in ops}
