# ruff: noqa: E501 - types of IR are long
"""Every op that has a rule computes on tiles what it computes on tensors: dtypes, extents, special values, order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from xdsl.dialects.builtin import ModuleOp
from xdsl.utils.exceptions import ParseError, VerifyException

from forgec.diagnostics import Diagnostic, ForgeError
from forgec.ir.context import context
from forgec.ir.examples import FORGE_EXAMPLES, module_of, op_name
from forgec.ir.interpreter import interpret
from forgec.ir.tile.kernel import KernelOp
from forgec.passes.manager import run_pipeline
from tests.backends.graphs import GraphAuthor
from tests.chooser import Drawn, Seeded
from tests.fragments.author import FragmentAuthor
from tests.fragments.properties import check_runtime
from tests.fragments.tiles import check_tiles, launches
from tests.ir.build import parse, random_inputs

FLOATS = {"f64": 1e-12, "f32": 1e-5, "bf16": 1.6e-2, "f16": 2e-3}
"""What a result may be off by, of its greatest number, in each dtype (one rounding of the narrow ones)."""
DTYPES = (*FLOATS, "i64", "i32", "i16", "i8", "ui8", "i1")
SPECIAL = (float("nan"), float("inf"), -float("inf"), 0.0, -0.0, 2.0, -2.0)
WIDE = 2e-7
"""Of the greatest number: what float64 arithmetic may differ by. A kernel's constants have the dtype of its tiles."""
PARAMETERS = {"weight": torch.ones(8, 4)}

WITHOUT = {
    "forge.constant", "forge.param_ref", "forge.aten", "forge.extent",
    "forge.reshape", "forge.transpose", "forge.broadcast", "forge.slice", "forge.window",
    "forge.moe", "forge.index_put", "forge.index_copy", "forge.scatter", "forge.scatter_add", "forge.index_add",
    "forge.insert_window", "forge.resize", "forge.group_norm", "forge.erfc", "forge.state_read", "forge.state_write",
}  # fmt: skip
"""Ops that may stay: those that only rename memory, and those whose updates and tables have no rule."""
SLOW = {
    "forge.convolution", "forge.conv_transpose", "forge.attention", "forge.max_pool", "forge.avg_pool", "forge.pad",
    "forge.topk", "forge.insert_slice", "forge.moe",
}  # fmt: skip
"""Ops whose kernels take long in the interpreter: fewer dtypes."""
RUNNABLE = [text for text in FORGE_EXAMPLES if "func.func" in module_of(text) and "%" in module_of(text)]


def lowered(module: ModuleOp) -> tuple[ModuleOp, Sequence[Diagnostic]]:
    """A copy with kernels, verified, and what was said."""
    copy = module.clone()
    (report,) = run_pipeline(copy, "lower-to-tile", context=context())
    copy.verify()
    return copy, report.remarks


def in_dtype(text: str, dtype: str) -> ModuleOp | None:
    """The example with another dtype in place of float32; None where there is no such op."""
    changed = text.replace("xf32", f"x{dtype}").replace("<f32", f"<{dtype}")
    if dtype != "f32" and changed == text:
        return None
    try:
        return parse(changed)
    except (ParseError, VerifyException):
        return None


def inputs_of(module: ModuleOp, size: int, special: bool = False) -> list[torch.Tensor] | None:
    """Inputs with dynamic extents of ``size``; with ``special`` NaN and infinities in the first; None where the shapes
    have no such size.
    """
    try:
        inputs = random_inputs(module, symbol_value=size)
    except RuntimeError:
        return None
    if special and (not inputs or not inputs[0].is_floating_point() or not inputs[0].numel()):
        return None
    if special:
        flat = inputs[0].reshape(-1).clone()
        flat[::5] = torch.tensor([SPECIAL[n % len(SPECIAL)] for n in range(len(flat[::5]))], dtype=flat.dtype)
        inputs[0] = flat.reshape(inputs[0].shape)
    return inputs


def values(module: ModuleOp, inputs: Sequence[torch.Tensor], size: int, wide: bool) -> list[Any] | None:
    """The results; None where the reference refuses such inputs."""
    try:
        return interpret(module, inputs, PARAMETERS, float64=wide, symbols={"s0": size, "s1": size})
    except (ForgeError, RuntimeError, ValueError, IndexError):
        return None


