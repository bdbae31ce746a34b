"""Verifiers: every op refuses what is no instance of it; modules report every broken invariant at the user's line."""

from __future__ import annotations

import pytest
from xdsl.dialects.builtin import IntAttr
from xdsl.dialects.func import FuncOp
from xdsl.parser import Parser
from xdsl.utils.exceptions import VerifyException

from forgec.diagnostics import ForgeError, Location
from forgec.ir import context, types
from forgec.ir.attributes import ScalarAttr
from forgec.ir.examples import FORGE_EXAMPLES, module_of, op_name
from forgec.ir.ops.base import ForgeOp, normalize_dim
from forgec.ir.ops.binary import AddOp
from forgec.ir.ops.norm import RmsNormOp
from forgec.ir.verify import broken_ops, verify_module
from tests.ir.build import parse, type_of


def in_function(line: str, arguments: str = "%x: tensor<4xf32>, %y: tensor<4xf32>") -> str:
    """A function that consists of one op."""
    return f"func.func @forward({arguments}) {{\n  {line}\n  func.return\n}}"


REFUSED = [
    ("%r = forge.add %x, %y : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf64>", "yields f32[4], but"),
    ("%r = forge.add %x, %y : (tensor<4xf32>, tensor<4xf32>) -> tensor<5xf32>", "the result has type f32[5]"),
    ("%r = forge.eq %x, %y : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>", "yields i1[4]"),
    ("%r = forge.cast %x : (tensor<4xf32>) -> tensor<5xf64>", "yields f64[4]"),
    ('%r = forge.gelu %x approximate "erf" : (tensor<4xf32>) -> tensor<4xf32>', "approximate must be"),
    ("%r = forge.clamp %x : (tensor<4xf32>) -> tensor<4xf32>", "needs a lower or an upper bound"),
    ("%r = forge.where %x, %x, %y : (tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>", "must be boolean"),
    ("%r = forge.masked_fill %x, %y with 0 : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>", "must be boolean"),
    ("%r = forge.neg %x : (tensor<4xf32>) -> tensor<4xf32, #forge.tensor<[], strides = [1]>>", "goes without saying"),
    ("%r = forge.neg %x : (tensor<4xf32>) -> tensor<?xf32>", "must name each dynamic extent"),
    ("%r = forge.neg %x : (tensor<4xf32>) -> tensor<4xi7>", "none that forgec knows"),
    ("%r = forge.slice %x dim 1 from 0 step 1 : (tensor<4xf32>) -> tensor<4xf32>", "out of range for rank 1"),
    ("%r = forge.concat %x, %y dim -1 : (tensor<4xf32>, tensor<4xf32>) -> tensor<8xf32>", "out of range for rank 1"),
    ("%r = forge.argmax %x dim 1 : (tensor<4xf32>) -> tensor<i64>", "out of range for rank 1"),
    ("%r = forge.cumsum %x dim 0 : (tensor<4xf32>) -> tensor<4xi64>", "yields f32[4]"),
    ("%r = forge.embedding %x, %y : (tensor<4xf32>, tensor<4xf32>) -> tensor<4x4xf32>", "takes indices of type"),
    ('%r = forge.aten "aten::neg"(1) : () -> tensor<f32>\n  "test.use"(%r) : (tensor<f32>) -> ()', None),
    (
        '%r = "forge.aten"(%x, %y) <{callee = "aten::add", args = #forge.args<(operand<0>, operand<0>)>}> : '
        "(tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>",
        "must use each of its 2 operands",
    ),
    (
        '%r = "forge.constant"() <{value = dense<1.0> : tensor<4xf32>}> : () -> tensor<5xf32>',
        "cannot have type tensor<5xf32>",
    ),
]


