"""The reference interpreter: symbols, functions, state, parameters, ATen calls, and what it refuses."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from xdsl.ir import Operation

from forgec.diagnostics import ForgeError, Location
from forgec.ir.evaluator import Evaluator
from forgec.ir.examples import FORGE_EXAMPLES, module_of, op_name
from forgec.ir.interpreter import interpret
from forgec.runtime.symbolic import symbol
from tests.ir.build import parse, random_inputs

PARAMS = {"weight": torch.arange(32.0).reshape(8, 4)}


def fails(code: str, message: str, text: str, inputs: list[torch.Tensor], **options: Any) -> ForgeError:
    """The error that running a module raises, which must be this one."""
    with pytest.raises(ForgeError) as caught:
        interpret(parse(text), inputs, **options)
    assert caught.value.code == code
    assert message in caught.value.diagnostics[0].message
    return caught.value


RUNNABLE = [example for example in FORGE_EXAMPLES if "%" in module_of(example)]


@pytest.mark.parametrize("float64", [False, True])
@pytest.mark.parametrize("example", RUNNABLE, ids=op_name)
def test_every_example_runs_and_yields_what_its_type_says(example: str, float64: bool) -> None:
    module = parse(module_of(example))
    inputs = random_inputs(module)
    if not inputs and "s0" in example:
        with pytest.raises(ForgeError, match="no input says what the extent s0 is"):
            interpret(module, inputs, PARAMS)
        return
    before = [tensor.clone() for tensor in inputs]
    results = interpret(module, inputs, PARAMS, float64=float64)
    assert results
    for tensor, original in zip(inputs, before, strict=True):
        assert torch.equal(tensor, original)
    if float64:
        assert all(r.dtype == torch.float64 for r in results if r.is_floating_point())


SYMBOLIC = """
forge.symbol @s0 "seq" min 1 max 8
forge.symbol @s1 "batch" min 2
func.func @forward(%x: tensor<?x?xf32, #forge.tensor<[s1, s0 + 1]>>, %y: tensor<?xf32, #forge.tensor<[s0 * 2]>>)
    -> (tensor<?xf32, #forge.tensor<[s1 * s0 + s1]>>, tensor<?xi64, #forge.tensor<[s0]>>) {
  %r = forge.reshape %x : (tensor<?x?xf32, #forge.tensor<[s1, s0 + 1]>>) -> tensor<?xf32, #forge.tensor<[s1 * s0 + s1]>>
  %i = forge.iota from s1 step s0 : tensor<?xi64, #forge.tensor<[s0]>>
  func.return %r, %i : tensor<?xf32, #forge.tensor<[s1 * s0 + s1]>>, tensor<?xi64, #forge.tensor<[s0]>>
}
"""


def test_symbols_are_bound_by_the_inputs() -> None:
    x = torch.randn(2, 4)
    flat, iota = interpret(parse(SYMBOLIC), [x, torch.ones(6)])
    assert torch.equal(flat, x.reshape(-1))
    assert iota.tolist() == [2, 5, 8]


@pytest.mark.parametrize(
    ("code", "message", "shapes"),
    [
        ("FORGE-R003", "an extent is 8, but s0 * 2 is 6", ((2, 4), (8,))),
        ("FORGE-R003", "input 1 has rank 2, 1 is needed", ((2, 4), (6, 1))),
        ("FORGE-R004", "extent s0 (seq) is 9, outside [1, 8]", ((2, 10), (18,))),
        ("FORGE-R004", "extent s1 (batch) is 1, outside [2, …)", ((1, 4), (6,))),
    ],
)
def test_extents_that_do_not_fit_are_refused(code: str, message: str, shapes: tuple) -> None:
    fails(code, message, SYMBOLIC, [torch.ones(shape) for shape in shapes])


ADD = """
func.func @forward(%x: tensor<2x3xf32>) -> tensor<2x3xf32> {
  %r = forge.add %x, 1 : (tensor<2x3xf32>) -> tensor<2x3xf32> loc("layers.0"("Block.forward"("model.py":7:0)))
  func.return %r : tensor<2x3xf32>
}
"""


def test_inputs_are_checked() -> None:
    fails("FORGE-R001", "forward takes 1 tensors, found 2", ADD, [torch.ones(2, 3)] * 2)
    fails("FORGE-R001", "the module has no function main", ADD, [torch.ones(2, 3)], function="main")
    fails("FORGE-R002", "input 0 of forward has dtype torch.float64", ADD, [torch.ones(2, 3).double()])
    fails("FORGE-R003", "is 4, but 3 is 3", ADD, [torch.ones(2, 4)])
    fails(
        "FORGE-R001",
        "there is no parameter weight",
        module_of(next(text for text in FORGE_EXAMPLES if "forge.param_ref" in text)),
        [],
    )


def test_float64_takes_float32_inputs_and_returns_float64() -> None:
    (found,) = interpret(parse(ADD), [torch.full((2, 3), 0.1)], float64=True)
    assert torch.equal(found, torch.full((2, 3), 0.1).double() + 1)


def test_parameters_may_require_gradients() -> None:
    (found,) = interpret(
        parse(module_of(next(text for text in FORGE_EXAMPLES if "forge.param_ref" in text))),
        [],
        {"weight": torch.nn.Parameter(PARAMS["weight"])},
        float64=True,
    )
    assert not found.requires_grad
    assert torch.equal(found, PARAMS["weight"].double())


CALLS = """
func.func private @layer(%x: tensor<?xf32, #forge.tensor<[s0]>>, %w: tensor<1xf32>)
    -> tensor<?xf32, #forge.tensor<[s0]>> {
  %i = forge.iota from s0 step 1 : tensor<?xi64, #forge.tensor<[s0]>>
  %a = forge.mul %x, %w : (tensor<?xf32, #forge.tensor<[s0]>>, tensor<1xf32>) -> tensor<?xf32, #forge.tensor<[s0]>>
  %r = forge.add %a, %i : (tensor<?xf32, #forge.tensor<[s0]>>, tensor<?xi64, #forge.tensor<[s0]>>)
      -> tensor<?xf32, #forge.tensor<[s0]>>
  func.return %r : tensor<?xf32, #forge.tensor<[s0]>>
}
func.func @forward(%x: tensor<?xf32, #forge.tensor<[s0]>>) -> tensor<?xf32, #forge.tensor<[s0]>> {
  %two = forge.full 2.0 : tensor<1xf32>
  %a = func.call @layer(%x, %two) : (tensor<?xf32, #forge.tensor<[s0]>>, tensor<1xf32>)
      -> tensor<?xf32, #forge.tensor<[s0]>>
  %b = func.call @layer(%a, %two) : (tensor<?xf32, #forge.tensor<[s0]>>, tensor<1xf32>)
      -> tensor<?xf32, #forge.tensor<[s0]>>
  func.return %b : tensor<?xf32, #forge.tensor<[s0]>>
}
"""


def test_functions_are_called() -> None:
    (found,) = interpret(parse(CALLS), [torch.ones(3)])
    assert found.tolist() == [(1 * 2 + i) * 2 + i for i in (3, 4, 5)]


def test_observers_see_every_op_in_order() -> None:
    seen = []
    interpret(parse(CALLS), [torch.ones(3)], observe=lambda op, results: seen.append((op.name, len(results))))
    layer = ["forge.iota", "forge.mul", "forge.add", "func.call"]
    assert seen == [("forge.full", 1), *((name, 1) for name in layer * 2)]


STATE = """
func.func @forward(%cache: !forge.state<tensor<4xf32>>, %x: tensor<4xf32>)
    -> (tensor<4xf32>, !forge.state<tensor<4xf32>>) {
  %old = forge.state_read %cache : (!forge.state<tensor<4xf32>>) -> tensor<4xf32>
  %new = forge.add %old, %x : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
  %next = forge.state_write %cache, %new : (!forge.state<tensor<4xf32>>, tensor<4xf32>) -> !forge.state<tensor<4xf32>>
  func.return %old, %next : tensor<4xf32>, !forge.state<tensor<4xf32>>
}
"""


@pytest.mark.parametrize("float64", [False, True])
def test_state_is_passed_and_returned(float64: bool) -> None:
    cache, x = torch.ones(4), torch.full((4,), 2.0)
    old, new = interpret(parse(STATE), [cache, x], float64=float64)
    assert old.tolist() == [1] * 4
    assert new.tolist() == [3] * 4
    assert cache.tolist() == [1] * 4


def test_errors_name_the_op_and_the_line_of_the_model() -> None:
    text = """
func.func @forward(%w: tensor<4x8xf32>, %i: tensor<2xi64>) -> tensor<2x8xf32> {
  %r = forge.embedding %w, %i : (tensor<4x8xf32>, tensor<2xi64>) -> tensor<2x8xf32>
      loc("embed"("Model.forward"("model.py":9:0)))
  func.return %r : tensor<2x8xf32>
}"""
    failure = fails("FORGE-R007", "forge.embedding failed: IndexError", text, [torch.ones(4, 8), torch.tensor([0, 9])])
    assert failure.diagnostics[0].location == Location("model.py", 9, "Model.forward", "embed")


def test_ops_without_a_reference_are_refused() -> None:
    text = """
func.func @forward(%x: tensor<4xf32>) -> tensor<4xf32> {
  %b = arith.constant 1 : i32
  %c = arith.addi %b, %b : i32 loc("model.py":3:0)
  func.return %x : tensor<4xf32>
}"""
    failure = fails("FORGE-I003", "arith.addi has no reference implementation", text, [torch.ones(4)])
    assert failure.diagnostics[0].location == Location("model.py", 3)
    fails("FORGE-I003", "has no body", "func.func private @forward()", [])


def test_results_that_differ_from_the_type_are_internal_errors() -> None:
    text = """
func.func @forward(%x: tensor<4x8xf32>) -> tensor<8x4xf32> {
  %r = forge.aten "aten::neg"(%x) : (tensor<4x8xf32>) -> tensor<8x4xf32>
  func.return %r : tensor<8x4xf32>
}"""
    fails("FORGE-X001", "has shape [4, 8], the IR says [8, 4]", text, [torch.ones(4, 8)])


ATEN = [
    ('"aten::topk"(%x, 2, -1)', "(tensor<4x2xf32>, tensor<4x2xi64>)", lambda x: x.topk(2)),
    ('"aten::add.Scalar"(%x, 1.5, alpha = 2)', "tensor<4x8xf32>", lambda x: x + 3),
    ('"aten::stack"([%x, %x], 1)', "tensor<4x2x8xf32>", lambda x: torch.stack([x, x], 1)),
    ('"aten::split.Tensor"(%x, 4, 1)', "(tensor<4x4xf32>, tensor<4x4xf32>)", lambda x: x.split(4, 1)),
    (
        '"aten::full_like"(%x, 1, dtype = dtype.i64, device = device.cuda:0)',
        "tensor<4x8xi64>",
        lambda x: x.long() * 0 + 1,
    ),
    ('"aten::_to_copy"(%x, dtype = dtype.bf16)', "tensor<4x8xbf16>", lambda x: x.bfloat16()),
    ('"aten::clone"(%x, memory_format = memory_format.contiguous_format)', "tensor<4x8xf32>", lambda x: x),
    ('"aten::sum.dim_IntList"(%x, [0], true, dtype = none)', "tensor<1x8xf32>", lambda x: x.sum(0, True)),
    ('"aten::zeros"([4], dtype = dtype.f32, layout = layout.strided)', "tensor<4xf32>", lambda x: torch.zeros(4)),
]


@pytest.mark.parametrize("float64", [False, True])
@pytest.mark.parametrize(("call", "results", "expected"), ATEN)
def test_aten_calls(call: str, results: str, expected: Any, float64: bool) -> None:
    names = "%a, %b" if "," in results and "(" in results else "%a"
    types = results.strip("()")
    operands = "tensor<4x8xf32>" if "%x" in call else ""
    text = f"""
func.func @forward(%x: tensor<4x8xf32>) -> ({types}) {{
  {names} = forge.aten {call} : ({", ".join([operands] * (1 if operands else 0))}) -> {results}
  func.return {names} : {types}
}}"""
    x = torch.randn(4, 8)
    wanted = expected(x)
    for found, want in zip(
        interpret(parse(text), [x], float64=float64), wanted if isinstance(wanted, tuple) else [wanted], strict=True
    ):
        if float64 and want.is_floating_point():
            assert found.dtype == torch.float64
            torch.testing.assert_close(found, want.double(), rtol=1e-2, atol=1e-2)
        else:
            torch.testing.assert_close(found, want, rtol=0, atol=0)


@pytest.mark.parametrize("callee", ["aten::no_such_op", "aten::topk.no_such_overload", "nowhere::op"])
def test_unknown_operators_are_refused(callee: str) -> None:
    text = f"""
func.func @forward(%x: tensor<4xf32>) -> tensor<4xf32> {{
  %r = forge.aten "{callee}"(%x) : (tensor<4xf32>) -> tensor<4xf32>
  func.return %r : tensor<4xf32>
}}"""
    fails("FORGE-I003", f"has no operator {callee}", text, [torch.ones(4)])


def test_the_number_of_results_of_a_call_is_checked() -> None:
    with pytest.raises(ForgeError, match="yields 2 tensors, the IR says 0"):
        Evaluator().call_aten("aten::topk", ((torch.ones(3), 1), ()), [], [])  # pyright: ignore[reportArgumentType]


def test_extents_are_evaluated() -> None:
    assert Evaluator({"s0": 3}).extent(symbol("s0") * 2 + 1) == 7
    with pytest.raises(ForgeError, match="no input says what the extent s0 is"):
        Evaluator().extent(symbol("s0"))


def test_values_are_forgotten_after_their_last_use() -> None:
    steps = "\n".join(f"%{i + 1} = forge.neg %{i} : (tensor<4xf32>) -> tensor<4xf32>" for i in range(9))
    module = parse(f"""
    func.func @forward(%x : tensor<4xf32>) -> tensor<4xf32> {{
      %0 = forge.exp %x : (tensor<4xf32>) -> tensor<4xf32>
      {steps}
      %sum = forge.add %0, %9 : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
      func.return %sum : tensor<4xf32>
    }}
    """)
    seen: list[weakref.ref[torch.Tensor]] = []
    alive: list[int] = []

    def observe(op: Operation, results: Sequence[Any]) -> None:
        seen.extend(weakref.ref(result) for result in results)
        alive.append(sum(reference() is not None for reference in seen))

    interpret(module, [torch.ones(4)], observe=observe)
    assert alive == [1, 2, *[3] * 9]


def test_values_that_only_a_loop_uses_live_as_long_as_the_loop() -> None:
    module = parse("""
    func.func @forward(%x : tensor<4xf32>) -> tensor<4xf32> {
      %zero = arith.constant 0 : index
      %three = arith.constant 3 : index
      %one = arith.constant 1 : index
      %y = forge.exp %x : (tensor<4xf32>) -> tensor<4xf32>
      %sum = scf.for %i = %zero to %three step %one iter_args(%s = %x) -> (tensor<4xf32>) {
        %next = forge.add %s, %y : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
        scf.yield %next : tensor<4xf32>
      }
      func.return %sum : tensor<4xf32>
    }
    """)
    (found,) = interpret(module, [torch.zeros(4)])
    assert found.tolist() == [3.0] * 4
