"""Rotary embeddings as models spell them: each becomes one op, and keeps its values at every level."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from xdsl.dialects.builtin import ModuleOp

import forgec
from forgec.ir import types
from forgec.ir.interpreter import interpret
from forgec.ir.ops.composite import RopeOp
from forgec.ir.plan_interpreter import interpret_plan
from forgec.passes.features import Tracer
from tests.ir.build import parse, random_inputs
from tests.models.architectures.row import Row
from tests.models.test_architectures import ROWS, same
from tests.oracle import Forms, assert_close, lower, tensor_leaves

BEFORE = "canonicalize,constant-fold,cse,canonicalize"
PIPELINE = f"{BEFORE},fuse-rope,canonicalize,cse,canonicalize,dce"
Rotate = Callable[[Tensor, Tensor, Tensor], Tensor]


class Angles(torch.nn.Module):
    """A query and a key, turned by the angles of their positions."""

    def __init__(self, rotate: Rotate, rotated: int, spread: str) -> None:
        super().__init__()
        self.rotate, self.spread = rotate, spread
        self.register_buffer("frequencies", 100.0 ** -(torch.arange(rotated // 2) * 2 / rotated))

    def forward(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        angles = torch.arange(q.shape[-2])[:, None].float() * self.frequencies
        if self.spread == "complex":
            table = torch.polar(torch.ones_like(angles), angles)
            return self.rotate(q, table, table), self.rotate(k, table, table)
        if self.spread in ("halves", "wide"):
            angles = torch.cat([angles, angles], -1)
        elif self.spread == "pairs":
            angles = angles.repeat_interleave(2, -1)
        cos, sin = angles.cos(), angles.sin()
        if self.spread != "wide":
            cos, sin = cos.to(q.dtype), sin.to(q.dtype)
        return self.rotate(q, cos, sin), self.rotate(k, cos, sin)


def turn_halves(x: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    return torch.cat([-x[..., half:], x[..., :half]], -1)


def turn_pairs(x: Tensor) -> Tensor:
    return torch.stack([-x[..., 1::2], x[..., ::2]], -1).flatten(-2)


def llama(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return x * cos + turn_halves(x) * sin


def chunked(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return sin * torch.cat((-1 * second, first), -1) + cos * x


def viewed(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.unflatten(-1, (2, -1)).unbind(-2)
    return x * cos + torch.stack([-second, first], -2).flatten(-2) * sin


def back(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat([second, -first], -1) * sin


def subtracted(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return x * cos - torch.cat([second, -first], -1) * sin


def gptj(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return x * cos + turn_pairs(x) * sin


def unbound(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
    return x * cos + torch.stack([-odd, even], -1).reshape(x.shape) * sin


def partial(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    turned, rest = x[..., : cos.shape[-1]], x[..., cos.shape[-1] :]
    return torch.cat([llama(turned, cos, sin), rest], -1)


def partial_last(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    rest, turned = x.split([x.shape[-1] - cos.shape[-1], cos.shape[-1]], -1)
    return torch.cat([rest, gptj(turned, cos, sin)], -1)


def gpt_oss(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


def neighbours(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x[..., ::2], x[..., 1::2]
    return torch.stack([first * cos - second * sin, first * sin + second * cos], -1).flatten(-2)


def halves_back(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return torch.cat([first * cos + second * sin, second * cos - first * sin], -1)


def deepseek(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return gpt_oss(x.unflatten(-1, (-1, 2)).transpose(-1, -2).flatten(-2), cos, sin)


def deepseek_old(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return llama(x.unflatten(-1, (-1, 2)).transpose(-1, -2).flatten(-2), cos, sin)


def complex_product(x: Tensor, table: Tensor, _: Tensor) -> Tensor:
    pairs = torch.view_as_complex(x.float().reshape(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * table).flatten(-2).type_as(x)


def ernie(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return ((x.float() * cos) + (turn_halves(x).float() * sin)).to(x.dtype)


def apart(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """A table that is twice as wide as its angles, each half of it for one half of the result."""
    half = x.shape[-1] // 2
    first, second = x[..., :half], x[..., half:]
    low = first * cos[..., :half] - second * sin[..., :half]
    return torch.cat([low, second * cos[..., half:] + first * sin[..., half:]], -1)


SPELLINGS: dict[str, tuple[Rotate, int, str, str]] = {
    "llama": (llama, 8, "halves", "once"),
    "chunked": (chunked, 8, "halves", "once"),
    "viewed": (viewed, 8, "halves", "once"),
    "back": (back, 8, "halves", "once"),
    "subtracted": (subtracted, 8, "halves", "once"),
    "gptj": (gptj, 8, "pairs", "interleaved once"),
    "unbound": (unbound, 8, "pairs", "interleaved once"),
    "partial": (partial, 4, "halves", "once"),
    "partial last": (partial_last, 4, "pairs", "interleaved once start"),
    "gpt-oss": (gpt_oss, 8, "angles", "once"),
    "neighbours": (neighbours, 8, "angles", "interleaved once"),
    "halves back": (halves_back, 8, "angles", "once"),
    "deepseek": (deepseek, 8, "angles", "interleaved to_halves once"),
    "deepseek old": (deepseek_old, 8, "halves", "interleaved to_halves once"),
    "complex": (complex_product, 8, "complex", "interleaved once"),
    "ernie": (ernie, 8, "halves", "once"),
    "apart": (apart, 8, "halves", "once"),
    "mixed tables": (llama, 8, "pairs", ""),
}
FLAGS = ("interleaved", "to_halves", "once", "keep_dtype", "start")


def ropes(module: ModuleOp) -> list[RopeOp]:
    return [op for op in module.walk() if isinstance(op, RopeOp)]


def flags(op: RopeOp) -> str:
    return " ".join(flag for flag in FLAGS if getattr(op, flag) is not None)


def check(forms: Forms, form: str, tolerance: float = 1e-6) -> ModuleOp:
    """Two rotations of one form that share their tables, with the same values at all levels."""
    module = forms.optimized(PIPELINE)
    found = ropes(module)
    assert [flags(op) for op in found] == [form, form]
    assert len({(op.cos, op.sin) for op in found}) == 1
    assert not any(op.name in ("forge.concat", "forge.aten") for op in module.walk())
    expected = forms.forge_results(forms.captured.module)
    assert_close(forms.forge_results(module), expected, "forge", rtol=tolerance, atol=tolerance)
    lowered = lower(module)
    assert_close(forms.plan_results(lowered), expected, "plan", rtol=tolerance, atol=tolerance)
    for _ in range(2):
        results = tensor_leaves(forms.program(lowered).session()(*forms.args))
        assert_close(results, expected, "runtime", rtol=tolerance, atol=tolerance)
    exact = forms.forge_results(forms.captured.module, float64=True)
    assert_close(forms.forge_results(module, float64=True), exact, "float64", rtol=1e-12, atol=1e-12)
    return module


def heads(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """A query whose heads lie side by side in memory, as a linear layer leaves them, and a key."""
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(2, 5, 4, 8, generator=generator).to(dtype).transpose(1, 2)
    return q, torch.randn(2, 2, 5, 8, generator=generator).to(dtype)


@pytest.mark.parametrize("name", SPELLINGS)
def test_spellings(name: str) -> None:
    rotate, rotated, spread, form = SPELLINGS[name]
    check(Forms(Angles(rotate, rotated, spread), heads()), form)


@pytest.mark.parametrize("name", SPELLINGS)
def test_spellings_of_dynamic_length(name: str) -> None:
    rotate, rotated, spread, form = SPELLINGS[name]
    length, batch = torch.export.Dim("length", max=64), torch.export.Dim("batch", max=64)
    shapes = ({0: batch, 2: length}, {0: batch, 2: length})
    check(Forms(Angles(rotate, rotated, spread), heads(), dynamic_shapes=shapes), form)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["llama", "gptj", "partial", "gpt-oss", "deepseek", "complex", "ernie"])
def test_spellings_in_low_precision(name: str, dtype: torch.dtype) -> None:
    """Tables of low precision stay as they were rounded."""
    rotate, rotated, spread, form = SPELLINGS[name]
    tolerance = {torch.float16: 2e-3, torch.bfloat16: 2e-2}[dtype]
    form = f"{form} keep_dtype" if name in ("complex", "ernie") else form
    check(Forms(Angles(rotate, rotated, spread), heads(dtype)), form, tolerance)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_rotations_in_float32_are_rounded_once_at_the_end(dtype: torch.dtype) -> None:
    def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        return llama(x.float(), cos, sin).to(x.dtype)

    tolerance = {torch.float16: 1e-3, torch.bfloat16: 8e-3}[dtype]
    for spelling in (rotate, ernie):
        check(Forms(Angles(spelling, 8, "wide"), heads(dtype)), "once keep_dtype", tolerance)


def test_q_and_k_of_all_layers_share_their_tables() -> None:
    class Layers(Angles):
        def forward(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
            first, second = super().forward(q, k)
            return super().forward(first.tanh(), second.tanh())

    module = Forms(Layers(llama, 8, "halves"), heads()).optimized(PIPELINE)
    assert len(ropes(module)) == 4
    assert len({(op.cos, op.sin) for op in ropes(module)}) == 1
    assert sum(op.name in ("forge.cos", "forge.sin") for op in module.walk()) == 2


NOT_ROTATIONS: dict[str, Rotate] = {
    "both halves negative": lambda x, cos, sin: x * cos + torch.cat([-x[..., 4:], -x[..., :4]], -1) * sin,
    "no sign": lambda x, cos, sin: x * cos + torch.cat([x[..., 4:], x[..., :4]], -1) * sin,
    "another value": lambda x, cos, sin: x * cos + turn_halves(x.tanh()) * sin,
    "halves not swapped": lambda x, cos, sin: x * cos + torch.cat([-x[..., :4], x[..., 4:]], -1) * sin,
    "other signs": lambda x, cos, sin: torch.cat(
        [x[..., :4] * cos[..., :4] - x[..., 4:] * sin[..., :4], x[..., 4:] * cos[..., :4] - x[..., :4] * sin[..., :4]],
        -1,
    ),
    "another table": lambda x, cos, sin: torch.cat(
        [x[..., :4] * cos[..., :4] - x[..., 4:] * sin[..., :4], x[..., 4:] * sin[..., :4] + x[..., :4] * sin[..., :4]],
        -1,
    ),
    "along another dimension": lambda x, cos, sin: x * cos + torch.cat([-x[:, 1:], x[:, :1]], 1) * sin,
    "rounded products": lambda x, cos, sin: x * cos + (turn_halves(x) * sin).half().float(),
}


@pytest.mark.parametrize("name", NOT_ROTATIONS)
def test_what_is_no_rotation_stays(name: str) -> None:
    forms = Forms(Angles(NOT_ROTATIONS[name], 8, "halves"), heads())
    module = forms.optimized(PIPELINE)
    assert not ropes(module)
    assert_close(forms.forge_results(module), forms.forge_results(forms.captured.module))


CORE = {
    "LlamaForCausalLM": 4, "GPTJForCausalLM": 2, "Cohere2ForCausalLM": 2, "Glm4ForCausalLM": 2, "PhiForCausalLM": 2,
    "GptOssForCausalLM": 4, "DeepseekV2ForCausalLM": 4, "DeepseekV3ForCausalLM": 4, "Gemma3ForCausalLM": 4,
    "RoFormerModel": 2, "EsmModel": 2, "DINOv3ViTModel": 4, "NanoChatForCausalLM": 2,
}  # fmt: skip


ALWAYS = ("LlamaForCausalLM", "GPTJForCausalLM", "DeepseekV2ForCausalLM")
"""One of each kind of rotation. Of the others models/test_recognition.py counts the rotations of most, and
models/test_architectures.py compares the results.
"""


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, id=row.name, marks=() if row.name in ALWAYS else pytest.mark.wide)
        for row in ROWS
        if row.name in CORE
    ],
)
def test_models(row: Row) -> None:
    """Every rotation of a model is found, for one shape and for all, and its results stay."""
    model, arguments = row.build(), row.arguments()
    with torch.no_grad():
        expected = model(**arguments)
    dims = row.dims(row.extents() - row.fixed.keys())
    for shapes in (None, row.dynamic_shapes(dims)):
        compiled = forgec.compile(model, (), arguments, dynamic_shapes=shapes, pipeline=f"@O2,inline-layers,{PIPELINE}")
        assert compiled.ir().count("forge.rope ") == CORE[row.name]
        same(compiled(**arguments), expected)


FORMS = [
    f"{form} start {start}" if start else form
    for form in ("", "once", "interleaved", "interleaved once", "interleaved to_halves", "interleaved to_halves once")
    for start in (0, 3)
]


@given(
    form=st.sampled_from(FORMS),
    half=st.integers(1, 3),
    dtype=st.sampled_from(["f32", "f16", "bf16"]),
    table=st.sampled_from(["f32", "f16", "bf16"]),
    keep=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_launches_mean_the_op(form: str, half: int, dtype: str, table: str, keep: bool) -> None:
    """The plan of an op computes what the interpreter does: at most as many launches as eager mode's spelling."""
    result = dtype if keep else types.promote(dtype, table)
    width, count = 10, half if "once" in form else 2 * half
    form = form.replace(" start", " keep_dtype start") if keep and "start" in form else form
    form = f"{form} keep_dtype" if keep and "start" not in form else form
    tables = f"tensor<3x{count}x{table}>, tensor<3x{count}x{table}>"
    names = "%x : tensor<2x3x10xF>, %c : TABLE, %s : TABLE".replace("F", dtype).replace("TABLE", tables.split(", ")[0])
    kind = f"tensor<2x3x{width}x{result}>"
    module = parse(
        f"func.func @forward({names}) -> {kind} {{\n"
        f"  %r = forge.rope %x cos %c sin %s {form} : (tensor<2x3x{width}x{dtype}>, {tables}) -> {kind}\n"
        f"  func.return %r : {kind}\n}}"
    )
    inputs = random_inputs(module)
    (expected,) = interpret(module, inputs)
    (found,) = interpret_plan(lower(module), [t.clone() for t in inputs], {})
    tolerance = {"f32": 1e-5, "f16": 5e-3, "bf16": 4e-2}[result]
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def test_features_are_read_through_rearrangements() -> None:
    module = parse("""
func.func @forward(%x : tensor<2x8xf16>) -> tensor<2x4xf32> {
  %0 = forge.cast %x : (tensor<2x8xf16>) -> tensor<2x8xf32>
  %1 = forge.reshape %0 : (tensor<2x8xf32>) -> tensor<2x4x2xf32>
  %2 = forge.transpose %1 [0, 2, 1] : (tensor<2x4x2xf32>) -> tensor<2x2x4xf32>
  %3 = forge.slice %2 dim 1 from 1 step 1 : (tensor<2x2x4xf32>) -> tensor<2x1x4xf32>
  %4 = forge.neg %3 : (tensor<2x1x4xf32>) -> tensor<2x1x4xf32>
  %5 = forge.reshape %4 : (tensor<2x1x4xf32>) -> tensor<2x4xf32>
  func.return %5 : tensor<2x4xf32>
}""")
    (last,) = (op for op in module.walk() if op.name == "func.return")
    found = Tracer().trace(last.operands[0])
    assert found is not None
    assert (found.places, found.negative) == ((1, 3, 5, 7), (True,) * 4)
    assert str(found.base.type) == "tensor<2x8xf16>"
