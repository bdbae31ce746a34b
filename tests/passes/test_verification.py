import pytest
from xdsl.dialects import arith, func

from forgec.passes.verification import broken_ops, verify
from tests.passes import fakes


def reasons(text: str) -> list[str]:
    return [f"{op.name} {reason}" for op, reason in broken_ops(fakes.parse(text))]


def test_valid_ir_has_no_broken_ops():
    assert verify(fakes.parse()) == []


def test_all_broken_ops_are_found_not_just_the_first():
    text = "".join(f"func.func @f{i}(%a : i32) -> i64 {{\n  func.return %a : i32\n}}\n" for i in range(3))
    diagnostics = verify(fakes.parse(text))
    assert [d.code for d in diagnostics] == ["FORGE-I002"] * 3
    assert [d.location.line for d in diagnostics if d.location] == [2, 5, 8]
    assert diagnostics[0].message.startswith("func.return does not verify: Expected arguments")


def test_a_use_before_the_definition_is_found():
    text = "func.func @f(%a : i32) {\n %x = arith.addi %y, %a : i32\n %y = arith.addi %a, %a : i32\n func.return\n}"
    assert reasons(text) == ["arith.addi uses operand 0 (%y) before it is defined"]


def test_a_value_of_an_inner_region_is_not_visible_outside():
    module = fakes.parse(
        "func.func @f(%c : i1, %a : i32) -> i32 {\n"
        "  scf.if %c {\n    %x = arith.addi %a, %a : i32\n    scf.yield\n  }\n"
        "  %y = arith.addi %a, %a : i32\n  func.return %y : i32\n}"
    )
    inner, outer = fakes.adds(module)
    assert not list(broken_ops(module))
    outer.operands[0] = inner.results[0]
    assert [op for op, _ in broken_ops(module)] == [outer]


def test_inner_regions_see_outer_values_and_arguments():
    text = (
        "func.func @f(%n : index, %a : i32) -> i32 {\n"
        "  %r = scf.for %i = %n to %n step %n iter_args(%s = %a) -> (i32) {\n"
        "    %t = arith.addi %s, %a : i32\n    scf.yield %t : i32\n  }\n  func.return %r : i32\n}"
    )
    assert reasons(text) == []


def test_control_flow_may_place_blocks_in_any_order():
    text = (
        "func.func @f(%a : i32) -> i32 {\n  cf.br ^b\n^c:\n  func.return %x : i32\n"
        "^b:\n  %x = arith.addi %a, %a : i32\n  cf.br ^c\n}"
    )
    assert reasons(text) == []


def test_a_missing_terminator_is_found():
    module = fakes.parse()
    function = next(op for op in module.walk() if isinstance(op, func.FuncOp))
    last = function.body.block.last_op
    assert last is not None
    last.detach()
    last.erase()
    assert any("terminat" in reason for _, reason in broken_ops(module))


def test_an_empty_block_is_found():
    module = fakes.parse("func.func @f() {\n  func.return\n}")
    function = next(op for op in module.walk() if isinstance(op, func.FuncOp))
    for op in list(function.body.block.ops):
        op.detach()
    assert list(broken_ops(module))


@pytest.mark.parametrize("op", [arith.AddiOp])
def test_an_erased_operand_is_found(op: type):
    module = fakes.parse()
    first = fakes.adds(module)[0]
    first.detach()
    first.erase(safe_erase=False)
    assert any("rased" in reason or "before it is defined" in reason for _, reason in broken_ops(module))