def assert_like(found: Sequence[Any], wanted: Sequence[Any], limit: float, what: str, *, ordered: bool = True) -> None:
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted, strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape), what
        if not b.is_floating_point():
            assert not ordered or torch.equal(a, b), f"{what}:\n{a}\nexpected\n{b}"
            continue
        a, b = a.double(), b.double()
        assert torch.equal(a.isnan(), b.isnan()), f"{what}: NaN in other places:\n{a}\nexpected\n{b}"
        finite = b.isfinite()
        assert torch.equal(a[~finite & ~b.isnan()], b[~finite & ~b.isnan()]), f"{what}: other infinities"
        if finite.any():
            error = ((a - b)[finite].abs().max() / b[finite].abs().max().clamp(min=1e-30)).item()
            assert error <= limit, f"{what}: error {error:.1e}"


@pytest.mark.parametrize("text", RUNNABLE, ids=op_name)
def test_examples_of_every_op(text: str) -> None:
    name = op_name(text)
    source = module_of(text)
    checked = 0
    for dtype in ("f32", "bf16", "i64") if name in SLOW else DTYPES:
        module = in_dtype(source, dtype)
        if module is None:
            continue
        tiles, said = lowered(module)
        if not launches(tiles):
            reasons = [each.message for each in said]
            assert name in WITHOUT or (dtype not in FLOATS and reasons), f"{name} of {dtype} has no kernel: {reasons}"
            continue
        sizes = (5, 1, 0) if "s0" in source and dtype == "f32" else (5,)
        for size, special in [(size, False) for size in sizes] + [(5, True)] * (dtype == "f32"):
            inputs = inputs_of(module, size, special)
            if inputs is None or (special and "attention" in name):  # what a NaN among masked keys does is not defined
                continue
            for wide in (True, False) if dtype == "f32" or not checked else (False,):
                wanted = values(module, inputs, size, wide)
                if wanted is None:
                    continue
                found = interpret(tiles, inputs, PARAMETERS, float64=wide, symbols={"s0": size, "s1": size})
                narrow = "f32" if name == "forge.attention" and dtype == "f64" else dtype  # softmax is in float32
                limit = WIDE if wide else FLOATS.get(narrow, 1e-5)
                ties = name in ("forge.topk", "forge.sort") and (special or dtype not in FLOATS)
                assert_like(found, wanted, limit, f"{name} {dtype}, size {size}", ordered=not ties)
                checked += 1
    assert checked or name in WITHOUT


