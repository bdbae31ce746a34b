"""Norms of heads in the kernel of the linear that projects them: which join, and that values stay."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from xdsl.parser import Parser

import forgec
from forgec.ir import types
from forgec.ir.context import context
from forgec.ir.ops.contraction import LinearOp
from forgec.ir.ops.fused import FusedOp
from forgec.ir.ops.norm import LayerNormOp, RmsNormOp
from forgec.passes.norm_rows import has_whole_rows


class Attention(nn.Module):
    """Attention whose queries and keys are normed, ``whole`` before they are split into heads or each head alone."""

    def __init__(self, width: int, heads: int, norm: type[nn.Module], *, whole: bool = False, bias: bool = False):
        super().__init__()
        self.heads, self.whole = heads, whole
        self.qkv = nn.ModuleList(nn.Linear(width, width, bias=bias) for _ in range(3))
        extent = width if whole else width // heads
        self.norms = nn.ModuleList(norm(extent) for _ in range(2))
        for each in self.norms:
            nn.init.normal_(each.get_parameter("weight"))
        self.out = nn.Linear(width, width, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        q, k, v = (linear(x) for linear in self.qkv)
        if self.whole:
            q, k = self.norms[0](q), self.norms[1](k)
        q, k, v = (y.view(batch, length, self.heads, width // self.heads) for y in (q, k, v))
        if not self.whole:
            q, k = self.norms[0](q), self.norms[1](k)
        heads = [y.transpose(1, 2) for y in (q, k, v)]
        y = nn.functional.scaled_dot_product_attention(*heads)
        return self.out(y.transpose(1, 2).reshape(batch, length, width))


def normed_by_linears(compiled: Any) -> int:
    """Norms that run in the kernel of a linear."""
    kernels = [op for op in compiled._forge.walk() if isinstance(op, FusedOp) and op.kind.data == "linear"]
    assert all(any(isinstance(inner, LinearOp) for inner in kernel.inner) for kernel in kernels)
    return sum(isinstance(inner, (LayerNormOp, RmsNormOp)) for kernel in kernels for inner in kernel.inner)


CASES: dict[str, tuple[Attention, torch.dtype, int, int]] = {
    "rms norms of heads": (Attention(64, 4, nn.RMSNorm), torch.float32, 2, 3),
    "layer norms of heads": (Attention(64, 4, nn.LayerNorm, bias=True), torch.float32, 2, 3),
    "in bfloat16": (Attention(64, 4, nn.RMSNorm), torch.bfloat16, 2, 3),
    "in float64": (Attention(64, 4, nn.LayerNorm), torch.float64, 2, 3),
    "heads of a whole tile": (Attention(512, 2, nn.RMSNorm), torch.float32, 2, 3),
    "heads wider than a tile": (Attention(516, 2, nn.RMSNorm), torch.float32, 0, 5),
    "rows of the model's width": (Attention(320, 4, nn.RMSNorm, whole=True), torch.float32, 0, 5),
    "layer norms of rows of the model's width": (Attention(320, 4, nn.LayerNorm, whole=True), torch.float32, 0, 5),
    "rows of a narrow model": (Attention(64, 4, nn.LayerNorm, whole=True), torch.float32, 2, 3),
}
"""Each with its dtype, the norms that linears take, and its launches."""


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_norms_of_queries_and_keys(name: str, dynamic: bool) -> None:
    model, dtype, taken, launches = CASES[name]
    model = model.to(dtype).eval()
    torch.manual_seed(0)
    shapes = {"x": {0: torch.export.Dim("batch", max=8), 1: torch.export.Dim("length", min=2, max=64)}}
    x = torch.randn(2, 5, model.out.in_features, dtype=dtype)
    compiled = forgec.compile(model, (x,), dynamic_shapes=shapes if dynamic else None)
    assert normed_by_linears(compiled) == taken
    assert compiled.report.launches == launches
    tolerance = {torch.float32: 2.1e-5, torch.float64: 1e-12, torch.bfloat16: 3e-2}[dtype]
    for given in (x, torch.randn(3, 7, x.shape[-1], dtype=dtype)) if dynamic else (x,):
        with torch.no_grad():
            torch.testing.assert_close(compiled(given), model(given), rtol=0, atol=tolerance)


def spelled(extents: list[int], strides: list[int]) -> str:
    """The text of a type that lies with these strides."""
    return str(types.tensor("f32", extents, strides))


def drawn(seed: int) -> tuple[str, torch.Tensor, int]:
    """A module whose last value is a random rearrangement of a linear's result, the place of each of its elements, and
    the linear's columns.
    """
    generator = torch.Generator().manual_seed(seed)

    def pick(most: int) -> int:
        return int(torch.randint(most, (), generator=generator))

    rows, columns = [2, 4, 6][pick(3)], [4, 6, 8, 10, 12][pick(5)]
    view = torch.arange(rows * columns).view(rows, columns)
    lines = [
        f"%0 = forge.linear %x, %w : (tensor<{rows}x2xf32>, tensor<{columns}x2xf32>) -> tensor<{rows}x{columns}xf32>"
    ]
    for index in range(1, 2 + pick(4)):
        before, dim = spelled(list(view.shape), list(view.stride())), pick(view.dim())
        extent = view.shape[dim]
        match pick(3):
            case 0 if extent > 1:
                start = pick(extent // 2 + 1)
                view = view.narrow(dim, start, 1 + pick(extent - start))
                op = f"forge.slice %{index - 1} dim {dim} from {start} step 1"
            case 1:
                order = torch.randperm(view.dim(), generator=generator).tolist()
                view, op = view.permute(order), f"forge.transpose %{index - 1} {order}"
            case _:
                split = next((n for n in (2, 3, 4) if pick(2) and extent % n == 0), 1)
                view, op = view.unflatten(dim, (extent // split, split)), f"forge.reshape %{index - 1}"
        lines.append(f"%{index} = {op} : ({before}) -> {spelled(list(view.shape), list(view.stride()))}")
    text = f"func.func @f(%x: tensor<{rows}x2xf32>, %w: tensor<{columns}x2xf32>) {{\n" + "\n".join(lines)
    return text + "\nfunc.return\n}\n", view, columns


def test_rows_are_whole_where_the_places_of_their_elements_say_so() -> None:
    outcomes = []
    for seed in range(400):
        text, places, columns = drawn(seed)
        module = Parser(context(), text).parse_module()
        ops = [op for op in module.walk() if op.name.startswith("forge.")]
        root = ops[0]
        assert isinstance(root, LinearOp)
        rows = places.reshape(-1, places.shape[-1])
        extent = rows.shape[-1]
        within = rows % columns
        expected = bool(
            ((rows - rows[:, :1]) == torch.arange(extent)).all()
            and (within[:, 0] % extent == 0).all()
            and (within[:, -1] == within[:, 0] + extent - 1).all()
        )
        assert has_whole_rows(ops[-1].results[0], root) == expected, text
        outcomes.append(expected)
    assert 40 < sum(outcomes) < 360
