"""A backend with machine code of its own: compiled and called in memory, saved, loaded, interpreted."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
from xdsl.dialects.builtin import ModuleOp

import forgec
from forgec.backends import base
from forgec.backends.aten import BACKEND
from forgec.backends.aten.table import LOWERINGS
from forgec.backends.plan_builder import PlanBuilder
from forgec.diagnostics import ForgeError
from forgec.ir import plan, types
from forgec.ir.ops.binary import AddOp
from forgec.ir.plan_interpreter import interpret_plan
from forgec.runtime.kernel_table import NativeCode
from forgec.runtime.kernels import is_kernel, kernel_name
from tests.runtime.native import native


def double(op: AddOp, b: PlanBuilder) -> None:
    """``x + x`` by a kernel, what else is added by ATen."""
    kind = types.tensor_type(op.lhs)
    if op.lhs is not op.rhs or types.dtype(kind) != "f32" or not types.is_contiguous(op.lhs):
        LOWERINGS[AddOp](op, b)
        return
    place = b.destination(op.result, [op.lhs], row_major=True)
    b.launch("kernel::double_it", [op.lhs, place], [("grid", types.shape(kind))], writes=[place])


def code(module: ModuleOp, target: str) -> tuple[NativeCode, ...]:
    launches = [op.callee.data for op in module.walk() if isinstance(op, plan.LaunchOp)]
    names = dict.fromkeys(kernel_name(op) for op in launches if is_kernel(op))
    return (native(*names),) if names else ()


@pytest.fixture(autouse=True)
def _native_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    doubling = base.Backend("doubling", ("test",), {**LOWERINGS, AddOp: double}, BACKEND.covers, code)
    monkeypatch.setattr(base, "backends", lambda: {"aten": BACKEND, "doubling": doubling})


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(6, 5)
        self.register_buffer("total", torch.zeros(5))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = torch.relu(self.linear(x))
        y = y + y
        self.total += y.sum(0)
        return y.exp(), self.total + self.total


def compiled() -> tuple[Any, Model]:
    torch.manual_seed(0)
    model = Model().eval()
    rows = torch.export.Dim("rows", min=1, max=64)
    return forgec.compile(model, (torch.randn(3, 6),), target="test", dynamic_shapes=({0: rows},)), model


def launched(found: Any) -> list[str]:
    return [launch.op for entry in found.plan.entries for launch in entry.launches if is_kernel(launch.op)]


def inputs() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    return [torch.randn(rows, 6, generator=generator) for rows in (3, 8, 64, 1, 8)]


def test_in_memory_and_from_a_file(tmp_path: Path) -> None:
    found, model = compiled()
    assert launched(found) == ["kernel::double_it"] * 2
    found.save(tmp_path / "m.forge")
    loaded = forgec.load(tmp_path / "m.forge")
    assert len(loaded.artifact.images) == 1
    assert loaded.artifact.plan == found.plan
    with torch.no_grad():
        for x in inputs():
            expected = model(x)
            for run in (found, loaded):
                for left, right in zip(run(x), expected, strict=True):
                    torch.testing.assert_close(left, right)


def meaning(tensors: list[torch.Tensor], extents: list[int]) -> None:
    x, y = tensors
    assert not extents
    y.copy_(x * 2)


@pytest.mark.parametrize("float64", [False, True])
def test_the_interpreter_takes_the_meaning_of_kernels(float64: bool) -> None:
    found, model = compiled()
    x = inputs()[1]
    with torch.no_grad():
        expected = model.to(torch.float64)(x.to(torch.float64)) if float64 else model(x)
    kernels = {"double_it": meaning}
    results = interpret_plan(found._plan, [x], found.params, entry="forward", float64=float64, kernels=kernels)
    for left, right in zip(results[:2], expected, strict=True):
        torch.testing.assert_close(left, right)
    with pytest.raises(ForgeError, match="nothing says what kernel 'double_it' computes") as caught:
        interpret_plan(found._plan, [x], found.params, entry="forward")
    assert caught.value.code == "FORGE-I003"
    assert caught.value.diagnostics[0].location is not None


def test_no_programs_no_meaning() -> None:
    class Empty(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = x.exp()
            return (y + y).sum()

    rows = torch.export.Dim("rows", min=0, max=8)
    found = forgec.compile(Empty(), (torch.randn(3, 2),), target="test", dynamic_shapes=({0: rows},))
    called: list[int] = []
    kernels = {"double_it": lambda tensors, extents: called.append(prod(tensors[0].shape))}
    (result,) = interpret_plan(found._plan, [torch.zeros(0, 2)], {}, entry="forward", kernels=kernels)
    assert result.item() == 0
    assert not called
    assert found(torch.zeros(0, 2)).item() == 0


def test_a_program_without_kernels_has_no_code(tmp_path: Path) -> None:
    found = forgec.compile(torch.nn.ReLU(), (torch.randn(3),), target="test")
    assert not found._kernels
    found.save(tmp_path / "m.forge")
    assert not any(name.startswith("kernels/") for name in forgec.load(tmp_path / "m.forge").artifact.members)
