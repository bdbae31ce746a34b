"""What remarks tell of what the passes made of a model, and of what they left as it was; both compute the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import forgec

WIDTH, EXPERTS = 16, 4


class Model(nn.Module):
    """A function with some weights."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function
        self.q, self.k, self.v = nn.Linear(WIDTH, 16), nn.Linear(WIDTH, 8), nn.Linear(WIDTH, 8)
        self.gate = nn.Linear(WIDTH, EXPERTS)
        self.up = nn.Parameter(torch.randn(EXPERTS, WIDTH, 24) * 0.2)
        self.down = nn.Parameter(torch.randn(EXPERTS, 24, WIDTH) * 0.2)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def heads(m: Model, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = (f(x).unflatten(-1, (-1, 4)).transpose(1, 2) for f in (m.q, m.k, m.v))
    return q, k.repeat_interleave(2, 1), v.repeat_interleave(2, 1)


def grouped(m: Model, x: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(*heads(m, x)).transpose(1, 2).flatten(2)


def window(m: Model, x: Tensor) -> Tensor:
    q, k, v = heads(m, x)
    kept = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril().triu(-2)
    return torch.where(kept, q @ k.mT, -torch.inf).softmax(-1) @ v


def padded(m: Model, x: Tensor) -> Tensor:
    q, k, v = heads(m, x)
    place = torch.arange(x.shape[1])
    kept = (place <= place[:, None]).float() * (x[:, None, None, :, 0] > -5).float() > 0.5
    return (q @ k.mT).masked_fill(~kept, -torch.inf).softmax(-1) @ v


def softmin(m: Model, x: Tensor) -> Tensor:
    q, k, v = heads(m, x)
    return F.softmin(-(q @ k.mT) * 0.3, -1) @ v


def joined(m: Model, x: Tensor) -> Tensor:
    return window(m, x).transpose(1, 2).flatten(2).relu()


def twice_centred(_: Model, x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / torch.sqrt(centred.var(-1, keepdim=True, correction=0) + 1e-5)


def norm_of_centred(_: Model, x: Tensor) -> Tensor:
    y = x - x.mean(-1, keepdim=True)
    return (y - y.mean(-1, keepdim=True)) / torch.sqrt(y.var(-1, keepdim=True, correction=0) + 1e-5)


def difference_of_squares(_: Model, x: Tensor) -> Tensor:
    mean = x.mean(-1, keepdim=True)
    return (x - mean) * torch.rsqrt((x * x).mean(-1, keepdim=True) - mean * mean + 1e-5)


def rolled(_: Model, x: Tensor) -> Tensor:
    angles = torch.arange(x.shape[1])[:, None] / 10 ** (torch.arange(WIDTH // 2) / 4)
    cos, sin = angles.cos().repeat(1, 2), angles.sin().repeat(1, 2)
    signs = torch.cat([-torch.ones(WIDTH // 2), torch.ones(WIDTH // 2)])
    return x * cos + torch.roll(x, WIDTH // 2, -1) * signs * sin


def chosen(m: Model, x: Tensor) -> tuple[Tensor, Tensor]:
    weights, experts = m.gate(x).softmax(-1).topk(2, -1)
    return weights, experts


def loop(m: Model, x: Tensor) -> Tensor:
    weights, experts = chosen(m, x)
    total = torch.zeros_like(x)
    for e in range(EXPERTS):
        total = total + (weights * (experts == e)).sum(-1, keepdim=True) * (F.silu(x @ m.up[e]) @ m.down[e])
    return total


def gathered(m: Model, x: Tensor) -> Tensor:
    weights, experts = chosen(m, x)
    hidden = F.silu(torch.einsum("btd,btkdf->btkf", x, m.up[experts]))
    return (torch.einsum("btkf,btkfd->btkd", hidden, m.down[experts]) * weights[..., None]).sum(-2)


def sampled(m: Model, x: Tensor) -> Tensor:
    """A top-k that chooses no experts."""
    return chosen(m, x)[1].float() + m.q(x).mean()


MIXTURE = "no mixture of experts was made of what this top-k chooses: "
APPLIED = [
    (grouped, "forge.attention", "the 2 heads of keys and values are not repeated for the 4 of queries any more"),
    (grouped, "forge.attention", "3 linears of one input are computed as one, of 16 + 8 + 8 features"),
    (joined, "forge.attention", "this value is not copied: it is stored at once as what reads it wants it"),
    (window, "forge.attention", "the mask is causal window"),
    (padded, "forge.attention", "the mask is causal keys"),
    (softmin, "forge.attention", "attention of a softmax between two products"),
    (twice_centred, "forge.layer_norm", None),
    (norm_of_centred, "forge.layer_norm", None),
    (rolled, "forge.rope", None),
]  # fmt: skip
MISSED = [
    (difference_of_squares, "no norm was made: its variance is mean(x²) - mean(x)², which rounds otherwise"),
    (loop, MIXTURE + "each expert is computed on its own, on all rows"),
    (gathered, MIXTURE + "the weights of the chosen experts are copied for each row"),
]


def compiled(function: Callable[..., Tensor]) -> forgec.CompiledModel:
    """The function's program, which computes what eager PyTorch does."""
    torch.manual_seed(0)
    model, x = Model(function).eval(), torch.randn(2, 6, WIDTH)
    program = forgec.compile(model, (x,))
    torch.testing.assert_close(program(x), model(x), rtol=1e-4, atol=1e-5)
    return program


@pytest.mark.parametrize(("function", "op", "told"), APPLIED)
def test_applied(function: Callable[..., Tensor], op: str, told: str | None):
    program = compiled(function)
    assert f"{op} " in program.ir()
    messages = [remark.message for remark in program.report.remarks if remark.code == "FORGE-O001"]
    assert told is None or told in messages, messages


@pytest.mark.parametrize(("function", "told"), MISSED)
def test_missed_once(function: Callable[..., Tensor], told: str):
    messages = [remark.message for remark in compiled(function).report.remarks if remark.code == "FORGE-O002"]
    assert messages.count(told) == 1, messages


def test_a_choice_of_something_else_is_no_mixture():
    assert not any("experts" in remark.message for remark in compiled(sampled).report.remarks)
