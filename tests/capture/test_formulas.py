"""Operators that are formulas of others: kernels of their neighbours compute them, and NaN, infinities and zeros are
placed as eager places them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import forgec
from forgec.runtime.kernels import is_kernel

INF, NAN = float("inf"), float("nan")
ODD = torch.tensor([0.0, -0.0, 1.0, -1.5, 0.3, -0.25, INF, -INF, NAN, 1e30, -1e-30, 2.5])


class Pair(nn.Module):
    def __init__(self, function: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor, y: Tensor) -> Any:
        return self.function(x, y)


POINTWISE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "lerp": lambda x, y: torch.lerp(x, y, 0.3),
    "lerp_far": lambda x, y: torch.lerp(x, y, 0.75),
    "lerp_tensor": lambda x, y: torch.lerp(x, y, y),
    "addcmul": lambda x, y: torch.addcmul(x, x, y, value=0.5),
    "addcdiv": lambda x, y: torch.addcdiv(x, x, y),
    "nan_to_num": lambda x, y: torch.nan_to_num(x) + torch.nan_to_num(y, 1.0, 2.0, -3.0),
    "fmax": torch.fmax,
    "fmin": torch.fmin,
    "copysign": torch.copysign,
    "atan2": torch.atan2,
    "hypot": torch.hypot,
    "logaddexp": torch.logaddexp,
    "xlogy": torch.xlogy,
    "hardshrink": lambda x, y: F.hardshrink(x) + F.hardshrink(y, 0.3),
    "softshrink": lambda x, y: F.softshrink(x) + F.softshrink(y, 0.3),
    "threshold": lambda x, y: F.threshold(x, 0.2, 5.0) + y,
    "frac": lambda x, y: torch.frac(x) + torch.frac(y),
    "logit": lambda x, y: torch.logit(x) + torch.logit(y, 1e-3),
    "heaviside": torch.heaviside,
    "alpha": lambda x, y: torch.add(x, y, alpha=2) - torch.sub(y, x, alpha=0.5) + torch.rsub(x, y, alpha=3),
    "truncated": lambda x, y: torch.div(x, y, rounding_mode="trunc"),
}


def _launches(compiled: Any) -> list[str]:
    return [launch.op for entry in compiled._exported.entries for launch in entry.launches]


@pytest.mark.parametrize("name", POINTWISE)
def test_odd_numbers_go_where_eager_puts_them(name: str) -> None:
    model = Pair(POINTWISE[name])
    for dtype in (torch.float32, torch.bfloat16):
        x, y = (side.flatten().to(dtype) for side in torch.meshgrid(ODD, ODD, indexing="ij"))
        compiled = forgec.compile(model, (x, y), target="cpu:host")
        assert [is_kernel(op) for op in _launches(compiled)] == [True]
        found, wanted = compiled(x, y), model(x, y)
        if name == "copysign":  # a NaN's sign is told by nothing that kernels compute
            found, wanted = found[~y.isnan()], wanted[~y.isnan()]
        torch.testing.assert_close(found, wanted, equal_nan=True, rtol=2e-6 if dtype == torch.float32 else 8e-3, atol=0)
        if name in ("copysign", "atan2", "hypot"):
            numbers = ~wanted.isnan()
            assert torch.equal(found.signbit()[numbers], wanted.signbit()[numbers])


class Between(nn.Module):
    """A formula between a linear layer and an activation."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(37, 41)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.lerp(self.linear(x), y, 0.3).relu()


def test_a_formula_is_a_part_of_its_neighbours_kernel() -> None:
    model, inputs = Between().eval(), (torch.randn(6, 37), torch.randn(6, 41))
    compiled = forgec.compile(model, inputs, target="cpu:host")
    assert [is_kernel(op) for op in _launches(compiled)] == [True]
    torch.testing.assert_close(compiled(*inputs), model(*inputs), rtol=1e-5, atol=1e-6)


REDUCED: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "cosine_similarity": lambda x, y: F.cosine_similarity(x, y),
    "cosine_of_rows": lambda x, y: F.cosine_similarity(x[:, None], y[None], dim=-1),
    "count_nonzero": lambda x, y: ((x > 0).count_nonzero(), y.relu().count_nonzero(1)),
    "diff": lambda x, y: (x.diff(), y.diff(n=2, dim=0)),
    "kl_div": lambda x, y: F.kl_div(x, y.relu(), reduction="batchmean"),
    "kl_div_of_logarithms": lambda x, y: F.kl_div(x, y, reduction="none", log_target=True),
    "bucketize": lambda x, y: (torch.bucketize(x, y[0].sort().values), torch.bucketize(x, y[0].sort()[0], right=True)),
    "masked_scatter": lambda x, y: x.masked_scatter(x > 0.3, y),
    "masked_scatter_of_rows": lambda x, y: x.masked_scatter(x[:, :1] > 0.0, y.flatten()),
    "bce": lambda x, y: F.binary_cross_entropy_with_logits(x, y.sigmoid()),
    "bce_weighted": lambda x, y: F.binary_cross_entropy_with_logits(
        x, y.sigmoid(), weight=y[0].abs(), pos_weight=x[0].abs(), reduction="sum"
    ),
}