@pytest.mark.parametrize(("line", "message"), REFUSED)
def test_ops_refuse_what_is_no_instance_of_them(line: str, message: str | None) -> None:
    module_context = context()
    module_context.allow_unregistered = True
    module = Parser(module_context, in_function(line)).parse_module()
    if message is None:
        module.verify()
        return
    with pytest.raises(ForgeError) as caught:
        verify_module(module)
    assert caught.value.code == "FORGE-I002"
    assert message in caught.value.diagnostics[0].message


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('forge.symbol @s0 "seq" min 4 max 3', "range [4, 3] of s0 is empty"),
        ('forge.symbol @s0 "seq" min s1', "not constant"),
        ('forge.symbol @s0 "seq" min -1', "is empty or not constant"),
    ],
)
def test_symbols_have_a_range(line: str, message: str) -> None:
    with pytest.raises(ForgeError) as caught:
        verify_module(Parser(context(), line).parse_module())
    assert message in str(caught.value)


@pytest.mark.parametrize("example", FORGE_EXAMPLES, ids=op_name)
def test_a_result_of_another_type_is_refused_for_every_op(example: str) -> None:
    """No op accepts any result type: a changed dtype or rank is refused, unless the type is the op's own to say."""
    module = parse(module_of(example))
    own = {"forge.param_ref", "forge.aten", "forge.full"}
    for op in module.walk():
        if not isinstance(op, ForgeOp) or op.name in own:
            continue
        result = op.results[0]
        result._type = types.tensor("f8e5m2", (*types.shape(result), 7, 11))  # pyright: ignore
        with pytest.raises(VerifyException):
            op.verify()


WRITE = "forge.state_write %s, %x : (!forge.state<tensor<4xf32>>, tensor<4xf32>) -> !forge.state<tensor<4xf32>>"
READ = "forge.state_read %s : (!forge.state<tensor<4xf32>>) -> tensor<4xf32>"
WIDE_WRITE = WRITE.replace("-> !forge.state<tensor<4xf32>>", "-> !forge.state<tensor<5xf32>>")
LINEAR = [
    ([f"%a = {READ}"], "", "consumed 0 times"),
    ([f"%a = {WRITE}"], "", "consumed 0 times"),
    ([f"%a = {WRITE}", f"%b = {WRITE}"], "%a, %b", "consumed 2 times"),
    ([f"%a = {WRITE}"], "%s, %a", "consumed 2 times"),
    ([f"%a = {WRITE}", f"%o = {READ}"], "%a", "read after it was consumed"),
    ([f"%a = {WIDE_WRITE}"], "%s", "a state keeps its type"),
    ([f"%a = {READ.replace('-> tensor<4xf32>', '-> tensor<5xf32>')}"], "%s", "of the type it holds"),
    ([], "%s, %s", "consumed 2 times"),
    ([], "", "consumed 0 times"),
]


@pytest.mark.parametrize(("body", "returned", "message"), LINEAR)
def test_state_is_linear(body: list[str], returned: str, message: str) -> None:
    kinds = ", ".join(["!forge.state<tensor<4xf32>>"] * len(returned.split()))
    ending = f"func.return {returned} : {kinds}" if returned else "func.return"
    lines = "\n  ".join([*body, ending])
    text = f"func.func @forward(%s: !forge.state<tensor<4xf32>>, %x: tensor<4xf32>) -> ({kinds}) {{\n  {lines}\n}}"
    with pytest.raises(ForgeError) as caught:
        verify_module(Parser(context(), text).parse_module())
    assert message in str(caught.value)


def test_state_that_a_call_returns_is_linear_too() -> None:
    text = """
func.func private @step(%s: !forge.state<tensor<4xf32>>) -> !forge.state<tensor<4xf32>>
func.func @forward(%s: !forge.state<tensor<4xf32>>) {
  %a = func.call @step(%s) : (!forge.state<tensor<4xf32>>) -> !forge.state<tensor<4xf32>>
  func.return
}"""
    with pytest.raises(ForgeError, match=r"func\.call does not verify: a version of state is consumed 0 times"):
        verify_module(Parser(context(), text).parse_module())