GROUPS = {
    "softmax of a product": """
func.func @forward(%a: tensor<2x?x6xf32, #forge.tensor<[s0]>>, %b: tensor<2x6x7xf32>) -> tensor<2x?x7xf32, #forge.tensor<[s0]>> {
  %0 = forge.fused "matmul" (%x = %a : tensor<2x?x6xf32, #forge.tensor<[s0]>>, %y = %b : tensor<2x6x7xf32>) {
    %1 = forge.matmul %x, %y : (tensor<2x?x6xf32, #forge.tensor<[s0]>>, tensor<2x6x7xf32>) -> tensor<2x?x7xf32, #forge.tensor<[s0]>>
    %2 = forge.softmax %1 dim 2 : (tensor<2x?x7xf32, #forge.tensor<[s0]>>) -> tensor<2x?x7xf32, #forge.tensor<[s0]>>
    forge.yield %2 : tensor<2x?x7xf32, #forge.tensor<[s0]>>
  } : tensor<2x?x7xf32, #forge.tensor<[s0]>>
  func.return %0 : tensor<2x?x7xf32, #forge.tensor<[s0]>>
}""",
    "rows of a table, reshaped across them": """
func.func @forward(%t: tensor<2x5x4xf32>, %i: tensor<4xi64>) -> tensor<2x40xf32> {
  %0 = forge.fused "index_select" (%x = %t : tensor<2x5x4xf32>, %y = %i : tensor<4xi64>) {
    %z = forge.bitwise_and %y, 1 : (tensor<4xi64>) -> tensor<4xi64>
    %1 = forge.index_select %x, %z dim 0 : (tensor<2x5x4xf32>, tensor<4xi64>) -> tensor<4x5x4xf32>
    %2 = forge.reshape %1 : (tensor<4x5x4xf32>) -> tensor<2x40xf32>
    forge.yield %2 : tensor<2x40xf32>
  } : tensor<2x40xf32>
  func.return %0 : tensor<2x40xf32>
}""",
    "results of two shapes, one without elements": """
func.func @forward(%a: tensor<0x4xf32>, %b: tensor<3x4xf32>) -> (tensor<0x4xf32>, tensor<3x4xf32>) {
  %0, %1 = forge.fused "elementwise" (%x = %a : tensor<0x4xf32>, %y = %b : tensor<3x4xf32>) {
    %2 = forge.neg %x : (tensor<0x4xf32>) -> tensor<0x4xf32>
    %3 = forge.exp %y : (tensor<3x4xf32>) -> tensor<3x4xf32>
    forge.yield %2, %3 : tensor<0x4xf32>, tensor<3x4xf32>
  } : tensor<0x4xf32>, tensor<3x4xf32>
  func.return %0, %1 : tensor<0x4xf32>, tensor<3x4xf32>
}""",
    "strided and broadcast operands": """
func.func @forward(%a: tensor<3x5xf32, #forge.tensor<[], strides = [1, 3]>>, %b: tensor<3x5xf32, #forge.tensor<[], strides = [0, 1]>>) -> tensor<5x3xf32> {
  %0 = forge.fused "elementwise" (%x = %a : tensor<3x5xf32, #forge.tensor<[], strides = [1, 3]>>, %y = %b : tensor<3x5xf32, #forge.tensor<[], strides = [0, 1]>>) {
    %1 = forge.mul %x, %y : (tensor<3x5xf32, #forge.tensor<[], strides = [1, 3]>>, tensor<3x5xf32, #forge.tensor<[], strides = [0, 1]>>) -> tensor<3x5xf32>
    %2 = forge.transpose %1 [1, 0] : (tensor<3x5xf32>) -> tensor<5x3xf32, #forge.tensor<[], strides = [1, 5]>>
    %3 = forge.add %2, 1.0 : (tensor<5x3xf32, #forge.tensor<[], strides = [1, 5]>>) -> tensor<5x3xf32>
    forge.yield %3 : tensor<5x3xf32>
  } : tensor<5x3xf32>
  func.return %0 : tensor<5x3xf32>
}""",
    "a prefix that may be empty": """
func.func @forward(%a: tensor<?x4xf32, #forge.tensor<[s0]>>, %b: tensor<3x4xf32>) -> tensor<?x4xf32, #forge.tensor<[s0 + 3]>> {
  %0 = forge.fused "concat" (%x = %a : tensor<?x4xf32, #forge.tensor<[s0]>>, %y = %b : tensor<3x4xf32>) {
    %1 = forge.concat %x, %y dim 0 : (tensor<?x4xf32, #forge.tensor<[s0]>>, tensor<3x4xf32>) -> tensor<?x4xf32, #forge.tensor<[s0 + 3]>>
    %2 = forge.neg %1 : (tensor<?x4xf32, #forge.tensor<[s0 + 3]>>) -> tensor<?x4xf32, #forge.tensor<[s0 + 3]>>
    forge.yield %2 : tensor<?x4xf32, #forge.tensor<[s0 + 3]>>
  } : tensor<?x4xf32, #forge.tensor<[s0 + 3]>>
  func.return %0 : tensor<?x4xf32, #forge.tensor<[s0 + 3]>>
}""",
}  # fmt: skip


@pytest.mark.parametrize("name", GROUPS)
def test_groups(name: str) -> None:
    text = GROUPS[name]
    for dtype in ("f32", "f64", "bf16"):
        module = in_dtype('forge.symbol @s0 "seq" min 0 max 64\n' + text, dtype)
        assert module is not None
        tiles, said = lowered(module)
        assert launches(tiles), said
        for size in (5, 1, 0) if "s0" in text else (5,):
            inputs = inputs_of(module, size)
            assert inputs is not None
            if "broadcast" in name:
                inputs[1] = inputs[1][:1].expand(3, 5)
            for wide in (True, False):
                wanted = interpret(module, inputs, float64=wide)
                found = interpret(tiles, inputs, float64=wide)
                assert_like(found, wanted, WIDE if wide else FLOATS[dtype], f"{name}, {dtype}, {size}")


