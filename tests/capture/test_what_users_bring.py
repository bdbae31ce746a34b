"""Modules, callables and signatures as users write them: each works, and gives what eager gives."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations
from torch.utils import _pytree

import forgec

x34 = torch.arange(12.0).reshape(3, 4) / 7 - 1
deep = torch.arange(48.0).reshape(2, 3, 8) / 20 - 1
ONES = torch.ones(4)
Make = Callable[[], Any]


def same(make: Make, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None, calls: int = 2) -> Any:
    """Compile a model and compare several calls with eager's, under the same seed; returns the compiled model."""
    torch.manual_seed(0)
    eager = make()
    torch.manual_seed(0)
    model = forgec.compile(make(), args, kwargs or {})
    torch.manual_seed(1)
    with torch.no_grad():
        expected = [eager(*_clones(args), **_clones(kwargs or {})) for _ in range(calls)]
    torch.manual_seed(1)
    found = [model(*_clones(args), **_clones(kwargs or {})) for _ in range(calls)]
    leaves, known = _pytree.tree_flatten(expected)
    results, structure = _pytree.tree_flatten(found)
    assert structure == known
    for result, leaf in zip(results, leaves, strict=True):
        if isinstance(leaf, torch.Tensor):
            torch.testing.assert_close(result, leaf, rtol=1e-5, atol=1e-6)
        else:
            assert (type(result), result) == (type(leaf), leaf)
    return model


def _clones(value: Any) -> Any:
    return _pytree.tree_map(lambda t: t.detach().clone() if isinstance(t, torch.Tensor) else t, value)


class Body(nn.Module):
    """A module whose forward is a function of it."""

    def __init__(self, body: Callable[..., Any], **attributes: Any) -> None:
        super().__init__()
        self.body = body
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.body(self, *args, **kwargs)


TRAINING: dict[str, tuple[Make, torch.Tensor]] = {
    "dropout": (lambda: nn.Dropout(0.5), x34),
    "dropout in place": (lambda: nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5, inplace=True)), x34),
    "dropout of channels": (lambda: nn.Dropout2d(0.5), torch.ones(2, 3, 4, 4)),
    "alpha dropout": (lambda: nn.AlphaDropout(0.5), x34),
    "batch norm": (lambda: nn.BatchNorm1d(4), x34),
    "batch norm after a convolution": (
        lambda: nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), nn.ReLU(inplace=True)),
        torch.arange(96.0).reshape(2, 3, 4, 4).sin(),
    ),
    "instance norm": (lambda: nn.InstanceNorm1d(3, track_running_stats=True), deep),
    "transformer layer": (lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), deep),
    "spectral norm": (lambda: parametrizations.spectral_norm(nn.Linear(4, 4)), x34),
}


@pytest.mark.parametrize("what", TRAINING)
def test_modules_in_training_mode(what: str) -> None:
    """The same random numbers as eager under the same seed; running statistics are state."""
    make, given = TRAINING[what]
    same(lambda: make().train(), (given,), calls=3)


RANDOM: dict[str, Callable[[torch.Tensor], Any]] = {
    "like": lambda x: x + torch.rand_like(x) + torch.randn(3, 4),
    "in place": lambda x: (x + 0).normal_() + (x + 0).uniform_() + (x + 0).exponential_() + (x + 0).bernoulli_(0.4),
    "indices": lambda x: x[torch.randperm(3)] + torch.randint(0, 9, (3, 4)),
    "multinomial": lambda x: torch.multinomial(x.abs(), 2),
    "attention": lambda x: F.scaled_dot_product_attention(x[None], x[None], x[None], dropout_p=0.3),
    "of a transpose": lambda x: F.dropout(x.t(), 0.5),
}


@pytest.mark.parametrize("what", RANDOM)
def test_random_numbers_are_those_of_eager(what: str) -> None:
    same(lambda: RANDOM[what], (x34,))


def nested_autocast(m: Any, x: torch.Tensor) -> Any:
    with torch.autocast("cpu", torch.bfloat16):
        y = m.layer(x)
        with torch.autocast("cpu", enabled=False):
            z = m.layer(y.float())
        return z + m.layer(z), y


def without_gradients(m: Any, x: torch.Tensor) -> Any:
    with torch.no_grad():
        y = m.layer(x)
    with torch.enable_grad():
        return m.layer(y)


def hooked() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    model[0].register_forward_hook(lambda m, i, o: o * 2)
    model[1].register_forward_pre_hook(lambda m, i: (i[0] + 1,))
    model.register_forward_hook(lambda m, a, k, o: o - 1, with_kwargs=True)
    return model


def containers() -> nn.Module:
    held: dict[str, Any] = {
        "layers": nn.ModuleList([nn.Linear(4, 4)]),
        "scales": nn.ParameterList([torch.ones(4)]),
        "named": nn.ParameterDict({"a": torch.ones(4)}),
        "by_name": nn.ModuleDict({"q": nn.Linear(4, 4)}),
    }
    return Body(lambda m, x: m.layers[0](x) * m.scales[0] + m.named["a"] + m.by_name["q"](x), **held)


def lazy() -> nn.Module:
    model = nn.LazyLinear(3)
    model(x34)
    return model


def not_persistent() -> nn.Module:
    model = Body(lambda m, x: m.count.add_(1) + x)
    model.register_buffer("count", torch.ones(4), persistent=False)
    return model


def assigned_buffer() -> nn.Module:
    def body(m: Any, x: torch.Tensor) -> torch.Tensor:
        m.total = m.total + x
        return m.total * 1

    model = Body(body)
    model.register_buffer("total", torch.zeros(3, 4))
    return model


