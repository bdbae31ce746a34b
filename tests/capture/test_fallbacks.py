"""Operators without a row, and arguments that a row does not cover: ``forge.aten`` with eager's result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import forgec
from forgec.capture.call import ROWS
from forgec.ir.ops.aten import AtenOp
from forgec.runtime.aten import is_of_torch
from tests.capture.compare import agree, op_names
from tests.oracle import Forms

x = torch.linspace(-2, 2, 24).reshape(2, 3, 4)
ids = torch.tensor([[0, 2, 1], [1, 1, 0]])

FALLBACKS: dict[str, tuple[Callable[..., Any], list[Any]]] = {
    "aten::topk": (lambda a: a.topk(2), [x]),
    "aten::sort": (lambda a: a.sort(1, descending=True), [x]),
    "aten::roll": (lambda a: a.roll(1, 2), [x]),
    "aten::flip": (lambda a: a.flip(0, 1), [x]),
    "aten::tril": (lambda a: a.tril(), [x]),
    "aten::nonzero_static": (lambda a: torch.nonzero_static(a > 0, size=3), [x]),
    "aten::repeat_interleave.self_int": (lambda a: a.repeat_interleave(3, 1), [x]),
    "aten::repeat": (lambda a: a.repeat(1, 2, 1), [x]),
    "aten::add.Tensor": (lambda a: torch.add(a, a, alpha=3), [x]),
    "aten::addmm": (lambda a: torch.addmm(a[0, :, :3], a[0], a[1].t(), beta=2, alpha=0.5), [x]),
    "aten::clamp.Tensor": (lambda a: a.clamp(a.mean(), a.max()), [x]),
    "aten::median.dim": (lambda a: a.median(1), [x]),
    "aten::std.correction": (lambda a: a.std(1), [x]),
    "aten::var_mean.correction": (lambda a: torch.var_mean(a, 2), [x]),
    "aten::min.dim": (lambda a: a.min(1), [x]),
    "aten::argmax": (lambda a: a.argmax(), [x]),
    "aten::bucketize.Tensor": (lambda a: torch.bucketize(a, torch.tensor([-1.0, 0.0, 1.0])), [x]),
    "aten::histogramdd": (lambda a: torch.histogramdd(a[0, :, :2], [3, 2]), [x]),
    "aten::einsum": (lambda a: torch.einsum("bij,bkj->bik", a, a), [x]),
    "aten::pixel_shuffle": (lambda a: F.pixel_shuffle(a.reshape(1, 4, 2, 3), 2), [x]),
    "aten::pad": (lambda a: F.pad(a, (1, 2)), [x]),
    "aten::one_hot": (lambda i: F.one_hot(i, 4), [ids]),
    "aten::max_pool2d": (lambda a: F.max_pool2d(a[None], 2), [x]),
    "aten::upsample_nearest1d.vec": (lambda a: F.interpolate(a, scale_factor=2.0), [x]),
    "aten::cumprod": (lambda a: a.cumprod(1), [x]),
    "aten::div.Tensor_mode": (lambda a: torch.div(a, 0.3, rounding_mode="trunc"), [x]),
    "aten::logsumexp": (lambda a: a.logsumexp(1), [x]),
    "aten::diagonal": (lambda a: a[0].diagonal(1), [x]),
    "aten::unfold": (lambda a: a.unfold(2, 2, 1), [x]),
    "aten::view.dtype": (lambda a: a.view(torch.int32), [x]),
    "aten::meshgrid.indexing": (lambda a: torch.meshgrid(a[0, 0], a[0, 1], indexing="ij"), [x]),
    "aten::index.Tensor": (lambda a: a[:, torch.tensor([2, 0], dtype=torch.int32)], [x]),
    "aten::masked_fill.Tensor": (lambda a: a.masked_fill(a > 0, a.min()), [x]),
    "aten::linspace": (lambda a: torch.linspace(0, 1, 5) + a[0, 0, 0], [x]),
    "aten::floor_divide": (lambda a: a // 0.3, [x]),
    "aten::celu": (lambda a: F.celu(a), [x]),
    "aten::leaky_relu": (lambda a: F.leaky_relu(a, 0.2), [x]),
    "aten::hardswish": (lambda a: F.hardswish(a), [x]),
    "aten::lgamma": (lambda a: a.lgamma(), [x]),
    "aten::take_along_dim": (lambda a: a.take_along_dim(a.argsort(2), 2), [x]),
    "aten::histc": (lambda a: a.histc(4), [x]),
    "aten::unique_consecutive": (lambda a: a + 0, [x]),
}


@pytest.mark.parametrize("name", FALLBACKS)
def test_a_fallback_gives_what_eager_gives(name: str) -> None:
    function, args = FALLBACKS[name]
    agree(lambda: function, args, calls=1, sharing=name != "aten::view.dtype")


def test_a_fallback_names_the_operator_with_its_overload() -> None:
    forms = Forms(lambda a: a.median(2)[0] + a.cummax(1)[0][:, :, 0], [x])
    names = [op.callee.data for op in forms.function.walk() if isinstance(op, AtenOp)]
    assert names == ["aten::median.dim", "aten::cummax"]


def test_a_row_that_declines_leaves_nothing_behind() -> None:
    forms = agree(lambda: lambda a: torch.addmm(a[0, :, :3], a[0], a[1].t(), beta=2), [x])
    assert op_names(forms.captured.module).count("aten::addmm") == 1
    assert "forge.linear" not in op_names(forms.captured.module)


def test_fallbacks_are_reported_with_their_lines() -> None:
    compiled = forgec.compile(lambda a: (a.cummax(1), a.cummax(2), a.median()), (x,))
    found = {entry["op"]: entry for entry in compiled.report.to_dict()["fallbacks"]}
    assert {name: entry["count"] for name, entry in found.items()} == {"aten::cummax": 2, "aten::median": 1}
    assert all("tests/capture/test_fallbacks.py:" in line for entry in found.values() for line in entry["lines"])
    assert 0 <= sum(entry["share_of_flops"] for entry in found.values()) <= 1


@pytest.mark.parametrize("target", ["cpu", "cpu:aten"])
def test_what_became_a_kernel_is_no_fallback(target: str) -> None:
    """Beside what only ATen has: operators without an op, some of which the lowering to kernels knows."""

    def function(a: torch.Tensor, weight: torch.Tensor, norm: torch.Tensor) -> torch.Tensor:
        started = a.new_empty(a.shape).fill_(2.0)
        return torch.special.i1(a * started) @ torch.ops.aten._weight_norm(weight, norm, 0).t()

    args = (x, torch.linspace(-1, 1, 20).reshape(5, 4), torch.ones(5, 1))
    compiled = forgec.compile(function, args, target=target)
    assert compiled.report is not None
    found = {entry["op"].partition(".")[0] for entry in compiled.report.to_dict()["fallbacks"]}
    launches = [(launch, entry) for entry in compiled._exported.entries for launch in entry.launches]
    run = {launch.op.partition(".")[0] for launch, entry in launches if is_of_torch(launch, entry)}
    assert found <= run
    assert found == {"cpu": {"aten::special_i1"}, "cpu:aten": {"aten::special_i1", "aten::_weight_norm"}}[target]
    torch.testing.assert_close(compiled(*args), function(*args))


def test_what_draws_random_numbers_is_neither_merged_nor_folded() -> None:
    compiled = forgec.compile(lambda a: (torch.rand(4), torch.rand(4), a + torch.randn_like(a)), (x,))
    first, second, noisy = compiled(x)
    assert not torch.equal(first, second)
    assert not torch.equal(first, compiled(x)[0])
    assert not torch.equal(noisy, x)
    torch.manual_seed(3)
    seeded = compiled(x)[0]
    torch.manual_seed(3)
    assert torch.equal(seeded, compiled(x)[0])


def test_every_row_is_an_operator_of_torch() -> None:
    """A misspelt name would never be reached."""
    names = [name for name in ROWS if name.startswith("aten::") or "::" not in name]  # others are their libraries'
    packets = {name.removeprefix("aten::").partition(".")[0] for name in names}
    assert [name for name in packets if not hasattr(torch.ops.aten, name)] == []
