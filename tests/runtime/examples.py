"""Small programs that several tests use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from forgec.runtime.plan import Plan, Reg, SymbolDecl, TensorSpec
from forgec.runtime.symbolic import symbol
from tests.runtime.build import EntryBuilder, f32, plan_of

if TYPE_CHECKING:
    import torch

SEQ = SymbolDecl("s0", "seq", 1, 64)
s0 = symbol("s0")


def weights(*shapes: tuple[str, tuple[int, ...]], seed: int = 0) -> dict[str, torch.Tensor]:
    import torch

    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes}


MLP_WEIGHTS = (("up", (8, 16)), ("down", (16, 8)))


def mlp(rows: int = 4) -> Plan:
    """relu(x @ up) @ down."""
    b = EntryBuilder()
    x = b.input("x", f32(rows, 8))
    up, down = b.param("up", f32(8, 16)), b.param("down", f32(16, 8))
    hidden = b.buffer("hidden", f32(rows, 16), 0, 0, 3)
    active = b.buffer("active", f32(rows, 16), 64 * rows, 1, 3)
    y = b.output("y", f32(rows, 8))
    b.out("aten::mm.out", x, up, out=hidden)
    b.out("aten::relu.out", hidden, out=active)
    b.out("aten::mm.out", active, down, out=y)
    return plan_of(b.build(y, arena=128 * rows))


def dynamic_mlp() -> Plan:
    """relu(x @ up) @ down, returned with its number of rows; rows in [1, 64]."""
    b = EntryBuilder()
    x = b.input("x", f32(s0, 8))
    up, down = b.param("up", f32(8, 16)), b.param("down", f32(16, 8))
    hidden = b.buffer("hidden", f32(s0, 16), None, 0, 2)
    active = b.buffer("active", f32(s0, 16), None, 1, 3)
    y = b.output("y", f32(s0, 8))
    flat = b.view("flat", f32(s0 * 8), y)
    b.out("aten::mm.out", x, up, out=hidden)
    b.out("aten::relu.out", hidden, out=active)
    b.out("aten::mm.out", active, down, out=y)
    return plan_of(b.build({"y": y, "flat": flat, "rows": s0}), symbols=(SEQ,))


def attention(heads: int = 2, tokens: int = 5, head: int = 4) -> Plan:
    """softmax attention of (q, k, v) through ATen's own kernel, transposed to [B, S, H, D] and layer-normed."""
    b = EntryBuilder()
    shape = (1, heads, tokens, head)
    q, k, v = (b.input(name, f32(*shape)) for name in "qkv")
    context = b.external("context", f32(*shape), 0, 2)
    back = TensorSpec("f32", (1, tokens, heads, head), (heads * tokens * head, head, tokens * head, 1))
    turned = b.view("turned", back, context)
    flat = b.buffer("flat", f32(1, tokens, heads, head), 0, 1, 3)
    rows = b.view("rows", f32(1, tokens, heads * head), flat)
    normed = b.external("normed", f32(1, tokens, heads * head), 2, 3)
    call = "aten::scaled_dot_product_attention"
    b.call(call, q, k, v, None, 0.0, True, results=(context,))
    b.out("aten::clone.out", turned, out=flat)
    b.call("aten::layer_norm", rows, (heads * head,), None, None, 1e-5, results=(normed,))
    return plan_of(b.build((normed,), arena=4 * heads * tokens * head + 64))


def counter() -> Plan:
    """Adds ``step`` to a counter that is state, and returns the new value."""
    b = EntryBuilder()
    step = b.input("step", f32())
    count = b.state("count", f32())
    b.inplace("aten::add_.Tensor", count, step)
    return plan_of(b.build(count, arena=0))


CACHE_ROWS = 6


def cache() -> Plan:
    """Two entries over one cache: ``append`` writes a row at a position, ``read`` gives the sum and the first row."""
    append = EntryBuilder("append")
    row = append.input("row", f32(1, 3))
    at = append.input("at", TensorSpec.contiguous("i64", (1,)))
    rows = append.state("rows", f32(CACHE_ROWS, 3))
    append.inplace("aten::index_copy_", rows, 0, at, row)
    read = EntryBuilder("read")
    rows = read.state("rows", f32(CACHE_ROWS, 3))
    first = read.view("first", f32(3), rows)
    total = read.output("total", f32(3))
    read.out("aten::sum.IntList_out", rows, (0,), False, out=total)
    return plan_of(append.build(()), read.build((total, first)))


def reg(plan: Plan, name: str) -> Reg:
    """The register of a param, input or state by name."""
    for number, register in enumerate(plan.entries[0].registers):
        if getattr(register, "name", None) == name:
            return Reg(number)
    raise KeyError(name)
