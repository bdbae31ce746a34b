"""Products with weights become linears, and stay what they were."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

import forgec
from forgec.capture.capture import export_model, import_program
from forgec.ir.context import context
from forgec.ir.ops.contraction import LinearOp
from forgec.ir.ops.module import ParamOp, ParamRefOp
from forgec.passes.manager import run_pipeline
from tests.passes.spellings import Fused

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(4, 3, 8, generator=GENERATOR)
W = torch.randn(6, 8, generator=GENERATOR)
HEADS = torch.randn(8, 2, 3, generator=GENERATOR)
STACK = torch.randn(4, 8, 6, generator=GENERATOR)
BIAS = torch.randn(6, generator=GENERATOR)
SPELLINGS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "x @ w.T": lambda x: x @ W.to(x.dtype).T,
    "x @ w": lambda x: x @ W.to(x.dtype).T.contiguous(),
    "matmul": lambda x: torch.matmul(x, W.to(x.dtype).t()) + BIAS.to(x.dtype),
    "a scaled weight": lambda x: x @ (W.to(x.dtype) * 0.5).T,
    "einsum": lambda x: torch.einsum("btd,dhk->bthk", x, HEADS.to(x.dtype)),
    "einsum of the weight": lambda x: torch.einsum("od,btd->bto", W.to(x.dtype), x),
    "on the left": lambda x: W.to(x.dtype) @ x.transpose(1, 2),
    "a row": lambda x: x[0, 0] @ W.to(x.dtype).T,
    "bmm": lambda x: torch.bmm(x, W.to(x.dtype).T.expand(x.shape[0], 8, 6)),
}
WIDE: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "addmm": lambda x: torch.addmm(x[0, :, :6], x[1], W.to(x.dtype).T, beta=0.5, alpha=2),
    "baddbmm": lambda x: torch.baddbmm(x[..., :6], x, W.to(x.dtype).T.expand(x.shape[0], 8, 6)),
}
OTHERS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "activations": lambda x: x @ x.transpose(1, 2),
    "a stack": lambda x: x[:4] @ STACK.to(x.dtype),
    "a vector": lambda x: x @ W.to(x.dtype)[0],
    "columns": lambda x: STACK.to(x.dtype)[0].T @ x.reshape(-1, 8, 3),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["f32", "bf16"])
@pytest.mark.parametrize("name", SPELLINGS)
def test_spellings(name: str, dtype: torch.dtype) -> None:
    fused = Fused(SPELLINGS[name], [X.to(dtype)], "expand-einsum,fuse-linear", dynamic=name != "a row")
    assert (fused.ops["linear"], fused.ops["matmul"]) == (1, 0)
    fused.check(exact=0.9)


@pytest.mark.parametrize("name", WIDE)
def test_products_with_sums(name: str) -> None:
    fused = Fused(WIDE[name], [X], "fuse-linear", dynamic=False)
    assert (fused.ops["linear"], fused.ops["aten"]) == (1, 0)
    fused.check()
    half = Fused(WIDE[name], [X.bfloat16()], "fuse-linear", dynamic=False)
    assert (half.ops["linear"], half.ops["aten"]) == (0, 1)
    assert [remark.notes for remark in half.remarks] == [("it rounds once, and a product and a sum round twice",)]


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_linear(name: str) -> None:
    fused = Fused(OTHERS[name], [X], "fuse-linear", dynamic=False)
    assert fused.ops["linear"] == 0
    assert len(fused.remarks) == (name != "activations")
    assert all(remark.location is not None and remark.notes for remark in fused.remarks)
    fused.check()


class Tied(nn.Module):
    """One weight embeds tokens, and is the head; queries and keys are products with weights as they are stored."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(10, 8) / 3)
        self.q, self.k = (nn.Parameter(torch.randn(8, 8) / 3) for _ in range(2))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.table[ids]
        return (x @ self.q * (x @ self.k)) @ self.table.T


def test_weights_are_held_once() -> None:
    """A tied weight stays one; merged ones take the place of those that they were made of."""
    model, ids = Tied().eval(), torch.tensor([[1, 2, 3]])
    program = export_model(model, (ids,), {}, None)
    module = import_program(program, model, (ids,), {}, None).module
    run_pipeline(module, "@O2", context=context())
    read = {op.param.root_reference.data for op in module.walk() if isinstance(op, ParamRefOp) and _is_called(op)}
    assert read == {"table", "q+k"}
    assert sum(isinstance(op, LinearOp) for op in module.walk()) == 2
    with torch.no_grad():
        torch.testing.assert_close(forgec.compile(model, (ids,))(ids), model(ids), rtol=0, atol=2.1e-5)


def _is_called(op: ParamRefOp) -> bool:
    """True for a parameter that the program reads, not one that is computed of it while compiling."""
    parent = op.parent_op()
    return not isinstance(parent, ParamOp)