@pytest.mark.parametrize("name", REDUCED)
def test_formulas_with_sums(name: str) -> None:
    torch.manual_seed(0)
    model, inputs = Pair(REDUCED[name]), (torch.randn(5, 9), torch.randn(5, 9))
    compiled = forgec.compile(model, inputs, target="cpu:host")
    assert all(map(is_kernel, _launches(compiled)))
    torch.testing.assert_close(compiled(*inputs), model(*inputs), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"reduction": "sum"}, {"reduction": "none"}, {"label_smoothing": 0.1}])
def test_cross_entropy_of_classes(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = Pair(lambda x, y: F.cross_entropy(x, y, **options))
    some, none = torch.tensor([0, 4, -100, 2]), torch.full((4,), -100)
    compiled = forgec.compile(model, (torch.randn(4, 5), some), target="cpu:host")
    assert all(map(is_kernel, _launches(compiled)))
    for target in (some, none):
        logits = torch.randn(4, 5)
        torch.testing.assert_close(compiled(logits, target), model(logits, target), equal_nan=True)
    weights = torch.rand(5)
    if "label_smoothing" not in options:
        weighted = Pair(lambda x, y: F.nll_loss(x.log_softmax(1), y, weights, **options))
        given = torch.randn(4, 5), some
        torch.testing.assert_close(forgec.compile(weighted, given, target="cpu:host")(*given), weighted(*given))
    of_probabilities = Pair(lambda x, y: F.cross_entropy(x, y.softmax(1), **options))
    given = torch.randn(4, 5, 3), torch.randn(4, 5, 3)
    found = forgec.compile(of_probabilities, given, target="cpu:host")(*given)
    torch.testing.assert_close(found, of_probabilities(*given))
    images = Pair(lambda x, y: F.cross_entropy(x, y, ignore_index=3, **options))
    given = torch.randn(2, 5, 3, 2), torch.randint(0, 5, (2, 3, 2))
    torch.testing.assert_close(forgec.compile(images, given, target="cpu:host")(*given), images(*given))


class Rotary(nn.Module):
    """The usual spelling of a rotary table."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        places = torch.arange(x.shape[1], dtype=torch.float32, device=x.device)
        steps = 1.0 / (10000 ** (torch.arange(0, 8, 2, dtype=torch.float32) / 8))
        angles = torch.outer(places, steps)
        return angles.cos() * x[0, :, None], torch.arange(1, 2 * x.shape[1], 2, dtype=torch.float64)


def test_numbers_up_to_an_extent_are_floats() -> None:
    model, tokens = Rotary(), torch.export.Dim("tokens", max=512)
    compiled = forgec.compile(model, (torch.randn(2, 7),), dynamic_shapes={"x": {1: tokens}}, target="cpu:host")
    assert all(map(is_kernel, _launches(compiled)))
    for length in (7, 300):
        x = torch.randn(2, length)
        torch.testing.assert_close(compiled(x), model(x), rtol=1e-5, atol=1e-5)


def test_fewer_elements_than_places_are_an_error() -> None:
    model = Pair(lambda x, y: x.masked_scatter(x > 0, y))
    compiled = forgec.compile(model, (torch.ones(6), torch.arange(6.0)), target="cpu:host")
    assert compiled(torch.ones(6), torch.arange(6.0)).tolist() == [0, 1, 2, 3, 4, 5]
    few = forgec.compile(model, (torch.tensor([1.0, -1, -1, 1]), torch.arange(2.0)), target="cpu:host")
    assert few(torch.tensor([-1.0, 1, 1, -2]), torch.arange(2.0)).tolist() == [-1, 0, 1, -2]
    assert few(-torch.ones(4), torch.arange(2.0)).tolist() == [-1] * 4
    with pytest.raises(forgec.ForgeError):
        few(torch.ones(4), torch.arange(2.0))


@pytest.mark.parametrize("value", [0.5, 1.7, -1.7, 2])
def test_a_fraction_added_to_integers_is_cut(value: float) -> None:
    x = torch.tensor([-1, 0, 1, 2])
    compiled = forgec.compile(lambda x: torch.addcmul(x, x, x, value=value), (x,), target="cpu:host")
    assert torch.equal(compiled(x), torch.addcmul(x, x, x, value=value))


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 1e30])
def test_what_is_no_integer_is_refused_as_torch_does(value: float) -> None:
    x = torch.tensor([-1, 0, 1, 2])
    compiled = forgec.compile(lambda x: torch.addcmul(x, x, x, value=value), (x,), target="cpu:host")
    with pytest.raises(forgec.ForgeError, match="without overflow"):
        compiled(x)