@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_random_graphs(data: st.DataObject) -> None:
    chooser = Drawn(data)
    dtype = ("f32", "f64", "bf16", "f16")[chooser.integer(0, 3)]
    check_tiles(GraphAuthor(chooser, dtype).draw(10), ["@O2"], chooser)


@pytest.mark.parametrize("seed", [9, 11])
def test_random_fragments(seed: int) -> None:
    chooser = Seeded(seed)
    assert launches(check_tiles(FragmentAuthor(chooser).draw(2), ["@O2"], chooser))


@pytest.mark.parametrize("seed", range(6))
def test_random_graphs_as_machine_code(seed: int) -> None:
    dtype = ("f32", "f64", "bf16", "f16")[seed % 4]
    check_runtime(GraphAuthor(Seeded(seed), dtype).draw(10), "@O2", "cpu:host")


LAYER = """
  %{n}a = forge.fused "rms_norm" (%x = %{p} : tensor<4x8xf32>, %y = %w : tensor<8xf32>) {{
    %1 = forge.rms_norm %x weight %y axes 1 eps 1.0e-06 : (tensor<4x8xf32>, tensor<8xf32>) -> tensor<4x8xf32>
    forge.yield %1 : tensor<4x8xf32>
  }} : tensor<4x8xf32>
  %{n} = forge.tanh %{n}a : (tensor<4x8xf32>) -> tensor<4x8xf32>"""


def test_equal_groups_are_lowered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from forgec.passes.tiles import group

    body = "".join(LAYER.format(n=f"v{n}", p=f"v{n - 1}") for n in range(1, 6))
    module = parse(
        f"func.func @forward(%v0: tensor<4x8xf32>, %w: tensor<8xf32>) -> tensor<4x8xf32> {{{body}\n"
        "  func.return %v5 : tensor<4x8xf32>\n}"
    )
    calls: list[Any] = []
    once = group.lower_group
    monkeypatch.setattr(group, "lower_group", lambda found, dying=(): calls.append(found) or once(found, dying))
    tiles, _ = lowered(module)
    assert (len(calls), len(launches(tiles))) == (2, 10)
    assert sum(isinstance(op, KernelOp) for op in tiles.ops) == 2


def test_names_are_of_the_content() -> None:
    text = "func.func @forward(%x: tensor<{0}xf32>) -> tensor<{0}xf32> {{\n  %0 = forge.{1} %x : (tensor<{0}xf32>) -> tensor<{0}xf32>\n  func.return %0 : tensor<{0}xf32>\n}}"

    def name(extent: str, op: str, argument: str = "x") -> str:
        tiles, _ = lowered(parse(text.format(extent, op).replace("%x", f"%{argument}")))
        return launches(tiles)[0].kernel.string_value()

    names = [name("4x8", "exp"), name("8x4", "exp"), name("4x9", "exp"), name("4x8", "sin")]
    assert len(set(names)) == 4 or names[0] == names[1]  # a contiguous tensor may be one axis
    assert name("4x8", "exp", "other") == names[0]


def test_a_missing_rule_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from forgec.ir.ops.unary import ExpOp
    from forgec.passes.tiles.rules import all_rules

    monkeypatch.delitem(all_rules(), ExpOp)
    group = """
func.func @forward(%x: tensor<4xf32>) -> tensor<4xf32> {
  %0 = forge.fused "elementwise" (%a = %x : tensor<4xf32>) {
    %1 = forge.neg %a : (tensor<4xf32>) -> tensor<4xf32>
    %2 = forge.exp %1 : (tensor<4xf32>) -> tensor<4xf32>
    forge.yield %2 : tensor<4xf32>
  } : tensor<4xf32>
  func.return %0 : tensor<4xf32>
}"""
    tiles, said = lowered(parse(group))
    assert [launch.kernel.string_value()[:4] for launch in launches(tiles)] == ["neg_"]  # op by op
    assert [each.message for each in said] == ["forge.exp has no kernel: forge.exp has no rule"]
