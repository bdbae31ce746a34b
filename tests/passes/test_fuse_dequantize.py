"""Linears of dequantised weights take the quantised weights, and compute the same bits."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from xdsl.dialects.builtin import ModuleOp

from forgec.diagnostics import Diagnostic
from forgec.ir import types
from forgec.ir.context import context
from forgec.ir.ops.contraction import LinearOp
from forgec.passes.manager import run_pipeline
from tests.oracle import Forms, assert_equal, lower

N, K, G = 12, 32, 8
ROUND = torch.Generator().manual_seed(0)
X = torch.randn(5, K, generator=ROUND)
Weights = dict[str, Tensor]
Function = Callable[[Tensor, Weights], Tensor]


def integers(low: int, high: int, *shape: int, dtype: torch.dtype = torch.int8) -> Tensor:
    return torch.randint(low, high, shape, generator=ROUND).to(dtype)


WEIGHTS: Weights = {
    "i8": integers(-128, 128, N, K),
    "turned": integers(-128, 128, K, N),
    "square": integers(-128, 128, K, K),
    "u8": integers(0, 256, N, K, dtype=torch.uint8),
    "packed": integers(0, 256, N, K // 2, dtype=torch.uint8),
    "packed_i8": integers(-128, 128, N, K // 2),
    "blocks": integers(0, 256, N, K // G, G // 2, dtype=torch.uint8),
    "f8": torch.randn(N, K, generator=ROUND).to(torch.float8_e4m3fn),
    "s": torch.rand(N, generator=ROUND) / 100,
    "s1": torch.rand(N, 1, generator=ROUND) / 100,
    "sg": torch.rand(N, K // G, generator=ROUND) / 100,
    "st": torch.rand(N // 4, K // G, generator=ROUND) / 100,
    "s_f64": torch.rand(N, 1, generator=ROUND, dtype=torch.float64) / 100,
    "s_bf16": (torch.rand(N, 1, generator=ROUND) / 100).bfloat16(),
    "s_i8": integers(1, 9, N, 1),
    "one": torch.rand((), generator=ROUND) / 100,
    "z": integers(0, 256, N, dtype=torch.uint8),
    "z_i32": integers(-90, 90, N, 1, dtype=torch.int32),
    "zg": integers(0, 16, N, K // G, dtype=torch.uint8),
    "z_float": torch.rand(N, 1, generator=ROUND) * 15,
    "bias": torch.randn(N, generator=ROUND),
}


def halves(packed: Tensor) -> tuple[Tensor, Tensor]:
    return packed & 0xF, packed >> 4


def interleaved(packed: Tensor) -> Tensor:
    return torch.stack(halves(packed), dim=-1).reshape(packed.shape[0], -1)


def written(packed: Tensor) -> Tensor:
    low, high = halves(packed)
    out = torch.empty(packed.shape[0], packed.shape[1] * 2, dtype=packed.dtype)
    out[:, ::2] = high
    out[:, 1::2] = low
    return out


def signed(packed: Tensor) -> Tensor:
    return torch.stack([(packed << 4) >> 4, packed >> 4], dim=-1).reshape(packed.shape[0], -1)


def grouped(values: Tensor, scales: Tensor, zeros: Tensor | int = 0) -> Tensor:
    zeros = zeros[..., None] if isinstance(zeros, Tensor) else zeros
    return ((values.view(N, K // G, G) - zeros) * scales[..., None]).view(N, K)


SPELLINGS: dict[str, tuple[str, Function]] = {
    "rows": ("i8 [N,1] - f32", lambda x, w: F.linear(x, w["i8"].to(x.dtype) * w["s1"])),
    "rows, bias": ("i8 [N,1] - f32", lambda x, w: F.linear(x, w["i8"].float() * w["s"][:, None], w["bias"])),
    "scales first": ("i8 [N,1] - f32", lambda x, w: F.linear(x, w["s1"] * w["i8"].float())),
    "promoted": ("i8 [N,1] - i8", lambda x, w: F.linear(x, w["i8"] * w["s1"])),
    "cast twice": ("i8 [N,1] - f32", lambda x, w: F.linear(x, w["i8"].to(torch.int32).half().float() * w["s1"])),
    "matmul": ("i8 [N,1] - f32", lambda x, w: x @ (w["i8"].float() * w["s1"]).t()),
    "addmm": ("i8 [N,1] - f32", lambda x, w: torch.addmm(w["bias"], x, (w["i8"].float() * w["s1"]).t())),
    "stored transposed": ("i8 [N,1] - f32", lambda x, w: x @ (w["turned"].float() * w["s"])),
    "turned before": ("i8 [N,1] - f32", lambda x, w: x @ (w["i8"].t().float() * w["s"])),
    "one scale": ("i8 [] - f32", lambda x, w: F.linear(x, w["i8"].float() * w["one"])),
    "a number": ("i8 [] - f32", lambda x, w: F.linear(x, w["i8"].float() * 0.0123)),
    "a number, promoted": ("i8 [] - i8", lambda x, w: F.linear(x, w["i8"] * 0.0123)),
    "zeros": ("ui8 [N,1] [N,1] f32", lambda x, w: F.linear(x, (w["u8"].float() - w["z"].float()[:, None]) * w["s1"])),
    "zeros of 32 bits": ("i8 [N,1] [N,1] i32", lambda x, w: F.linear(x, (w["i8"] - w["z_i32"]) * w["s1"])),
    "zeros are floats": ("ui8 [N,1] [N,1] f32", lambda x, w: F.linear(x, (w["u8"] - w["z_float"]) * w["s1"])),
    "zero is a number": ("ui8 [N,1] [] f32", lambda x, w: F.linear(x, (w["u8"].float() - 128) * w["s1"])),
    "zero is added": ("ui8 [N,1] [] f32", lambda x, w: F.linear(x, (w["u8"].float() + -128.0) * w["s1"])),
    "zeros wrap": ("ui8 [N,1] [N,1] ui8", lambda x, w: F.linear(x, (w["u8"] - w["z"][:, None]).float() * w["s1"])),
    "zeros in 16 bits": (
        "ui8 [N,1] [N,1] f32",
        lambda x, w: F.linear(x, (w["u8"].to(torch.int16) - w["z"].to(torch.int16)[:, None]).float() * w["s1"]),
    ),
    "zeros that are one number": (
        "ui8 [N,1] [] f32",
        lambda x, w: F.linear(x, (w["u8"] - torch.full((N, 1), 8.0)) * w["s1"]),
    ),
    "zeros that are nothing": (
        "i8 [N,1] - i64",
        lambda x, w: F.linear(x, (w["i8"] - torch.zeros(N, 1, dtype=torch.int64)) * w["s1"]),
    ),
    "a number that its dtype does not hold": (
        "i8 [] [N,1] f64",
        lambda x, w: F.linear(
            x, ((w["i8"].double() - torch.full((N, 1), 0.1).bfloat16()) * torch.full((), 0.1)).float()
        ),
    ),
    "zeros alone": ("ui8 - [] f32", lambda x, w: F.linear(x, w["u8"].float() - 7)),
    "numbers alone": ("i8 - - f32", lambda x, w: F.linear(x, w["i8"].float()).relu()),
    "groups": ("i8 [N,G] - f32", lambda x, w: F.linear(x, grouped(w["i8"].float(), w["sg"]))),
    "groups of rows": (
        "i8 [N,G] - f32",
        lambda x, w: F.linear(x, (w["i8"].view(-1, G).float() * w["sg"].view(-1, 1)).view(N, K)),
    ),
    "groups with zeros": ("ui8 [N,G] [N,G] f32", lambda x, w: F.linear(x, grouped(w["u8"].float(), w["sg"], w["zg"]))),
    "groups repeated": (
        "ui8 [N,G] [N,G] f32",
        lambda x, w: F.linear(
            x, (w["u8"].float() - w["zg"].repeat_interleave(G, 1)) * w["sg"].repeat_interleave(G, dim=1)
        ),
    ),
    "groups expanded": (
        "i8 [N,G] - f32",
        lambda x, w: F.linear(x, w["i8"].float() * w["sg"][:, :, None].expand(-1, -1, G).reshape(N, K)),
    ),
    "tiles": (
        "i8 [T,G] - f32",
        lambda x, w: F.linear(x, (w["i8"].view(N // 4, 4, K // G, G).float() * w["st"][:, None, :, None]).view(N, K)),
    ),
    "groups, transposed": ("ui8 [N,G] [N,G] f32", lambda x, w: x @ grouped(w["u8"].float(), w["sg"], w["zg"]).T),
    "packed": ("ui8 [N,G] [] f32 u4", lambda x, w: F.linear(x, grouped(interleaved(w["packed"]).float() - 8, w["sg"]))),
    "packed, zeros": (
        "ui8 [N,G] [N,G] f32 u4",
        lambda x, w: F.linear(x, grouped(interleaved(w["packed"]).float(), w["sg"], w["zg"])),
    ),
    "packed, in 8 bits": (
        "ui8 [N,G] [] f32 u4",
        lambda x, w: F.linear(x, grouped((interleaved(w["packed"]).to(torch.int8) - 8).float(), w["sg"])),
    ),
    "packed, upper first": (
        "ui8 [N,1] [] f32 u4 high_first",
        lambda x, w: F.linear(x, (written(w["packed"]).float() - 8) * w["s1"]),
    ),
    "packed, each half shifted": (
        "ui8 [N,1] [] f32 u4",
        lambda x, w: F.linear(x, torch.stack([h.float() - 8 for h in halves(w["packed"])], -1).flatten(1) * w["s1"]),
    ),
    "packed, signed": ("i8 [N,1] - f32 s4", lambda x, w: F.linear(x, signed(w["packed_i8"]).float() * w["s1"])),
    "packed, viewed as signed": (
        "ui8 [N,1] - f32 s4",
        lambda x, w: F.linear(x, signed(w["packed"].view(torch.int8)).float() * w["s1"]),
    ),
    "packed, in wider integers": (
        "ui8 [N,1] [] f32 u4",
        lambda x, w: F.linear(x, (interleaved(w["packed"].to(torch.int32)).float() - 8) * w["s1"]),
    ),
    "packed, by division": (
        "ui8 [N,1] [] f32 u4",
        lambda x, w: F.linear(
            x, (torch.stack([w["packed"] % 16, w["packed"] // 16], -1).reshape(N, K).float() - 8) * w["s1"]
        ),
    ),
    "packed, masked twice": (
        "i8 [N,1] [] f32 u4",
        lambda x, w: F.linear(
            x,
            (torch.stack([w["packed_i8"] & 15, (w["packed_i8"] >> 4) & 15], -1).reshape(N, K).float() - 8) * w["s1"],
        ),
    ),
    "packed, halves of rows": (
        "ui8 [N,1] [] f32 u4 run 16",
        lambda x, w: F.linear(x, (torch.cat(halves(w["packed"]), dim=1).float() - 8) * w["s1"]),
    ),
    "packed, halves of blocks": (
        "ui8 [N,G] [] f32 u4 run 4",
        lambda x, w: F.linear(
            x, ((torch.cat(halves(w["blocks"]), dim=-1).float() - 8) * w["sg"][..., None]).reshape(N, K)
        ),
    ),
    "floats of 8 bits": ("f8e4m3fn [N,1] - f32", lambda x, w: F.linear(x, w["f8"].float() * w["s1"])),
    "floats of 8 bits in tiles": (
        "f8e4m3fn [T,G] - f32",
        lambda x, w: F.linear(x, w["f8"].float() * w["st"].repeat_interleave(4, 0).repeat_interleave(G, 1)),
    ),
    "scales are integers": ("i8 [N,1] - f32", lambda x, w: F.linear(x, w["i8"].float() * w["s_i8"])),
    "scales of 64 bits": ("i8 [N,1] - f64", lambda x, w: F.linear(x, (w["i8"].double() * w["s_f64"]).float())),
    "scales of 16 bits": ("i8 [N,1] - f32", lambda x, w: F.linear(x, w["i8"].float() * w["s_bf16"])),
    "rounded": ("i8 [N,1] - f32", lambda x, w: F.linear(x.bfloat16(), (w["i8"].float() * w["s1"]).bfloat16())),
    "in bfloat16": ("i8 [N,1] - bf16", lambda x, w: F.linear(x.bfloat16(), w["i8"].bfloat16() * w["s_bf16"])),
    "in float16": ("ui8 [N,1] [] f16", lambda x, w: F.linear(x.half(), (w["u8"].half() - 128) * w["s1"].half())),
    "a product in bfloat16, then wide": (
        "i8 [N,1] - bf16",
        lambda x, w: F.linear(x, (w["i8"].bfloat16() * w["s_bf16"]).float()),
    ),
    "integers in 16 bits, scales narrow": (
        "ui8 [N,1] [] f32",
        lambda x, w: F.linear(x, (w["u8"].to(torch.int16) - 128).float() * w["s_bf16"]),
    ),
    "after the sum": ("i8 [N,1] - f32 scale_result", lambda x, w: F.linear(x, w["i8"].float()) * w["s"]),
    "after the sum, bias": (
        "i8 [N,1] - f32 scale_result",
        lambda x, w: w["s"] * (x @ w["i8"].t().to(x.dtype)) + w["bias"],
    ),
    "after the sum, one number": ("i8 [] - f32 scale_result", lambda x, w: F.linear(x, w["i8"].float()) * 0.25),
    "after the sum, in 16 bits": (
        "i8 [N,1] - bf16 scale_result",
        lambda x, w: F.linear(x.bfloat16(), w["i8"].bfloat16()) * w["s_bf16"].view(-1),
    ),
    "after the sum, wider": (
        "i8 [N,1] - bf16 scale_result",
        lambda x, w: F.linear(x.bfloat16(), w["i8"].bfloat16()) * w["s"],
    ),
    "after the sum, packed": (
        "ui8 [N,1] - f32 u4 scale_result",
        lambda x, w: F.linear(x, interleaved(w["packed"]).float()) * w["s"],
    ),
}


class Model(nn.Module):
    """A function of x and of weights, which are buffers."""

    def __init__(self, function: Function, weights: Weights) -> None:
        super().__init__()
        self.names, self.function = list(weights), function
        for name, value in weights.items():
            self.register_buffer(name, value)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, {name: getattr(self, name) for name in self.names})


def fused(function: Function, weights: Weights = WEIGHTS, x: Tensor = X) -> tuple[Forms, ModuleOp, list[Diagnostic]]:
    """A function captured, with the pass; its results are the same bits on the interpreter and in the runtime."""
    model = Model(function, weights)
    forms = Forms(model, [x])
    before = forms.optimized("canonicalize,constant-fold,cse,canonicalize")
    module = before.clone()
    reports = run_pipeline(module, "fuse-dequantize,dce", context=context())
    module.verify()
    assert_equal(forms.forge_results(module), forms.forge_results(before), "interpreter")
    assert_equal([forms.program(lower(module))(x)], [model(x)], "runtime")
    wide = [forms.forge_results(m, float64=True)[0] for m in (module, before)]
    torch.testing.assert_close(wide[0], wide[1], rtol=1e-9, atol=1e-9)
    return forms, module, [remark for report in reports for remark in report.remarks]


def linears(module: ModuleOp) -> list[LinearOp]:
    return [op for op in module.walk() if isinstance(op, LinearOp)]


def described(op: LinearOp) -> str:
    """``ui8 [N,G] [] f32 u4 run 16``: the weight, the shapes of scales and zeros, the dtype, and how it is packed."""
    names = {N: "N", K // G: "G", N // 4: "T"}

    def blocks(value: object) -> str:
        return "-" if value is None else f"[{','.join(names.get(n, str(n)) for n in types.shape(value))}]"  # type: ignore[arg-type]

    parts = [types.dtype(op.weight), blocks(op.scales), blocks(op.zeros), op.compute.data if op.compute else "?"]
    parts += [] if op.packing is None else [op.packing.data]
    parts += ["high_first"] if op.high_first is not None else []
    parts += [f"run {op.run.data}"] if op.run.data != 1 else []
    parts += ["scale_result"] if op.scale_result is not None else []
    return " ".join(parts)


@pytest.mark.parametrize("name", SPELLINGS)
def test_spellings(name: str) -> None:
    expected, function = SPELLINGS[name]
    _, module, remarks = fused(function)
    (linear,) = linears(module)
    assert described(linear) == expected
    left = {op.name.removeprefix("forge.") for op in module.walk()}
    assert not left & {"sub", "shift_right", "bitwise_and", "concat", "matmul"}
    assert all(remark.code == "FORGE-O001" for remark in remarks)


REFUSED: dict[str, tuple[str, Function]] = {
    "divided": ("forge.div is applied to its numbers", lambda x, w: F.linear(x, w["i8"].float() / w["s1"])),
    "clamped": ("forge.clamp is applied", lambda x, w: F.linear(x, w["i8"].float().clamp(-5, 5) * w["s1"])),
    "scaled twice": ("scales are multiplied twice", lambda x, w: F.linear(x, w["i8"].float() * w["s1"] * w["one"])),
    "added after": ("forge.add is applied", lambda x, w: F.linear(x, w["i8"].float() * w["s1"] + w["s1"])),
    "number added after": ("after the scales", lambda x, w: F.linear(x, w["i8"].float() * w["s1"] - 1)),
    "rounded twice": (
        "cast again after it was rounded",
        lambda x, w: F.linear(x, (w["i8"].float() * w["s1"]).bfloat16().float()),
    ),
    "scales within a group": (
        "vary within a block",
        lambda x, w: F.linear(x, (w["i8"].view(N, K // G, G).float() * w["s"][:G]).view(N, K)),
    ),
    "rows packed": (
        "belong to two rows",
        lambda x, w: F.linear(x, torch.cat(halves(w["packed"].view(N // 2, K)), dim=0).float() * w["s1"]),
    ),
    "halves treated differently": (
        "treated differently",
        lambda x, w: F.linear(
            x, torch.stack([(w["packed"] & 15).float() - 8, (w["packed"] >> 4).float() - 7], -1).flatten(1)
        ),
    ),
    "one half only": ("one of them is not used", lambda x, w: F.linear(x[:, : K // 2], (w["packed"] & 15).float())),
    "mixed up": (
        "in another order",
        lambda x, w: F.linear(x, w["i8"].view(N, 4, G).transpose(1, 2).reshape(N, K).float() * w["s1"]),
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_says_why(name: str) -> None:
    reason, function = REFUSED[name]
    _, module, remarks = fused(function)
    assert not any(op.is_quantized for op in linears(module))
    (remark,) = [remark for remark in remarks if remark.code == "FORGE-O002"]
    assert reason in remark.notes[0]
    assert remark.location.file.endswith("test_fuse_dequantize.py")


OTHERS: dict[str, Function] = {
    "floats": lambda x, w: F.linear(x, w["square"].float().sin() * w["one"]),
    "activations": lambda x, w: x @ (x * w["one"]).t(),
    "batched": lambda x, w: torch.matmul(x[None], (w["turned"].float() * w["s"])[None]),
    "integers of 32 bits": lambda x, w: F.linear(x, (w["z_i32"] * w["z_i32"].expand(N, K)).float()),
    "booleans": lambda x, w: F.linear(x, (w["i8"] > 0).float() * w["s1"]),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_dequantisation_stays_without_a_word(name: str) -> None:
    _, module, remarks = fused(OTHERS[name])
    assert not any(op.is_quantized for op in linears(module))
    assert remarks == []


def test_a_weight_of_two_linears_and_one_that_is_read_whole() -> None:
    def function(x: Tensor, w: Weights) -> Tensor:
        weight = w["i8"].float() * w["s1"]
        return F.linear(x, weight) + F.linear(x * 2, weight) + weight.sum()

    _, module, _ = fused(function)
    assert [described(op) for op in linears(module)] == ["i8 [N,1] - f32"] * 2
    assert sum(op.name == "forge.mul" for op in module.walk()) == 2  # x * 2, and the weight that is summed


def test_the_numbers_of_a_linear_are_scaled_for_one_reader_only() -> None:
    def function(x: Tensor, w: Weights) -> Tensor:
        sums = F.linear(x, w["i8"].float())
        return sums * w["s"] + sums

    _, module, _ = fused(function)
    assert [described(op) for op in linears(module)] == ["i8 - - f32"]


def test_a_vector_has_no_matrix_form_and_rows_of_any_rank_have() -> None:
    _, module, _ = fused(lambda x, w: F.linear(x.view(1, 5, 1, K), w["i8"].float() * w["s1"]))
    assert [described(op) for op in linears(module)] == ["i8 [N,1] - f32"]
    _, module, _ = fused(lambda x, w: F.linear(x[0], w["i8"].float() * w["s1"]))
    assert [described(op) for op in linears(module)] == ["i8 [N,1] - f32"]


@st.composite
def quantisations(draw: st.DrawFn) -> tuple[Function, Weights, Tensor]:
    """A linear whose weight is dequantised somehow: dtypes, blocks, zeros, packing and the places of casts vary."""
    seed = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    blocks = draw(st.sampled_from([(1, 1), (N, 1), (N, K // G), (N, K // 4), (N // 4, K // G), ()]))
    zero_blocks = draw(st.sampled_from([None, blocks, (N, 1), (N, K // 16), ()]))
    floats = [torch.float32, torch.bfloat16, torch.float16]
    compute, scale, result = (draw(st.sampled_from(floats)) for _ in range(3))
    stored, packed = draw(st.sampled_from([torch.int8, torch.uint8])), draw(st.booleans())
    zero = draw(st.sampled_from([stored, torch.int32, compute]))
    turned, regroup, casts = draw(st.booleans()), draw(st.booleans()), draw(st.booleans())
    width = K // 2 if packed else K
    weights = {
        "q": torch.randint(0, 256, (N, width), generator=seed).to(torch.uint8).view(stored),
        "s": (torch.rand(blocks, generator=seed) / 50).to(scale),
    }
    if zero_blocks is not None:
        weights["z"] = torch.randint(0, 100, zero_blocks, generator=seed).to(zero)

    def expanded(value: Tensor) -> Tensor:
        for dim, extent in enumerate((N, K)):
            if value.dim() and value.shape[dim] not in (1, extent):
                value = value.repeat_interleave(extent // value.shape[dim], dim)
        return value

    def function(x: Tensor, w: Weights) -> Tensor:
        value = w["q"]
        if packed:
            value = torch.stack([value & 15, (value >> 4) & 15], -1).reshape(N, K)
        value = value.to(compute) if casts else value
        if "z" in w:
            value = value - expanded(w["z"])
        if regroup and w["s"].dim() and w["s"].shape[0] == N:
            value = value.view(N, w["s"].shape[1], -1) * w["s"][..., None]
            value = value.view(N, K)
        else:
            value = value * expanded(w["s"])
        value = value.to(result)
        return x @ value.t() if turned else F.linear(x, value)

    return function, weights, torch.randn(3, K, generator=seed).to(result)


@given(quantisations())
@settings(max_examples=20, deadline=None)
def test_random_dequantisations_keep_every_bit(case: tuple[Function, Weights, Tensor]) -> None:
    function, weights, x = case
    _, module, _ = fused(function, weights, x)
    assert [op.is_quantized for op in linears(module)] == [True]