MODULES: dict[str, Make] = {
    "autocast, nested and disabled": lambda: Body(nested_autocast, layer=nn.Linear(4, 4)),
    "switches of gradients": lambda: Body(without_gradients, layer=nn.Linear(4, 4)),
    "hooks": hooked,
    "weight norm": lambda: parametrizations.weight_norm(nn.Linear(4, 4)),
    "spectral norm in evaluation": lambda: parametrizations.spectral_norm(nn.Linear(4, 4)).eval(),
    "orthogonal": lambda: parametrizations.orthogonal(nn.Linear(4, 4)),
    "containers": containers,
    "a lazy module that has seen an input": lazy,
    "a buffer that is not saved": not_persistent,
    "a buffer that is assigned": assigned_buffer,
    "a compiled module": lambda: torch.compile(nn.Linear(4, 4), backend="eager"),
    "a compiled submodule": lambda: nn.Sequential(torch.compile(nn.Linear(4, 4), backend="eager"), nn.ReLU()),
    "data parallel": lambda: nn.DataParallel(nn.Linear(4, 4)),
    "an unused submodule on meta": lambda: Body(
        lambda m, x: m.layer(x), layer=nn.Linear(4, 4), other=nn.Linear(4, 4, device="meta")
    ),
    "vmap": lambda: lambda x: torch.vmap(lambda row: row * 2 + row.sum())(x),
    "data": lambda: Body(lambda m, x: x.data * m.scale.data, scale=nn.Parameter(torch.full((4,), 2.0))),
}


@pytest.mark.parametrize("what", MODULES)
def test_modules(what: str) -> None:
    same(MODULES[what], (x34,))


class Callables:
    """An object that is called, with a method."""

    def __init__(self) -> None:
        self.layer = nn.Linear(4, 4)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)

    def method(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) * 2


def closing_over(held: Any) -> Callable[[torch.Tensor], Any]:
    return lambda x: held(x) if callable(held) else x @ held


CALLABLES: dict[str, Make] = {
    "a partial application": lambda: functools.partial(lambda x, y, k=1: x + y * k, y=x34, k=2),
    "a partial application of a builtin": lambda: functools.partial(torch.add, x34),
    "a partial application of a module": lambda: functools.partial(nn.Linear(4, 4)),
    "a bound method": lambda: Callables().method,
    "a callable object": Callables,
    "a module's forward": lambda: nn.Linear(4, 4).forward,
    "a builtin": lambda: torch.relu,
    "a closure over a tensor": lambda: closing_over(torch.ones(4, 2)),
    "a closure over a module": lambda: closing_over(nn.Linear(4, 4)),
    "a closure over state": lambda: closing_over(nn.BatchNorm1d(4)),
}


@pytest.mark.parametrize("what", CALLABLES)
def test_callables(what: str) -> None:
    same(CALLABLES[what], (x34,))


def with_everything(x: torch.Tensor, /, y: torch.Tensor, *rest: torch.Tensor, k: float = 2.0, **more: Any) -> Any:
    return x + y * k + sum(rest) + more.get("z", 0)


SIGNATURES: dict[str, tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = {
    "everything": (with_everything, (x34, x34, x34, x34), {"k": 0.5, "z": x34}),
    "defaults": (with_everything, (x34, x34), {}),
    "a tensor as default": (lambda x, s=ONES: x * s, (x34,), {}),
    "keywords only": (lambda *, a, b: a - b, (), {"b": x34, "a": x34 * 2}),
    "a keyword for a positional one": (lambda x, y: x - y, (x34,), {"y": x34 * 2}),
    "numbers": (lambda x, n, f, b: x * n + f if b else x, (x34, 3, 0.5, True), {}),
    "text and nothing": (lambda x, how, y: x.relu() if how == "relu" and y is None else x, (x34, "relu", None), {}),
    "structures": (lambda d, t: {"sum": d["a"] + t[0][0], "rest": (t[1], None)}, ({"a": x34}, ([x34], x34)), {}),
    "no tensor, other results": (lambda x: (x + 1, None, 3, "s", 2.5, True), (x34,), {}),
    "nothing": (lambda x: None, (x34,), {}),
    "an extent": (lambda x: (x.shape[0], tuple(x.shape)), (x34,), {}),
}


@pytest.mark.parametrize("what", SIGNATURES)
def test_signatures(what: str) -> None:
    function, args, kwargs = SIGNATURES[what]
    same(lambda: function, args, kwargs)


DTYPES = [torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64]


@pytest.mark.parametrize("dtype", [*DTYPES, torch.bool, torch.complex64, torch.complex128])
def test_dtypes(dtype: torch.dtype) -> None:
    def function(x: torch.Tensor) -> Any:
        return x * 2 + x, x.sum(), x == x, torch.cat([x, x]), x.t().reshape(-1), torch.where(x == x, x, x), x.flip(0)

    same(lambda: function, ((x34 * 5).to(dtype),))


@pytest.mark.parametrize("dtype", DTYPES[:3])
def test_layers_of_other_dtypes(dtype: torch.dtype) -> None:
    same(lambda: nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.GELU()).to(dtype), (x34.to(dtype),))


def test_scalars_and_empty_tensors() -> None:
    same(lambda: lambda x: x + 1, (torch.tensor(2.0),))
    same(lambda: lambda x: (x + 1, x.sum(), x.t(), x.reshape(-1), torch.cat([x, x])), (torch.zeros(0, 3),))
    same(lambda: nn.Linear(4, 5), (torch.zeros(0, 4),))


def test_results_need_no_gradients() -> None:
    given = x34.clone().requires_grad_()
    model = forgec.compile(nn.Linear(4, 4), (given,))
    with pytest.warns(forgec.ForgecWarning, match="requires grad"):
        assert not model(given).requires_grad
    assert not model(x34).requires_grad
    assert given.grad is None
