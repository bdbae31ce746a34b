"""What cannot be done with a compiled program, and how that is said."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode

import forgec
from forgec.diagnostics import ForgeError

x34 = torch.arange(12.0).reshape(3, 4)


def refused(call: Callable[[], Any], code: str) -> str:
    with pytest.raises(ForgeError) as raised:
        call()
    assert raised.value.code == code
    return str(raised.value)


@pytest.fixture(scope="module")
def linear(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("linear") / "m.forge"
    forgec.compile(nn.Linear(4, 4).eval(), (x34,)).save(path)
    return forgec.load(path)


@pytest.mark.filterwarnings("ignore:.*nested tensors.*:UserWarning")
def test_nested_tensors(linear: Any) -> None:
    rows = [torch.ones(1, 4), torch.ones(2, 4)]
    for layout in (torch.strided, torch.jagged):
        nested = torch.nested.nested_tensor(rows, layout=layout)
        assert "input is a nested tensor" in refused(lambda value=nested: linear(value), "FORGE-R008")
        assert "nested" in refused(lambda value=nested: linear(value, 1), "FORGE-R001").lower()


def test_a_read_only_array_that_is_written() -> None:
    def writes(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        x.add_(1)
        return x + y

    model = forgec.compile(writes, (x34.clone(), x34))
    x, y = np.ones((3, 4), np.float32), np.ones((3, 4), np.float32)
    y.flags.writeable = False
    assert model(x, y)[0, 0] == 3
    assert x[0, 0] == 2
    assert "x is written by the call, and the array is read-only" in refused(lambda: model(y, x), "FORGE-R008")
    assert y[0, 0] == 1


@pytest.mark.parametrize(
    ("name", "bounds"), [("1bad", {}), (3, {}), ("a", {"min": -1}), ("a", {"max": 1.5}), ("a", {"min": 3, "max": 2})]
)
def test_dimensions(name: Any, bounds: dict[str, Any]) -> None:
    refused(lambda: forgec.Dim(name, **bounds), "FORGE-U005")


@pytest.mark.parametrize("path", [3, None, b"m.forge"])
def test_paths(path: Any, tmp_path: Path) -> None:
    assert "a path is needed" in refused(lambda: forgec.load(path), "FORGE-U005")
    model = forgec.compile(lambda x: x + 1, (x34,))
    refused(lambda: model.save(path), "FORGE-U005")
    model.save(tmp_path / "m.forge")
    if path is not None:
        refused(lambda: forgec.load(tmp_path / "m.forge", weights=path), "FORGE-U005")


def test_models_in_memory_are_neither_copied_nor_pickled(linear: Any) -> None:
    compiled = forgec.compile(lambda x: x + 1, (x34,))
    for model in (linear, linear.session(), compiled, forgec.compile(lambda x: x + 1)):
        for duplicate in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError, match=r"save the compiled model, and forgec\.load"):
                duplicate(model)


class Around(nn.Module):
    """Calls a compiled model."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x) + 1


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_transforms_and_traces(linear: Any) -> None:
    transforms: list[Callable[[], Any]] = [
        lambda: torch.func.grad(lambda x: linear(x).sum())(x34),
        lambda: torch.func.vmap(linear)(torch.ones(2, 3, 4)),
        lambda: torch.func.jvp(linear, (x34,), (x34,)),
    ]
    for transform in transforms:
        assert "torch.func transforms" in refused(transform, "FORGE-R008")
    with FakeTensorMode():
        fake = torch.ones(3, 4)
    traces: list[Callable[[], Any]] = [
        lambda: linear(fake),
        lambda: forgec.compile(Around(linear), (x34,)),
        lambda: forgec.compile(linear, (x34,)),
        lambda: forgec.compile(Around(forgec.compile(lambda x: x + 1, (x34,))), (x34,)),
        lambda: torch.export.export(Around(linear), (x34,), strict=False),
    ]
    for trace in traces:
        assert "fake tensors, or while something traces" in refused(trace, "FORGE-R008")
    assert torch.equal(torch.func.vmap(lambda y: y + linear(x34))(torch.zeros(2, 3, 4))[0], linear(x34))


def test_example_inputs_of_an_exported_program() -> None:
    rows = torch.export.Dim("rows", min=2, max=8)
    program = torch.export.export(nn.Linear(4, 4).eval(), (x34,), dynamic_shapes=({0: rows},))
    for examples in ((), (x34,), (torch.ones(5, 4),)):
        forgec.compile(program, examples)
    forgec.compile(program, example_kwargs={"input": x34})
    for examples in ((torch.ones(9, 4),), (torch.ones(3, 5),), (x34.double(),), (x34, x34), ({"a": x34},)):
        text = refused(lambda given=examples: forgec.compile(program, given), "FORGE-C002")
        assert "do not fit the exported program" in text
    assert "wrap a single tensor" in refused(lambda: forgec.compile(program, x34), "FORGE-C002")


def test_inputs_that_require_grad_are_warned_of_once(linear: Any, tmp_path: Path) -> None:
    forgec.compile(lambda x: x * 2, (x34,)).save(tmp_path / "m.forge")
    model = forgec.load(tmp_path / "m.forge")
    x = x34.clone().requires_grad_()
    with torch.no_grad():
        model(x)
    model(x34)
    with pytest.warns(forgec.ForgecWarning, match="gradients do not flow .* x requires grad") as caught:
        assert not model(x).requires_grad
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(x)
