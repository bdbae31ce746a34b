"""Recurrences that models write as loops of Python: as scans, against eager and float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import forgec
from forgec.capture.capture import export_model, import_program
from forgec.ir import context
from forgec.passes.manager import run_pipeline


class Recurrence(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: torch.Tensor) -> Any:
        return self.function(*args)


def state_space(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A selective state space: the state [2, 24, 16] is read by a product with a vector."""
    state, found = torch.zeros_like(a[:, :, 0]), []
    for i in range(a.shape[2]):
        state = torch.sigmoid(a)[:, :, i] * state + b[:, :, i]
        found.append((state @ c[:, i].unsqueeze(-1))[:, :, 0])
    return torch.stack(found, -1), state


def gated(gate: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """A gated linear unit's recurrence, written into a result step by step; the first step is another one."""
    out, state = torch.zeros_like(x), x[:, 0]
    out[:, 0] = state
    for i in range(1, x.shape[1]):
        state = gate[:, i].sigmoid() * state + x[:, i]
        out[:, i] = state
    return out


def delta_rule(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, decay: torch.Tensor) -> torch.Tensor:
    """A state of keys and values [2, 2, 8, 12], whose keys are summed over."""
    state, found = v.new_zeros(2, 2, 8, 12), torch.zeros_like(v)
    for i in range(q.shape[2]):
        state = state * decay[:, :, i].exp()[..., None, None]
        held = (state * k[:, :, i].unsqueeze(-1)).sum(-2)
        state = state + k[:, :, i].unsqueeze(-1) * (v[:, :, i] - held).unsqueeze(-2)
        found[:, :, i] = (state * q[:, :, i].unsqueeze(-1)).sum(-2)
    return found


def several_states(k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """A sum and its greatest exponent, as RWKV has them."""
    top, total, found = torch.full_like(k[0], -1e38), torch.zeros_like(k[0]), []
    for i in range(k.shape[0]):
        new = torch.maximum(top, k[i])
        total = total * (top - new).exp() + (k[i] - new).exp() * v[i]
        top = new
        found.append(total)
    return torch.stack(found, 1)


def averaged(gate: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What is passed on is a mean of the state; all states are results, and so is the last one."""
    state, found = torch.zeros_like(x[:, 0]), []
    for i in range(x.shape[1]):
        state = state.mean(0, keepdim=True) * gate[:, i] + x[:, i]
        found.append(state)
    return torch.stack(found, 1), state


def mixing(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """Each place of the state needs all others: a product of a matrix is no scan."""
    state = torch.zeros_like(x[0])
    for i in range(x.shape[0]):
        state = torch.tanh(state @ w + x[i])
    return state


def reversed_state(x: torch.Tensor) -> torch.Tensor:
    """A step reads the state at other places than it writes."""
    state = torch.zeros_like(x[0])
    for i in range(x.shape[0]):
        state = state.transpose(0, 1) + x[i]
    return state


CASES: list[tuple[Callable[..., Any], list[tuple[int, ...]], int]] = [
    (state_space, [(2, 24, 6, 16), (2, 24, 6, 16), (2, 6, 16)], 1),
    (gated, [(2, 7, 40), (2, 7, 40)], 1),
    (delta_rule, [(2, 2, 5, 8), (2, 2, 5, 8), (2, 2, 5, 12), (2, 2, 5)], 1),
    (several_states, [(6, 3, 33), (6, 3, 33)], 1),
    (averaged, [(2, 6, 20), (2, 6, 20)], 1),
    (mixing, [(5, 4, 8), (8, 8)], 0),
    (reversed_state, [(5, 4, 4)], 0),
]


@pytest.mark.parametrize(("function", "shapes", "scans"), CASES, ids=[case[0].__name__ for case in CASES])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_scans_are_those_of_eager(
    function: Callable[..., Any], shapes: list[tuple[int, ...]], scans: int, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    args = tuple((0.3 * torch.randn(shape)).to(dtype) for shape in shapes)
    model = Recurrence(function).eval()
    module = import_program(export_model(model, args, {}, None), model).module
    run_pipeline(module, "cse,dce,roll-loops", context=context())
    assert str(module).count("forge.scan ") == scans
    exact = function(*(arg.double() for arg in args))
    eager = function(*args)
    found = [forgec.compile(model, args, target=target)(*args) for target in ("cpu:host", "cpu:aten")]
    for ours in found:
        for got, want, near in zip(
            *(each if isinstance(each, tuple) else (each,) for each in (ours, exact, eager)), strict=True
        ):
            assert got.dtype == near.dtype
            error = (near.double() - want).abs().max()
            assert (got.double() - want).abs().max() <= 3 * error + 1e-6


def test_threads_do_not_change_a_scan() -> None:
    torch.manual_seed(0)
    args = tuple(torch.randn(shape) for shape in CASES[0][1])
    model = Recurrence(state_space).eval()
    compiled = [forgec.compile(model, args, target="cpu:host", threads=threads) for threads in (1, 2, 4)]
    first, *others = [each(*args) for each in compiled]
    assert all(torch.equal(a, b) for other in others for a, b in zip(first, other, strict=True))


def test_a_history_that_is_read_is_no_result_of_steps() -> None:
    """Each step reads what all before it have written: the tensor is passed on as a whole."""

    def history(x: torch.Tensor) -> torch.Tensor:
        out = torch.zeros_like(x)
        for i in range(x.shape[0]):
            out[i] = x[i] + out.sum(0)
        return out

    x = torch.randn(5, 8)
    found = forgec.compile(Recurrence(history).eval(), (x,), target="cpu:host")(x)
    torch.testing.assert_close(found, history(x), rtol=1e-5, atol=1e-5)