def test_a_state_holds_values_of_its_type_only() -> None:
    text = (
        "func.func @forward(%s: !forge.state<tensor<4xf32>>, %x: tensor<5xf32>) -> !forge.state<tensor<4xf32>> {\n"
        "  %a = forge.state_write %s, %x : (!forge.state<tensor<4xf32>>, tensor<5xf32>)\n"
        "    -> !forge.state<tensor<4xf32>>\n"
        "  func.return %a : !forge.state<tensor<4xf32>>\n}"
    )
    with pytest.raises(ForgeError, match="cannot hold a value of type tensor<5xf32>"):
        verify_module(Parser(context(), text).parse_module())


def test_all_broken_ops_are_reported_at_the_users_lines() -> None:
    text = """
func.func @forward(%x: tensor<4xf32>) -> tensor<4xf32> {
  %a = forge.neg %x : (tensor<4xf32>) -> tensor<5xf32> loc("layers.0"("Block.forward"("model.py":7:0)))
  %b = forge.neg %x : (tensor<4xf32>) -> tensor<4xf32> loc("layers.0"("Block.forward"("model.py":8:0)))
  %c = forge.abs %b : (tensor<4xf32>) -> tensor<6xf32> loc("layers.1"("Block.forward"("model.py":9:0)))
  func.return %b : tensor<4xf32>
}"""
    with pytest.raises(ForgeError) as caught:
        verify_module(Parser(context(), text).parse_module())
    first, second = caught.value.diagnostics
    assert first.message.startswith("forge.neg does not verify: forge.neg yields f32[4], but the result has type")
    assert first.location == Location("model.py", 7, "Block.forward", "layers.0")
    assert second.location == Location("model.py", 9, "Block.forward", "layers.1")


def test_values_are_defined_before_they_are_used() -> None:
    module = parse(
        "func.func @forward(%x: tensor<4xf32>) -> tensor<4xf32> {\n"
        "  %first = forge.neg %x : (tensor<4xf32>) -> tensor<4xf32>\n"
        "  %second = forge.abs %first : (tensor<4xf32>) -> tensor<4xf32>\n"
        "  func.return %second : tensor<4xf32>\n}"
    )
    verify_module(module)
    (function,) = module.ops
    assert isinstance(function, FuncOp)
    block = function.body.block
    first = block.first_op
    assert first is not None
    assert first.next_op is not None
    second = first.next_op
    first.detach()
    block.insert_op_after(first, second)
    assert [(op.name, reason) for op, reason in broken_ops(module)] == [
        ("forge.abs", "uses operand 0 (%first) before it is defined")
    ]


def test_make_refuses_operands_that_do_not_fit_and_leaves_no_uses_behind() -> None:
    module = parse(in_function("%r = forge.neg %x : (tensor<4xf32>) -> tensor<4xf32>", "%x: tensor<4xf32>"))
    (function,) = module.ops
    assert isinstance(function, FuncOp)
    (x,) = function.body.block.args
    before = x.uses.get_length()
    with pytest.raises(VerifyException, match="cannot normalise 2 of 1 dimensions"):
        RmsNormOp.make([x], {"axes": IntAttr(2)})
    with pytest.raises(VerifyException, match="not both"):
        AddOp.make([x, x], {"scalar": ScalarAttr.of(1)})
    assert x.uses.get_length() == before


def test_dimensions_are_normalised() -> None:
    assert [normalize_dim(d, 3) for d in (-3, -1, 0, 2)] == [0, 2, 0, 2]
    assert normalize_dim(-1, 0) == 0
    for dim, rank in ((3, 3), (-4, 3), (1, 0)):
        with pytest.raises(VerifyException, match="out of range"):
            normalize_dim(dim, rank)


def test_types_of_tensors() -> None:
    import torch

    assert type_of(torch.ones(2, 3)) == types.tensor("f32", (2, 3))
